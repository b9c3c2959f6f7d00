"""What signatures look at: the rack as grids of GPUs (rows: trays, columns: slots), one number each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnin.events import Finding
from burnin.rack.schema import Topology
from burnin.signatures.baseline import OTHER_WORTH, Baseline, Learned, alone, kind_of, placed, worth
from burnin.signatures.robust import medians, sigma, without_trend
from burnin.signatures.tails import GAUSS, MAD_DOF, TAIL_PARTS, UNKNOWN, tail_of
from burnin.signatures.trend import blocks
from burnin.telemetry.series import Floats, Series, Stretch, Telemetry

MIN_RISE_W = 50.0
"""A GPU whose power rose by less was not loaded: what is divided by it would be noise."""
MIN_TRAYS = 6
"""Fewer trays have no family to be out of."""


@dataclass(frozen=True, slots=True)
class Family:
    """Parts among their peers: what each has for itself, the family's robust sigma, how well it is known (degrees of freedom of
    Student's t), what the tail of healthy parts is like (degrees of freedom, GAUSS), and how skewed they are."""

    own: Floats
    sigma: float
    dof: float
    tail: float = GAUSS
    skew: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Readings of parts that were taken at the same moments, a row each. `part`: one of them; `rows`: their places in a list."""

    part: str
    rows: NDArray[np.int64]
    t_s: Floats
    v: Floats

    def window(self, stretch: Stretch) -> tuple[int, int]:
        """First and behind the last reading of a stretch's judged window."""
        t0_s, t1_s = stretch.at(self.part)
        a, b = np.searchsorted(self.t_s, (t0_s + stretch.settle_s, t1_s))
        return int(a), int(b)


