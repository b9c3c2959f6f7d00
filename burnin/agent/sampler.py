"""Reads tables on deadlines, in threads that a hung driver may keep without taking the holder down.

One thread reads all sources in turn. When a read does not come back within `hang_s`, the thread is abandoned, the
source is called hung, and a fresh thread goes on with the others. If the read does return one day, its source is
taken back in. Deadlines are multiples of the period from the start: a late sample does not shift those after it.

A table that takes too much of its period is read less often, within bounds (Pace), and what changes is told.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from math import fsum, isfinite
from typing import Any, Protocol

from burnin.agent.fields import Reading

SHARE = 0.25
"""Most of a table's period that reading it may take: a driver serialises its callers, so what we hold others wait for."""
SLOW_PASSES, QUICK_PASSES = 3, 10
"""Passes in a row before a period is doubled, and halved again: one slow answer is no slow driver."""
MOST_STRETCH = 8
WEIGH_NS = 1_000_000_000
"""A thread's CPU time is asked for no more often: the question costs as much as reading two GPUs."""


LAZY_NS = 500_000_000
"""What is read more often may be taken apart in batches: code that has just run costs a third of what cold caches make of it."""


class Source(Protocol):
    """Something with a name, columns (part of the tray, metric) and a way to read them all, in order. May hang."""

    name: str
    columns: tuple[tuple[str, str], ...]

    def read(self) -> list[Reading]:
        """One value or reason per column."""
        ...


class Raw(Protocol):
    """A source whose reading is in two steps, the second of which may wait. One with `instant` true asks nobody who may hang."""

    name: str
    columns: tuple[tuple[str, str], ...]

    def ask(self) -> Any:
        """All that is to be known of now, or a reason for all columns. May hang."""
        ...

    def told(self, asked: Any) -> list[Reading]:
        """That taken apart: one value or reason per column. In the order asked: it may remember the one before."""
        ...


class Pace:
    """How often a table is read: `period_ns` as ordered, doubled while its reads take more than SHARE of it, up to `most_ns`."""

    def __init__(self, ordered_ns: int, most_ns: int | None = None) -> None:
        self.ordered_ns = self.period_ns = ordered_ns
        self._most_ns = MOST_STRETCH * ordered_ns if most_ns is None else max(most_ns, ordered_ns)
        self._slow = self._quick = 0

    @property
    def stretch(self) -> float:
        """Present period over the ordered one."""
        return self.period_ns / self.ordered_ns

    def took(self, took_ns: int) -> bool:
        """Account for one pass; True when the period changed."""
        before = self.period_ns
        slow = took_ns > SHARE * self.period_ns
        self._slow = self._slow + 1 if slow else 0
        # halved, the reads must fit well: a period that swings tells nobody anything
        quick = self.period_ns > self.ordered_ns and took_ns < SHARE / 4 * self.period_ns
        self._quick = self._quick + 1 if quick else 0
        if self._slow >= SLOW_PASSES and 2 * self.period_ns <= self._most_ns:
            self.period_ns, self._slow = 2 * self.period_ns, 0
        elif self._quick >= QUICK_PASSES:
            self.period_ns, self._quick = self.period_ns // 2, 0
        return self.period_ns != before


class Table:
    """Sources that are read together: `columns` are all of theirs, in the order of a sample's values.

    `period_ns` 0: it is not read until `order` says how often, and until when. `most_ns`: its longest period (see Pace).
    """

    def __init__(self, name: str, sources: Sequence[Source | Raw], period_ns: int, most_ns: int | None = None) -> None:
        self.name, self.sources = name, tuple(sources)
        self.asks = tuple(
            (
                "" if hasattr(one, "instant") else one.name,
                one.read if hasattr(one, "read") else one.ask,
                getattr(one, "answered", None),
            )
            for one in sources
        )
        self.columns = tuple(column for source in sources for column in source.columns)
        self.pace = Pace(period_ns, most_ns) if period_ns else None
        self.until_ns: int | None = None
        """When it is no longer read; None for one that always is."""
        self.cpu_ns = 0
        """CPU that reading it has cost, with the driver's own: each pass as much as the last one that was weighed."""
        self.pass_cpu_ns = 0
        self.weigh_ns = 0
        """When a pass is weighed next."""
        self.ordered = 0
        """Counts orders: who reads the table begins a new grid with each."""

    def order(self, period_ns: int, until_ns: int) -> None:
        """Read it so often, until then."""
        self.pace, self.until_ns = Pace(period_ns), until_ns
        self.ordered += 1

    def due(self, now_ns: int) -> bool:
        """Is it to be read at all?"""
        return self.pace is not None and bool(self.columns) and (self.until_ns is None or now_ns < self.until_ns)


