"""Synthetic racks for signatures: healthy parts drawn with normal or heavy (t5) tails, faults planted by hand, at rest.

The steady states of the twin's physics, for all GPUs at once; readings are the sensors' (offset, gain, noise, whole degrees).
Fast enough for thousands of racks; what moves within a phase is added by the tests that need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np

from burnin.rack.schema import Topology
from burnin.telemetry.series import Floats, Series, Stretch, Telemetry
from burnin.twin import model as twin

IDLE = Stretch("idle", "idle", 0.0, 10.0, 2.0)
LOAD = Stretch("load", "load", 18.0, 42.0, 12.0)
COOL = Stretch("cool", "cool", 42.0, 50.0, 4.0)
LOAD_2 = Stretch("load-again", "load-2", 58.0, 82.0, 12.0)


@cache
def model() -> twin.Model:
    """The twin's GB300 NVL72."""
    return twin.load("gb300-nvl72")


def topology() -> Topology:
    """Its topology, with 18 links a GPU."""
    return model().topology.model_copy(update={"links_per_gpu": 18})


def draws(rng: np.random.Generator, tails: str, size: tuple[int, ...]) -> Floats:
    """Standard normal, or t5 scaled to the same standard deviation."""
    out: Floats = rng.standard_normal(size) if tails == "normal" else rng.standard_t(5, size) * np.sqrt(3 / 5)
    return out


@dataclass
class Rack:
    """One rack's parts, 18 x 4 each: factors about 1, offsets in K. Change them to plant a fault."""

    rng: np.random.Generator
    capacitance: Floats
    voltage: Floats
    leakage: Floats
    tim: Floats
    plate: Floats
    convection: Floats
    hbm: Floats
    gain: Floats
    temp_offset: Floats
    hbm_offset: Floats
    top_mhz: Floats
    flow: Floats
    supply: dict[str, float] = field(default_factory=dict)
    """Phase -> kelvin that its coolant is warmer than it should be."""


def rack(seed: int, tails: str = "normal") -> Rack:
    """A healthy one."""
    rng, m = np.random.default_rng(seed), model()
    s = m.spread

    def one(sd: float) -> Floats:
        return np.maximum(0.2, 1 + sd * draws(rng, tails, (18, 4)))

    pressure = 1 - m.coolant.manifold_drop * np.arange(18) / 17
    flow = m.coolant.tray_lpm * np.sqrt(pressure / np.maximum(0.2, 1 + s.branch * draws(rng, tails, (18,))))
    return Rack(
        rng, one(s.capacitance), one(s.voltage), one(s.leakage), one(s.tim), one(s.plate), one(s.convection), one(0.05),
        one(m.sensors.power_gain), m.sensors.temp_offset_k * draws(rng, tails, (18, 4)),
        m.sensors.temp_offset_k * draws(rng, tails, (18, 4)), np.full((18, 4), float(m.gpu.clock_max_mhz)), flow,
    )  # fmt: skip


@dataclass
class State:
    """True values of every GPU at rest in one phase, and whether its power limit holds it."""

    power: Floats
    die: Floats
    hbm: Floats
    clock: Floats
    capped: Floats


def rest(one: Rack, activity: float, warmer_k: float = 0.0) -> State:
    """The steady state: temperature and power agree, and measured power is at the limit or the clock at its top."""
    m = model()
    die = np.full((18, 4), m.coolant.supply_c + 20.0)
    clock = one.top_mhz.copy() if activity else np.full((18, 4), float(m.gpu.clock_idle_mhz))
    power, hbm_w = _electrical(one, activity, clock, die)
    hbm = die
    for _ in range(25):
        if activity:
            clock = np.minimum(one.top_mhz, clock * (1 + 0.5 * (m.gpu.limit_w / (power * one.gain) - 1)))
        power, hbm_w = _electrical(one, activity, clock, die)
        plate, r_die = _plate(one, power, warmer_k)
        die = 0.5 * die + 0.5 * (plate + power * r_die)
        hbm = plate + m.thermal.r_hbm * one.hbm * hbm_w
    return State(power, die, hbm, clock, np.asarray((clock < 0.999 * one.top_mhz) & (activity > 0), float))


