"""NVLinks of a live tray: their raw error rates, and what the counters of weak ones do. Time is passed in.

Margins and laws are those of recorded racks (`population`): the same seed has the same links there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from burnin.telemetry.series import Floats
from burnin.twin import laws
from burnin.twin.faults import Plant
from burnin.twin.model import Model
from burnin.twin.population import Chance, bursts_per_s, margins, population, post_fec_per_s
from burnin.twin.state import Row

LINK_KINDS = ("link_margin", "lane_flap")
_ATTO = 1e18
_BREATH_NS = 1_000_000_000


def each_link(plant: Plant, links: int) -> list[Plant]:
    """The fault, or one for each link where it is in a whole GPU."""
    if plant.part.count(".") > 1:
        return [plant]
    return [replace(plant, part=f"{plant.part}.l{link}") for link in range(links)]


def link_row(links: Sequence[Sequence[Row]], plant: Plant) -> Row:
    """The counters of the link that a fault is planted in (t07.g2.l13)."""
    _, gpu, link = plant.part.split(".")
    return links[int(gpu[1:])][int(link[1:])]


def words_per_s(lost_db: float) -> float:
    """Code words a second that bursts cost on a link that has lost so much margin: the mean."""
    return float(bursts_per_s(np.array(lost_db))) * population().links.burst.words


class Links:
    """All links of one tray in motion."""

    def __init__(
        self, links: Sequence[Sequence[Row]], model: Model, name: str, plants: Sequence[Plant], seed: int, chance: Random
    ) -> None:
        first, each, count = int(name[1:]) * len(links), len(links), model.gpu.nvlinks
        weak = [one for plant in plants if plant.kind in LINK_KINDS for one in each_link(plant, count)]
        self._snr: Floats = margins(model, Chance(seed), weak)[first : first + each] if count else np.zeros((each, 0))
        self._rows, self._chance, self._breathed_ns = links, chance, -_BREATH_NS
        self._decades = population().links.repeat_decades
        self._weak = [Link(link_row(links, one), one, self._margin(one), model.gpu.nvlink_mbps, chance) for one in weak]

    def _margin(self, plant: Plant) -> float:
        _, gpu, link = plant.part.split(".")
        return float(self._snr[int(gpu[1:]), int(link[1:])])

    def step(self, now_ns: int, dt_s: float, loaded: bool) -> None:
        """Bring them to `now_ns`."""
        for link in self._weak:
            link.step(dt_s, loaded)
        if self._snr.size and now_ns - self._breathed_ns >= _BREATH_NS:
            self._breathed_ns = now_ns
            for rows, rates in zip(self._rows, laws.raw_ber(self._snr).tolist(), strict=True):
                for row, rate in zip(rows, rates):  # noqa: B905 - there are rows for more links than most GPUs have
                    row["raw_ber"] = int(min(rate * 10 ** (self._decades * self._chance.gauss(0, 1)), 0.5) * _ATTO)


class Link:
    """One weak link in motion. `snr_db`: its margin with the fault in it."""

    def __init__(self, row: Row, plant: Plant, snr_db: float, mb_per_s: int, chance: Random) -> None:
        self._row, self._plant, self._chance, self._bits_per_s = row, plant, chance, mb_per_s * 8e6
        self._bursts_per_s = self._random_per_s = self._ran_s = self._random = 0.0
        if plant.kind == "link_margin":
            self._bursts_per_s = float(bursts_per_s(np.array(plant.severity)))
            self._random_per_s = float(post_fec_per_s(laws.raw_ber(np.array(snr_db)), mb_per_s))
        self._burst_s = self._next()
        self._lost = 0
        self._flaps = 0.0

    def _next(self) -> float:
        return self._chance.expovariate(self._bursts_per_s) if self._bursts_per_s else math.inf

    def step(self, dt_s: float, loaded: bool) -> None:
        """A margin errs all the time, idle patterns included; lanes flap once the rack has been loaded."""
        if self._plant.kind == "link_margin":
            self._err(dt_s)
        elif loaded:
            self._flaps += self._plant.severity / 60 * dt_s
            whole = int(self._flaps)
            self._flaps -= whole
            self._row["recovery_ok"] += whole

    def _err(self, dt_s: float) -> None:
        self._ran_s += dt_s
        self._random += self._random_per_s * dt_s
        more = int(self._random)
        self._random -= more
        self._burst_s -= dt_s
        while self._burst_s <= 0:
            self._burst_s += self._next()
            more += 1 + int(math.log(1 - self._chance.random()) / math.log(1 - 1 / population().links.burst.words))
        if more:
            self._lost += more
            self._row["effective_errors"] += more
            self._row["symbol_errors"] += more
        if self._lost:
            rate = self._lost / (self._bits_per_s * self._ran_s)
            self._row["effective_ber"] = self._row["symbol_ber"] = max(1, int(rate * _ATTO))
