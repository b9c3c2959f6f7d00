"""The live channel of a run: who connects hears how it stands and then everything that happens, and may ask it to stop.

A watcher can slow nothing: what it does not read in time is its loss, and it is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from burnin.events import LogLine, StageBegan, StageEnded, Tick, TrayState
from burnin.run import sockets
from burnin.run.job import Event, Kept
from burnin.run.live_lines import encode

BEHIND_MAX = 16 << 20
"""Bytes that wait for a watcher before it is let go."""
_LINES = 200
END_S = 5.0
"""How long an ending run waits for watchers to read its end."""


class Standing:
    """The last of everything, as events: told to who comes late, they give the same picture."""

    def __init__(self) -> None:
        self._stages: list[Event] = []
        self._trays: dict[str, Event] = {}
        self._ticks: dict[tuple[str, int], Event] = {}
        self._lines: deque[Event] = deque(maxlen=_LINES)

    def see(self, event: Event | Kept) -> None:
        """Take one in."""
        if isinstance(event, Tick):
            self._ticks[event.tray, len(event.columns)] = event
        elif isinstance(event, TrayState):
            self._trays[event.tray] = event
        elif isinstance(event, LogLine):
            self._lines.append(event)
        elif isinstance(event, StageBegan | StageEnded):
            self._stages.append(event)

    def events(self) -> list[Event]:
        """All of it, in an order that may be played."""
        return [*self._trays.values(), *self._stages, *self._lines, *self._ticks.values()]


class Live:
    """`head` is told first; `stop(by)` is called when somebody asks for a planned stop."""

    def __init__(self, db: Path, head: Mapping[str, Any], stop: Callable[[str], None]) -> None:
        self._db, self._head, self._stop = db, dict(head), stop
        self._standing = Standing()
        self._writers: set[asyncio.StreamWriter] = set()
        self._listening: sockets.Listening | None = None

    async def open(self) -> None:
        """Listen. Raises NotReady where another run uses the database."""
        owner = f"run {self._head['run']} (pid {self._head['pid']})"
        self._listening = await sockets.listen(sockets.live(self._db), self._serve, owner)

    def see(self, event: Event | Kept) -> None:
        """To everyone."""
        self._standing.see(event)
        if self._writers:
            self._tell(encode(event))

    def _tell(self, line: bytes) -> None:
        for writer in list(self._writers):
            if writer.transport.get_write_buffer_size() > BEHIND_MAX:
                self._writers.discard(writer)
                writer.transport.abort()
            else:
                writer.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode({"event": "run", **self._head}))
        writer.writelines(encode(event) for event in self._standing.events())
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(encode(self._do(line)))
        finally:
            self._writers.discard(writer)

    def _do(self, line: bytes) -> dict[str, Any]:
        try:
            asked = orjson.loads(line)
            if asked["do"] == "stop":
                self._stop(str(asked.get("by", "")))
                return {"event": "said", "what": "stopping"}
        except (ValueError, TypeError, KeyError):
            pass
        return {"event": "said", "what": "not understood"}

    async def close(self, word: str | None) -> None:
        """Say the end (and the verdict's word, if there is one) to everyone, and stop listening."""
        for writer in self._writers:
            writer.transport.set_write_buffer_limits(0)  # drained is what is gone
        self._tell(encode({"event": "ended", "run": self._head["run"], "verdict": word}))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await asyncio.gather(*(writer.drain() for writer in self._writers), return_exceptions=True)
        if self._listening is not None:
            await self._listening.close()
