"""Work that answers: an order starts one process a GPU, and is answered when each of them has said one thing, or ended.

    work   start a job on some GPUs; the answer is {gpu: its first message}
    tell   hand each process one message; the answer is {gpu: its next message}

A process that ends instead answers {"failed": why}. Processes are leashed as loads are (`burnin.agent.load`). A new job
on a GPU ends the one before it; a load that a stage wants is not ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from burnin.agent.load import Loads

MAX_BODY = 60_000
"""Bytes of one message to a process: what a pipe takes at once, so that the holder never waits for a process."""


class _Asked:
    """An order that waits for what these GPUs say."""

    def __init__(self, ident: str, gpus: set[str]) -> None:
        self.ident, self.gpus = ident, gpus
        self.result: dict[str, Any] = {}


class Jobs:
    """`answer(order id, result)` is called once per order. `uuids`: gpu -> UUID, told to every process."""

    def __init__(self, loads: Loads, answer: Callable[[str, dict[str, Any]], None], uuids: dict[str, str]) -> None:
        self._loads, self._answer, self._uuids = loads, answer, uuids
        self._job: dict[str, str] = {}
        self._waiting: dict[str, _Asked] = {}
        self._next: dict[str, Callable[[], None]] = {}
        loads.said, loads.gone = self._say, self._gone

    def waits(self, ident: str) -> bool:
        """True while this order is being done."""
        return any(asked.ident == ident for asked in self._waiting.values())

    def work(
        self,
        ident: str,
        hung: set[str],
        job: str,
        kind: str,
        gpus: list[str],
        cutoff_margin_c: float,
        max_s: float,
        args: dict[str, Any],
        args_of: dict[str, dict[str, Any]],
    ) -> None:
        """Start a job. Raises ValueError without a lease, or for no GPU at all."""
        self._loads.need_lease()
        specs = {gpu: {"kind": kind, "args": {**args, **args_of.get(gpu, {}), "uuids": self._uuids}} for gpu in gpus}
        cutoff_c, longest_s = float(cutoff_margin_c), float(max_s)
        self._wait(ident, list(specs))
        for gpu, spec in specs.items():
            self._begin(gpu, job, spec, cutoff_c, longest_s, hung)

    def tell(self, ident: str, job: str, bodies: dict[str, dict[str, Any]]) -> None:
        """Hand messages to a job's processes. Raises ValueError for one that is too large, or for none."""
        lines = {gpu: json.dumps(body).encode() + b"\n" for gpu, body in bodies.items()}
        for gpu, line in lines.items():
            if len(line) > MAX_BODY:
                raise ValueError(f"a message to {gpu} has {len(line)} bytes; {MAX_BODY} are the most")
        self._wait(ident, list(bodies))
        for gpu, line in lines.items():
            if self._job.get(gpu) != job:
                self._say(gpu, {"failed": f"{job} does not run on it"})
            elif not self._loads.write(gpu, line):
                self._say(gpu, {"failed": "the process does not take messages"})

    def _wait(self, ident: str, gpus: list[str]) -> None:
        """Answer this order when all of these GPUs have spoken. Who waited for one of them before, waits in vain."""
        if not gpus:
            raise ValueError("no GPU is named")
        asked = _Asked(ident, set(gpus))
        for gpu in gpus:
            self._say(gpu, {"failed": "something else was ordered meanwhile"})
            self._waiting[gpu] = asked

    def _begin(self, gpu: str, job: str, spec: dict[str, Any], cutoff_c: float, max_s: float, hung: set[str]) -> None:
        def start() -> None:
            try:
                state = self._loads.start({gpu: spec}, cutoff_c, max_s, hung)[gpu]
            except (OSError, ValueError) as error:
                state = str(error)
            if state == "starting":
                self._job[gpu] = job
            else:
                self._say(gpu, {"failed": state})

        if gpu in self._job and gpu in self._loads.burning:
            self._loads.end([gpu])
            self._next[gpu] = start
        else:
            start()

    # ---- what processes say

    def _say(self, gpu: str, body: dict[str, Any]) -> None:
        asked = self._waiting.pop(gpu, None)
        if asked is not None:
            asked.gpus.discard(gpu)
            asked.result[gpu] = body
            if not asked.gpus:
                self._answer(asked.ident, asked.result)

    def _gone(self, gpu: str, why: str) -> None:
        following = self._next.pop(gpu, None)
        ours = self._job.pop(gpu, None) is not None
        if following is not None:
            following()
        elif ours:
            self._say(gpu, {"failed": why})
