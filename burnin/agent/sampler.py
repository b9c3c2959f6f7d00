"""Reads tables on deadlines, in threads that a hung driver may keep without taking the holder down.

One thread reads all sources in turn. When a read does not come back within `hang_s`, the thread is abandoned, the
source is called hung, and a fresh thread goes on with the others. If the read does return one day, its source is
taken back in. Deadlines are multiples of the period from the start: a late sample does not shift those after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from burnin.agent.fields import Reading


class Source(Protocol):
    """Something with a name, columns (part of the tray, metric) and a way to read them all, in order. May hang."""

    name: str
    columns: tuple[tuple[str, str], ...]

    def read(self) -> list[Reading]:
        """One value or reason per column."""
        ...


class Table:
    """Sources that are read together: `columns` are all of theirs, in the order of a sample's values."""

    def __init__(self, sources: Sequence[Source], period_ns: int) -> None:
        self.sources = tuple(sources)
        self.columns = tuple(column for source in sources for column in source.columns)
        self.period_ns = period_ns


class Cadence:
    """Deadlines of one table: first at once, then on the grid; those that were missed are skipped and counted."""

    def __init__(self, start_ns: int, period_ns: int) -> None:
        self.due_ns = start_ns
        self.missed = 0
        self._start, self._period = start_ns, period_ns

    def advance(self, now_ns: int) -> None:
        """Move to the first deadline after now."""
        following = self._start + ((now_ns - self._start) // self._period + 1) * self._period
        self.missed += max(0, (following - self.due_ns) // self._period - 1)
        self.due_ns = following


class Sample:
    """What one pass over a table gave: values in column order, None where there is a reason in `absent`."""

    def __init__(self, table: int, taken_ns: int, values: list[float | None], absent: dict[int, str]) -> None:
        self.table, self.taken_ns, self.values, self.absent = table, taken_ns, values, absent


class Sampler:
    """Reads `tables` and hands every sample to `emit`, which must be quick and safe to call from another thread."""

    def __init__(
        self,
        tables: Sequence[Table],
        emit: Callable[[Sample], None],
        now_ns: Callable[[], int],
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
        hang_s: float = 2.0,
    ) -> None:
        self.tables = list(tables)
        self._emit, self._now_ns, self._wait = emit, now_ns, wait
        self.hang_s = hang_s
        self._lock = threading.Lock()
        self._generation = 0
        self._stop = threading.Event()
        self._reading: tuple[str, int] | None = None
        self.hung: set[str] = set()
        """Names of sources whose read has not come back."""
        self.trouble: str | None = None
        """The last thing that went wrong in reading, that was not the driver's answer."""

    def start(self) -> None:
        """Begin, or begin again with the present set of hung sources."""
        with self._lock:
            self._generation += 1
            self._reading = None
            generation = self._generation
        threading.Thread(target=self._run, args=(generation,), daemon=True, name=f"sampler-{generation}").start()

    def stop(self) -> None:
        """Ask all threads to end; a hung one ends with the process."""
        self._stop.set()

    def check(self) -> str | None:
        """Call often: the name of a source found hung just now, or None. Abandons its thread and starts another."""
        with self._lock:
            if self._reading is None or self._now_ns() - self._reading[1] < self.hang_s * 1e9:
                return None
            name = self._reading[0]
            self.hung.add(name)
        self.start()
        return name

    def _run(self, generation: int) -> None:
        cadences = [Cadence(self._now_ns(), table.period_ns) for table in self.tables]
        while not self._stop.is_set():
            now = self._now_ns()
            for index, (table, cadence) in enumerate(zip(self.tables, cadences)):
                if cadence.due_ns <= now:
                    sample = self._pass(index, table, generation)
                    if sample is None:
                        return  # this thread was given up while it hung
                    self._emit(sample)
                    cadence.advance(self._now_ns())
            due = min((c.due_ns for c in cadences), default=now + 1_000_000_000)
            self._wait(self._stop, max(0.0, (due - self._now_ns()) / 1e9))

    def _pass(self, index: int, table: Table, generation: int) -> Sample | None:
        values: list[float | None] = []
        absent: dict[int, str] = {}
        taken = self._now_ns()
        for source in table.sources:
            if source.name in self.hung:
                readings: list[Reading] = ["hung"] * len(source.columns)
            else:
                with self._lock:
                    self._reading = (source.name, self._now_ns())
                readings = self._read(source)
                with self._lock:
                    if generation != self._generation:
                        self.hung.discard(source.name)  # it came back after all
                        return None
                    self._reading = None
            for reading in readings:
                if isinstance(reading, str):
                    absent[len(values)] = reading
                    values.append(None)
                else:
                    values.append(reading)
        return Sample(index, taken, values, absent)

    def _read(self, source: Source) -> list[Reading]:
        try:
            return source.read()
        except Exception as error:  # a defect in reading one source must not silence the others
            self.trouble = f"{source.name}: {type(error).__name__}: {error}"
            return ["missing"] * len(source.columns)
