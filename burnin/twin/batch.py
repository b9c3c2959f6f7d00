"""Whole racks over whole runs, without running them: arrays instead of trays, hundreds of racks instead of one.

The same parts (`physics.draw`), the same equations (`laws`, at rest instead of stepped) and the same sensors as the live rack
of the same seed; what it gives is what a run would have read. One rack of 48 hours takes well under a second.

What is left out, against the live rack: clocks and power settle at once (live: a second), the coolant reaches the plate at
once (live: a second), and a GPU that is lost no longer warms what is behind it but is computed as if it did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from burnin.events import LogLine
from burnin.suites.schema import Suite
from burnin.telemetry.series import Floats, Series, Stretch, Telemetry
from burnin.twin import laws, physics
from burnin.twin.batch_faults import befall, healthy_counters
from burnin.twin.batch_rack import SWING_S, flow_share, hunting, supply_c, surroundings
from burnin.twin.batch_tests import exchanges
from burnin.twin.canvas import Canvas
from burnin.twin.faults import Plant
from burnin.twin.model import Model, load
from burnin.twin.physics import Tails
from burnin.twin.plan import Plan, plan
from burnin.twin.population import (
    WORTH,
    Chance,
    Silicon,
    bursts_per_s,
    margins,
    planted,
    population,
    post_fec_per_s,
    weak_links,
)
from burnin.twin.steady import Rest, rest

_DAY_S = 86400.0
_ECHO_S = 90.0
"""How long after a change of load temperatures are still on their way (20 time constants)."""


@dataclass(frozen=True, slots=True)
class Recorded(Telemetry):
    """What a run of a twin rack would have read, and its log. `plants`, `seed`, `lost` are the truth: no judge sees them."""

    log: tuple[LogLine, ...] = ()
    seed: int = 0
    plants: tuple[Plant, ...] = ()
    lost: Mapping[str, int] = field(default_factory=dict)
    """Link -> code words that it lost in this run as it was drawn: by the vendor's own rule it is no healthy link."""


def simulate(
    profile: str | Model,
    suite: Suite,
    seeds: Iterable[int],
    plants_of: Callable[[int], Sequence[Plant]] = lambda seed: (),
    tails: Tails = "normal",
    *,
    hours: float | None = None,
    stretches: Callable[[Plan], tuple[Stretch, ...]] = lambda plan: plan.stretches,
) -> Iterator[Recorded]:
    """One rack after the other, of a profile or of a model that was changed. Raises InputError for an unknown profile.

    `hours`: the suite's stages shrunk or stretched to this many. `stretches`: what the telemetry says about its phases, where
    it should be other than the suite's own.
    """
    model = profile if isinstance(profile, Model) else load(profile)
    when = plan(model, suite, hours)
    for seed in seeds:
        yield one_rack(model, when, seed, tuple(plants_of(seed)), tails, stretches(when))


def one_rack(
    model: Model, when: Plan, seed: int, plants: tuple[Plant, ...], tails: Tails, stretches: tuple[Stretch, ...]
) -> Recorded:
    """One rack's run."""
    starts = [when.first_load_s + p.start_s for p in plants if p.start_s is not None]
    canvas = Canvas(model, when.with_knots(starts), Chance(seed, tails))
    _silicon(canvas, plants)
    if model.gpu.nvlinks:
        _links(canvas, plants)
    surroundings(canvas, plants)
    exchanges(canvas, plants)
    befall(canvas, plants)
    log = tuple(sorted(canvas.log, key=lambda x: x.t_s))
    return Recorded(canvas.series, stretches, log=log, seed=seed, plants=plants, lost=canvas.lost)


# ---------------------------------------------------------------- GPUs