class Readings:
    """One run's telemetry by tray and slot; means are computed once. `unloaded`: stage -> GPUs whose load was not reached.

    `baseline`: what other racks were like; `same`: they were of this SKU, revision and firmware. `learned` is what this rack
    would add to one: (comparison, kind of phase) -> grids, one per look. `like`: the same telemetry, looked at before. `ports`:
    link -> the switch port at its other end, where that was read.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        topology: Topology,
        unloaded: Mapping[str, frozenset[str]],
        baseline: Baseline | None = None,
        same: bool = True,
        like: Readings | None = None,
        ports: Mapping[str, str] | None = None,
    ) -> None:
        self.telemetry, self.topology, self.unloaded = telemetry, topology, unloaded
        self.baseline, self.same, self.ports = baseline, same, dict(ports or {})
        self.learned: dict[tuple[str, str], list[Floats]] = {}
        self.trays = topology.trays()
        self.gpus = [topology.gpus(tray) for tray in self.trays]
        self.all_gpus = [gpu for gpus in self.gpus for gpu in gpus]
        self._means: dict[tuple[str, Stretch], Floats] = like._means if like else {}
        self._once: dict[tuple[str, Stretch], Floats] = like._once if like else {}
        self._packs: dict[tuple[str, str], list[Pack]] = like._packs if like else {}
        self._told: dict[str, list[Finding]] = like._told if like else {}
        self._whole: dict[tuple[int, str], float] = like._whole if like else {}
        self._compared = False
        self._void: dict[str, set[str]] = {}

    def take_away(self, lies: Iterable[Finding]) -> None:
        """Sensors of GPUs that say one thing whatever happens, or what cannot be: no mean is made of what they read."""
        for one in lies:
            self._void.setdefault(str(one.evidence["metric"]), set()).add(one.part)

    def grid(self, value: Callable[[str], float]) -> Floats:
        """`value` of every GPU."""
        return np.array([[value(gpu) for gpu in row] for row in self.gpus])

    def of(self, metric: str, stretch: Stretch, value: Callable[[Series], float]) -> Floats:
        """`value` of every GPU's readings of one metric in a stretch's judged window; NaN is left to `value`."""
        out = np.full(sum(map(len, self.gpus)), np.nan)
        for pack in self.packs("gpu", self.all_gpus, metric):
            a, b = pack.window(stretch)
            t_s = pack.t_s[a:b] - (stretch.at(pack.part)[0] - stretch.t0_s)
            at_once = _AT_ONCE.get(value) if b > a and not np.isnan(pack.v[:, a:b]).any() else None
            out[pack.rows] = at_once(t_s, pack.v[:, a:b]) if at_once else [value(Series(t_s, row[a:b])) for row in pack.v]
        return out.reshape(len(self.gpus), -1)

    def once(self, name: str, stretch: Stretch, value: Callable[[], Floats]) -> Floats:
        """Something costly about a stretch, computed once."""
        if (name, stretch) not in self._once:
            self._once[name, stretch] = value()
        return self._once[name, stretch]

    def whole(self, part: str, metric: str, value: Callable[[Series], float]) -> float:
        """`value` of everything that was read of one metric of a part; a series that many parts share is looked at once."""
        one = self.telemetry.of(part, metric)
        key = id(one), value.__name__
        if key not in self._whole:
            self._whole[key] = value(one)
        return self._whole[key]

    def seen(self, name: str, stretch: Stretch) -> Floats | None:
        """What `once` computed, if it did."""
        return self._once.get((name, stretch))

    def mean(self, metric: str, stretch: Stretch) -> Floats:
        """Mean of every GPU's readings in a stretch's judged window; NaN where there are none."""
        key = (metric, stretch)
        if key not in self._means:
            means = self.means("gpu", self.all_gpus, metric, stretch)
            void = self._void.get(metric, ())
            means[[gpu in void for gpu in self.all_gpus]] = np.nan
            self._means[key] = means.reshape(len(self.gpus), -1)
        return self._means[key]

    def means(self, of: str, parts: Sequence[str], metric: str, stretch: Stretch) -> Floats:
        """The same of any parts; `of` names them, so that their readings are brought together once."""
        out = np.full(len(parts), np.nan)
        for pack in self.packs(of, parts, metric):
            a, b = pack.window(stretch)
            values = pack.v[:, a:b]
            known = np.count_nonzero(~np.isnan(values), axis=1)
            total = np.nansum(values, axis=1)
            out[pack.rows] = np.where(known > 0, total / np.maximum(known, 1), np.nan)
        return out

    def blocks(self, metric: str, stretch: Stretch, every_s: float) -> Floats:
        """Means over blocks of `every_s` of a judged window, by tray, slot and block; NaN where a block has no reading."""
        t0_s, t1_s = stretch.judged
        rows: list[Floats] = [np.empty(0)] * len(self.all_gpus)
        for pack in self.packs("gpu", self.all_gpus, metric):
            a, b = pack.window(stretch)
            t_s = pack.t_s[a:b] - (stretch.at(pack.part)[0] - stretch.t0_s)
            for row, values in zip(pack.rows, blocks(t_s, pack.v[:, a:b], t0_s, t1_s, every_s), strict=True):
                rows[row] = values
        return np.array(rows).reshape(len(self.gpus), self.topology.gpus_per_tray, -1 if rows[0].size else 0)

    def packs(self, of: str, parts: Sequence[str], metric: str) -> list[Pack]:
        """One metric of many parts, those that were read at the same moments together."""
        if (of, metric) not in self._packs:
            groups: dict[tuple[int, str | None], list[int]] = {}
            series = [self.telemetry.of(part, metric) for part in parts]
            late = {tray for stretch in self.telemetry.stretches for tray, _, _ in stretch.own}
            for i, one in enumerate(series):
                tray = parts[i].split(".", 1)[0]
                groups.setdefault((id(one.t_s), tray if tray in late else None), []).append(i)
            self._packs[of, metric] = [
                Pack(parts[rows[0]], np.array(rows), series[rows[0]].t_s, np.stack([series[i].v for i in rows]))
                for rows in groups.values()
            ]
        return self._packs[of, metric]

    def once_for_all(self, name: str, see: Callable[[], list[Finding]]) -> list[Finding]:
        """Findings of a signature; where it compared nothing with a family they are the same with any baseline and any tail."""
        if name in self._told:
            return self._told[name]
        self._compared = False
        found = see()
        if not self._compared:
            self._told[name] = found
        return found

    def pairs(self) -> list[tuple[Stretch, Stretch]]:
        """Every load stretch with the last idle stretch that ended before it began."""
        out = []
        for load in self.telemetry.phase("load"):
            idle = [s for s in self.telemetry.phase("idle") if s.t1_s <= load.t0_s]
            if idle:
                out.append((idle[-1], load))
        return out

    def free(self) -> list[tuple[Stretch, Stretch]]:
        """Those pairs whose load was not at a locked clock."""
        return [(idle, load) for idle, load in self.pairs() if "@" not in load.phase]

    def loaded(self, idle: Stretch, load: Stretch) -> NDArray[np.bool_]:
        """GPUs of which is known that they were loaded in this stretch."""
        missed = self.unloaded.get(load.stage, frozenset())
        rise = self.mean("gpu.power", load) - self.mean("gpu.power", idle)
        reached = np.array([[gpu not in missed for gpu in row] for row in self.gpus])
        return reached & (rise >= MIN_RISE_W)  # False for NaN

    def slopes(self, idle: Stretch, load: Stretch) -> Floats:
        """Thermal resistance of every loaded GPU in K/W."""
        heat = self.mean("gpu.power", load) - self.mean("gpu.power", idle)
        rise = self.mean("gpu.temp", load) - self.mean("gpu.temp", idle)
        return np.where(self.loaded(idle, load), rise / np.where(heat >= MIN_RISE_W, heat, np.nan), np.nan)

    def family(
        self, name: str, phase: str, values: Floats, least: float, taken: Floats | None = None, keep: bool = True
    ) -> Family:
        """Every GPU among its peers: less the rack's median, its slot's and its tray's share. sigma is never below `least`.

        `taken`: trays that are taken away as a whole (1.0); `keep`: a baseline learns from it.
        """
        learned = self._learned(name, phase, values) if keep else self._known(name, phase)
        rest = placed(values, learned if self.same else None)
        tray = medians(rest)
        within, between = sigma((rest - tray[:, None]).ravel(), least), sigma(tray, 0.0)
        if learned is not None and self.same:
            within, between = max(least, learned.within), learned.trays
        own = alone(rest, within, between, taken)
        return self._spread(own, learned.own if learned else 0.0, learned, least)

    def placed(self, name: str, phase: str, values: Floats) -> Floats:
        """A grid less what slots (and positions, where a baseline of the same parts knows them) add."""
        learned = self._known(name, phase)
        return placed(values, learned if self.same else None)

    def shared(self, name: str, phase: str, values: Floats, least: float) -> Family:
        """Every tray among the trays: what its GPUs share, less the trend along the rack or what its position is known to add.

        Where two GPUs or fewer were measured nothing is said of what four share. Learned under the name of its GPUs' family.
        """
        learned = self._known(name, phase)
        tray = medians(placed(values, learned if self.same else None))
        tray = np.where(np.count_nonzero(~np.isnan(values), axis=1) * 2 > values.shape[1], tray, np.nan)
        rest = tray if learned is not None and self.same else without_trend(tray, np.arange(tray.size, dtype=float))
        return self._spread(rest, learned.trays if learned else 0.0, learned, least)

    def level(self, name: str, phase: str, value: float) -> Learned | None:
        """Notes a number of the whole rack for a baseline; gives what racks like it have, where that is known."""
        known = self._learned(name, phase, np.array([[value]]))
        return known if self.same else None

    def spread(self, name: str, phase: str, own: Floats, least: float) -> Family:
        """Residuals of any shape that are already apart from what they share; a baseline learns their spread alone. What they
        share was the median of those in one slot, or of one GPU's links: so many draw it to themselves."""
        flat = own.reshape(1, -1)
        known = self._learned(name, phase, flat)
        return self._spread(own, known.own if known else 0.0, known, least, own.shape[2] if own.ndim == 3 else own.shape[0])

    def _spread(self, own: Floats, fleet: float, learned: Learned | None, least: float, drawn: int = 0) -> Family:
        here = sigma(own.ravel(), least)
        count = int(np.count_nonzero(~np.isnan(own)))
        dof = max(1.0, MAD_DOF * (count - 1))
        tail = tail_of(own.ravel(), here) if count >= TAIL_PARTS else UNKNOWN
        # What is far out does not draw the middle of its peers to itself, as those do whose residuals sigma is of: 2 / n. Limits
        # without a baseline have that in them (MAD_DOF) where its peers are the whole family.
        if learned is None:
            return Family(own, here * float(np.sqrt(1 + 2 / drawn)) if 0 < drawn < count else here, dof, tail)
        if learned.parts >= TAIL_PARTS and self.same:  # other parts may have another tail
            told = GAUSS if learned.tail is None else learned.tail
            tail = told if tail == UNKNOWN else tail if told == UNKNOWN else min(tail, told)
        known = worth(learned) * (1.0 if self.same else OTHER_WORTH)
        fleet = max(least, fleet) * float(np.sqrt(1 + 1 / learned.racks + 2 / max(min(count, drawn or count), 1)))
        if not self.same:
            fleet = max(fleet, here)
        mixed = float(np.sqrt((known * fleet**2 + dof * here**2) / (known + dof)))
        return Family(own, mixed, known + dof, tail, learned.skew if self.same and tail == GAUSS else 0.0)

    def _learned(self, name: str, phase: str, values: Floats) -> Learned | None:
        self.learned.setdefault((name, kind_of(phase)), []).append(values)
        return self._known(name, phase)

    def _known(self, name: str, phase: str) -> Learned | None:
        self._compared = True
        return self.baseline.of(name, phase) if self.baseline is not None else None

    def enough(self, values: Floats) -> bool:
        """True when enough trays were measured to have a family."""
        return int(np.count_nonzero((~np.isnan(values)).any(axis=1))) >= MIN_TRAYS


