"""What signatures look at: the rack as grids of GPUs (rows: trays, columns: slots), one number each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnin.rack.schema import Topology
from burnin.signatures.baseline import OTHER_WORTH, Baseline, Learned, alone, kind_of, placed, worth
from burnin.signatures.robust import medians, reach, sigma, without_trend
from burnin.signatures.tails import GAUSS, MAD_DOF, TAIL_PARTS, tail_of
from burnin.telemetry.series import Floats, Series, Stretch, Telemetry

MIN_RISE_W = 50.0
"""A GPU whose power rose by less was not loaded: what is divided by it would be noise."""
MIN_TRAYS = 6
"""Fewer trays have no family to be out of."""
POOL_PARTS = 280
"""So many parts, over all families of a rack, say something about its tails."""
POOLED = ("thermal.rth", "thermal.hbm.memory", "power.leak", "clock.weak", "sensor.offset", "perf.slow", "bandwidth.gpu")
"""Families that say something different each: what shares a cause would count one heavy part several times."""
POOL_DOUBT = 3.4
"""Standard errors: 2.5, and a third more because each family's sigma is itself known to an eighth."""


@dataclass(frozen=True, slots=True)
class Family:
    """Parts among their peers: what each has for itself, the family's robust sigma, how well it is known (degrees of freedom of
    Student's t), and what the tail of healthy parts is like (degrees of freedom, GAUSS)."""

    own: Floats
    sigma: float
    dof: float
    tail: float = GAUSS


class Readings:
    """One run's telemetry by tray and slot; means are computed once. `unloaded`: stage -> GPUs whose load was not reached.

    `baseline`: what other racks were like; `same`: they were of this SKU, revision and firmware. `learned` is what this rack
    would add to one: (comparison, kind of phase) -> grids, one per look. `like`: the same telemetry, looked at before.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        topology: Topology,
        unloaded: Mapping[str, frozenset[str]],
        baseline: Baseline | None = None,
        same: bool = True,
        like: Readings | None = None,
    ) -> None:
        self.telemetry, self.topology, self.unloaded = telemetry, topology, unloaded
        self.baseline, self.same = baseline, same
        self.learned: dict[tuple[str, str], list[Floats]] = {}
        self.tail = GAUSS
        self._pool: dict[tuple[str, str], Floats] = {}
        self.trays = topology.trays()
        self.gpus = [topology.gpus(tray) for tray in self.trays]
        self._means: dict[tuple[str, Stretch], Floats] = like._means if like else {}
        self._once: dict[tuple[str, Stretch], Floats] = like._once if like else {}

    def grid(self, value: Callable[[str], float]) -> Floats:
        """`value` of every GPU."""
        return np.array([[value(gpu) for gpu in row] for row in self.gpus])

    def of(self, metric: str, stretch: Stretch, value: Callable[[Series], float]) -> Floats:
        """`value` of every GPU's readings of one metric in a stretch's judged window; NaN is left to `value`."""
        return self.grid(lambda gpu: value(self.telemetry.window(gpu, metric, stretch)))

    def once(self, name: str, stretch: Stretch, value: Callable[[], Floats]) -> Floats:
        """Something costly about a stretch, computed once."""
        if (name, stretch) not in self._once:
            self._once[name, stretch] = value()
        return self._once[name, stretch]

    def seen(self, name: str, stretch: Stretch) -> Floats | None:
        """What `once` computed, if it did."""
        return self._once.get((name, stretch))

    def mean(self, metric: str, stretch: Stretch) -> Floats:
        """Mean of every GPU's readings in a stretch's judged window; NaN where there are none."""
        key = (metric, stretch)
        if key not in self._means:
            self._means[key] = self.of(metric, stretch, Series.mean)
        return self._means[key]

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
        out = self._spread(own, learned.own if learned else 0.0, learned, least)
        if keep and self.enough(own) and out.sigma > least and name in POOLED:
            self._pool.setdefault((name, kind_of(phase)), own.ravel() / out.sigma)
        return out

    def heavy(self) -> bool:
        """Notes what tail the parts of this rack show over all families together; True when it is a heavy one.

        One family of 72 parts cannot show it, half a dozen can: limits then grow to what such parts hold when healthy.
        """
        pool = np.array(list(self._pool.values()))
        if pool.size:
            furthest = int(np.argmax(np.nan_to_num(np.abs(pool)).max(axis=0)))
            pool = np.delete(pool, furthest, axis=1)  # one weak part is what we look for, not what its peers are like
        self.tail = tail_of(*reach(pool.ravel(), 1.0), least=POOL_PARTS, doubt=POOL_DOUBT)
        if self.tail != GAUSS:
            self.learned.clear()  # it will be looked at once more
        return self.tail != GAUSS

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
        """Residuals of any shape that are already apart from what they share; a baseline learns their spread alone."""
        flat = own.reshape(1, -1)
        return self._spread(own, (known.own if (known := self._learned(name, phase, flat)) else 0.0), known, least)

    def _spread(self, own: Floats, fleet: float, learned: Learned | None, least: float) -> Family:
        here = sigma(own.ravel(), least)
        count = int(np.count_nonzero(~np.isnan(own)))
        dof = max(1.0, MAD_DOF * (count - 1))
        tail = tail_of(*reach(own.ravel(), here)) if count >= TAIL_PARTS else self.tail
        if learned is None:
            return Family(own, here, dof, tail)
        tail = min(tail, learned.tail or GAUSS)
        known = worth(learned) * (1.0 if self.same else OTHER_WORTH)
        fleet = max(least, fleet) * float(np.sqrt(1 + 1 / learned.racks))
        if not self.same:
            fleet = max(fleet, here)
        mixed = float(np.sqrt((known * fleet**2 + dof * here**2) / (known + dof)))
        return Family(own, mixed, known + dof, tail)

    def _learned(self, name: str, phase: str, values: Floats) -> Learned | None:
        self.learned.setdefault((name, kind_of(phase)), []).append(values)
        return self._known(name, phase)

    def _known(self, name: str, phase: str) -> Learned | None:
        return self.baseline.of(name, phase) if self.baseline is not None else None

    def enough(self, values: Floats) -> bool:
        """True when enough trays were measured to have a family."""
        return int(np.count_nonzero((~np.isnan(values)).any(axis=1))) >= MIN_TRAYS


def share(series: Series) -> float:
    """By how many seconds a counter of seconds grew per second; NaN with fewer than two readings."""
    span = float(series.t_s[-1] - series.t_s[0]) if series.t_s.size > 1 else 0.0
    return series.growth() / span if span > 0 else float("nan")
