"""Long rows -> series: 40 million rows of one rack's two days, in any order, in less than a gigabyte.

Values are kept as plain arrays, one per (part, metric). Times and phases are the same for most parts, so each distinct piece
of them is kept once and a series holds only the numbers of its pieces.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnin.errors import InputError, Problem
from burnin.telemetry.series import Floats, Series, Stretch

COLUMNS = ("time_s", "phase", "part", "metric", "value")
MOST_PHASES, MOST_WINDOWS, MOST_SERIES = 4096, 4096, 100_000
SETTLE_S, SETTLE_SHARE = 600.0, 0.25
"""What is left out at the start of every window: so long, or this share of it where it is short. Foreign telemetry does not say
how long its parts took to come to rest; a cold plate's time constant is about a minute."""
LATEST_S = 1e11
"""Seconds since 1970 come to this in the year 5138, milliseconds did in 1973."""
BLANKS = np.array([*range(0x7FFFFFF0, 0x7FFFFFF4), 2.0**32 - 1, *(2.0**47 + i for i in range(4)), 2.0**63, 2.0**64])
"""What DCGM writes for what it could not read (32 bits, doubles, 64 bits), and all bits set: not read, never a value."""
INSIDE = 0.9
"""Of a tray's readings, this share lies in the rack's windows, or it went through the phases at a time of its own."""


@dataclass(frozen=True, slots=True)
class Course:
    """One distinct course of time: when was read, in which phase, and of which trays' GPUs (none: of no GPU)."""

    t_s: Floats
    phase: NDArray[np.uint16]
    names: Sequence[str]
    trays: frozenset[str] = frozenset()


