"""What stands around a rack's trays, in motion: coolant loop, switch trays' heat, power shelves, leak detectors, their faults.

Reads what each tray gives off, moves the loop, publishes what every tray gets and what the sensors say. Time is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from burnin.rack.parts import kind, tray_of
from burnin.twin.faults import Plant
from burnin.twin.loop import Loop, clogged
from burnin.twin.model import Model
from burnin.twin.physics import Tray, TrayDraw, draw
from burnin.twin.rackstate import FloatRow, RackState

DRY_V, WET_V = 1.7265, 0.35
"""A leak detector's voltage: dry as captured; wet is an assumption (below the captured lower threshold)."""
DETECTORS = {"compute tray": 4, "switch tray": 8}
LOADED = 0.2
"""Activity of one GPU's tray from which on the rack counts as loaded."""
STALE_S = 3.0
"""A tray that wrote nothing for so long is dark."""
_DRIP_ML = 1.0
"""What must have leaked until a detector is wet."""
_SPREAD_S, _WET_TAU_S = 20.0, 0.3
_SWING_S = 24.0
_LEVEL = 0.9


class Facility:
    """One rack's surroundings: call `step` about ten times a second with CLOCK_MONOTONIC in seconds."""

    def __init__(
        self,
        model: Model,
        draws: Mapping[str, TrayDraw],
        plants: Sequence[Plant],
        state: RackState,
        seed: int,
        served: Collection[str],
    ) -> None:
        """`served`: trays that write their heat; the others of the rack stand idle, for ever."""
        assert model.loop is not None and model.housing is not None
        self._model, self._facts, self._housing, self.state = model, model.loop, model.housing, state
        self._chance = chance = Random(f"{model.profile}/{seed}/facility")
        self.loop = Loop(model, list(draws.values()))
        self._healthy = list(self.loop.nominal)
        self._parts = [*draws, *model.topology.switches()]
        self._served = set(served)
        idle = Tray(model, draw(model, seed)["t00"], Random(0))  # as nothing is planted in it
        idle.step(40, [0.0] * model.topology.gpus_per_tray)
        self._idle_w = idle.power_w
        self._gain = 1 + chance.gauss(0, self._facts.flow_gain)
        self._supply_off, self._return_off = (chance.gauss(0, self._facts.rtd_k) for _ in range(2))
        self._share = [chance.gauss(1, self._housing.psu_share) for _ in state.psus]
        self._dry = {part: [chance.gauss(DRY_V, 0.008) for _ in range(DETECTORS[kind(part)])] for part in self._parts}
        self._wet = {plant.part: Random(f"{model.profile}/{seed}/{plant}").randrange(1000) for plant in plants}
        self._plants = [plant for plant in plants if plant.kind in _ACTS]
        self._level, self._decayed_kpa = _LEVEL, 0.0
        self._now_s: float | None = None
        self._begin_s = 0.0
        self._load_s: float | None = None
        self._volts: dict[str, list[float]] = {}
        self._shares: list[float] = []
        self._alone_s: dict[str, float] = {}
        self._heats = [0.0] * len(self._parts)
        for row in state.trays:
            row["power_w"] = row["liquid_w"] = self._idle_w
        self._gather(0.0)
        for _ in range(60):  # it has been running for long
            self.loop.step(20, self._heats)

    def step(self, now_s: float) -> None:
        """Bring everything to `now_s`."""
        dt = min(max(now_s - self._now_s, 1e-3), 20.0) if self._now_s is not None else 0.1
        if self._now_s is None:
            self._begin_s = now_s
        self._now_s = now_s
        activity = self._gather(now_s)
        if self._load_s is None and activity >= LOADED:
            self._load_s = now_s
            self.state.head["load_s"] = now_s
        self._rest()
        for plant in self._plants:
            began = self.began_s(plant)
            if began is not None and now_s >= began:
                _ACTS[plant.kind](self, self._grown(plant, now_s), now_s - began, dt)
        self.loop.step(dt, self._heats)
        self._publish(activity)
        self.state.head["beat_s"] = now_s

    def began_s(self, plant: Plant) -> float | None:
        """When a fault begins: at once, or so long after the rack's first load; None while that is unknown."""
        if plant.start_s is None:
            return self._begin_s
        return None if self._load_s is None else self._load_s + plant.start_s

    def _grown(self, plant: Plant, now_s: float) -> Plant:
        """As severe as it is by now."""
        if plant.growth == "step" or self._load_s is None:
            return plant
        share = float(plant.part_of_full(np.array([now_s - self._load_s]))[0])
        return replace(plant, severity=max(plant.severity * share, 1e-9))

    # ---- what trays give off

    def _gather(self, now_s: float) -> float:
        """Heat of every branch, and the greatest mean activity of a tray."""
        state, housing = self.state, self._housing
        trays = self._parts[: len(state.trays)]
        most = total = 0.0
        for i, (part, row) in enumerate(zip(trays, state.trays, strict=True)):
            alive = part in self._served and now_s - row["beat_s"] < STALE_S
            if part not in self._served or (row["hung"] and not row["off"]):
                row["activity"] = 0.0
                row["power_w"] = row["liquid_w"] = self._idle_w
            elif not alive and now_s - self._begin_s > STALE_S:
                row["power_w"] = row["liquid_w"] = row["activity"] = 0.0
            row["air_w"] = housing.tray_air_w if row["power_w"] > 0 else 0.0
            self._heats[i] = row["liquid_w"]
            most, total = max(most, row["activity"]), total + row["activity"]
        mean = total / len(trays)
        for i, row in enumerate(state.switches):
            row["power_w"] = row["liquid_w"] = housing.switch_idle_w + (housing.switch_load_w - housing.switch_idle_w) * mean
            self._heats[len(trays) + i] = row["liquid_w"]
        return most

    def _rest(self) -> None:
        """Everything as it is where nothing is planted."""
        loop = self.loop
        loop.nominal[:] = self._healthy
        loop.set_c, loop.clog, loop.swing = self._model.coolant.supply_c, 1.0, 0.0
        self._volts = {part: list(volts) for part, volts in self._dry.items()}
        self._shares = list(self._share)
        self._flow_gain, self._return_error = self._gain, self._return_off

    # ---- what goes wrong

    def _leak(self, plant: Plant, since_s: float, dt_s: float) -> None:
        """Drops gather, one detector is wet, and later a second; what is out is out."""
        litres_per_s = plant.severity / 1000 / 60
        self._level = max(0.0, self._level - _LEVEL * litres_per_s * dt_s / self._facts.volume_l)
        volts = self._volts[tray_of(plant.part)]
        for nth in range(2):
            wet_s = since_s - _DRIP_ML / 1000 / litres_per_s - nth * _SPREAD_S
            if wet_s > 0:
                at = (self._wet[plant.part] + nth) % len(volts)
                volts[at] = WET_V + (volts[at] - WET_V) * 2 ** (-wet_s / _WET_TAU_S)

    def _decay(self, plant: Plant, since_s: float, dt_s: float) -> None:
        self._decayed_kpa = min(self._facts.return_kpa, self._decayed_kpa + plant.severity * dt_s / 3600)

    def _low_dp(self, plant: Plant, since_s: float, dt_s: float) -> None:
        self.loop.clog = clogged(plant.severity, sum(self.loop.nominal), self.loop.nominal_lpm, self._facts)

    def _warm(self, plant: Plant, since_s: float, dt_s: float) -> None:
        self.loop.set_c += plant.severity

    def _swing(self, plant: Plant, since_s: float, dt_s: float) -> None:
        """A square swing would show the pump's lag; a triangle comes closest to a hunting regulator."""
        phase = since_s % _SWING_S / _SWING_S
        self.loop.swing = plant.severity * (4 * abs(phase - 0.5) - 1)

    def _tray_flow(self, plant: Plant, since_s: float, dt_s: float) -> None:
        if plant.start_s is not None:  # else the branch was drawn so
            self.loop.nominal[self._parts.index(plant.part)] *= 1 - plant.severity

    def _switch_flow(self, plant: Plant, since_s: float, dt_s: float) -> None:
        self.loop.nominal[self._parts.index(plant.part)] *= 1 - plant.severity

    def _meter(self, plant: Plant, since_s: float, dt_s: float) -> None:
        self._flow_gain *= 1 + plant.severity

    def _rtd(self, plant: Plant, since_s: float, dt_s: float) -> None:
        self._return_error += plant.severity

    def _shelf_lost(self, plant: Plant, since_s: float, dt_s: float) -> None:
        first = int(plant.part[1:]) * self._housing.psus
        self._shares[first : first + self._housing.psus] = [0.0] * self._housing.psus

    def _imbalance(self, plant: Plant, since_s: float, dt_s: float) -> None:
        shelf, psu = plant.part.split(".")
        self._shares[int(shelf[1:]) * self._housing.psus + int(psu[1:])] *= 1 - plant.severity

    def _trip(self, plant: Plant, since_s: float, dt_s: float) -> None:
        """Off for good, so long after another of its shelf went off."""
        shelf, psu = plant.part.split(".")
        first, own = int(shelf[1:]) * self._housing.psus, int(psu[1:])
        alone_s = self._alone_s.get(plant.part, 0.0)
        others = (self.state.psus[first + n]["off"] for n in range(self._housing.psus) if n != own)
        if alone_s <= plant.severity:
            self._alone_s[plant.part] = alone_s + dt_s if any(others) else 0.0
        else:
            self._shares[first + own] = 0.0

    # ---- what everybody sees

    def _publish(self, activity: float) -> None:
        state, loop = self.state, self.loop
        for part, row, flow, back in zip(self._parts, state.trays + state.switches, loop.flows, loop.return_cs, strict=True):
            row["flow_lpm"], row["supply_c"], row["return_c"] = flow, loop.supply_c, back
            for i, volts in enumerate(self._volts[part]):
                row[f"leak{i}_v"] = volts + self._chance.gauss(0, 0.001)
        self._publish_loop(state.cdu)
        self._publish_power()

    def _publish_loop(self, row: FloatRow) -> None:
        loop, facts, gauss = self.loop, self._facts, self._chance.gauss
        static = facts.return_kpa * self._level / _LEVEL - self._decayed_kpa
        row["flow_lpm"], row["dp_kpa"], row["filter_kpa"] = loop.flow_lpm, loop.dp_kpa, loop.filter_kpa
        row["supply_c"], row["return_c"], row["heat_w"] = loop.supply_c, loop.return_c, loop.heat_w
        row["pressure_kpa"], row["level"] = static + loop.dp_kpa, self._level
        row["speed"] = loop.speed * loop.pumps * (1 + loop.swing)
        row["says_flow_lpm"] = loop.flow_lpm * self._flow_gain * (1 + gauss(0, facts.flow_noise))
        row["says_supply_c"] = loop.supply_c + self._supply_off + gauss(0, facts.rtd_noise_k)
        row["says_return_c"] = loop.return_c + self._return_error + gauss(0, facts.rtd_noise_k)
        for name in ("dp_kpa", "pressure_kpa", "filter_kpa"):
            row[f"says_{name}"] = max(0.0, row[name] + gauss(0, facts.pressure_noise_kpa))
        for name in ("pump0_rpm", "pump1_rpm"):
            row[name] = max(0.0, facts.pump_rpm * row["speed"] + gauss(0, 4)) if row["speed"] > 0 else 0.0

    def _publish_power(self) -> None:
        total = sum(row["power_w"] + row["air_w"] for row in self.state.trays) + sum(r["power_w"] for r in self.state.switches)
        shares = [0.0 if row["off"] else share for row, share in zip(self.state.psus, self._shares, strict=True)]
        shared = sum(shares)
        for row, share in zip(self.state.psus, shares, strict=True):
            row["out_w"] = total * share / shared if shared else 0.0
            row["in_w"] = row["out_w"] / self._housing.psu_efficiency
            row["lost"] = float(share == 0.0)


_ACTS: dict[str, Callable[[Facility, Plant, float, float], None]] = {
    "leak": Facility._leak,
    "leak_decay": Facility._decay,
    "cdu_lowdp": Facility._low_dp,
    "supply_warm": Facility._warm,
    "pump_osc": Facility._swing,
    "tray_flow": Facility._tray_flow,
    "switch_flow": Facility._switch_flow,
    "flowmeter_gain": Facility._meter,
    "rtd_offset": Facility._rtd,
    "shelf_lost": Facility._shelf_lost,
    "psu_imbalance": Facility._imbalance,
    "psu_trip": Facility._trip,
}
"""Faults that happen here; each is done anew at every step, on a healthy rack."""
