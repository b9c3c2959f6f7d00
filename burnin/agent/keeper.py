"""The process that keeps a program of somebody else's: starts it in a session of its own, adopts whatever cuts loose from it,
reads what it says, and ends them all (burnin.agent.program has the holder's side, and what is answered).

Exit 127: there is no such program.
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
from collections.abc import Callable
from typing import Any

from burnin.agent.lease import Deadlines
from burnin.agent.program import LOGS_MAX, MARKER, OUTPUT_MAX, descendants, signal_all

LOGS = 8
GRACE_S, LOOK_S = 0.5, 0.05
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
            size = len(json.dumps(said))
            if size <= 2 * self._half or half <= 64:
                return said, cut
            half = min(half * 2 * self._half // size, half * 63 // 64)


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
        signal_all(descendants(os.getpid()), signal.SIGTERM if end > self._now_ns() else signal.SIGKILL)
        quiet = 0
        while quiet < 2:  # none at two looks in a row: one may have been forking
            living = descendants(os.getpid())
            quiet = 0 if living else quiet + 1
            if self._now_ns() >= end or self._until_ns() < 0:
                signal_all(living, signal.SIGKILL)
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
        for path in [path for path in found if os.path.isfile(path)][:LOGS]:
            kept, digest = Ends(LOGS_MAX // LOGS), hashlib.sha256()
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


def main(spec: str, lease_fd: str, parent: str, now_ns: Callable[[], int]) -> int:
    """The keeper, of the agent's words; what goes wrong is said on standard error."""
    try:
        return keep(json.loads(spec), int(lease_fd), int(parent), now_ns)
    except OSError as error:
        sys.stderr.write(f"keeper: {error}\n")
        return 3
