"""Where a run's events go: to the store's writer, and to whoever watches.

When evidence cannot be kept the run must not go on: the first failure stops it, and is raised when it has ended safely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from burnin.assess.judge import suspects
from burnin.checks.base import Answer
from burnin.errors import StoreError
from burnin.events import Result
from burnin.run.job import Event, Kept
from burnin.run.replaced import exchanged
from burnin.store import Attempt, Evidence, Store, Tray, Voided, Writer

ARRIVE = "arrive"
"""Stage name under which is kept how each tray was found."""


def _evidence(stage: str, check: str, part: str, attempt: int, number: int, answer: Answer) -> Evidence:
    """Judging reads who was asked, through which door and, but for agents, what: rounds are told apart by it."""
    order = answer.order
    body = {"ok": answer.ok, "body": answer.body, "to": order.to, "via": order.via}
    if order.via != "agent":
        body["args"] = dict(order.args)
    return Evidence(stage, check, part, attempt, number, answer.order.verb, body)


class Keep:
    """The run's Keeper. `tested`: who each tray was to the sessions before this one, which began at
    run second `began_s`: what is another part now, was another one when it began.

    `watch` gets every event and attempt after it was given to the writer.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        addresses: Mapping[str, tuple[str, str | None]],
        stop: asyncio.Event,
        watch: Sequence[Callable[[Event | Kept], None]],
        tested: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        began_s: float = 0.0,
    ) -> None:
        self._store, self._run, self._addresses, self._stop, self._watch = store, run, addresses, stop, watch
        self._began_s = began_s
        self._writer = Writer(store)
        self._tested = dict(tested)
        self.failure: StoreError | None = None

    def full(self) -> bool:
        """True while the disk is behind: what agents recorded long ago may wait on the trays."""
        return self.failure is None and self._writer.full

    def _put(self, item: Any) -> None:
        if self.failure is None:
            try:
                self._writer.put(item)
            except StoreError as error:
                self.failure = error
                self._stop.set()

    def event(self, event: Event) -> None:
        """An event, in order."""
        self._put(event)
        for watcher in self._watch:
            watcher(event)

    def attempt(self, kept: Kept) -> None:
        """An attempt that ended, with what its rounds brought back."""
        brought = [
            _evidence(kept.stage, kept.check, kept.part, kept.attempt, number, answer)
            for number, answers in enumerate(kept.answers)
            for answer in answers
        ]
        ended = Attempt(
            kept.stage, kept.check, kept.part, kept.attempt, kept.status, Result.UNKNOWN, kept.t0_s, kept.t1_s, kept.why
        )
        self._put(lambda: self._store.end_attempt(ended, brought))
        for watcher in self._watch:
            watcher(kept)

    def identity(self, tray: str, identity: Mapping[str, Any]) -> bool:
        """Who answered as this tray. True where it, or a GPU of it, is another one than the sessions before knew."""
        address, key = self._addresses.get(tray, ("", None))
        serial = identity.get("host", {}).get("serial")
        row = Tray(tray, address, key, serial, dict(identity))
        new = [Voided(part, self._began_s, why) for part, why in exchanged(tray, self._tested.get(tray), identity).items()]
        if new:
            self._put(lambda: self._store.void(new))
        self._put(lambda: self._store.keep_tray(row))
        return bool(new)

    def found(self, tray: str, answer: Answer) -> None:
        """How a tray was set before anything was changed on it: kept at once, for whoever has to go on."""
        one = _evidence(ARRIVE, "as-found", tray, 1, 0, answer)
        if answer.ok:
            self._put(lambda: self._store.keep_evidence(one))

    async def flush(self) -> None:
        """Returns when everything so far is on the disk, or when it is known that it cannot be."""
        if self.failure is None:
            try:
                await self._writer.flush()
            except StoreError as error:
                self.failure = error
                self._stop.set()

    async def suspects(self) -> list[str]:
        """Parts under suspicion, by the same judging as at the run's end."""
        return await asyncio.to_thread(suspects, self._store, self._run)

    async def close(self) -> None:
        """Write what waits. Raises the StoreError that stopped the run, if one did."""
        try:
            await self._writer.close()
        except StoreError as error:
            self.failure = self.failure or error
        if self.failure is not None:
            raise self.failure
