"""What a check changed that does not come back by itself (a supply that it switched off) is put back, whatever happens.

How to put it back is on the disk before it is changed: log lines of kind `undo`, `pending` and `done`, whose text is the order.
What is pending is put back at the run's end, by whatever it ends, and else when the run is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from burnin.checks.base import Answer, Order
from burnin.events import LogLine
from burnin.run.job import Job
from burnin.run.steps import ask

KIND, PENDING, DONE = "undo", "pending", "done"
TIMEOUT_S = 30.0


def pending(log: Iterable[LogLine]) -> dict[str, Order]:
    """What a log says is still to be put back, in order: its text -> the order that does it."""
    out: dict[str, Order] = {}
    for line in log:
        if line.kind == KIND and line.code == PENDING:
            out[line.text] = Order(**json.loads(line.text), timeout_s=TIMEOUT_S)
        elif line.kind == KIND and line.code == DONE:
            out.pop(line.text, None)
    return out


def _text(order: Order, args: Mapping[str, Any]) -> str:
    return json.dumps({"to": order.to, "verb": order.verb, "args": dict(args), "via": order.via}, sort_keys=True)


class Undo:
    """Of one session of a run; `job.undo` is what earlier ones left."""

    def __init__(self, job: Job) -> None:
        self._job, self._pending = job, dict(job.undo)

    def _say(self, part: str, code: str, text: str, kind: str = KIND) -> None:
        job = self._job
        job.keeper.event(LogLine(part, job.clock.now() - job.start_s, kind, code, text, "controller"))

    async def before(self, orders: Iterable[Order]) -> None:
        """These are about to be given. Returns when what some of them need is on the disk."""
        changing = [order for order in orders if order.undo is not None]
        for order in changing:
            text = _text(order, order.undo or {})
            self._pending[text] = Order(order.to, order.verb, order.undo or {}, order.via, TIMEOUT_S)
            self._say(order.to, PENDING, text)
        if changing:
            await self._job.keeper.flush()

    def after(self, answers: Iterable[Answer]) -> None:
        """These were answered: one of them may have put something back."""
        for answer in answers:
            text = _text(answer.order, answer.order.args) if answer.ok and self._pending else ""
            if self._pending.pop(text, None) is not None:
                self._say(answer.order.to, DONE, text)

    async def all(self) -> None:
        """Put back all that is pending; what cannot be is said, and stays so."""
        for text, order in list(self._pending.items()):
            answer = await ask(self._job, order)
            self.after([answer])
            if not answer.ok:
                self._say(order.to, "", f"{order.to} is not put back as it was ({text}): {answer.body}; do it by hand", "note")
