"""Load on the tray's CPUs beside a GPU's: threads of the load process itself, so that its deadline and its end are theirs too.

Each thread hashes in pieces short enough that a stop is a stop, with the GIL let go, and after all else that wants its core.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator

from burnin.agent.host import Roots
from burnin.agent.sysfs import Absent, Read

PIECE_NS = 40_000_000
"""What a piece is to last."""
FIRST, MOST = 1000, 1 << 24
"""Iterations of the first piece, some 0.5 ms; and at most."""
NICE = 10
FREE, FEW = 2, 16
"""Cores that are left to the system; one where there are so few or fewer."""
_CORE = re.compile(r"^cpu\d+ ", re.MULTILINE)
_TIMES = 8
"""Columns of /proc/stat that add up to all time: user nice system idle iowait irq softirq steal; guests are part of user."""
_IDLE, _IOWAIT, _STEAL = 3, 4, 7


def count(at: Roots) -> int:
    """Cores that run, as /proc/stat lists them; 0 where it cannot be read."""
    try:
        with open(os.path.join(at.proc, "stat"), encoding="ascii", errors="replace") as file:
            return len(_CORE.findall(file.read()))
    except OSError:
        return 0


def shares(cores: int, gpus: int) -> list[int]:
    """How many threads each GPU's process gets of a tray's cores; some are left free."""
    spare = max(cores - (FREE if cores > FEW else 1), 0)
    return [len(range(n, spare, gpus)) for n in range(gpus)]


class Cores:
    """So many threads, while `going` says so. Raises ValueError where no core is to be had, or Python cannot hash
    without its GIL."""

    def __init__(self, threads: int, going: Callable[[], bool], now_ns: Callable[[], int]) -> None:
        if threads < 1:
            raise ValueError("the tray has no core to spare, or /proc/stat does not say how many it has")
        import hashlib  # OpenSSL is large, and a holder only counts cores

        if getattr(getattr(hashlib, "pbkdf2_hmac", None), "__module__", "") != "_hashlib":
            raise ValueError("this python has no OpenSSL to hash with")
        self._hash, self._going, self._now_ns, self._over = hashlib.pbkdf2_hmac, going, now_ns, threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # of a thread alone, on Linux
        iterations, salt = FIRST, number.to_bytes(4, "little")
        while self._going() and not self._over.is_set():
            begun = self._now_ns()
            self._hash("sha256", b"burnin", salt, iterations)
            took = max(self._now_ns() - begun, 1)
            iterations = int(min(max(iterations * PIECE_NS / took, 1), iterations * 4, MOST))

    def end(self) -> None:
        """Wait for each thread's piece; none is left."""
        self._over.set()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def beside(threads: int | None, going: Callable[[], bool], now_ns: Callable[[], int]) -> Iterator[str]:
    """Cores while the block runs, where they are asked for: in words why there are none."""
    if threads is None:
        yield ""
        return
    try:
        cores = Cores(threads, going, now_ns)
    except ValueError as error:
        yield f"; no CPU load beside it: {error}"
        return
    try:
        yield f"; {threads} CPU threads beside it"
    finally:
        cores.end()


def util(text: Callable[[], str]) -> Read:
    """Share of the tray's CPU time since the last reading, 0 to 1, that was neither idle nor stolen. `text` gives /proc/stat."""
    last: list[list[int]] = []

    def times() -> list[int]:
        words = text().split("\n", 1)[0].split()
        if words[:1] != ["cpu"] or len(words) <= _TIMES or not all(word.isdigit() for word in words[1:]):
            raise Absent("missing")
        return [int(word) for word in words[1 : _TIMES + 1]]

    def read() -> float:
        now = times()
        before, last[:] = last[:], [now]
        passed = [n - b for n, b in zip(now, before[0])] if before else []
        whole = sum(passed)
        if whole <= 0:  # nothing to compare with yet, or a clock that stands
            raise Absent("missing")
        return round(min(max(1 - (passed[_IDLE] + passed[_IOWAIT] + passed[_STEAL]) / whole, 0.0), 1.0), 6)

    with contextlib.suppress(Absent):
        last.append(times())
    return read
