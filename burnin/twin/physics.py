"""How hot, how fast and how hungry the GPUs of a tray are, moment by moment: a small lumped model, stepped with a given dt.

Electrical power from clock, voltage, activity and leakage; the clock is lowered when *measured* power passes the limit;
heat goes die -> TIM -> plate -> coolant, whose temperature depends on flow, supply and the GPU upstream. Healthy parts
differ; sensors add offset, gain error, noise and quantisation. No clock and no chance of its own: time and the source
of noise are passed in, so a seed gives one rack, for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from burnin.rack.parts import tray_of, within
from burnin.twin import laws
from burnin.twin.faults import Plant
from burnin.twin.model import Model

MAX_DT_S = 0.1
"""Longest step that is integrated in one go (the die's time constant is about 0.75 s)."""
_CAP_GAIN = 0.65
"""Step of the capping loop: about 1 / (d ln P / d ln f)."""
_HOT_MHZ_PER_KS = 15.0
IDLE, POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL = 0x1, 0x4, 0x8, 0x20, 0x40
"""Bits of NVML's clocks event reasons."""
Tails = Literal["normal", "t5"]
"""How healthy parts differ: normally, or as Student's t with 5 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class GpuDraw:
    """What makes one GPU itself: factors on the model's values, sensor errors, and its highest clock in MHz."""

    capacitance: float
    voltage: float
    leakage: float
    tim: float
    plate: float
    convection: float
    temp_offset_k: float
    hbm_offset_k: float
    power_gain: float
    clock_max_mhz: float
    hbm: float = 1.0
    """Factor on the memory's resistance to the plate."""
    loss: float = 0.0
    """Share of its power that its regulators lose beyond others'."""


@dataclass(frozen=True, slots=True)
class TrayDraw:
    """What makes one tray itself: its share of the coolant in L/min, and its GPUs in module order."""

    flow_lpm: float
    gpus: tuple[GpuDraw, ...]


def draw(model: Model, seed: int, tails: Tails = "normal") -> dict[str, TrayDraw]:
    """Every tray of a healthy rack, t00 ... in order. `tails`: how healthy parts differ, normally or with heavy tails (t5)."""
    return {tray: _draw_tray(model, seed, i, tray, tails) for i, tray in enumerate(model.topology.trays())}


class HeavyTails(Random):
    """Chance whose gauss() is Student's t with 5 degrees of freedom, scaled to the same standard deviation."""

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """A normal over the root of a chi-square of 5 degrees of freedom."""
        return mu + sigma * math.sqrt(3) * super().gauss(0, 1) / math.sqrt(self.gammavariate(2.5, 2.0))


def _draw_tray(model: Model, seed: int, index: int, tray: str, tails: Tails) -> TrayDraw:
    chance = (Random if tails == "normal" else HeavyTails)(f"{model.profile}/{seed}/{tray}")
    memory = (Random if tails == "normal" else HeavyTails)(f"{model.profile}/{seed}/{tray}/hbm")
    spread, sensors, last = model.spread, model.sensors, max(model.topology.compute_trays - 1, 1)
    pressure = 1 - model.coolant.manifold_drop * index / last

    def about_one(sd: float) -> float:
        return max(0.2, chance.gauss(1, sd))

    flow = model.coolant.tray_lpm * math.sqrt(pressure / about_one(spread.branch))
    gpus = tuple(
        GpuDraw(
            capacitance=about_one(spread.capacitance),
            voltage=about_one(spread.voltage),
            leakage=about_one(spread.leakage),
            tim=about_one(spread.tim),
            plate=about_one(spread.plate),
            convection=about_one(spread.convection),
            temp_offset_k=chance.gauss(0, sensors.temp_offset_k),
            hbm_offset_k=chance.gauss(0, sensors.temp_offset_k),
            power_gain=about_one(sensors.power_gain),
            clock_max_mhz=model.gpu.clock_max_mhz,
            hbm=max(0.2, memory.gauss(1, spread.hbm)),
        )
        for _ in range(model.topology.gpus_per_tray)
    )
    return TrayDraw(flow, gpus)


def weaken(trays: dict[str, TrayDraw], plants: Iterable[Plant]) -> dict[str, TrayDraw]:
    """The same rack with its planted weak parts: those that are physics, tray_flow and the kinds of `weaken_gpu`."""
    out = dict(trays)
    for plant in plants:
        name = tray_of(plant.part)
        if name not in out or plant.start_s is not None:  # of another part of the rack, or yet to come
            continue
        tray = out[name]
        if plant.kind == "tray_flow":
            out[name] = replace(tray, flow_lpm=tray.flow_lpm * (1 - plant.severity))
            continue
        gpus = [weaken_gpu(gpu, plant) if within(f"{name}.g{i}", plant.part) else gpu for i, gpu in enumerate(tray.gpus)]
        out[name] = replace(tray, gpus=tuple(gpus))
    return out


def weaken_gpu(gpu: GpuDraw, plant: Plant) -> GpuDraw:
    """The GPU with a fault of its own in it; as it is where the fault is not physics."""
    more, lost = 1 + plant.severity, 1 - plant.severity
    match plant.kind:
        case "tim_void":
            return replace(gpu, tim=gpu.tim * more)
        case "coldplate_clog":
            return replace(gpu, convection=gpu.convection * more)
        case "plate_tilt":  # the interface gapes on one side: over the die, and less over the stacks beside it
            return replace(gpu, tim=gpu.tim * (1 + 0.8 * plant.severity), hbm=gpu.hbm * (1 + 0.4 * plant.severity))
        case "hbm_tim":
            return replace(gpu, hbm=gpu.hbm * more)
        case "leaky_die":
            return replace(gpu, leakage=gpu.leakage * more)
        case "weak_vmin":
            return replace(gpu, voltage=gpu.voltage * more)
        case "vr_loss":
            return replace(gpu, loss=gpu.loss + plant.severity)
        case "tsensor_off":
            return replace(gpu, temp_offset_k=gpu.temp_offset_k + plant.severity)
        case "psensor_gain":
            return replace(gpu, power_gain=gpu.power_gain * more)
        case "clock_cap":
            return replace(gpu, clock_max_mhz=gpu.clock_max_mhz * lost)
    return gpu


class Gpu:
    """One GPU in motion. True values: `power_w die_c plate_c hbm_true_c`; what its sensors say: the rest."""

    def __init__(self, model: Model, draw: GpuDraw, flow: float, noise: Random) -> None:
        self._facts, self._power, self._thermal, self._sensors = model.gpu, model.power, model.thermal, model.sensors
        self.draw, self._noise = draw, noise
        self._nominal_lpm = model.coolant.tray_lpm / len(model.coolant.loops)
        self.set_flow(flow)
        self.die_c = self.plate_c = self.hbm_true_c = self.coolant_c = model.coolant.supply_c
        self._cap_mhz = self._hot_mhz = self.clock_busy_mhz = draw.clock_max_mhz
        self.locked_mhz = math.inf
        """Where the driver was told to hold the clock; limits still lower it."""
        self.clock_mhz = float(model.gpu.clock_idle_mhz)
        self.power_w = self.power_meter_w = self.power_avg_w = self.hbm_power_w = self.heat_w = 0.0
        self.energy_mj = 0.0
        self.sw_power_s = self.sw_thermal_s = self.hw_thermal_s = 0.0
        self.reasons, self.util = IDLE, 0.0
        self.off = False
        """True for ever once the die passed its shutdown temperature."""
        self.temp_c = self.hbm_c = int(self.die_c)

    def set_flow(self, flow_lpm: float) -> None:
        """The flow through this GPU's loop."""
        self.r_convection = laws.convection(self._thermal, self.draw.convection, flow_lpm / self._nominal_lpm)

    @property
    def margin_c(self) -> int:
        """T.Limit: kelvin below the highest operating temperature, by the sensor."""
        return self._facts.max_operating_c - self.temp_c

    def electrical(self, activity: float, clock_mhz: float) -> float:
        """Power in W at this activity and clock, and at the die's present temperature."""
        d = self.draw
        self.hbm_power_w = laws.hbm_power(self._power, activity)
        return laws.electrical(self._power, d.capacitance, d.voltage, d.leakage, d.loss, activity, clock_mhz, self.die_c)

    def step(self, dt_s: float, activity: float, coolant_c: float) -> None:
        """Advance by dt (at most MAX_DT_S) with the coolant that arrives at this plate."""
        activity = 0.0 if self.off else activity
        busy = activity > 0.01
        self.util = activity
        self.clock_mhz = self.clock_busy_mhz if busy else float(self._facts.clock_idle_mhz)
        self.power_w = 0.0 if self.off else self.electrical(activity, self.clock_mhz)
        self._heat(dt_s, coolant_c)
        self._read_sensors(dt_s)
        self._govern(dt_s, busy)

    def _heat(self, dt_s: float, coolant_c: float) -> None:
        t, d = self._thermal, self.draw
        self.coolant_c += (coolant_c - self.coolant_c) * dt_s / (dt_s + t.tau_coolant_s)
        to_plate = (self.die_c - self.plate_c) / (t.r_die + t.r_tim * d.tim)
        self.heat_w = (self.plate_c - self.coolant_c) / (t.r_plate * d.plate + self.r_convection)
        self.die_c += (self.power_w - to_plate) * dt_s / t.c_die
        self.plate_c += (to_plate - self.heat_w) * dt_s / t.c_plate
        hbm = self.plate_c + t.r_hbm * d.hbm * self.hbm_power_w
        self.hbm_true_c += (hbm - self.hbm_true_c) * dt_s / (dt_s + t.tau_hbm_s)

    def _read_sensors(self, dt_s: float) -> None:
        s, d, gauss = self._sensors, self.draw, self._noise.gauss
        self.temp_c = math.floor(self.die_c + d.temp_offset_k + gauss(0, s.temp_noise_k) + 0.5)
        self.hbm_c = math.floor(self.hbm_true_c + d.hbm_offset_k + gauss(0, s.temp_noise_k) + 0.5)
        metered = self.power_w * d.power_gain
        self.power_meter_w = max(0.0, metered + gauss(0, s.power_noise_w * min(1.0, metered / self._facts.limit_w)))
        self.power_avg_w += (metered - self.power_avg_w) * dt_s / (dt_s + 1.0)
        self.energy_mj += metered * dt_s * 1000

    def _govern(self, dt_s: float, busy: bool) -> None:
        """Set the clock of the next step, and say why it is what it is."""
        facts, top = self._facts, min(self.draw.clock_max_mhz, self.locked_mhz)
        self.off = self.off or self.margin_c <= facts.shutdown_margin_c
        over_k = self.die_c + self.draw.temp_offset_k - facts.max_operating_c
        self._hot_mhz = min(self.draw.clock_max_mhz, max(facts.clock_idle_mhz, self._hot_mhz - _HOT_MHZ_PER_KS * over_k * dt_s))
        if busy:
            metered = self.power_w * self.draw.power_gain
            factor = 1 + _CAP_GAIN * (facts.limit_w - metered) / metered
            self._cap_mhz = min(top, max(facts.clock_idle_mhz, self.clock_mhz * factor))
        slowed = busy and self.margin_c <= facts.slowdown_margin_c
        hot = busy and self._hot_mhz < self._cap_mhz
        allowed = min(self._cap_mhz, self._hot_mhz)
        self.clock_busy_mhz = max(allowed / 2, facts.clock_idle_mhz) if slowed else allowed
        capped = busy and not hot and not slowed and self._cap_mhz < 0.999 * top
        self.sw_power_s += dt_s * capped
        self.sw_thermal_s += dt_s * hot
        self.hw_thermal_s += dt_s * slowed
        self.reasons = (0 if busy else IDLE) | POWER_CAP * capped | SW_THERMAL * hot | (HW_THERMAL | HW_SLOWDOWN) * slowed


class Tray:
    """The GPUs of one tray on their coolant. `supply_c` and `set_flow` may change it between steps."""

    def __init__(self, model: Model, draw: TrayDraw, noise: Random) -> None:
        self._model = model
        self.supply_c = model.coolant.supply_c
        self.gpus = [Gpu(model, gpu, draw.flow_lpm / len(model.coolant.loops), noise) for gpu in draw.gpus]
        self.set_flow(draw.flow_lpm)

    def set_flow(self, flow_lpm: float) -> None:
        """The coolant that the manifold gives this tray; every loop takes an equal share."""
        self.flow_lpm = flow_lpm
        loops = len(self._model.coolant.loops)
        least = self._model.thermal.stagnant * self._model.coolant.tray_lpm
        self._branch_w_per_k = max(flow_lpm, least) / loops * self._model.coolant.w_per_k_per_lpm
        for gpu in self.gpus:
            gpu.set_flow(flow_lpm / loops)

    @property
    def power_w(self) -> float:
        """Electrical power of the tray's modules."""
        return sum(gpu.power_w for gpu in self.gpus) + self._beside_w

    @property
    def heat_w(self) -> float:
        """Heat that the coolant carries away."""
        return sum(gpu.heat_w for gpu in self.gpus) + self._beside_w

    @property
    def _beside_w(self) -> float:
        return self._model.machine.module_w * len(self.gpus) / self._model.gpu.gpus_per_module

    @property
    def return_c(self) -> float:
        """Temperature of the coolant that leaves the tray."""
        return self.supply_c + self.heat_w / (self._branch_w_per_k * len(self._model.coolant.loops))

    def module_w(self, position: int) -> float:
        """What the meter of the module says that carries this GPU: its GPUs and what sits beside them."""
        size = self._model.gpu.gpus_per_module
        first = position // size * size
        return sum(gpu.power_meter_w for gpu in self.gpus[first : first + size]) + self._model.machine.module_w

    def step(self, dt_s: float, activity: Sequence[float]) -> None:
        """Advance by dt, with one activity (0 to 1) per GPU. A long dt is cut into short ones."""
        steps = max(1, math.ceil(dt_s / MAX_DT_S - 1e-9))
        for _ in range(steps):
            self._step(dt_s / steps, activity)

    def _step(self, dt_s: float, activity: Sequence[float]) -> None:
        coolant = self._model.coolant
        for loop in coolant.loops:
            upstream_w = 0.0
            for position in loop:
                gpu = self.gpus[position]
                rise_w = coolant.own_rise * gpu.heat_w + coolant.preheat * upstream_w
                gpu.step(dt_s, activity[position], self.supply_c + rise_w / self._branch_w_per_k)
                upstream_w += gpu.heat_w
