"""What signatures look at: the rack as grids of GPUs (rows: trays, columns: slots), one number each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from burnin.rack.schema import Topology
from burnin.telemetry.series import Floats, Series, Stretch, Telemetry

MIN_RISE_W = 50.0
"""A GPU whose power rose by less was not loaded: what is divided by it would be noise."""
MIN_TRAYS = 6
"""Fewer trays have no family to be out of."""


class Readings:
    """One run's telemetry by tray and slot; means are computed once. `unloaded`: stage -> GPUs whose load was not reached."""

    def __init__(self, telemetry: Telemetry, topology: Topology, unloaded: Mapping[str, frozenset[str]]) -> None:
        self.telemetry, self.topology, self.unloaded = telemetry, topology, unloaded
        self.trays = topology.trays()
        self.gpus = [topology.gpus(tray) for tray in self.trays]
        self._means: dict[tuple[str, Stretch], Floats] = {}

    def grid(self, value: Callable[[str], float]) -> Floats:
        """`value` of every GPU."""
        return np.array([[value(gpu) for gpu in row] for row in self.gpus])

    def of(self, metric: str, stretch: Stretch, value: Callable[[Series], float]) -> Floats:
        """`value` of every GPU's readings of one metric in a stretch's judged window; NaN is left to `value`."""
        return self.grid(lambda gpu: value(self.telemetry.window(gpu, metric, stretch)))

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

    def enough(self, values: Floats) -> bool:
        """True when enough trays were measured to have a family."""
        return int(np.count_nonzero((~np.isnan(values)).any(axis=1))) >= MIN_TRAYS


def share(series: Series) -> float:
    """By how many seconds a counter of seconds grew per second; NaN with fewer than two readings."""
    span = float(series.t_s[-1] - series.t_s[0]) if series.t_s.size > 1 else 0.0
    return series.growth() / span if span > 0 else float("nan")
