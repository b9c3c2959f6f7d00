"""What stands around the GPUs of a rack that is written down: coolant loop, power shelves, leak detectors, CPUs, cards.

The loop by the live rack's functions (`loop`), at rest: pumps follow within seconds, readings are a minute apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnin.telemetry.series import Floats, Series
from burnin.twin import loop as hydraulics
from burnin.twin.canvas import Canvas
from burnin.twin.facility import DRY_V, WET_V
from burnin.twin.faults import Plant
from burnin.twin.model import Housing, Loop
from burnin.twin.population import population

_CPU_NOISE_K, _CPU_SD_K = 0.3, 2.0
SWING_S = 24.0
"""Period of pumps that hunt."""
_DRIP_ML = 1.0
"""What must have leaked until a detector is wet."""


def supply_c(canvas: Canvas, plants: Sequence[Plant], t: Floats) -> Floats:
    """Temperature of the coolant that enters the trays at these times."""
    soak, stream = population().soak, canvas.chance.stream("supply")
    swing = soak.supply_swing_k * np.sin(2 * np.pi * (t / soak.supply_swing_s + stream.uniform()))
    creep = soak.supply_creep_k_per_day * stream.standard_normal() * t / 86400
    warm = [p.severity * canvas.grown(p, t) for p in plants if p.kind == "supply_warm"]
    return np.asarray(canvas.model.coolant.supply_c + swing + creep + sum(warm))


def flow_share(canvas: Canvas, plants: Sequence[Plant], t: Floats) -> Floats:
    """Flow of every branch as a share of its own, at these times: 1 while the pumps hold their pressure."""
    facts = canvas.model.loop
    if facts is None:
        return np.ones(t.size)
    return np.asarray((_dp(plants, canvas, facts, t) / facts.dp_kpa) ** (1 / facts.dp_exponent))


def _dp(plants: Sequence[Plant], canvas: Canvas, facts: Loop, t: Floats) -> Floats:
    left = np.ones(t.size)
    for plant in plants:
        if plant.kind == "cdu_lowdp":
            left = left * (1 - plant.severity * canvas.grown(plant, t))
    return facts.dp_kpa * np.maximum(left, 1e-6)


def hunting(canvas: Canvas, t: Floats) -> Floats:
    """The swing of pumps that hunt, -1 to 1: a triangle, as the live rack's."""
    phase = (t / SWING_S + canvas.chance.stream("hunting").uniform()) % 1.0
    return np.asarray(4 * np.abs(phase - 0.5) - 1)