def _electrical(one: Rack, activity: float, clock: Floats, die: Floats) -> tuple[Floats, float]:
    p = model().power
    f = clock / p.f_ref_mhz
    v = one.voltage * np.maximum(p.v_min, f**p.v_exponent)
    hbm_w = p.hbm_idle_w + (p.hbm_full_w - p.hbm_idle_w) * activity
    leakage = p.leakage_w * one.leakage * v * np.exp(np.minimum((die - p.leak_at_c) / p.leak_per_c, 3.0))
    return p.fixed_w + hbm_w + p.dynamic_w * one.capacitance * activity * v * v * f + leakage, hbm_w


def _plate(one: Rack, power: Floats, warmer_k: float) -> tuple[Floats, Floats]:
    m = model()
    branch = one.flow / len(m.coolant.loops) * m.coolant.w_per_k_per_lpm
    upstream = np.zeros_like(power)
    for loop in m.coolant.loops:
        for before, position in pairwise(loop):
            upstream[:, position] = upstream[:, before] + power[:, before]
    coolant = m.coolant.supply_c + warmer_k + (m.coolant.own_rise * power + m.coolant.preheat * upstream) / branch[:, None]
    r_convection = m.thermal.r_convection * one.convection * (one.flow / m.coolant.tray_lpm)[:, None] ** -m.thermal.flow_exponent
    return coolant + power * (m.thermal.r_plate * one.plate + r_convection), m.thermal.r_die + m.thermal.r_tim * one.tim


def telemetry(one: Rack, stretches: Sequence[Stretch] = (IDLE, LOAD, COOL, LOAD_2), every_s: float = 1.0) -> Telemetry:
    """What the agents would have read in these stretches, each at rest."""
    series: dict[tuple[str, str], list[tuple[Floats, Floats]]] = {}
    for stretch in stretches:
        state = rest(one, float(stretch.phase.startswith("load")), one.supply.get(stretch.phase, 0.0))
        t = np.arange(stretch.t0_s + 0.3, stretch.t1_s, every_s)
        for (part, metric), values in _read(one, state, t).items():
            series.setdefault((part, metric), []).append((t, values))
    joined = {key: Series(*(np.concatenate(list(x)) for x in zip(*many, strict=True))) for key, many in series.items()}
    return Telemetry(joined, tuple(stretches))


def _read(one: Rack, state: State, t: Floats) -> Mapping[tuple[str, str], Floats]:
    m, shape = model(), (18, 4, t.size)
    noise = m.sensors.temp_noise_k
    metered = state.power * one.gain
    grids = {
        "gpu.temp": np.floor(state.die[..., None] + one.temp_offset[..., None] + noise * one.rng.standard_normal(shape) + 0.5),
        "hbm.temp": np.floor(state.hbm[..., None] + one.hbm_offset[..., None] + noise * one.rng.standard_normal(shape) + 0.5),
        "gpu.power": metered[..., None]
        + np.minimum(1.0, metered / m.gpu.limit_w)[..., None] * m.sensors.power_noise_w * one.rng.standard_normal(shape),
        "gpu.energy": metered[..., None] * t,
        "gpu.clock_sm": np.broadcast_to(np.round(state.clock)[..., None], shape),
        "throttle.sw_power": state.capped[..., None] * t,
        "throttle.sw_thermal": np.zeros(shape),
        "throttle.hw_thermal": np.zeros(shape),
        "throttle.hw_brake": np.zeros(shape),
    }
    return {
        (f"t{i:02}.g{j}", metric): np.asarray(grid[i, j], float)
        for metric, grid in grids.items()
        for i in range(18)
        for j in range(4)
    }


def cell(part: str) -> tuple[int, int]:
    """t07.g2 -> (7, 2)."""
    return int(part[1:3]), int(part[5:])