def _silicon(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """Everything that NVML says about power, heat and clocks."""
    model, when = canvas.model, canvas.plan
    trays = physics.draw(model, canvas.chance.seed, canvas.chance.tails)
    parts = _aged(canvas, planted(model, trays, plants, when.knots - when.first_load_s), plants)
    base_flow = parts.flow[:: model.topology.gpus_per_tray, -1]
    supply, share = (of(canvas, plants, when.knots)[None, :] for of in (supply_c, flow_share))
    parts = replace(parts, flow=parts.flow * share if (share != 1).any() else parts.flow)
    drift = _drift(canvas)
    rests = [_rest_where_due(canvas, parts, supply, number) for number in range(len(when.conditions))]
    shape = (len(canvas.gpus), when.t.size)
    die, hbm, metered, clock, capped, hot = (np.empty(shape) for _ in range(6))
    for number, at in enumerate(rests):
        columns, mine = when.columns(number)
        shift = drift * np.minimum(1.0, at.power / model.gpu.limit_w)
        for out, values in (
            (die, at.die + shift),
            (hbm, at.hbm + shift),
            (metered, at.power * parts.power_gain),
            (clock, at.clock),
            (capped, at.capped.astype(float)),
            (hot, at.hot.astype(float)),
        ):
            out[:, columns] = np.where(mine, when.between_knots(values, columns), out[:, columns])
    _echo(canvas, rests, die, hbm)
    canvas.watts = metered / parts_at(canvas, parts.power_gain)
    canvas.tray_lpm = float(model.coolant.tray_lpm * base_flow.sum())
    _wave(canvas, plants, die, hbm)
    _read(canvas, die + parts_at(canvas, parts.temp_offset_k), hbm + parts_at(canvas, parts.hbm_offset_k), metered, clock)
    width, busy = when.cells, when.busy.astype(float)
    canvas.counter("throttle.sw_power", (capped >= 0.5) * width)
    canvas.counter("throttle.sw_thermal", (hot >= 0.5) * width)
    _work(canvas, clock, busy, width)


def _rest_where_due(canvas: Canvas, parts: Silicon, supply: Floats, number: int) -> Rest:
    """The rest of one condition at the knots that its readings, or those just after it, lie between; NaN at all others."""
    when = canvas.plan
    used = (when.now == number).any(axis=0) | ((when.before == number) & (when.since < _ECHO_S)).any(axis=0)
    after = np.unique(np.searchsorted(when.knots, when.t[used]).clip(1, when.knots.size - 1))
    at = np.union1d(after, after - 1)
    if at.size == 0:
        at = np.zeros(1, int)

    def here(values: Floats) -> Floats:
        return values[:, at] if values.shape[1] == when.knots.size else values

    def everywhere(values: Floats) -> Floats:
        if values.shape[1] != at.size or at.size == 1 == values.shape[1]:
            return values
        out = np.full((values.shape[0], when.knots.size), np.nan if values.dtype == float else False, values.dtype)
        out[:, at] = values
        return out

    few = replace(parts, **{f.name: here(getattr(parts, f.name)) for f in fields(parts)})
    one = rest(canvas.model, few, when.conditions[number], here(supply))
    whole: dict[str, Any] = {f.name: everywhere(getattr(one, f.name)) for f in fields(one)}
    return replace(one, **whole)


def parts_at(canvas: Canvas, values: Floats) -> Floats:
    """A factor of the parts at every reading: as it is where it stands still, between knots where it moves."""
    return values if values.shape[1] == 1 else canvas.plan.between_knots(values, slice(None))


def _aged(canvas: Canvas, parts: Silicon, plants: Sequence[Plant]) -> Silicon:
    """Interfaces that get worse while they are heated: with time, or with each heating."""
    when, model = canvas.plan, canvas.model
    per_k = 1 / (model.thermal.r_tim * model.gpu.limit_w)
    tim = parts.tim
    for plant in plants:
        if plant.kind in ("tim_pumpout", "dryout"):
            aged = when.loaded_s / _DAY_S if plant.kind == "tim_pumpout" else np.maximum(0.0, when.heatings - 1)
            more = np.zeros((len(canvas.gpus), when.knots.size))
            more[canvas.gpus.index(plant.part)] = plant.severity * per_k * aged
            tim = tim + more
    return replace(parts, tim=tim)


def _drift(canvas: Canvas) -> Floats:
    """Kelvin at full power by which healthy GPUs creep, settle and wander, at every knot."""
    soak, t, gpus = population().soak, canvas.plan.knots, len(canvas.gpus)
    creep = soak.creep_k_per_day * canvas.chance.parts("soak.creep", gpus, 1) * t / _DAY_S
    settle = soak.settle_k * (1 + 0.3 * canvas.chance.parts("soak.settle", gpus, 1)) * np.exp(-t / soak.settle_s)
    wander = soak.wander_k * canvas.chance.stream("soak.wander").standard_normal((gpus, canvas.plan.regular.size))
    return np.asarray(creep + settle + canvas.plan.from_regular(wander))


def _echo(canvas: Canvas, rests: Sequence[Rest], die: Floats, hbm: Floats) -> None:
    """After a change of load temperatures are still on their way from what was before."""
    when, thermal = canvas.plan, canvas.model.thermal
    columns = np.flatnonzero((when.since < _ECHO_S).any(axis=0))
    since = when.since[:, columns]
    for number, at in enumerate(rests):
        was = when.before[:, columns] == number
        if not was.any():
            continue
        core = when.between_knots(at.r_core, columns)
        slow = when.between_knots(at.r_plate, columns) + when.between_knots(at.r_loop, columns)
        left, _ = laws.step_response(thermal, core, slow, since)
        _, late = laws.step_response(thermal, core, slow, np.maximum(0.0, since - thermal.tau_hbm_s))
        old = when.between_knots(at.die, columns), when.between_knots(at.hbm, columns)
        die[:, columns] += np.where(was, left * (old[0] - die[:, columns]), 0.0)
        hbm[:, columns] += np.where(was, late * (old[1] - hbm[:, columns]), 0.0)


def _wave(canvas: Canvas, plants: Sequence[Plant], die: Floats, hbm: Floats) -> None:
    """Pumps that hunt: flow swings faster than knots are apart, temperatures follow in proportion to the heat."""
    for plant in plants:
        if plant.kind == "pump_osc":
            by = swing_k(canvas, plant)
            die += by
            hbm += by


def swing_k(canvas: Canvas, plant: Plant) -> Floats:
    """Kelvin by which a loaded GPU's temperature swings, at each reading, by pumps that hunt."""
    model, when, thermal = canvas.model, canvas.plan, canvas.model.thermal
    flow = plant.severity * canvas.grown(plant, when.t) * hunting(canvas, when.t)
    branch = model.coolant.tray_lpm / len(model.coolant.loops) * model.coolant.w_per_k_per_lpm
    per_share = thermal.r_convection * thermal.flow_exponent + model.coolant.own_rise / branch
    lag = 2 * np.pi / SWING_S * thermal.c_plate * (thermal.r_plate + thermal.r_convection)
    out: Floats = -model.gpu.limit_w * per_share * flow * when.busy.mean(axis=0) / np.sqrt(1 + lag**2)
    return out


def _read(canvas: Canvas, die: Floats, hbm: Floats, metered: Floats, clock: Floats) -> None:
    """What the sensors make of it."""
    model, sensors = canvas.model, canvas.model.sensors
    facts = model.gpu
    temp = np.floor(die + sensors.temp_noise_k * canvas.noise("gpu.temp") + 0.5)
    canvas.rows("gpu.temp", temp)
    canvas.rows("gpu.tlimit", facts.max_operating_c - temp)
    canvas.rows("hbm.temp", np.floor(hbm + sensors.temp_noise_k * canvas.noise("hbm.temp") + 0.5))
    unrest = sensors.power_noise_w * np.minimum(1.0, metered / facts.limit_w)
    power = np.maximum(0.0, np.round(metered + unrest * canvas.noise("gpu.power"), 3))
    canvas.rows("gpu.power", power)
    canvas.rows("gpu.power_avg", np.round(metered, 3))
    begun = canvas.chance.stream("energy").uniform(1e6, 5e6, (len(canvas.gpus), 1))
    canvas.rows(
        "gpu.energy", np.round(begun + np.cumsum(metered * canvas.plan.cells, axis=1) - metered * canvas.plan.cells / 2, 3)
    )
    size = facts.gpus_per_module
    module = power.reshape(-1, size, power.shape[1]).sum(axis=1) + model.machine.module_w
    canvas.rows("module.power", np.repeat(module, size, axis=0))
    canvas.rows("gpu.clock_sm", np.floor(clock))
    for metric, value in _still(model).items():
        canvas.same(metric, value)
    canvas.rows("gpu.util", canvas.plan.busy.astype(float))
    healthy_counters(canvas)


def _still(model: Model) -> dict[str, float]:
    """What does not move on a healthy GPU."""
    zero = "throttle.hw_thermal throttle.hw_brake ecc.dram_ce ecc.dram_ue ecc.sram_ce ecc.sram_ue remap.correctable"
    zero += " remap.uncorrectable remap.pending remap.failed c2c.crc c2c.replay pcie.replay load.wrong"
    out = dict.fromkeys(zero.split(), 0.0)
    out |= {"gpu.clock_mem": float(model.gpu.clock_mem_mhz), "gpu.power_limit": model.gpu.limit_w}
    out |= {"pcie.gen": float(model.gpu.pcie_gen), "pcie.width": 16.0}
    return out | ({"fabric.state": 3.0, "fabric.health": 1.0} if model.gpu.fabric_clique is not None else {})


def _work(canvas: Canvas, clock: Floats, busy: Floats, width: Floats) -> None:
    """Launches of the load's kernels: as fast as the clock and the GPU itself."""
    spread, gpus = population().load, len(canvas.gpus)
    own = 1 + spread.rate_sd * canvas.chance.parts("load.rate", gpus, 1)
    again = 1 + spread.rate_repeat * canvas.chance.stream("load.repeat").standard_normal((gpus, len(canvas.plan.spans)))
    rate = spread.launches_per_s * own * again[:, canvas.plan.span] * clock / canvas.model.power.f_ref_mhz
    canvas.counter("load.launches", np.asarray(rate * busy * width), whole=True)


# ---------------------------------------------------------------- links


def _links(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """Raw error rates of every reading, and what correction lets through."""
    spread, when = population().links, canvas.plan
    snr = margins(canvas.model, canvas.chance, [p for p in plants if not p.moves])
    level = laws.raw_ber(snr).reshape(-1, 1)
    noise = canvas.chance.stream("links.repeat").standard_normal((level.size, when.minutes.size), dtype=np.float32)
    raw = level * np.exp(np.float32(spread.repeat_decades * np.log(10)) * noise)
    missing: dict[int, Floats] = {}
    for plant in plants:
        for gpu, link in weak_links(canvas.model, plant):
            number, lost = gpu * snr.shape[1] + link, plant.severity * canvas.grown(plant, when.minutes)
            missing[number] = missing.get(number, np.zeros(when.minutes.size)) + lost
            if plant.moves:
                raw[number] *= laws.raw_ber(snr[gpu, link] - lost) / laws.raw_ber(snr[gpu, link])
    for metric, value in _QUIET.items():
        canvas.all_links(metric, value)
    canvas.all_links("nvlink.speed", spread.mbps / 1000)
    sent = np.cumsum(spread.idle_share * spread.mbps * 1e6 * when.minute_cells)
    for metric in ("nvlink.rx_bytes", "nvlink.tx_bytes"):
        canvas.all_links(metric, np.round(sent))
    for name, row in zip(canvas.links, raw, strict=True):
        canvas.series[name, "nvlink.raw_ber"] = Series(when.minutes, row)
    _uncorrected(canvas, raw, missing)


_QUIET = {
    "nvlink.state": 1.0, "nvlink.symbol_errors": 0.0, "nvlink.symbol_ber": 0.0, "nvlink.effective_errors": 0.0,
    "nvlink.effective_ber": 0.0, "nvlink.recovery_ok": 0.0, "nvlink.recovery_failed": 0.0, "nvlink.rx_errors": 0.0,
    "nvlink.integrity_errors": 0.0,
}  # fmt: skip
"""What healthy links say."""


def _uncorrected(canvas: Canvas, raw: Floats, missing: Mapping[int, Floats]) -> None:
    """Code words that correction cannot mend: random errors, RS(544,514), and bursts where margin is `missing` (link -> dB)."""
    spread, stream = population().links, canvas.chance.stream("links.words")
    for number in sorted({*np.flatnonzero(raw.max(axis=1) > WORTH).tolist(), *missing}):
        lost = stream.poisson(post_fec_per_s(raw[number], spread.mbps) * canvas.plan.minute_cells)
        if number in missing:
            bursts = stream.poisson(bursts_per_s(missing[number]) * canvas.plan.minute_cells)
            more = stream.negative_binomial(np.maximum(bursts, 1), 1 / spread.burst.words)
            lost = lost + np.where(bursts > 0, bursts + more, 0)
        if lost.any():
            total = np.cumsum(lost).astype(float)
            canvas.lost[canvas.links[number]] = int(total[-1])
            bits = spread.mbps * 8e6 * canvas.plan.minutes
            for metric, values in (
                ("nvlink.effective_errors", total),
                ("nvlink.symbol_errors", total),
                ("nvlink.effective_ber", total / bits),
                ("nvlink.symbol_ber", total / bits),
            ):
                canvas.series[canvas.links[number], metric] = Series(canvas.plan.minutes, values)
