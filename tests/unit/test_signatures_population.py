"""Signatures that compare peers, on synthetic racks: what is planted is named, healthy racks are left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from burnin import signatures
from burnin.events import Finding, Severity
from burnin.rack.load import load_catalogue
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.tails import UNKNOWN
from burnin.signatures.zones import Seen, Zone
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import racks
from tests.sampled import some
from tests.soaks import margins, soak

ROWS = load_catalogue().signatures
PART = "t07.g2"
Fault = Callable[[racks.Rack], None]


def times(name: str, factor: float) -> Fault:
    def plant(one: racks.Rack) -> None:
        getattr(one, name)[racks.cell(PART)] *= factor

    return plant


def plus(name: str, value: float) -> Fault:
    def plant(one: racks.Rack) -> None:
        getattr(one, name)[racks.cell(PART)] += value

    return plant


def found(seed: int, tails: str = "normal", plant: Fault | None = None) -> list[Finding]:
    one = racks.rack(seed, tails)
    if plant is not None:
        plant(one)
    return look(racks.telemetry(one))


def look(telemetry: Telemetry) -> list[Finding]:
    return signatures.find(telemetry, racks.topology(), ROWS, {})


def grave(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(f.part, f.signature) for f in findings if f.severity is not Severity.WATCH}


def test_healthy_racks_are_left_alone_by_what_is_new() -> None:
    """Twelve racks whose parts are normal: no HOLD; twelve with t5 tails: at most two (seven families of 1 %)."""
    new = {"thermal.rth", "thermal.tray"}
    assert [f for seed in range(12) for f in grave(found(seed)) if f[1] not in new] == []
    heavy = [f for seed in range(12) for f in grave(found(seed, "t5")) if f[1] not in new]
    assert len(heavy) <= 2, heavy


def test_a_sensor_is_not_blamed_for_the_heat_of_a_gpu_that_does_not_idle() -> None:
    """300 W at rest warm it by some 7 K; a sensor that is off by as much is off at any power."""
    one = racks.rack(12)
    telemetry = racks.telemetry(one)
    rise = 300 * 0.0234  # the model's K/W
    series = dict(telemetry.series)
    idles = [s for s in telemetry.stretches if not s.phase.startswith("load")]
    for metric, more in (("gpu.power", 300.0), ("gpu.temp", rise)):
        was = series[PART, metric]
        idle = np.any([(was.t_s >= s.t0_s) & (was.t_s < s.t1_s) for s in idles], axis=0)
        series[PART, metric] = Series(was.t_s, was.v + more * idle)
    heated = look(Telemetry(series, telemetry.stretches))
    assert (PART, "power.leak") in {(f.part, f.signature) for f in heated}
    assert (PART, "sensor.offset") not in {(f.part, f.signature) for f in heated}
    assert (PART, "sensor.offset") in grave(found(12, plant=plus("temp_offset", 11.0)))


@pytest.mark.parametrize(
    ("signature", "plant", "least"),
    some([
        ("thermal.hbm", times("hbm", 2.2), 4),
        ("power.leak", times("leakage", 2.8), 5),
        ("clock.weak", times("voltage", 1.25), 5),
        ("clock.ceiling", times("top_mhz", 0.8), 6),
        ("sensor.offset", plus("temp_offset", 11.0), 5),
        ("sensor.offset", plus("temp_offset", -11.0), 5),
        ("sensor.gain", times("gain", 1.3), 4),
        ("thermal.rth", times("tim", 2.5), 6),
    ]),
)  # fmt: skip
def test_what_is_planted_is_named_in_its_place(signature: str, plant: Fault, least: int) -> None:
    hits = 0
    for seed in range(100, 106):
        named = grave(found(seed, plant=plant))
        hits += (PART, signature) in named
        assert {part for part, name in named if not name.startswith("thermal.r")} <= {PART}
    assert hits >= least


@pytest.mark.parametrize(
    ("signature", "plant"),
    some([
        ("power.leak", times("leakage", 1.2)),
        ("clock.weak", times("voltage", 1.03)),
        ("thermal.hbm", times("hbm", 1.2)),
        ("sensor.offset", plus("temp_offset", 3.0)),
        ("clock.ceiling", times("top_mhz", 0.97)),
    ]),
)  # fmt: skip
def test_what_is_small_is_not_held(signature: str, plant: Fault) -> None:
    assert all((PART, signature) not in grave(found(seed, plant=plant)) for seed in range(101, 105))  # 100 leaks by nature


def test_a_cold_plate_is_not_called_memory_and_a_void_is_not_called_a_sensor() -> None:
    for seed in range(100, 104):
        clogged = grave(found(seed, plant=times("convection", 1.8)))
        assert (PART, "thermal.rth") in clogged and (PART, "thermal.hbm") not in clogged
        void = grave(found(seed, plant=times("tim", 3.0)))
        assert (PART, "sensor.offset") not in void and (PART, "sensor.gain") not in void and (PART, "power.leak") not in void


def test_a_warm_rack_is_the_coolant_and_no_gpu() -> None:
    one = racks.rack(5)
    one.supply = dict.fromkeys(("idle", "load", "cool", "load-2"), 20.0)
    assert grave(look(racks.telemetry(one))) == {("cdu", "thermal.rack")}
    one.supply = dict.fromkeys(("idle", "load", "cool", "load-2"), 45.0 - racks.model().coolant.supply_c)
    assert grave(look(racks.telemetry(one))) == set(), "45 Cel is the warmest rated supply: warm water is no fault"
    one = racks.rack(5)
    one.supply = {"load-2": 6.0}
    (finding,) = [f for f in look(racks.telemetry(one)) if f.severity is not Severity.WATCH]
    assert (finding.part, finding.severity) == ("cdu", Severity.HOLD)
    assert finding.value == pytest.approx(6, abs=0.6) and "equal power" in finding.why


def test_one_warm_tray_is_not_the_rack() -> None:
    one = racks.rack(5)
    one.flow[7] *= 0.5
    assert "cdu" not in {part for part, _ in grave(look(racks.telemetry(one)))}


def _with(telemetry: Telemetry, part: str, metric: str, change: Callable[[Series], Series]) -> Telemetry:
    return Telemetry({**telemetry.series, (part, metric): change(telemetry.of(part, metric))}, telemetry.stretches)


@pytest.mark.parametrize("metric", ["gpu.temp", "hbm.temp", "gpu.power"])
@pytest.mark.parametrize("since", [0.0, 20.0])
def test_a_stuck_sensor_is_named_whenever_it_sticks(metric: str, since: float) -> None:
    def freeze(one: Series) -> Series:
        return Series(one.t_s, np.where(one.t_s < since, one.v, one.v[np.searchsorted(one.t_s, since)]))

    findings = look(_with(racks.telemetry(racks.rack(3)), PART, metric, freeze))
    (stuck,) = [f for f in findings if f.signature == "sensor.stuck"]
    assert (stuck.part, stuck.severity, stuck.evidence["metric"]) == (PART, Severity.HOLD, metric)


def test_whole_degrees_that_stand_still_under_constant_load_are_not_stuck() -> None:
    telemetry = racks.telemetry(racks.rack(3))

    def calm(one: Series) -> Series:
        value = np.select([one.t_s < 12, one.t_s < 43, one.t_s < 56], [35.0, 66.0, 36.0], 66.0)
        return Series(one.t_s, value)

    assert "sensor.stuck" not in {f.signature for f in look(_with(telemetry, PART, "gpu.temp", calm))}


def test_a_load_that_begins_with_the_last_reading_is_no_step() -> None:
    """Idle stands still at 36 Cel, and so does a ramp whose load came at its very end: nothing is stuck."""
    telemetry = racks.telemetry(racks.rack(3), (racks.IDLE, racks.COOL))
    power = telemetry.of(PART, "gpu.power")
    late = Series(power.t_s, np.where(power.t_s > 49, 1390.0, power.v))
    calm = Series(power.t_s, np.full(power.t_s.size, 36.0))
    series = {**telemetry.series, (PART, "gpu.power"): late, (PART, "gpu.temp"): calm}
    assert look(Telemetry(series, telemetry.stretches)) == []


def test_an_energy_counter_that_lags_is_named() -> None:
    telemetry = racks.telemetry(racks.rack(3))
    slow = _with(telemetry, PART, "gpu.energy", lambda one: Series(one.t_s, one.v * 0.8))
    assert (PART, "sensor.meter") in grave(look(slow))
    assert "sensor.meter" not in {f.signature for f in look(telemetry)}


@pytest.mark.long
def test_signatures_without_their_signals_find_nothing() -> None:
    whole = racks.telemetry(racks.rack(3))
    for metric in {metric for _, metric in whole.series}:
        look(Telemetry({key: one for key, one in whole.series.items() if key[1] != metric}, whole.stretches))
    only = {key: one for key, one in whole.series.items() if key[1] == "gpu.clock_sm"}
    assert look(Telemetry(only, whole.stretches)) == []
    assert look(Telemetry({}, ())) == []


def test_a_signature_that_the_kept_catalogue_does_not_name_is_not_run() -> None:
    one = racks.rack(100)
    one.top_mhz[racks.cell(PART)] *= 0.7
    rows = {name: row for name, row in ROWS.items() if name.startswith("thermal.")}
    kept = signatures.find(racks.telemetry(one), racks.topology(), rows, {})
    assert {f.signature for f in kept} <= set(rows)


def test_catalogues_of_older_runs_still_judge_them() -> None:
    """Limits that came in later are what they were before."""
    later = {"sensor.offset": "cold", "thermal.drift": "equal_power", "thermal.step": "equal_power", "nvlink.margin": "sure_gpu"}
    later["thermal.rack"] = "rest_s"
    rows = dict(ROWS)
    for name, limit in later.items():
        rows[name] = ROWS[name].model_copy(update={"limits": {k: v for k, v in ROWS[name].limits.items() if k != limit}})
    cold = racks.rack(3)
    cold.temp_offset[racks.cell(PART)] -= 11.0
    for telemetry in (racks.telemetry(cold), soak(1), margins(7)):
        now, then = (signatures.find(telemetry, racks.topology(), some, {}) for some in (ROWS, rows))
        assert [(f.part, f.signature, f.severity) for f in now] == [(f.part, f.signature, f.severity) for f in then]


def test_gpus_that_were_not_loaded_are_not_compared_under_load() -> None:
    one = racks.rack(100)
    one.voltage[racks.cell(PART)] *= 1.3
    telemetry = racks.telemetry(one)
    assert (PART, "clock.weak") in grave(look(telemetry))
    missed = {"load": frozenset({PART}), "load-again": frozenset({PART})}
    left = signatures.find(telemetry, racks.topology(), ROWS, missed)
    assert (PART, "clock.weak") not in {(f.part, f.signature) for f in left}


def test_every_finding_says_what_to_do_with_numbers() -> None:
    one = racks.rack(100)
    one.leakage[racks.cell(PART)] *= 3
    finding = next(f for f in look(racks.telemetry(one)) if f.signature == "power.leak")
    assert finding.unit == "W" and finding.value is not None and 220 < finding.value < 500
    assert finding.limit is not None and 190 < finding.limit < 250, "a fifth above its peers' 185 W, in the unit of the value"
    assert finding.statistic is not None and finding.statistic > 8
    assert " W" in finding.why and finding.action.startswith("repeat the stage")
    assert finding.evidence["idle"]["zone"] == "HOLD"


@pytest.mark.parametrize(
    ("signature", "plant", "low", "high"),
    [
        ("thermal.hbm", times("hbm", 2.5), -6.0, 12.0),
        ("clock.weak", times("voltage", 1.25), 1600.0, 1760.0),
        ("sensor.offset", plus("temp_offset", 12.0), 37.0, 42.0),
        ("sensor.offset", plus("temp_offset", -12.0), 28.0, 33.0),
        ("sensor.gain", times("gain", 1.3), 8.0, 13.0),
    ],
)
def test_a_limit_is_where_the_value_would_be_at_the_floor(signature: str, plant: Fault, low: float, high: float) -> None:
    finding = next(f for f in found(101, plant=plant) if (f.part, f.signature) == (PART, signature))
    assert finding.limit is not None and finding.value is not None
    assert low < finding.limit < high
    worse = finding.value < finding.limit if low in (1600.0, 28.0) else finding.value > finding.limit
    assert worse, "a named value is beyond its limit"


# ---------------------------------------------------------------- zones


@pytest.mark.parametrize(
    ("seen", "want"),
    [
        ([Zone.FAIL], Severity.HOLD),
        ([Zone.FAIL, Zone.FAIL], Severity.FAIL),
        ([Zone.FAIL, Zone.HOLD], Severity.HOLD),
        ([Zone.FAIL, Zone.WATCH], Severity.WATCH),
        ([Zone.FAIL, Zone.FAMILY], Severity.HOLD),
        ([Zone.HOLD, Zone.FAMILY, Zone.FAMILY], Severity.WATCH),
        ([Zone.WATCH], Severity.WATCH),
        ([Zone.FAMILY, Zone.FAMILY], None),
        ([], None),
    ],
)
def test_one_retest_decides(seen: list[Zone], want: Severity | None) -> None:
    assert zones.severity([Seen(str(i), 1.0, 1.0, 1.0, zone, 0.0) for i, zone in enumerate(seen)]) is want


@pytest.mark.parametrize(
    ("excess", "z", "want"),
    [
        (2.9, 50.0, Zone.FAMILY), (9.0, 3.4, Zone.FAMILY), (3.1, 4.4, Zone.WATCH), (3.1, 9.0, Zone.HOLD), (9.0, 9.0, Zone.HOLD),
        (9.0, 20.0, Zone.FAIL), (5.0, 20.0, Zone.HOLD), (float("nan"), 20.0, Zone.FAMILY),
    ],
)  # fmt: skip
def test_both_gates_and_three_zones(excess: float, z: float, want: Zone) -> None:
    assert zones.zone(ROWS["thermal.hbm"], 72, excess, z, 32.0) is want


def test_the_limit_grows_with_the_number_of_parts() -> None:
    row = ROWS["thermal.hbm"]
    assert zones.zone(row, 18, 5.0, 5.4, 32.0) is Zone.HOLD
    assert zones.zone(row, 72, 5.0, 5.4, 32.0) is Zone.WATCH


def test_the_limit_grows_with_doubt_about_sigma_and_with_heavy_tails() -> None:
    row = ROWS["thermal.hbm"]
    assert zones.zone(row, 72, 4.0, 5.2, 500.0) is Zone.HOLD
    assert zones.zone(row, 72, 4.0, 5.2, 8.0) is Zone.WATCH
    assert zones.zone(row, 72, 4.0, 6.5, 500.0, tail=5.0) is Zone.WATCH
    assert zones.zone(row, 72, 4.0, 9.5, 32.0, tail=UNKNOWN) is Zone.WATCH
    assert zones.zone(row, 72, 5.0, 6.5, 32.0, tail=UNKNOWN) is Zone.HOLD, "from `sure` on no tail explains it"


def test_grids_keep_parts_in_their_place() -> None:
    telemetry = racks.telemetry(racks.rack(1))
    readings = Readings(telemetry, racks.topology(), {})
    got = readings.mean("gpu.power", racks.LOAD)
    assert got.shape == (18, 4)
    want = telemetry.window("t11.g3", "gpu.power", racks.LOAD).v.mean()
    assert got[11, 3] == pytest.approx(float(want))


@pytest.mark.parametrize(
    ("lost", "noise", "held"),
    [
        ((0.019, 0.019, 0.019, 0.019), 0.0045, {PART}),  # 4.2 sigmas of a run, 8.4 of the mean of four
        ((0.022, 0.0, 0.0, 0.0), 0.002, set()),  # one odd run of four is not the part's
        ((0.022, 0.0), 0.002, set()),  # until 2026-11-21 it was HOLD, once of two
    ],
)
def test_looks_at_one_locked_clock_are_averaged(lost: tuple[float, ...], noise: float, held: set[str]) -> None:
    """Work per clock: it is parts that are compared, and the noise is the runs'."""
    rng, t = np.random.default_rng(5), np.arange(0.0, 200.0 * (len(lost) + 1), 5.0)
    loads = [Stretch(f"held-{i}", f"load@1500-{i}", 200 * i, 200 * i + 200) for i in range(1, len(lost) + 1)]
    series: dict[tuple[str, str], Series] = {}
    for gpu in (f"t{i:02}.g{j}" for i in range(18) for j in range(4)):
        pace = 1000 * (1 + noise * rng.standard_normal(len(lost) + 1)) * (1 - np.array([0, *lost]) * (gpu == PART))
        done = np.floor(np.cumsum(np.where(t < 200, 0.0, pace[(t // 200).astype(int)]) * 5))
        series[gpu, "load.launches"] = Series(t, done)
        series[gpu, "gpu.clock_sm"] = Series(t, np.full(t.size, 1500.0))
        series[gpu, "gpu.power"] = Series(t, np.where(t < 200, 180.0, 900.0))
    found = look(Telemetry(series, (Stretch("idle", "idle", 0, 100), *loads)))
    assert {f.part for f in found if f.signature == "perf.slow" and f.severity is Severity.HOLD} == held


def changed(telemetry: Telemetry, change: Callable[[str, str, Series], Series]) -> Telemetry:
    return Telemetry({(p, m): change(p, m, one) for (p, m), one in telemetry.series.items()}, telemetry.stretches)


@pytest.mark.parametrize(("metric", "reads"), [("gpu.temp", 0.0), ("gpu.temp", 40.0), ("hbm.temp", 60.0), ("gpu.power", 700.0)])
def test_what_a_dead_sensor_says_names_nobody_else(metric: str, reads: float) -> None:
    """A core that reads 0 Cel made its memory 32 K too hot (FAIL) and its tray's other board a hot one (HOLD)."""
    telemetry = changed(
        racks.telemetry(racks.rack(12)),
        lambda p, m, one: Series(one.t_s, np.full(one.t_s.size, reads)) if (p, m) == (PART, metric) else one,
    )
    told = [f for f in look(telemetry) if f.severity is not Severity.WATCH]
    assert {(f.part, f.signature.split(".")[0], f.severity) for f in told} == {(PART, "sensor", Severity.HOLD)}
    assert "sensor.stuck" in {f.signature for f in told}


def test_a_whole_tray_that_idles_warmer_is_no_four_sensors() -> None:
    one = racks.rack(12)
    one.temp_offset[7] += 11.0
    told = [f for f in look(racks.telemetry(one)) if f.signature == "sensor.offset"]
    assert [(f.part, f.severity) for f in told] == [("t07", Severity.HOLD)]
    assert "4 of its 4 GPUs" in told[0].why and "hose" in told[0].fru


def test_temperatures_in_kelvin_or_a_supply_sensor_that_lies_are_no_72_sensors() -> None:
    one = racks.telemetry(racks.rack(12))
    hot = changed(one, lambda p, m, s: Series(s.t_s, s.v + 273.15) if m == "gpu.temp" else s)
    assert [f.part for f in look(hot) if f.signature == "sensor.range"] == ["rack"]
    t = one.of("t00.g0", "gpu.temp").t_s
    loop = {("cdu", "coolant.supply_temp"): Series(t, np.full(t.size, 70.0))}
    told = [f for f in look(Telemetry({**one.series, **loop}, one.stretches)) if f.signature == "sensor.range"]
    assert {(f.part, f.fru) for f in told} == {("cdu", "supply temperature sensor of the loop")}
