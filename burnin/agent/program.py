"""A program of somebody else's on this tray: one at a time, leashed as loads are, with all that it starts.

The holder starts a keeper process (burnin.agent.keeper), which starts the program in a session of its own and adopts whatever
cuts loose from it. The keeper ends them all when its deadline (burnin.agent.lease) lies in the past, on SIGTERM, and when the
holder dies; a deadline of 0 is SIGTERM and, after keeper.GRACE_S, SIGKILL; one below 0 is SIGKILL at once. What still runs when
the program itself has ended is ended too.

Answer: {exit: int | None, signal: name | None, stdout, stderr: text, cut: output was dropped, ended: why we ended it | "",
left: processes it left behind, seconds, logs: {path: {bytes, sha256, text, cut}}}.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from burnin import wire
from burnin.agent.lease import Deadlines
from burnin.agent.load import Loads
from burnin.errors import ProtocolError

if TYPE_CHECKING:
    import subprocess

MARKER = "BURNIN_PROGRAM"
"""Environment variable by which what outlived its keeper is found."""
OUTPUT_MAX, LOGS_MAX = 600_000, 200_000
"""Bytes of JSON that output (errors: a quarter more) and all logs may take: a record must stay below wire.MAX_LINE. Ten minutes
of gpu_burn on four GPUs report some 200 kB of progress, estimated by a capture of eight (57 kB in 196 reports)."""
PATIENCE_NS = 3_000_000_000
"""What the keeper is given to end everything, before the holder does it."""


def descendants(root: int) -> list[int]:
    """Every living process below this one, parents first."""
    below: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            if fields[0] not in (b"Z", b"X"):
                below.setdefault(int(fields[1]), []).append(int(entry))
    found, heads = [], [root]
    while heads:
        heads = [child for head in heads for child in below.get(head, [])]
        found += heads
    return found


def marked(mark: str) -> list[int]:
    """Processes that carry this mark in their environment, but for this one."""
    out, word = [], f"{MARKER}={mark}".encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
            if word in file.read().split(b"\0") and int(entry) != os.getpid():
                out.append(int(entry))
    return out


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


Spawn = Callable[[dict[str, Any], int], "subprocess.Popen[bytes]"]
"""(spec, lease fd) -> a keeper with its standard output piped."""


class Programs:
    """The holder's side: one program at a time. `answer(order id, result)`; `loads` knows lease, margins and halts."""

    def __init__(
        self, loads: Loads, spawn: Spawn, tell: Callable[..., None], answer: Callable[..., None],
        now_ns: Callable[[], int], mark: str,
    ) -> None:  # fmt: skip
        self._loads, self._spawn, self._tell, self._answer, self._now_ns, self._mark = loads, spawn, tell, answer, now_ns, mark
        self._deadlines = Deadlines.create(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._said: dict[str, Any] | None = None
        self._next: Callable[[], None] | None = None
        self.gpus: tuple[str, ...] = ()
        """GPUs that the program may load, and that are watched."""
        self.order = ""

    @property
    def running(self) -> bool:
        """True while one is there."""
        return self._process is not None

    def start(
        self, ident: str, hung: set[str], *, job: str, argv: list[str], max_s: float, cutoff_margin_c: float, gpus: list[str],
        env: dict[str, str], logs: list[str], output_max: int = OUTPUT_MAX, after_s: float = 0.0,
    ) -> None:  # fmt: skip
        """Start one; another that still runs is ended first. Raises ValueError without a lease, or where load may not be."""
        self._loads.need_lease()
        if not argv or not all(isinstance(word, str) for word in argv):
            raise ValueError("a program needs its words: argv")
        halted = self._loads.halted
        if why := next((halted[gpu] for gpu in ("*", *gpus) if gpu in halted), ""):
            raise ValueError(f"halted: {why}")
        if self._loads.burning:
            raise ValueError(f"{', '.join(sorted(self._loads.burning))} are loaded: a program has the tray for itself")
        if unread := sorted(set(gpus) & hung):
            raise ValueError(f"{', '.join(unread)} cannot be read, so nothing may heat them")
        spec = {"argv": argv, "env": env, "logs": logs, "output_max": output_max, "after_s": after_s, "mark": self._mark}

        def begin() -> None:
            now = self._now_ns()
            self._begun_ns, self._end_ns, self._cutoff_c = now, now + int((float(max_s) + after_s) * 1e9), float(cutoff_margin_c)
            self._deadlines.set(0, min(self._loads.lease_end_ns, self._end_ns))
            self._why, self._said, self._lines, self._ending_ns = "", None, wire.Lines(), 0
            self._process = self._spawn(spec, self._deadlines.fd)
            if self._process.stdout is not None:
                os.set_blocking(self._process.stdout.fileno(), False)
            self.order, self.gpus = ident, tuple(gpus)
            self._tell("note", text=f"program {job}: {' '.join(argv)[:200]}")

        if self.running:
            self.end("something else was ordered")
            if self._next is not None:
                raise ValueError("another program waits already")
            self._next, self._waiting = begin, ident
        else:
            begin()

    def waits(self, ident: str) -> bool:
        """True while this order is being done."""
        return (self.running and self.order == ident) or (self._next is not None and self._waiting == ident)

    def renew(self) -> None:
        """A lease came in; one that ran out meanwhile has ended the program."""
        if self.running and not self._why and not self._over(set()):
            self._deadlines.set(0, min(self._loads.lease_end_ns, self._end_ns))

    def end(self, why: str, at_once: bool = False) -> None:
        """End it and all that it started."""
        if self.running:
            self._deadlines.set(0, -1 if at_once else 0)
            if not self._why:
                self._why, self._ending_ns = why, self._now_ns()

    def _over(self, hung: set[str]) -> bool:
        """True when a local limit has ended it just now."""
        for gpu in self.gpus or ("",):
            passed = self._loads.passed(gpu, self._begun_ns, self._end_ns, self._cutoff_c, hung)
            if passed is not None:
                self.end(passed[0])
                self._tell("cut", gpu=gpu, why=passed[0], value=round(passed[1], 3))
                return True
        return False

    def tend(self, hung: set[str]) -> None:
        """Once a tick: limits, what it said, and its end."""
        process = self._process
        if process is None:
            return
        if not self._why:
            self._over(hung)
        for body in self._heard(process):
            self._said = body
        code = process.poll()
        if code is None and self._why and self._now_ns() - self._ending_ns >= PATIENCE_NS:
            signal_all([process.pid, *descendants(process.pid)], signal.SIGKILL)
        if code is not None:
            for body in self._heard(process):
                self._said = body
            self._bury(process, code)

    def _heard(self, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        while process.stdout is not None and not process.stdout.closed:
            try:
                data = os.read(process.stdout.fileno(), 65536)
                lines = self._lines.feed(data)
            except (BlockingIOError, ProtocolError):
                return
            for line in lines:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)
            if not data:
                return

    def _bury(self, process: subprocess.Popen[bytes], code: int) -> None:
        signal_all(marked(self._mark), signal.SIGKILL)  # only what outlived a keeper that was killed
        if process.stdout is not None:
            process.stdout.close()
        self._process, following = None, self._next
        self._next, self.gpus = None, ()
        self._deadlines.set(0, 0)
        if self._said is None:
            self._answer(self.order, error=self._why or f"the program's keeper ended with status {code}, and said nothing")
        else:
            self._answer(self.order, result={**self._said, "ended": self._why})
        if following is not None:
            try:
                following()
            except OSError as error:
                self._answer(self._waiting, error=str(error))