def unrest(power: Series) -> float:
    """Standard deviation / mean: a power that jumps between readings has a mean that its readings do not know."""
    known = power.known()
    return float(known.std() / known.mean()) if known.size and known.mean() > 0 else float("nan")


def _growths(t_s: Floats, v: Floats) -> Floats:
    if t_s.size < 2:
        return np.full(len(v), np.nan)
    steps = np.diff(v)
    out: Floats = np.where(steps >= 0, steps, v[:, 1:]).sum(axis=1)
    return out


def _rates(t_s: Floats, v: Floats) -> Floats:
    span = float(t_s[-1] - t_s[0])
    return _growths(t_s, v) / span if span > 0 else np.full(len(v), np.nan)


def _unrest(t_s: Floats, v: Floats) -> Floats:
    mean = v.mean(axis=1)
    return np.where(mean > 0, v.std(axis=1) / np.where(mean > 0, mean, 1.0), np.nan)


_AT_ONCE: Mapping[Callable[[Series], float], Callable[[Floats, Floats], Floats]] = {
    Series.lowest: lambda t_s, v: v.min(axis=1),
    Series.highest: lambda t_s, v: v.max(axis=1),
    Series.growth: _growths,
    Series.rate: _rates,
    unrest: _unrest,
}
"""The same of many rows that were read at the same times, where nothing is missing: as right, and much faster."""
