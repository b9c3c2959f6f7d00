"""Where a rack's GPUs come to rest: power, clock and temperatures that agree, for all GPUs and many moments at once.

What the live physics steps towards, solved for directly: measured power is at its limit, or the clock at its top, or the die
at its highest operating temperature. Arrays have a row per GPU and a column per moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from burnin.telemetry.series import Floats
from burnin.twin import laws
from burnin.twin.model import Model
from burnin.twin.population import Silicon
from burnin.twin.schedule import Condition

_ROUNDS = 14
"""Each leaves less than a third of the error: 1e-7 of it after all."""


@dataclass(frozen=True)
class Rest:
    """True values at rest: W, Cel, MHz; whether power or heat holds the clock; resistances core - plate - coolant, and what it
    warms its own coolant by, in K/W."""

    power: Floats
    die: Floats
    hbm: Floats
    clock: Floats
    capped: NDArray[np.bool_]
    hot: NDArray[np.bool_]
    r_core: Floats
    r_plate: Floats
    r_loop: Floats


def rest(model: Model, silicon: Silicon, condition: Condition, supply_c: Floats) -> Rest:
    """The steady state of every GPU. `supply_c`: temperature of the coolant that enters its tray, (1 or GPUs, moments)."""
    facts, thermal = model.gpu, model.thermal
    r_core = thermal.r_die + thermal.r_tim * silicon.tim
    r_conv = laws.convection(thermal, silicon.convection, silicon.flow)
    r_plate = thermal.r_plate * silicon.plate + r_conv
    branch = np.maximum(silicon.flow, thermal.stagnant) * model.coolant.tray_lpm / len(model.coolant.loops)
    branch = branch * model.coolant.w_per_k_per_lpm
    r_loop = model.coolant.own_rise / branch
    shape = np.broadcast_shapes(silicon.tim.shape, silicon.flow.shape, silicon.loss.shape, supply_c.shape)
    shape = np.broadcast_shapes(shape, *(getattr(silicon, name).shape for name in ("leakage", "voltage", "convection")))
    busy = condition.activity > 0.01
    top = silicon.clock_max_mhz if condition.lock_mhz is None else np.minimum(silicon.clock_max_mhz, condition.lock_mhz)
    clock = np.broadcast_to(top * 0.92, shape) if busy else np.full(shape, float(facts.clock_idle_mhz))
    die = np.broadcast_to(supply_c + (25.0 if busy else 5.0), shape)
    limit = np.broadcast_to(facts.limit_w / silicon.power_gain, shape)
    power = limit if busy else np.full(shape, 150.0)
    upstream = _upstream(model)
    coolant, cool = supply_c, limit
    for _ in range(_ROUNDS):
        coolant = supply_c + (model.coolant.own_rise * power + model.coolant.preheat * _before(upstream, power)) / branch
        if busy:
            room = np.maximum(facts.max_operating_c - silicon.temp_offset_k - coolant, 0.0)
            cool = room / (r_core + r_plate)
            clock = np.clip(clock * (np.minimum(limit, cool) / power) ** 0.6, facts.clock_idle_mhz, top)
        die = 0.3 * die + 0.7 * (coolant + power * (r_core + r_plate))
        power = laws.electrical(
            model.power, silicon.capacitance, silicon.voltage, silicon.leakage, silicon.loss, condition.activity, clock, die
        )
    held = np.broadcast_to(clock < 0.999 * top, shape) & busy
    hbm = coolant + power * r_plate + thermal.r_hbm * silicon.hbm * laws.hbm_power(model.power, condition.activity)
    power, die, hbm, clock = (np.broadcast_to(x, shape) for x in (power, die, hbm, clock))
    return Rest(power, die, hbm, clock, held & (limit <= cool), held & (limit > cool), r_core, r_plate, r_loop)


def _before(upstream: Floats, power: Floats) -> Floats:
    """Power of those before each GPU in its loop, tray by tray: the whole rack's matrix is zeros but for its trays."""
    out: Floats = np.matmul(upstream, power.reshape(-1, len(upstream), power.shape[1])).reshape(power.shape)
    return out


def _upstream(model: Model) -> Floats:
    """Matrix that adds up, for each GPU of a tray, the power of those before it in its loop."""
    per_tray = model.topology.gpus_per_tray
    one = np.zeros((per_tray, per_tray))
    for loop in model.coolant.loops:
        for before, position in pairwise(loop):
            one[position] = one[before]
            one[position, before] = 1.0
    return one
