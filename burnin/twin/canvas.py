"""What is written down of one rack while it is made: series by part and metric, and a log. Faults paint over it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from burnin.events import LogLine
from burnin.telemetry.series import Floats, Series
from burnin.twin.faults import Plant
from burnin.twin.model import Model
from burnin.twin.plan import Plan
from burnin.twin.population import Chance


class Canvas:
    """One rack's series and log. GPUs and links are named in the order of the arrays' rows."""

    def __init__(self, model: Model, plan: Plan, chance: Chance) -> None:
        self.model, self.plan, self.chance = model, plan, chance
        self.gpus = [gpu for tray in model.topology.trays() for gpu in model.topology.gpus(tray)]
        self.links = [f"{gpu}.l{link}" for gpu in self.gpus for link in range(model.gpu.nvlinks)]
        self.series: dict[tuple[str, str], Series] = {}
        self.log: list[LogLine] = []
        self.lost: dict[str, int] = {}
        """Link -> code words that correction could not mend."""
        self.watts = np.zeros((len(self.gpus), plan.t.size))
        """What every GPU really takes."""
        self.tray_lpm = 0.0
        """Flow through all compute trays while the pumps hold their pressure."""

    def noise(self, purpose: str) -> Floats:
        """Standard normal, one value per GPU and reading; its own stream, whatever else is drawn."""
        shape = (len(self.gpus), self.plan.t.size)
        return self.chance.stream("noise." + purpose).standard_normal(shape, dtype=np.float32).astype(float)

    def rows(self, metric: str, values: Floats) -> None:
        """One row per GPU."""
        for gpu, row in zip(self.gpus, values, strict=True):
            self.series[gpu, metric] = Series(self.plan.t, row)

    def counter(self, metric: str, by: Floats, whole: bool = False) -> None:
        """Counters that grow by so much in each reading's cell; read in its middle. `whole`: they count."""
        total = np.cumsum(by, axis=1) - by / 2
        self.rows(metric, np.floor(total) if whole else np.round(total, 6))

    def same(self, metric: str, value: float) -> None:
        """One value for all GPUs, at all times."""
        one = Series(self.plan.t, np.full(self.plan.t.size, float(value)))
        self.series.update({(gpu, metric): one for gpu in self.gpus})

    def all_links(self, metric: str, values: float | Floats) -> None:
        """One value for all links, or one for each reading."""
        one = Series(self.plan.minutes, np.broadcast_to(np.asarray(values, float), self.plan.minutes.shape))
        self.series.update({(link, metric): one for link in self.links})

    def around(self, part: str, metric: str, values: float | Floats) -> None:
        """What stands around, at the minutes."""
        shape = self.plan.minutes.shape
        self.series[part, metric] = Series(self.plan.minutes, np.asarray(np.broadcast_to(np.asarray(values, float), shape)))

    # ---- what faults do to it

    def grown(self, plant: Plant, t_s: Floats) -> Floats:
        """How much of its severity a fault has at these times, 0 to 1."""
        return plant.part_of_full(t_s - self.plan.first_load_s)

    def begins(self, plant: Plant) -> float:
        """When it begins, in seconds since the run began."""
        return 0.0 if plant.start_s is None else self.plan.first_load_s + plant.start_s

    def change(self, part: str, metric: str, to: Callable[[Floats, Floats], Floats]) -> None:
        """A new series of (times, values); nothing where there is none."""
        one = self.series.get((part, metric))
        if one is not None:
            self.series[part, metric] = Series(one.t_s, np.asarray(to(one.t_s, one.v), float))

    def count(self, part: str, metric: str, times: Floats) -> None:
        """A counter that grows by one at each of these times."""
        rising = np.sort(times)
        self.change(part, metric, lambda t, v: v + np.searchsorted(rising, t, side="right"))

    def add(self, part: str, metric: str, start_s: float, by: float) -> None:
        """So much more from a moment on."""
        self.change(part, metric, lambda t, v: v + by * (t >= start_s))

    def silence(self, part: str, start_s: float) -> None:
        """Nothing more is read of a part, nor of anything in it."""
        prefix = part + "."
        for key, one in list(self.series.items()):
            if key[0] == part or key[0].startswith(prefix):
                self.series[key] = one.between(-np.inf, start_s)

    def say(self, part: str, t_s: float, kind: str, code: str, text: str, source: str) -> None:
        """One line of the log."""
        self.log.append(LogLine(part, round(float(t_s), 3), kind, code, text, source))