def surroundings(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """Everything of the rack that is no GPU. The power that its GPUs really take is in `canvas.watts`."""
    at = _at_minutes(canvas)
    loaded = np.array([c.activity for c in canvas.plan.conditions])[canvas.plan.now[:, at]]
    per_tray = canvas.model.topology.gpus_per_tray
    activity = loaded.reshape(-1, per_tray, at.size).mean(axis=1)
    _cpus(canvas, plants, activity)
    _cards(canvas)
    beside = canvas.model.machine.module_w * per_tray / canvas.model.gpu.gpus_per_module
    liquid = canvas.watts[:, at].reshape(-1, per_tray, at.size).sum(axis=1) + beside
    housing, loop = canvas.model.housing, canvas.model.loop
    air = housing.tray_air_w if housing is not None else population().rack.misc_w
    for tray, watts in zip(canvas.model.topology.trays(), liquid, strict=True):
        canvas.around(tray, "tray.power", np.round(watts + air, 1))
    if housing is not None and loop is not None:
        switch = housing.switch_idle_w + (housing.switch_load_w - housing.switch_idle_w) * activity.mean(axis=0)
        switches = switch * canvas.model.topology.switch_trays
        _loop(canvas, plants, loop, liquid.sum(axis=0) + switches)
        _shelves(canvas, plants, housing, (liquid + air).sum(axis=0) + switches)
        _leaks(canvas, plants)


# ---------------------------------------------------------------- coolant and power


def _loop(canvas: Canvas, plants: Sequence[Plant], facts: Loop, heat_w: Floats) -> None:
    """What the CDU says of itself."""
    t, model, stream = canvas.plan.minutes, canvas.model, canvas.chance.stream("cdu")
    flow = flow_share(canvas, plants, t) * (canvas.tray_lpm + facts.switch_lpm * model.topology.switch_trays)
    nominal = model.coolant.tray_lpm * model.topology.compute_trays + facts.switch_lpm * model.topology.switch_trays
    supply = supply_c(canvas, plants, t)
    back = supply + hydraulics.rise(heat_w, flow, model.coolant.w_per_k_per_lpm)
    usual = hydraulics.needed_speed(facts.dp_kpa, nominal, nominal, facts)
    speed, falls, gain = np.full(t.size, usual), np.zeros(t.size), np.full(t.size, 1 + facts.flow_gain * stream.standard_normal())
    for plant in plants:
        grown = canvas.grown(plant, t)
        if plant.kind == "flowmeter_gain":
            gain = gain * (1 + plant.severity * grown)
        elif plant.kind == "rtd_offset":
            back = back + plant.severity * grown
        elif plant.kind == "leak_decay":
            hours = np.maximum(0.0, t - canvas.begins(plant)) / 3600
            falls = np.minimum(facts.return_kpa, falls + plant.severity * hours)
        elif plant.kind == "cdu_lowdp":
            speed = np.maximum(speed, usual + (1 - usual) * grown)
        elif plant.kind == "pump_osc":
            speed = speed * (1 + plant.severity * grown * hunting(canvas, t))
            flow = flow * (1 + plant.severity * grown * hunting(canvas, t))
    errors, dp = facts.rtd_k * stream.standard_normal(2), _dp(plants, canvas, facts, t)
    for metric, values, noise, digits in (
        ("coolant.supply_temp", supply + errors[0], facts.rtd_noise_k, 2),
        ("coolant.return_temp", back + errors[1], facts.rtd_noise_k, 2),
        ("coolant.flow", flow * gain, facts.flow_noise * nominal, 2),
        ("coolant.dp", dp, facts.pressure_noise_kpa, 2),
        ("coolant.pressure", facts.return_kpa + dp - falls, facts.pressure_noise_kpa, 2),
        ("pump.speed", facts.pump_rpm * speed, 4.0, 0),
    ):
        canvas.around("cdu", metric, np.round(values + noise * stream.standard_normal(t.size), digits))


def _shelves(canvas: Canvas, plants: Sequence[Plant], housing: Housing, total_w: Floats) -> None:
    """Every power supply carries its share of the whole."""
    own = 1 + housing.psu_share * canvas.chance.parts("psu", housing.shelves, housing.psus, 1)
    shares = np.repeat(own, total_w.size, axis=2)
    for plant in plants:
        grown = canvas.grown(plant, canvas.plan.minutes)
        if plant.kind == "shelf_lost":
            shares[int(plant.part[1:])] *= 1 - grown
        elif plant.kind == "psu_imbalance":
            shelf, psu = plant.part.split(".")
            shares[int(shelf[1:]), int(psu[1:])] *= 1 - plant.severity * grown
    watts = total_w * shares / shares.sum(axis=(0, 1))
    for i, of_shelf in enumerate(watts):
        for j, row in enumerate(of_shelf):
            canvas.around(f"p{i}.u{j}", "psu.power", np.round(row, 1))


def _leaks(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """The detector of each tray that is furthest from dry."""
    t, stream = canvas.plan.minutes, canvas.chance.stream("leaks")
    wet_s = {p.part: canvas.begins(p) + 60 * _DRIP_ML / p.severity for p in plants if p.kind == "leak"}
    for tray in [*canvas.model.topology.trays(), *canvas.model.topology.switches()]:
        dry = DRY_V + 0.008 * stream.standard_normal() + 0.001 * stream.standard_normal(t.size)
        wet = t >= wet_s.get(tray, np.inf)
        canvas.around(tray, "leak.voltage", np.round(np.where(wet, WET_V, dry).astype(float), 3))
        canvas.around(tray, "leak.state", wet.astype(float))


# ---------------------------------------------------------------- in the trays


def _at_minutes(canvas: Canvas) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The GPU reading nearest before each minute."""
    return np.searchsorted(canvas.plan.t, canvas.plan.minutes, side="right").clip(1) - 1


def _cpus(canvas: Canvas, plants: Sequence[Plant], activity: Floats) -> None:
    machine, hot = canvas.model.machine, {p.part: p for p in plants if p.kind == "cpu_hot"}
    stream = canvas.chance.stream("cpu")
    own = canvas.chance.parts("cpu.own", activity.shape[0], machine.sockets)
    zero = Series(canvas.plan.minutes, np.zeros(canvas.plan.minutes.size))
    for i, tray in enumerate(canvas.model.topology.trays()):
        for j in range(machine.sockets):
            part = f"{tray}.c{j}"
            rise = np.full(activity.shape[1], machine.cpu_load_c - machine.cpu_idle_c)
            if part in hot:
                rise = rise + hot[part].severity * canvas.grown(hot[part], canvas.plan.minutes)
            noise = _CPU_NOISE_K * stream.standard_normal(activity.shape[1])
            canvas.around(part, "cpu.temp", np.round(machine.cpu_idle_c + _CPU_SD_K * own[i, j] + rise * activity[i] + noise))
            for metric in ("cpu.edac_ce", "cpu.edac_ue"):
                canvas.series[part, metric] = zero


def _cards(canvas: Canvas) -> None:
    """Network cards and drives: nothing moves until a fault does."""
    machine, facts, stream = canvas.model.machine, population().rack, canvas.chance.stream("cards")
    zero = Series(canvas.plan.minutes, np.zeros(canvas.plan.minutes.size))
    for tray in canvas.model.topology.trays():
        for kind, slots, celsius, counters in (
            ("n", machine.nics, facts.nic_c, ("nic.link_flaps", "nic.symbol_errors")),
            ("d", machine.nvmes, facts.nvme_c, ("nvme.media_errors",)),
        ):
            for number, slot in enumerate(slots):
                part = f"{tray}.{kind}{number}"
                canvas.around(part, f"{'nic' if kind == 'n' else 'nvme'}.temp", round(celsius + 3 * stream.standard_normal()))
                canvas.around(part, "pcie.gen", slot.gen)
                canvas.around(part, "pcie.width", slot.lanes)
                for metric in (*counters, "pcie.aer_correctable"):
                    canvas.series[part, metric] = zero
