"""NVLinks that are weak: what their counters do. Time is passed in.

Errors after correction grow steeply with the margin that is lost. The two numbers below are ours (assumed, no published
curve): none worth counting on a healthy link, and DCGM's failing rate of 1e-12 at 2 dB less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from burnin.twin.faults import Plant
from burnin.twin.state import Row

LINK_KINDS = ("link_margin", "lane_flap")
_HEALTHY_LOG10, _PER_DB = -15.0, 1.5
_ATTO = 1e18
_SYMBOL_BITS = 10


def each_link(plant: Plant, links: int) -> list[Plant]:
    """The fault, or one for each link where it is in a whole GPU."""
    if plant.part.count(".") > 1:
        return [plant]
    return [replace(plant, part=f"{plant.part}.l{link}") for link in range(links)]


def link_row(links: Sequence[Sequence[Row]], plant: Plant) -> Row:
    """The counters of the link that a fault is planted in (t07.g2.l13)."""
    _, gpu, link = plant.part.split(".")
    return links[int(gpu[1:])][int(link[1:])]


def error_rate(lost_db: float) -> float:
    """Share of bits wrong after error correction on a link that has lost so much margin."""
    return float(10 ** (_HEALTHY_LOG10 + _PER_DB * lost_db))


class Link:
    """One weak link in motion."""

    def __init__(self, links: Sequence[Sequence[Row]], plant: Plant, mb_per_s: int) -> None:
        self._row, self._plant, self._bits_per_s = link_row(links, plant), plant, mb_per_s * 8e6
        self._due = dict.fromkeys(("effective_errors", "symbol_errors", "recovery_ok"), 0.0)
        if plant.kind == "link_margin":
            self._rate = error_rate(plant.severity)
            self._row["effective_ber"] = self._row["symbol_ber"] = max(1, int(self._rate * _ATTO))

    def step(self, dt_s: float, loaded: bool) -> None:
        """A margin errs all the time, idle patterns included; lanes flap once the rack has been loaded."""
        if self._plant.kind == "link_margin":
            self._count("effective_errors", self._rate * self._bits_per_s * dt_s)
            self._count("symbol_errors", self._rate * self._bits_per_s / _SYMBOL_BITS * dt_s)
        elif loaded:
            self._count("recovery_ok", self._plant.severity / 60 * dt_s)

    def _count(self, name: str, more: float) -> None:
        self._due[name] += more
        whole = int(self._due[name])
        self._due[name] -= whole
        self._row[name] += whole