class Cadence:
    """Deadlines of one table: first at once, then on the grid from `origin_ns`; the missed ones are skipped and counted."""

    def __init__(self, start_ns: int, period_ns: int, origin_ns: int | None = None) -> None:
        self.due_ns = start_ns
        self.missed = 0
        self._start, self._period = start_ns if origin_ns is None else origin_ns, period_ns

    def advance(self, now_ns: int, period_ns: int | None = None) -> None:
        """Move to the first deadline after now. A new period keeps the grid's origin."""
        self._period = period_ns or self._period
        following = self._start + ((now_ns - self._start) // self._period + 1) * self._period
        self.missed += max(0, (following - self.due_ns) // self._period - 1)
        self.due_ns = following


class Sample:
    """What one pass over a table brought: `asked` by each source that did not fail, or a reason for all its columns."""

    def __init__(
        self, table: int, taken_ns: int, sources: Sequence[Source | Raw], asked: list[Any], trouble: Callable[[str], None]
    ) -> None:
        self.table, self.taken_ns = table, taken_ns
        self._sources, self._asked, self._trouble = sources, asked, trouble
        self.lazy = False
        """May it wait for others of its table?"""

    def readings(self) -> tuple[list[float | None], dict[int, str]]:
        """Values in column order, None where there is a reason (second). To be called once, in the order of samples."""
        values: list[float | None] = []
        absent: dict[int, str] = {}
        for source, asked in zip(self._sources, self._asked):
            if isinstance(asked, str):
                begin, count = len(values), len(source.columns)
                absent.update(dict.fromkeys(range(begin, begin + count), asked))
                values += [None] * count
                continue
            got = self._of(source, asked)
            try:
                if isfinite(fsum(got)):  # type: ignore[arg-type]
                    values += got  # type: ignore[arg-type]
                    continue
            except (TypeError, ValueError, OverflowError):
                pass
            for one in got:
                # what is no number (NaN, infinity) is no reading either, whoever brought it
                why = one if isinstance(one, str) else "" if isfinite(one) else "missing"
                if why:
                    absent[len(values)] = why
                values.append(None if why else one)  # type: ignore[arg-type]
        return values, absent

    def _of(self, source: Source | Raw, asked: Any) -> list[Reading]:
        if isinstance(asked, list):
            return asked
        try:
            return source.told(asked)  # type: ignore[union-attr]
        except Exception as error:  # a defect in one source must not silence the others
            self._trouble(f"{source.name}: {type(error).__name__}: {error}")
            return ["missing"] * len(source.columns)


class Sampler:
    """Reads `tables` and hands every sample to `emit`, which must be quick and safe to call from another thread; so must
    `paced`, which hears of a table whose period changed, and how long its last pass took."""

    def __init__(
        self,
        tables: Sequence[Table],
        emit: Callable[[Sample], None],
        now_ns: Callable[[], int],
        wait: Callable[[float], object] | None = None,
        hang_s: float = 2.0,
        paced: Callable[[Table, int], None] = lambda table, took_ns: None,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self.tables = list(tables)
        self._emit, self._paced, self._now_ns, self._cpu_ns = emit, paced, now_ns, cpu_ns
        self.hang_s = hang_s
        self._lock = threading.Lock()
        self._generation = 0
        self._origin_ns: int | None = None
        """Of all tables' grids, so that one wake serves several."""
        self._stopped = False
        self._bell = threading.Lock()
        """Held while nothing rings; an Event's wait costs half a wake more."""
        self._bell.acquire()
        self._wait = wait or (lambda seconds: self._bell.acquire(timeout=seconds))
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
        self._stopped = True
        self.nudge()

    def nudge(self) -> None:
        """Look at the tables' orders now, not at the next deadline."""
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    @property
    def late(self) -> bool:
        """True while a read has been out for a quarter of `hang_s`: `check` oftener."""
        reading = self._reading
        return reading is not None and self._now_ns() - reading[1] > self.hang_s * 0.25e9

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
        cadences: dict[tuple[int, int], Cadence] = {}
        while not self._stopped:
            now = self._now_ns()
            if self._origin_ns is None:
                self._origin_ns = now
            nearest = now + 1_000_000_000
            for index, table in enumerate(self.tables):
                if not table.due(now) or table.pace is None:
                    continue
                cadence = cadences.get((index, table.ordered))
                if cadence is None:
                    cadence = cadences[index, table.ordered] = Cadence(now, table.pace.period_ns, self._origin_ns)
                if cadence.due_ns <= now:
                    sample = self._pass(index, table, generation)
                    if sample is None:
                        return  # this thread was given up while it hung
                    self._emit(sample)
                    cadence.advance(self._now_ns(), table.pace.period_ns)
                nearest = min(nearest, cadence.due_ns)
            self._wait(max(0.0, (nearest - self._now_ns()) / 1e9))

    def _pass(self, index: int, table: Table, generation: int) -> Sample | None:
        asked: list[Any] = []
        now_ns, pace, hung = self._now_ns, table.pace, self.hung
        now = taken = now_ns()
        weighed = taken >= table.weigh_ns
        cpu = self._cpu_ns() if weighed else 0
        for name, ask, answered in table.asks:
            if not name:
                asked.append(ask())
                continue
            if name in hung:
                asked.append("hung")
                continue
            self._reading, since = (name, now), now
            try:
                asked.append(ask())
            except Exception as error:  # a defect in reading one source must not silence the others
                self._troubled(f"{name}: {type(error).__name__}: {error}")
                asked.append("missing")
            now = now_ns()
            with self._lock:
                if generation != self._generation:
                    hung.discard(name)  # it came back after all
                    return None
                self._reading = None
            if answered is not None:
                answered(now - since)
        if weighed:
            table.weigh_ns, table.pass_cpu_ns = taken + WEIGH_NS, self._cpu_ns() - cpu
        table.cpu_ns += table.pass_cpu_ns
        sample = Sample(index, taken, table.sources, asked, self._troubled)
        if pace is not None:
            sample.lazy = pace.period_ns < LAZY_NS
            if pace.took(now - taken):
                self._paced(table, now - taken)
        return sample

    def _troubled(self, what: str) -> None:
        self.trouble = what
