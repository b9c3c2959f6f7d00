"""A program of somebody else's on this tray: one at a time, leashed as loads are, with all that it starts.

The holder starts a keeper process, which starts the program in a session of its own and adopts whatever cuts loose from it.
The keeper ends them all when its deadline (burnin.agent.lease) lies in the past, on SIGTERM, and when the holder dies; a
deadline of 0 is SIGTERM and, after GRACE_S, SIGKILL; one below 0 is SIGKILL at once. What still runs when the program itself
has ended is ended too.

Answer: {exit: int | None, signal: name | None, stdout, stderr: text, cut: output was dropped, ended: why we ended it | "",
left: processes it left behind, seconds, logs: {path: {bytes, sha256, text, cut}}}. Exit 127: there is no such program.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import hashlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from burnin import wire
from burnin.agent.lease import Deadlines
from burnin.agent.load import Loads
from burnin.errors import ProtocolError

MARKER = "BURNIN_PROGRAM"
"""Environment variable by which what outlived its keeper is found."""
OUTPUT_MAX = 200_000
"""Bytes of JSON that output and logs may take each: a record must stay below wire.MAX_LINE."""
LOGS_MAX = 8
GRACE_S, LOOK_S = 0.5, 0.05
PATIENCE_NS = 3_000_000_000
"""What the keeper is given to end everything, before the holder does it."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Ends:
    """The beginning and the end of a stream, each half of `most` bytes."""

    def __init__(self, most: int) -> None:
        self._half = max(most // 2, 1)
        self._head, self._tail = bytearray(), bytearray()
        self.size = 0

    def add(self, data: bytes) -> None:
        """More of it."""
        self.size += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 4 * self._half + 65536:
            del self._tail[: -self._half]

    def text(self) -> tuple[str, bool]:
        """What is kept, whole lines around the gap; True where something was dropped. Never more than `most` in JSON."""
        half = self._half
        while True:
            head, tail = bytes(self._head[:half]), bytes(self._tail[-half:])
            if len(self._head) < self._half and half < len(self._head):
                tail = bytes(self._head[-half:])
            cut = len(head) + len(tail) < self.size
            if cut:
                head, tail = head[: head.rfind(b"\n") + 1], tail[tail.find(b"\n") + 1 :]
            said = (head + (b"[... cut ...]\n" if cut else b"") + tail).decode("utf-8", "replace")
            if len(json.dumps(said)) <= 2 * self._half or half <= 64:
                return said, cut
            half //= 2


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


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


class Keeper:
    """Runs in a process of its own: starts the program, reads it, ends it."""

    def __init__(self, spec: dict[str, Any], until_ns: Callable[[], int], now_ns: Callable[[], int]) -> None:
        self._spec, self._until_ns, self._now_ns = spec, until_ns, now_ns
        most = min(int(spec.get("output_max", OUTPUT_MAX)), OUTPUT_MAX)
        self._kept = {"stdout": Ends(most), "stderr": Ends(most // 4)}
        self._selector = selectors.DefaultSelector()
        self.told_to_end = False

    def run(self) -> dict[str, Any]:
        """To its end, and that of all it started."""
        begun = self._now_ns()
        while self._now_ns() < begun + int(float(self._spec.get("after_s", 0.0)) * 1e9) and not self._over():
            self._wait()
        where = tempfile.mkdtemp(prefix="program-", dir=".")
        try:
            return {**self._run(where), "seconds": round((self._now_ns() - begun) / 1e9, 3), "logs": self._logs(where)}
        finally:
            shutil.rmtree(where, ignore_errors=True)

    def _run(self, where: str) -> dict[str, Any]:
        if self._over():
            return self._ended(None, 0)
        argv = [str(word) for word in self._spec["argv"]]
        environ = {**os.environ, **{str(k): str(v) for k, v in self._spec.get("env", {}).items()}, MARKER: self._spec["mark"]}
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=where, env=environ,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        except OSError as error:
            there = shutil.which(argv[0], path=environ.get("PATH")) is not None
            self._kept["stderr"].add(f"{argv[0]}: {error.strerror}\n".encode())
            return self._ended(126 if there else 127, 0)
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe.fileno(), selectors.EVENT_READ, name)
        while process.poll() is None and not self._over():
            self._wait()
        left = len(descendants(os.getpid())) if process.poll() is not None else 0
        self._end(at_once=process.poll() is not None)
        code = process.wait()
        self._drain()
        return self._ended(code, left)

    def _over(self) -> bool:
        return self.told_to_end or self._now_ns() >= self._until_ns()

    def _wait(self) -> None:
        for key, _ in self._selector.select(LOOK_S):
            self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, 65536)
        except BlockingIOError:
            return
        if data:
            self._kept[key.data].add(data)
        else:
            self._selector.unregister(key.fd)

    def _end(self, at_once: bool) -> None:
        """End every process below this one; at once, or after they had their time."""
        end = self._now_ns() + int((0.0 if at_once or self._until_ns() < 0 else GRACE_S) * 1e9)
        _send(descendants(os.getpid()), signal.SIGTERM if end > self._now_ns() else signal.SIGKILL)
        quiet = 0
        while quiet < 2:  # none at two looks in a row: one may have been forking
            living = descendants(os.getpid())
            quiet = 0 if living else quiet + 1
            if self._now_ns() >= end or self._until_ns() < 0:
                _send(living, signal.SIGKILL)
            self._selector.select(0.01) if not self._selector.get_map() else self._wait()

    def _drain(self) -> None:
        end = self._now_ns() + 1_000_000_000
        while self._selector.get_map() and self._now_ns() < end:
            self._wait()

    def _ended(self, code: int | None, left: int) -> dict[str, Any]:
        (out, cut_out), (err, cut_err) = self._kept["stdout"].text(), self._kept["stderr"].text()
        name = signal.Signals(-code).name if code is not None and code < 0 else None
        status = code if name is None else None
        return {"exit": status, "signal": name, "stdout": out, "stderr": err, "cut": cut_out or cut_err, "left": left}

    def _logs(self, where: str) -> dict[str, Any]:
        """Files that the order names, by patterns in the program's working directory or absolute ones."""
        found = [path for pattern in self._spec.get("logs", []) for path in sorted(glob.glob(os.path.join(where, pattern)))]
        out = {}
        for path in [path for path in found if os.path.isfile(path)][:LOGS_MAX]:
            kept, digest = Ends(OUTPUT_MAX // LOGS_MAX), hashlib.sha256()
            with contextlib.suppress(OSError), open(path, "rb") as file:
                for block in iter(lambda: file.read(65536), b""):
                    kept.add(block)
                    digest.update(block)
            text, cut = kept.text()
            name = os.path.relpath(path, where) if path.startswith(where) else path
            out[name] = {"bytes": kept.size, "sha256": digest.hexdigest(), "text": text, "cut": cut}
        return out


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep(spec: dict[str, Any], lease_fd: int, parent: int, now_ns: Callable[[], int]) -> int:
    """Process entry of the keeper: one line on standard output, what became of the program."""
    deadlines = Deadlines(lease_fd, 1)
    keeper = Keeper(spec, lambda: deadlines.until(0), now_ns)

    def end(*_: Any) -> None:
        keeper.told_to_end = True

    signal.signal(signal.SIGTERM, end)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        result = keeper.run()
        with contextlib.suppress(OSError):
            out.write(json.dumps(result) + "\n")
    return 0


Spawn = Callable[[dict[str, Any], int], subprocess.Popen[bytes]]
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
            _send([process.pid, *descendants(process.pid)], signal.SIGKILL)
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
        _send(marked(self._mark), signal.SIGKILL)  # only what outlived a keeper that was killed
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


def main(spec: str, lease_fd: str, parent: str, now_ns: Callable[[], int]) -> int:
    """The keeper, of the agent's words; what goes wrong is said on standard error."""
    try:
        return keep(json.loads(spec), int(lease_fd), int(parent), now_ns)
    except OSError as error:
        sys.stderr.write(f"keeper: {error}\n")
        return 3
