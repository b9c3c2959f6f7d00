"""The conversation of one work process with the holder: JSON lines on its stdin and stdout, and its deadline.

What a process says goes out wrapped as {"say": body}, beside the plain lines in which a load tells its state.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from typing import Any, TextIO

from burnin import wire
from burnin.agent.lease import Deadlines

POLL_S = 0.1


class Over(Exception):
    """The deadline passed, or nobody is there to talk to."""


class Talk:
    """One process's end. `out` is its real stdout, `inp` the descriptor that messages come in by."""

    def __init__(self, inp: int, out: TextIO, deadlines: Deadlines, slot: int, now_ns: Callable[[], int]) -> None:
        self._inp, self._out, self._deadlines, self._slot = inp, out, deadlines, slot
        self.now_ns = now_ns
        self._lines = wire.Lines()
        self._heard: list[dict[str, Any]] = []

    def going(self) -> bool:
        """False once the deadline has passed. To be asked before every kernel launch."""
        return self.now_ns() < self._deadlines.until(self._slot)

    def pause(self, seconds: float) -> None:
        """Wait, but never past the deadline by more than POLL_S."""
        end_ns = self.now_ns() + int(seconds * 1e9)
        while self.going() and (left_ns := end_ns - self.now_ns()) > 0:
            select.select([], [], [], min(left_ns / 1e9, POLL_S))

    def state(self, body: dict[str, Any]) -> None:
        """How a load goes on; leaves the process when nobody listens."""
        try:
            self._out.write(json.dumps(body, allow_nan=False) + "\n")
            self._out.flush()
        except OSError:
            os._exit(1)

    def tell(self, body: dict[str, Any]) -> None:
        """One message to the controller."""
        self.state({"say": body})

    def hear(self) -> dict[str, Any]:
        """The next message from the controller. Raises Over when the deadline passes first, or the holder is gone."""
        while not self._heard:
            if not self.going():
                raise Over
            if select.select([self._inp], [], [], POLL_S)[0]:
                data = os.read(self._inp, 65536)
                if not data:
                    raise Over
                self._heard += [json.loads(line) for line in self._lines.feed(data)]
        return self._heard.pop(0)
