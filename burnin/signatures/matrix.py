"""Bandwidth between every two GPUs, taken apart: whole trays, GPUs (both ways, sending, receiving), pairs of trays, single pairs.

Logarithms of a matrix are its middle, plus what each row shares (a GPU as source), what each column shares (as target), plus
what is left of blocks (two trays) and of pairs. Medians all the way, so that a slow part does not make its partners slow.
Parents first: what a tray's GPUs share is the tray's, and what is explained above is not named below. Every pair uses all
switch planes at once, so a plane that is slow slows all pairs alike: that shows against a limit or a baseline, never here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from burnin.events import Finding, Severity
from burnin.rack.parts import tray_of
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.robust import median, medians, sigma
from burnin.signatures.tails import MAD_DOF, worst
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats

MATRIX = "bandwidth.matrix"
_MOST = 12


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """GB/s from the GPU of each row to that of each column; NaN where it was not measured (the diagonal)."""

    stage: str
    parts: tuple[str, ...]
    gbps: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Shares above (+) or below (-) the matrix's middle: as source, as target; what is left of each pair."""

    source: Floats
    target: Floats
    rest: Floats


def effects(gbps: Floats) -> Effects:
    """Rows and columns by medians, twice, so that a slow row does not lean on the columns."""
    rest = np.log(np.where(gbps > 0, gbps, np.nan))
    rest = rest - median(rest.ravel())
    source, target = np.zeros(gbps.shape[0]), np.zeros(gbps.shape[1])
    for _ in range(3):
        by = np.nan_to_num(medians(rest))
        source, rest = source + by, rest - by[:, None]
        by = np.nan_to_num(medians(rest.T))
        target, rest = target + by, rest - by[None, :]
    return Effects(source - median(source), target - median(target), rest)


def levels(one: Matrix) -> Floats:
    """GB/s that every GPU reaches to all others, in the middle of both directions; a slow partner does not count against it."""
    seen = effects(one.gbps)
    known = (~np.isnan(one.gbps)).any(axis=0) | (~np.isnan(one.gbps)).any(axis=1)
    out: Floats = np.where(known, median(one.gbps.ravel()) * np.exp((seen.source + seen.target) / 2), np.nan)
    return out


def find(matrices: Sequence[Matrix], row: SignatureRow) -> list[Finding]:
    """HOLD on what is slow in a matrix; FAIL is left to limits, and to what repeats. One finding a part, its worst matrix."""
    out: dict[str, Finding] = {}
    for one in matrices:
        for finding in _of_one(one, row):
            old = out.get(finding.part)
            if old is None or (old.value or 0.0) < (finding.value or 0.0):
                out[finding.part] = finding
    return sorted(out.values(), key=lambda f: f.part)


def _of_one(one: Matrix, row: SignatureRow) -> list[Finding]:
    if len(one.parts) < number(row, "least"):
        return []
    seen, trays = effects(one.gbps), [tray_of(part) for part in one.parts]
    both = (seen.source + seen.target) / 2
    slow = _out(row, -both, "floor")
    sends, takes = _out(row, -seen.source, "floor"), _out(row, -seen.target, "floor")
    found, told = [], set[str]()
    for tray in sorted(set(trays)):
        here = np.array([t == tray for t in trays])
        if here.sum() > 1 and 4 * np.count_nonzero(slow & here) >= 3 * here.sum():
            found.append(_hold(row, one, tray, -median(both[here]), "all its GPUs are slow to and from the rest", "tray"))
            told.add(tray)
    for i, part in enumerate(one.parts):
        # less than a fifth of it the other way: it is one direction's
        one_way = abs(seen.source[i] - seen.target[i]) > 0.6 * abs(seen.source[i] + seen.target[i])
        ways = [(sends, seen.source, "to all others"), (takes, seen.target, "from all others")]
        ways = ways if one_way else [(slow, both, "to and from all others"), *ways]
        way = next(((by[i], text) for out, by, text in ways if out[i]), None)
        if way is not None and trays[i] not in told:
            found.append(_hold(row, one, part, -float(way[0]), f"it is slow {way[1]}", "gpu"))
            told.add(part)
    found += _blocks(one, row, seen, trays, told)
    return found


def _out(row: SignatureRow, slower: Floats, floor: str, rate: str = "hold") -> NDArray[np.bool_]:
    """Which are slower than `floor` and than the worst of so many healthy ones."""
    n = int(np.count_nonzero(~np.isnan(slower)))
    spread = sigma(slower.ravel(), number(row, "sigma_min"))
    limit = worst(max(n, 1), number(row, rate), max(1.0, MAD_DOF * (n - 1)))
    out: NDArray[np.bool_] = (slower >= number(row, floor)) & (slower / spread >= limit)
    return out


def _blocks(one: Matrix, row: SignatureRow, seen: Effects, trays: list[str], told: set[str]) -> list[Finding]:
    """Pairs of trays, then pairs of GPUs, that are slow beyond what their ends explain: neither end is blamed alone."""
    names = sorted(set(trays))
    where = {name: np.flatnonzero([t == name for t in trays]) for name in names}
    block = np.array([[median(seen.rest[np.ix_(where[a], where[b])].ravel()) for b in names] for a in names])
    slow = _out(row, -block, "pair") & ~np.eye(len(names), dtype=bool) if len(names) > 2 else np.zeros(block.shape, bool)
    rest = seen.rest.copy()
    found = []
    for i, j in zip(*np.nonzero(slow), strict=True):
        rest[np.ix_(where[names[i]], where[names[j]])] = np.nan
        found.append((-float(block[i, j]), f"{names[i]} > {names[j]}"))
    single = _out(row, -rest, "pair")
    ways = [(-float(rest[i, j]), f"{one.parts[i]} > {one.parts[j]}") for i, j in zip(*np.nonzero(single), strict=True)]
    found += [(by, way) for by, way in ways if not told & {end for w in way.split(" > ") for end in (w, tray_of(w))}]
    if not found:
        return []
    found.sort(reverse=True)
    text = ", ".join(f"{way} by {100 * by:.1f} %" for by, way in found[:_MOST])
    return [_hold(row, one, "rack", found[0][0], f"{len(found)} ways are slower than their ends explain: {text}", "way")]


_ACTIONS = {
    "tray": "look at the tray's seat in its cartridges, its links and its host, then run the exchange again",
    "gpu": "look at this GPU's links, reset it and run the exchange again; if it stays slow, swap trays to tell board from place",
    "way": "look at the links of both ends and the switches between them; neither end is blamed alone",
}


def _hold(row: SignatureRow, one: Matrix, part: str, by: float, why: str, what: str) -> Finding:
    finding = zones.policy(
        MATRIX, row, part, Severity.HOLD, by, f"{why}, {100 * by:.1f} % below the rack ({one.stage})", stage=one.stage
    )
    return replace(zones.doing(finding, _ACTIONS[what]), fru=row.fru if what != "way" else "")