class Rows:
    """Collects rows of one file. Raises InputError for names that are not known and times that are none."""

    def __init__(self, path: Path, metrics: Collection[str], is_part: Callable[[str], bool], needed: Collection[str]) -> None:
        self._path, self._metrics, self._is_part, self._needed = path, frozenset(metrics), is_part, frozenset(needed)
        self._words: dict[str, dict[str, int]] = {"phase": {}, "part": {}, "metric": {}}
        self._series: dict[tuple[int, int], int] = {}
        self._values: list[array[float]] = []
        self._still: dict[int, tuple[float, int]] = {}  # series that have shown one value so far, and how often: most of them
        self._pieces: list[array[int]] = []
        self._known: dict[bytes, int] = {}
        self._when: list[tuple[Floats, NDArray[np.uint16]]] = []
        self._counts: dict[tuple[int, int, int], int] = {}
        self._rows = 0

    def add(self, batch: Any) -> None:
        """A record batch with COLUMNS."""
        t = self._numbers(batch, "time_s")
        if not np.isfinite(t).all():
            raise self._wrong("time_s is not a number", "seconds", int(np.flatnonzero(~np.isfinite(t))[0]))
        if (np.abs(t) > LATEST_S).any():
            at = int(np.flatnonzero(np.abs(t) > LATEST_S)[0])
            raise self._wrong(f"time_s is {t[at]:g}", "seconds, not milliseconds", at)
        v = self._numbers(batch, "value")
        v = np.where(np.isfinite(v) & ~np.isin(v, BLANKS), v, np.nan)
        phase, part, metric = (self._ids(batch, name) for name in ("phase", "part", "metric"))
        self._rows += t.size
        series = self._numbered(part, metric)
        self._count(series, phase, v)
        wanted = np.array([name in self._needed for name in self._words["metric"]], bool)
        keep = wanted[metric] if t.size else np.zeros(0, bool)
        if not keep.all():
            t, v, phase, series = t[keep], v[keep], phase[keep], series[keep]
        self._split(t, v, phase.astype(np.uint16), series)

    def _numbers(self, batch: Any, name: str) -> Floats:
        import pyarrow as pa

        column = batch.column(batch.schema.get_field_index(name))
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
            raise self._wrong(f"column {name} holds {column.type}", "numbers")
        out: Floats = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return out

    def _ids(self, batch: Any, name: str) -> NDArray[np.int32]:
        """One number per word, over all batches."""
        import pyarrow as pa

        column = batch.column(batch.schema.get_field_index(name))
        if column.null_count:
            at = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._wrong(f"column {name} has an empty field", f"a {name} in every row", at)
        if not pa.types.is_dictionary(column.type):
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise self._wrong(f"column {name} holds {column.type}", "words")
            column = column.dictionary_encode()
        if not pa.types.is_string(column.dictionary.type) and not pa.types.is_large_string(column.dictionary.type):
            raise self._wrong(f"column {name} holds {column.dictionary.type}", "words")
        index = column.indices.to_numpy(zero_copy_only=False)
        used = np.unique(index)
        new = np.zeros(max(1, len(column.dictionary)), np.int32)
        for i in used.tolist():
            word = column.dictionary[i].as_py()
            if word not in self._words[name] and (wrong := self._unknown(name, word)):
                raise self._wrong(*wrong, int(np.flatnonzero(index == i)[0]))
            new[i] = self._words[name].setdefault(word, len(self._words[name]))
        out: NDArray[np.int32] = new[index]
        return out

    def _unknown(self, name: str, word: str) -> tuple[str, str] | None:
        """What is wrong with a word that was not seen before, and what is expected; None where nothing is."""
        if name == "part" and not self._is_part(word):
            return f"{word[:40]!r} is no part of this rack", "a part of a tray in rack.yaml, such as t07.g2"
        if name == "metric" and word not in self._metrics:
            return f"metric {word[:40]!r} is not in the catalogue", "a metric of metrics.yaml, such as gpu.temp"
        if name == "phase" and (not word.strip() or len(word) > 64 or len(self._words[name]) >= MOST_PHASES):
            return f"phase {word[:40]!r}", f"at most {MOST_PHASES} short names such as idle, load, load@1500"
        return None

    def _numbered(self, part: NDArray[np.int32], metric: NDArray[np.int32]) -> NDArray[np.int32]:
        """One number per (part, metric), over all batches."""
        pair = part.astype(np.int64) << 16 | metric
        unique, index = np.unique(pair, return_inverse=True) if _changes(pair) * 8 > pair.size else _runs(pair)
        numbers = np.empty(unique.size, np.int32)
        for i, one in enumerate(unique.tolist()):
            key = (one >> 16, one & 0xFFFF)
            if key not in self._series:
                if len(self._series) >= MOST_SERIES:
                    raise self._wrong(f"there are more than {MOST_SERIES} series", "the telemetry of one rack")
                self._series[key] = len(self._values)
                self._values.append(array("d"))
                self._pieces.append(array("l"))
            numbers[i] = self._series[key]
        return numbers[index]

    def _count(self, series: NDArray[np.int32], phase: NDArray[np.int32], v: Floats) -> None:
        known = ~np.isnan(v)
        width = len(self._words["phase"])
        both = series[known].astype(np.int64) * width + phase[known]
        many = np.bincount(both, minlength=0)
        keys = list(self._series)
        for at in np.flatnonzero(many).tolist():
            part, metric = keys[at // width]
            slot = (part, metric, at % width)
            self._counts[slot] = self._counts.get(slot, 0) + int(many[at])

    def _split(self, t: Floats, v: Floats, phase: NDArray[np.uint16], series: NDArray[np.int32]) -> None:
        if _changes(series) * 8 > series.size:
            small = series.astype(np.uint16) if len(self._values) < 1 << 16 else series  # sorted by digits, not by comparing
            order = np.argsort(small, kind="stable")
            t, v, phase, series = t[order], v[order], phase[order], series[order]
        ends = [*np.flatnonzero(np.diff(series)).tolist(), series.size - 1] if series.size else []
        begin = 0
        for end in ends:
            a, b = begin, end + 1
            key = t[a:b].tobytes() + phase[a:b].tobytes()
            piece = self._known.get(key)
            if piece is None:
                piece = self._known[key] = len(self._when)
                self._when.append((t[a:b].copy(), phase[a:b].copy()))
            number = int(series[a])
            self._pieces[number].append(piece)
            self._keep(number, v[a:b])
            begin = b
        self._known.clear()  # another batch has other times

    def _keep(self, number: int, v: Floats) -> None:
        values, (still, count) = self._values[number], self._still.get(number, (float(v[0]), 0))
        if not values and bool((v == still).all()):  # never true of NaN
            self._still[number] = still, count + v.size
            return
        if self._still.pop(number, None) is not None:
            values.frombytes(np.full(count, still).tobytes())
        values.frombytes(v.tobytes())

    def done(self) -> tuple[dict[tuple[str, str], Series], list[Course]]:
        """All series, sorted by time; and each distinct course of time, for `stretches`."""
        parts, metrics = list(self._words["part"]), list(self._words["metric"])
        names = list(self._words["phase"])
        courses: dict[bytes, tuple[Floats, NDArray[np.uint16], NDArray[np.int64] | None]] = {}
        trays: dict[bytes, set[str]] = {}
        out = {}
        for (part, metric), number in self._series.items():
            pieces = self._pieces[number]
            if not pieces:
                continue
            key = pieces.tobytes()
            if key not in courses:
                courses[key] = _sorted([self._when[i] for i in pieces])
            t, _, order = courses[key]
            if number in self._still:
                v: Floats = np.broadcast_to(self._still[number][0], t.shape)
            else:
                v = np.frombuffer(self._values[number], float)
                v = v if order is None else v[order]
            out[parts[part], metrics[metric]] = Series(t, v)
            of_gpu = {parts[part].split(".", 1)[0]} if metrics[metric].startswith("gpu.") else set()
            trays.setdefault(key, set()).update(of_gpu)
        return out, [Course(t, phase, names, frozenset(trays[key])) for key, (t, phase, _) in courses.items()]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """(part, metric, phase) -> readings that are not null."""
        phases, parts, metrics = (list(self._words[name]) for name in ("phase", "part", "metric"))
        return {(parts[p], metrics[m], phases[f]): count for (p, m, f), count in self._counts.items()}

    def _wrong(self, what: str, expected: str, at: int | None = None) -> InputError:
        """`at`: which row of the batch in hand."""
        if at is None:
            return InputError([Problem(str(self._path), None, None, what, expected)])
        row = self._rows + at + 1
        if self._path.suffix == ".csv":
            return InputError([Problem(str(self._path), row + 1, None, what, expected)])  # its first line is the names
        return InputError([Problem(str(self._path), None, None, f"row {row}: {what}", expected)])


def _changes(values: NDArray[Any]) -> int:
    return int(np.count_nonzero(values[1:] != values[:-1]))


def _runs(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Like np.unique with its inverse, for values that stand in long runs."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if values.size else np.zeros(0, np.int64)
    unique, index = np.unique(values[starts], return_inverse=True)
    return unique, np.repeat(index, np.diff([*starts.tolist(), values.size]))


def _sorted(pieces: Sequence[tuple[Floats, NDArray[np.uint16]]]) -> tuple[Floats, NDArray[np.uint16], NDArray[np.int64] | None]:
    t, phase = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
    if (np.diff(t) >= 0).all():
        return t, phase, None
    order = np.argsort(t, kind="stable")
    return t[order], phase[order], order


def stretches(courses: Sequence[Course]) -> tuple[Stretch, ...]:
    """The rack's windows, from the course of time that knows most changes of phase (GPU readings first), then most readings.

    One part's own readings never interleave two phases at a boundary as those of many parts with their own clocks do. A tray
    whose GPUs' labels say that it went through a phase at another time has its own windows; where it never did, an empty one.
    """
    if not courses:
        return ()
    best = max(courses, key=_knows)
    common = _windows(best)
    own: dict[str, list[tuple[str, float, float]]] = {stage: [] for stage in common}
    for tray in sorted({tray for one in courses for tray in one.trays}):
        theirs = max((one for one in courses if tray in one.trays), key=_knows)
        if theirs is best or _agrees(theirs, common):
            continue
        windows = _windows(theirs)
        for stage, (_, t0, _t1) in common.items():
            _, begin, end = windows.get(stage, ("", t0, t0))
            own[stage].append((tray, begin, end))
    return tuple(
        Stretch(stage, name, t0, t1, settle(t0, t1), tuple(own[stage])) for stage, (name, t0, t1) in common.items()
    )  # fmt: skip


def _knows(one: Course) -> tuple[bool, int, int]:
    return bool(one.trays), _changes(one.phase), one.t_s.size


def _windows(one: Course) -> dict[str, tuple[str, float, float]]:
    """Stage -> phase, begin and end, in order."""
    t, phase = one.t_s, one.phase
    out: dict[str, tuple[str, float, float]] = {}
    seen: dict[str, int] = {}
    for a, b in pairwise([0, *(np.flatnonzero(np.diff(phase)) + 1).tolist(), t.size]):
        name = one.names[int(phase[a])]
        seen[name] = seen.get(name, 0) + 1
        step = float(np.median(np.diff(t[a:b]))) if b - a > 1 else 0.0
        until = min(float(t[b - 1]) + step, float(t[b])) if b < t.size else float(t[b - 1]) + step
        stage = name if seen[name] == 1 else f"{name} ({seen[name]})"
        out[stage] = name, float(t[a]), max(until, float(np.nextafter(t[b - 1], np.inf)))
    return out


def mixed(courses: Sequence[Course]) -> str:
    """A tray whose GPUs say of most of their time that they were in different phases; empty where there is none."""
    for tray in sorted({tray for one in courses for tray in one.trays}):
        many = [one for one in courses if tray in one.trays]
        best = max(many, key=_knows)
        windows = _windows(best)
        quick = [one for one in many if one.t_s.size * 2 > best.t_s.size]  # what is read now and then may be read at a boundary
        if any(_inside(one, windows)[1] > (1 - INSIDE) * one.t_s.size for one in quick):
            return tray
    return ""


def _inside(one: Course, windows: Mapping[str, tuple[str, float, float]]) -> tuple[int, int]:
    """How many readings are in a window, and how many of these were read in another phase."""
    inside = wrong = 0
    number = {name: i for i, name in enumerate(one.names)}
    for name, t0, t1 in windows.values():
        a, b = np.searchsorted(one.t_s, (t0, t1))
        inside += int(b - a)
        wrong += int(np.count_nonzero(one.phase[a:b] != number[name]))
    return inside, wrong


def _agrees(one: Course, common: Mapping[str, tuple[str, float, float]]) -> bool:
    """Whether what was read is in the rack's windows, each of the phase that it was read in; some at an end may be in none."""
    inside, wrong = _inside(one, common)
    return not wrong and inside >= INSIDE * one.t_s.size


def settle(t0_s: float, t1_s: float) -> float:
    """How much of a window is left out at its start."""
    return min(SETTLE_S, SETTLE_SHARE * (t1_s - t0_s))
