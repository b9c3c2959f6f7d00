"""The coolant loop: pumps against filter, heat exchanger and manifold; how flow parts among trays; what comes back, how warm.

The functions are pure and take numbers or arrays. `Loop` steps them with a given dt: it is told the heat of every branch and
tells flow and temperatures. No clock and no chance of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from burnin.twin import model as facts
from burnin.twin.model import Model
from burnin.twin.physics import TrayDraw

Number = TypeVar("Number", float, NDArray[np.float64])


def branch_flow(nominal_lpm: Number, dp_kpa: Number, loop: facts.Loop) -> Number:
    """Flow of a branch at this pressure difference, L/min."""
    share: Number = (dp_kpa / loop.dp_kpa) ** (1 / loop.dp_exponent)
    return nominal_lpm * share


def resisted(flow_lpm: float, open_lpm: float, loop: facts.Loop) -> float:
    """Pressure difference across a manifold whose branches take `open_lpm` in all at the nominal one, kPa."""
    return float(loop.dp_kpa * (flow_lpm / open_lpm) ** loop.dp_exponent) if open_lpm > 0 else math.inf


def lost(flow_lpm: float, nominal_lpm: float, loop: facts.Loop, clog: float = 1.0) -> float:
    """Pressure lost in pumps, heat exchanger and filter, kPa; `clog`: how many times a clean filter's."""
    return (loop.pump_loss_kpa + loop.filter_kpa * clog) * (flow_lpm / nominal_lpm) ** 2


def delivered(speed: float, open_lpm: float, nominal_lpm: float, loop: facts.Loop, clog: float = 1.0) -> float:
    """Flow at which the pumps' pressure is used up, L/min. `speed`: share of the full one; 0 where nothing can flow."""
    head = loop.pump_head_kpa * speed * speed
    if head <= 0 or open_lpm <= 0 or math.isinf(clog):
        return 0.0
    low, high = 0.0, nominal_lpm * math.sqrt(head / (loop.pump_loss_kpa + loop.filter_kpa * clog))
    for _ in range(48):
        middle = (low + high) / 2
        if lost(middle, nominal_lpm, loop, clog) + resisted(middle, open_lpm, loop) < head:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def needed_speed(dp_kpa: float, open_lpm: float, nominal_lpm: float, loop: facts.Loop, clog: float = 1.0) -> float:
    """Share of full speed at which the pumps hold this pressure difference; 1 at most."""
    if math.isinf(clog):
        return 1.0
    flow = branch_flow(open_lpm, dp_kpa, loop)
    return min(1.0, math.sqrt((dp_kpa + lost(flow, nominal_lpm, loop, clog)) / loop.pump_head_kpa))


def clogged(share_lost: float, open_lpm: float, nominal_lpm: float, loop: facts.Loop) -> float:
    """How clogged a filter is that leaves 1 - `share_lost` of the nominal pressure difference at the pumps' full speed."""
    dp = loop.dp_kpa * (1 - share_lost)
    if dp <= 0:
        return math.inf
    per_clog = loop.filter_kpa * (branch_flow(open_lpm, dp, loop) / nominal_lpm) ** 2
    return max(1.0, (loop.pump_head_kpa - dp - lost(branch_flow(open_lpm, dp, loop), nominal_lpm, loop, 0.0)) / per_clog)


def rise(heat_w: Number, flow_lpm: Number, w_per_k_per_lpm: float) -> Number:
    """How much warmer coolant leaves than it came, K."""
    return heat_w / (flow_lpm * w_per_k_per_lpm)


class Loop:
    """The loop of one rack in motion: compute trays' branches first, then switch trays'. Give heat, read the rest."""

    def __init__(self, model: Model, draws: Sequence[TrayDraw]) -> None:
        assert model.loop is not None
        self._facts, self._w_per_k_per_lpm = model.loop, model.coolant.w_per_k_per_lpm
        self.nominal = [draw.flow_lpm for draw in draws] + [model.loop.switch_lpm] * model.topology.switch_trays
        self.nominal_lpm = model.coolant.tray_lpm * len(draws) + model.loop.switch_lpm * model.topology.switch_trays
        self._stagnant = model.thermal.stagnant
        self.set_c = self.supply_c = self.return_c = model.coolant.supply_c
        self.pumps, self.clog, self.swing = 1.0, 1.0, 0.0
        """Share of the wished speed that the pumps have (0: off); clogging of the filter; present swing of the speed."""
        self.speed = needed_speed(model.loop.dp_kpa, sum(self.nominal), self.nominal_lpm, model.loop)
        self.flow_lpm = self.dp_kpa = self.filter_kpa = self.heat_w = 0.0
        self.flows: list[float] = []
        self.return_cs = [self.supply_c] * len(self.nominal)
        self._distribute()

    def step(self, dt_s: float, heats_w: Sequence[float]) -> None:
        """Advance by dt with this heat in each branch."""
        loop = self._facts
        wish = needed_speed(loop.dp_kpa, sum(self.nominal), self.nominal_lpm, loop, self.clog)
        self.speed += (wish - self.speed) * dt_s / (dt_s + loop.tau_pump_s)
        self.supply_c += (self.set_c - self.supply_c) * dt_s / (dt_s + loop.tau_supply_s)
        self._distribute()
        for i, (heat, flow) in enumerate(zip(heats_w, self.flows, strict=True)):
            least = self._stagnant * self.nominal[i] if self.nominal[i] > 0 else self._stagnant
            self.return_cs[i] = self.supply_c + rise(heat, max(flow, least), self._w_per_k_per_lpm)
        if self.flow_lpm > 0:
            mixed = sum(c * q for c, q in zip(self.return_cs, self.flows, strict=True)) / self.flow_lpm
            tau_s = loop.volume_l / 4 / self.flow_lpm * 60  # a quarter of the coolant stands between trays and sensor
            self.return_c += (mixed - self.return_c) * dt_s / (dt_s + tau_s)
        self.heat_w = self.flow_lpm * self._w_per_k_per_lpm * (self.return_c - self.supply_c)

    def _distribute(self) -> None:
        loop, speed = self._facts, self.speed * self.pumps * (1 + self.swing)
        self.flow_lpm = delivered(speed, sum(self.nominal), self.nominal_lpm, loop, self.clog)
        self.dp_kpa = resisted(self.flow_lpm, sum(self.nominal), loop) if self.flow_lpm > 0 else 0.0
        self.filter_kpa = 0.0
        if self.flow_lpm > 0:
            self.filter_kpa = loop.filter_kpa * self.clog * (self.flow_lpm / self.nominal_lpm) ** 2
        self.flows = [branch_flow(nominal, self.dp_kpa, loop) for nominal in self.nominal]

    @property
    def pressure_kpa(self) -> float:
        """Static pressure of the supply less that of the return is `dp_kpa`."""
        return self._facts.return_kpa + self.dp_kpa
