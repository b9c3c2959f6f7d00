"""Each check: its own fault is FAIL, silence is UNKNOWN with a reason, health is PASS, and the neighbour's fault is not its."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from burnin.checks import ALWAYS, CHECKS
from burnin.checks.base import Answer, Context, Evidence, Order, Quantity
from burnin.checks.gpu_load import attained
from burnin.events import LogLine, Measurement, Result
from burnin.suites.schema import Stage
from burnin.telemetry.series import Stretch, Telemetry
from tests import build
from tests.sampled import some

GPUS = [f"t07.g{i}" for i in range(4)]
HEALTHY: dict[str, dict[Stretch, Any]] = {
    "gpu.power": {build.IDLE: 190.0, build.LOAD: 1395.0},
    "gpu.util": {build.IDLE: 0.0, build.LOAD: 1.0},
    "gpu.power_limit": {build.IDLE: 1400.0, build.LOAD: 1400.0},
    "gpu.tlimit": {build.IDLE: 50.0, build.LOAD: 17.0},
    "gpu.clock_sm": {build.IDLE: 120.0, build.LOAD: 1890.0},
    "hbm.temp": {build.IDLE: 36.0, build.LOAD: 70.0},
    "load.launches": {build.LOAD: [float(i) for i in range(24)]},
    "load.wrong": {build.LOAD: 0.0},
    **{f"throttle.{x}": {build.IDLE: 5.0, build.LOAD: 5.0} for x in ("sw_thermal", "hw_thermal", "hw_brake")},
    **{f"ecc.{x}": {build.IDLE: 3.0, build.LOAD: 3.0} for x in ("dram_ue", "sram_ue", "dram_ce", "sram_ce")},
    **{f"remap.{x}": {build.IDLE: 2.0, build.LOAD: 2.0} for x in ("uncorrectable", "correctable")},
    **{x: {build.IDLE: 0.0, build.LOAD: 0.0} for x in ("remap.pending", "remap.failed", "repair.pending")},
    **{x: {build.IDLE: 0.0, build.LOAD: 0.0} for x in ("ecc.sram_threshold", "gpu.recovery_action", "fabric.status")},
    "fabric.state": {build.IDLE: 3.0, build.LOAD: 3.0},
    "fabric.health": {build.IDLE: 1.0, build.LOAD: 1.0},
}  # fmt: skip


LINK = {
    "nvlink.state": 1.0, "nvlink.speed": 53.125, "nvlink.effective_ber": 0.0, "nvlink.effective_errors": 7.0,
    "nvlink.symbol_errors": 7.0, "nvlink.rx_errors": 0.0, "nvlink.integrity_errors": 0.0, "nvlink.recovery_ok": 2.0,
    "nvlink.recovery_failed": 0.0,
}  # fmt: skip
LINKS = {
    (f"{gpu}.l{i}", metric): dict.fromkeys((build.IDLE, build.LOAD), value)
    for gpu in GPUS
    for i in range(18)
    for metric, value in LINK.items()
}
COUNTERS = [metric for metric in LINK if metric not in ("nvlink.state", "nvlink.speed", "nvlink.effective_ber")]


def telemetry(change: dict[tuple[str, str], Any] | None = None) -> Telemetry:
    """A healthy tray t07, with the readings of some (gpu, metric) changed (None: never read)."""
    rows: dict[tuple[str, str], Any] = {(gpu, metric): dict(value) for gpu in GPUS for metric, value in HEALTHY.items()}
    rows |= {key: dict(value) for key, value in LINKS.items()}
    for key, value in (change or {}).items():
        if value is None:
            del rows[key]
        else:
            rows[key] = {**rows[key], **value}
    return build.series(rows)


PROFILE = build.profile(links=18)


def context(stage: str = "load", **more: Any) -> Context:
    suite = build.suite()
    (one,) = (s for s in suite.stages if s.stage == stage)
    return replace(Context("t07", build.rack(), PROFILE, suite, one, build.catalogue()), **more)


def judge(name: str, stage: str = "load", change: Any = None, log: Sequence[LogLine] = (), **more: Any) -> list[Measurement]:
    stretch: Stretch = {"idle": build.IDLE, "load": build.LOAD}[stage]
    evidence = Evidence(telemetry=telemetry(change), stretch=stretch, log=log, sources={"xid": None, "kmsg": None})
    return CHECKS[name].judge(context(stage), replace(evidence, **more))


def results(measurements: list[Measurement], part: str = "t07.g2") -> dict[str, Result]:
    return {m.name: m.result for m in measurements if m.part == part}


def others_pass(measurements: list[Measurement], part: str = "t07.g2") -> bool:
    return all(m.result is Result.PASS for m in measurements if m.part != part)


STAGES = {
    "idle-baseline": "idle",
    "gpu-load": "load",
    "thermal-margin": "load",
    "throttling": "load",
    "ecc": "load",
    "links": "load",
    "xid": "load",
}


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_a_healthy_tray_passes(name: str, stage: str) -> None:
    got = judge(name, stage)
    assert got
    assert [m for m in got if m.result is not Result.PASS] == []


FAULTS = [
    ("idle-baseline", "idle", {("t07.g2", "gpu.power"): {build.IDLE: 420.0}}, "gpu.idle_power"),
    ("idle-baseline", "idle", {("t07.g2", "gpu.util"): {build.IDLE: 0.4}}, "gpu.idle_util"),
    ("idle-baseline", "idle", {("t07.g2", "gpu.power_limit"): {build.IDLE: 1200.0}}, "gpu.power_limit"),
    ("gpu-load", "load", {("t07.g2", "load.wrong"): {build.LOAD: [0.0] * 14 + [1.0] * 10}}, "gpu.mismatches"),
    ("thermal-margin", "load", {("t07.g2", "gpu.tlimit"): {build.LOAD: [17.0] * 20 + [1.0] * 4}}, "gpu.tlimit.load"),
    ("thermal-margin", "load", {("t07.g2", "hbm.temp"): {build.LOAD: 106.0}}, "hbm.temp.load"),
    ("thermal-margin", "load", {("t07.g2", "gpu.tlimit"): {build.LOAD: [17.0] * 3 + [0.0] + [40.0] * 20}}, "gpu.tlimit.load"),
    ("thermal-margin", "load", {("t07.g2", "hbm.temp"): {build.LOAD: [106.0] + [70.0] * 23}}, "hbm.temp.load"),
    ("throttling", "load", {("t07.g2", "throttle.hw_thermal"): {build.LOAD: [5.0] * 23 + [6.0]}}, "throttle.hw_thermal.growth"),
    ("throttling", "load", {("t07.g2", "throttle.hw_thermal"): {build.LOAD: [5.0] * 4 + [6.0] * 20}},
     "throttle.hw_thermal.growth"),
    ("throttling", "load", {("t07.g2", "throttle.hw_brake"): {build.LOAD: [5.0] * 20 + [5.01] * 4}}, "throttle.hw_brake.growth"),
    ("throttling", "load", {("t07.g2", "throttle.sw_thermal"): {build.LOAD: [5.0 + i for i in range(24)]}},
     "throttle.sw_thermal.fraction"),
    ("ecc", "load", {("t07.g2", "ecc.dram_ue"): {build.LOAD: [3.0] * 20 + [4.0] * 4}}, "ecc.dram_ue.growth"),
    ("ecc", "load", {("t07.g2", "ecc.sram_ue"): {build.LOAD: 4.0}}, "ecc.sram_ue.growth"),
    ("ecc", "load", {("t07.g2", "ecc.dram_ce"): {build.LOAD: 8.0}}, "ecc.dram_ce.growth"),
    ("ecc", "load", {("t07.g2", "remap.uncorrectable"): {build.LOAD: 3.0}}, "remap.uncorrectable.growth"),
    ("ecc", "load", {("t07.g2", "remap.pending"): {build.LOAD: [0.0] * 23 + [1.0]}}, "remap.pending"),
    ("ecc", "load", {("t07.g2", "remap.failed"): {build.IDLE: 1.0, build.LOAD: 1.0}}, "remap.failed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stage", "change", "measurement"), some(FAULTS, 2), ids=[f"{n}-{m}" for n, _, _, m in FAULTS])
def test_each_fault_fails_its_own_measurement_on_its_own_part_only(name: str, stage: str, change: Any, measurement: str) -> None:
    got = judge(name, stage, change)
    failed = [(m.part, m.name) for m in got if m.result is not Result.PASS]
    assert failed == [("t07.g2", measurement)]
    for other in STAGES.keys() - {name}:
        assert others_pass(judge(other, STAGES[other], change))
        assert set(results(judge(other, STAGES[other], change)).values()) <= {Result.PASS}


def test_what_a_gpu_brought_along_is_its_baseline() -> None:
    old = {("t07.g2", "ecc.dram_ue"): {build.IDLE: 900.0, build.LOAD: 900.0}}
    assert set(results(judge("ecc", change=old)).values()) == {Result.PASS}


def test_a_counter_that_was_reset_still_counts_what_came_after() -> None:
    reset = {("t07.g2", "ecc.dram_ue"): {build.IDLE: 900.0, build.LOAD: [0.0] * 12 + [1.0] * 12}}
    (m,) = (m for m in judge("ecc", change=reset) if (m.part, m.name) == ("t07.g2", "ecc.dram_ue.growth"))
    assert (m.value, m.result) == (1.0, Result.FAIL)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        (check.name, metric)
        for check in CHECKS.values()
        if check.name in STAGES
        for metric in check.metrics
        if "nvlink" not in metric
    ],
)
def test_what_was_not_read_is_unknown_and_says_why(name: str, metric: str) -> None:
    stage = STAGES[name]
    silent = telemetry({("t07.g2", metric): None})
    evidence = Evidence(
        telemetry=replace(silent, absent={("t07.g2", metric): "not_supported"}),
        stretch=build.IDLE if stage == "idle" else build.LOAD,
        sources={"xid": None, "kmsg": None},
    )
    got = CHECKS[name].judge(context(stage), evidence)
    unknown = [m for m in got if m.part == "t07.g2" and m.result is not Result.PASS]
    assert unknown
    assert {m.result for m in unknown} == {Result.UNKNOWN}
    assert all(m.value is None and m.reason is not None for m in unknown)
    assert "not_supported" in {m.reason for m in unknown}
    assert others_pass(got)


@pytest.mark.parametrize("name", STAGES)
def test_no_evidence_at_all_passes_nothing(name: str) -> None:
    got = CHECKS[name].judge(context(STAGES[name]), Evidence())
    assert got
    assert [m for m in got if m.result is not Result.UNKNOWN] == []


def test_a_value_against_no_limit_is_unknown() -> None:
    hot = Quantity("gpu.temp", "Cel", "t")
    for limits in ({}, build.limits(gpu__temp={"max": None, "unit": "Cel"})):
        m = hot.judge("t07.g2", 20.0, limits)
        assert (m.result, m.reason, m.value) == (Result.UNKNOWN, "missing", 20.0)


@pytest.mark.parametrize(("power", "result"), [(1330.0, Result.PASS), (1329.0, Result.UNKNOWN), (190.0, Result.UNKNOWN)])
def test_a_load_that_was_not_reached_proves_nothing(power: float, result: Result) -> None:
    got = judge("gpu-load", change={("t07.g2", "gpu.power"): {build.LOAD: power}})
    (m,) = (m for m in got if (m.part, m.name) == ("t07.g2", "gpu.power_fraction"))
    assert m.result is result
    assert m.reason == (None if result is Result.PASS else "not_attained")
    assert others_pass(got)


WINDOW = 12
"""Readings in the judged window of build.LOAD, one a second."""


@pytest.mark.parametrize(
    ("readings", "watts", "result", "value"),
    [
        ([1400.0] * 11 + [379.0], 1393.0, Result.PASS, 0.995),
        ([1400.0] * 11 + [379.0], None, Result.UNKNOWN, 0.939226),
        ([1400.0] * 11 + [379.0], 1300.0, Result.UNKNOWN, 0.939226),
        ([1300.0] * 12, 1393.0, Result.UNKNOWN, 0.928571),
        ([1400.0] * 6 + [700.0] * 6, 1393.0, Result.UNKNOWN, 0.75),
        ([1395.0] * 12, 1200.0, Result.PASS, 0.996429),
    ],
    ids=["one dip", "no counter", "the counter saw it too", "low all the time", "low half of the time", "counter too slow"],
)
def test_a_reading_that_fell_into_a_gap_is_held_against_the_energy_counter(
    readings: list[float], watts: float | None, result: Result, value: float
) -> None:
    """A tenth of a second without work is not a load that was missed: the counter knows what was between readings."""
    settling, judged = [1400.0] * (24 - WINDOW), readings
    change: dict[tuple[str, str], Any] = {("t07.g2", "gpu.power"): {build.LOAD: settling + judged}}
    spent = {} if watts is None else {("t07.g2", "gpu.energy"): {build.LOAD: [5e6 + watts * i for i in range(24)]}}
    both = telemetry(change)
    evidence = Evidence(telemetry=replace(both, series={**both.series, **build.series(spent).series}), stretch=build.LOAD)
    got = CHECKS["gpu-load"].judge(context(), evidence)
    (m,) = (m for m in got if (m.part, m.name) == ("t07.g2", "gpu.power_fraction"))
    assert (m.result, m.value) == (result, value)
    assert others_pass(got)


def test_a_load_that_the_agent_cut_says_so() -> None:
    cut = LogLine("t07.g2", 20.0, "cut", "margin", "the agent ended the load of t07.g2: T.Limit margin 0 Cel", "agent")
    got = judge("gpu-load", change={("t07.g2", "gpu.power"): {build.LOAD: 700.0}}, log=[cut])
    (m,) = (m for m in got if (m.part, m.name) == ("t07.g2", "gpu.power_fraction"))
    assert "0.5 of the power limit at 1890 MHz" in m.why
    assert "T.Limit margin 0 Cel" in m.why


def load_line(t_s: float, code: str, kind: str = "load") -> LogLine:
    return LogLine("t07.g2", t_s, kind, code, f"told {code}", "agent")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([load_line(30.0, "lease", "cut"), load_line(30.1, "ended"), load_line(30.2, "gone")], "told lease"),
        ([load_line(11.0, "burning"), load_line(32.5, "failed"), load_line(32.6, "gone")], "told failed"),
        ([load_line(11.0, "burning"), load_line(30.0, "gone")], "told gone"),
        ([load_line(10.1, "gone"), load_line(10.2, "starting"), load_line(11.0, "burning")], ""),
        ([load_line(20.0, "failed"), load_line(20.1, "gone"), load_line(21.0, "burning")], ""),
        ([load_line(11.0, "burning"), load_line(33.2, "ended"), load_line(33.3, "gone")], ""),
        ([load_line(9.0, "gone")], ""),
    ],
    ids=["lease", "failed", "killed", "the load before", "came again", "its end", "before the stage"],
)
def test_a_load_that_ended_before_its_stage_proves_nothing_however_high_its_mean(lines: list[LogLine], told: str) -> None:
    """The last two hours of two days without load are 0.96 of the power limit."""
    got = judge("gpu-load", log=lines)
    (m,) = (m for m in got if (m.part, m.name) == ("t07.g2", "gpu.power_fraction"))
    assert (m.result, m.reason) == ((Result.UNKNOWN, "not_attained") if told else (Result.PASS, None))
    assert told in m.why
    assert ("before its stage" in m.why) == bool(told)
    assert others_pass(got)
    evidence = Evidence(telemetry=telemetry(), stretch=build.LOAD, log=lines)
    assert attained(evidence, "t07.g2", context().stage, context().suite) == (not told), (
        "what needed the load is not proved either"
    )


@pytest.mark.parametrize(
    ("launches", "result"),
    [
        ([float(i) for i in range(24)], Result.PASS),
        ([float(i) for i in range(20)] + [19.0] * 4, Result.PASS),
        ([float(i) for i in range(13)] + [None] * 11, Result.UNKNOWN),
        ([float(i) for i in range(13)] + [12.0] * 11, Result.UNKNOWN),
        ([None] * 24, Result.PASS),
        ([float(i) if i in (0, 6, 12) else None for i in range(24)], Result.PASS),
    ],
    ids=["to the end", "a few seconds", "its agent died", "it hangs", "a load that does not count", "read every six seconds"],
)
def test_a_kernel_that_was_not_seen_to_go_on_proves_nothing_however_high_the_mean(
    launches: list[float | None], result: Result
) -> None:
    """An agent that died takes its load along, and the next one says nothing of it."""
    both = telemetry()
    counted = build.series({("t07.g2", "load.launches"): {build.LOAD: launches}})
    evidence = Evidence(telemetry=replace(both, series={**both.series, **counted.series}), stretch=build.LOAD)
    got = CHECKS["gpu-load"].judge(context(), evidence)
    (m,) = (m for m in got if (m.part, m.name) == ("t07.g2", "gpu.power_fraction"))
    assert m.result is result
    assert ("went on in the last 12 s of its stage" in m.why) == (result is Result.UNKNOWN)
    assert others_pass(got)


def held(clock: float | None, launches: Sequence[float] | float | None = None, power: float = 800.0) -> Measurement:
    """t07.g2 in a load stage whose clock is held at 1500 MHz."""
    change: dict[tuple[str, str], Any] = {
        (gpu, metric): {build.LOAD: value}
        for gpu in GPUS
        for metric, value in {"gpu.clock_sm": 1500.0, "gpu.power": 800.0, "load.launches": [float(i) for i in range(24)]}.items()
    }
    change["t07.g2", "gpu.clock_sm"] = None if clock is None else {build.LOAD: clock}
    change["t07.g2", "gpu.power"] = {build.LOAD: power}
    if launches is not None:
        change["t07.g2", "load.launches"] = {build.LOAD: launches}
    stage = context().stage.model_copy(update={"phase": "load@1500"})
    evidence = Evidence(telemetry=telemetry(change), stretch=build.LOAD)
    got = CHECKS["gpu-load"].judge(replace(context(), stage=stage), evidence)
    assert others_pass([m for m in got if m.name != "gpu.mismatches"])
    (m,) = (m for m in got if m.part == "t07.g2" and m.name.startswith("gpu.") and m.name != "gpu.mismatches")
    assert m.name == "gpu.clock_held"
    return m


def test_a_held_clock_is_what_a_locked_stage_must_have_reached() -> None:
    assert (held(1500.0).result, held(1500.0).value) == (Result.PASS, 1.0)
    assert held(1500.0, power=1395.0).result is Result.PASS, "power is below the limit by intent, and may be what it is"


@pytest.mark.parametrize(
    ("clock", "launches", "why"),
    [(1400.0, None, "its clock was 1400 MHz"), (1900.0, None, "its clock was 1900 MHz"), (None, None, "its clock was not read"),
     (1500.0, 7.0, "no load ran")],
)  # fmt: skip
def test_a_clock_that_was_not_held_or_a_kernel_that_stood_still_proves_nothing(clock: float, launches: Any, why: str) -> None:
    m = held(clock, launches)
    assert (m.result, m.reason) == (Result.UNKNOWN, "not_attained")
    assert why in m.why


# ---------------------------------------------------------------- XIDs


def xid(part: str, code: int, source: str = "kmsg", t_s: float = 20.0) -> LogLine:
    return LogLine(part, t_s, "xid", str(code), "text", source)


@pytest.mark.parametrize(("code", "result"), [(79, Result.FAIL), (13, Result.UNKNOWN), (43, Result.PASS), (999, Result.UNKNOWN)])
def test_an_xid_is_judged_by_the_catalogue_and_an_unknown_one_holds(code: int, result: Result) -> None:
    got = [m for m in judge("xid", log=[xid("t07.g2", code), xid("t07.g2", code, "nvml")]) if m.name == "xid"]
    (m,) = got
    assert (m.part, m.value, m.result) == ("t07.g2", float(code), result)
    assert "once" in m.why, "two sources that tell of one XID do not make it two"


def test_an_xid_before_the_stage_is_not_lost() -> None:
    got = judge("xid", log=[xid("t07.g2", 79, t_s=1.0)])
    assert results(got) == {"xid": Result.FAIL}


@pytest.mark.parametrize(("source", "name"), [("xid", "log.nvml"), ("kmsg", "log.kernel")])
def test_a_log_that_could_not_be_opened_is_unknown(source: str, name: str) -> None:
    sources = {"xid": None, "kmsg": None, source: "no_permission"}
    got = judge("xid", sources=sources)
    assert {(m.name, m.result, m.reason) for m in got if m.result is not Result.PASS} == {(name, Result.UNKNOWN, "no_permission")}
    assert "xid" not in {m.name for m in got}, "nothing is said about XIDs that could not be seen"


@pytest.mark.parametrize(
    ("sources", "lost", "unknown"),
    [
        ({"kmsg": None}, False, set()),
        ({"kmsg": "no_permission"}, False, {"log.nvml", "log.kernel"}),
        ({}, False, {"log.nvml", "log.kernel"}),
        ({"kmsg": None}, True, {"log.nvml", "log.kernel"}),
    ],
)
def test_while_nvml_is_let_go_the_kernel_log_is_enough(sources: dict[str, str | None], lost: bool, unknown: set[str]) -> None:
    got = judge("xid", sources={"xid": "let go by order", **sources}, lost=lost)
    assert {m.name for m in got if m.result is Result.UNKNOWN} == unknown
    assert any("kernel log was read alone" in (m.why or "") for m in got) is not bool(unknown)
    assert ("xid" in {m.name for m in got}) is not bool(unknown), "nothing is said about XIDs that could not be seen"


def test_a_link_that_was_lost_leaves_no_clean_log() -> None:
    assert {m.result for m in judge("xid", lost=True)} == {Result.UNKNOWN}


# ---------------------------------------------------------------- inventory


def identity(**change: Any) -> dict[str, Any]:
    gpus = [
        {"gpu": f"g{i}", "name": "NVIDIA GB300", "uuid": f"GPU-{i}", "serial": f"S{i // 2}", "vbios": "97.1", "tray_index": 7}
        for i in range(4)
    ]
    return {"host": {"serial": "J7"}, "nvml": None, "driver": "580.1", "gpus": gpus, "failed": {}, "hung": [], **change}


def inventory(body: Any, ok: bool = True, **rack: Any) -> list[Measurement]:
    expect = {"t07": {"serial": "J7", "gpus": [f"GPU-{i}" for i in range(4)]}}
    ctx = replace(context("audit"), rack=build.rack(**{"expect": expect, **rack}))
    return CHECKS["inventory"].judge(ctx, Evidence(answers=[[Answer(Order("t07", "identify"), ok, body)]]))


def bad(measurements: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in measurements if m.result is not Result.PASS]


def test_what_was_built_passes() -> None:
    got = inventory(identity(), firmware={"vbios": "97.1", "driver": "580.1"})
    assert bad(got) == []
    assert {m.name for m in got} >= {"tray.serial", "tray.index", "gpu.count", "gpu.serial", "gpu.name", "firmware.vbios"}


def test_a_wrong_gpu_a_wrong_tray_a_missing_gpu_and_old_firmware_are_named() -> None:
    swapped = identity()
    swapped["gpus"][2] = {**swapped["gpus"][2], "uuid": "GPU-other"}
    assert bad(inventory(swapped)) == [("t07.g2", "gpu.serial", Result.FAIL)]
    assert bad(inventory(identity(host={"serial": "J9"}))) == [("t07", "tray.serial", Result.FAIL)]
    moved = identity()
    for gpu in moved["gpus"]:
        gpu["tray_index"] = 8
    assert bad(inventory(moved)) == [("t07", "tray.index", Result.FAIL)]
    three = identity()
    del three["gpus"][3]
    assert bad(inventory(three)) == [("t07", "gpu.count", Result.FAIL), ("t07.g3", "gpu.name", Result.UNKNOWN)]
    assert bad(inventory(identity(), firmware={"vbios": "97.2"})) == [(g, "firmware.vbios", Result.FAIL) for g in GPUS]


def test_serials_are_compared_where_the_record_has_serials() -> None:
    record = {"t07": {"serial": "J7", "gpus": ["S0", "S0", "S1", "S1"]}}
    assert bad(inventory(identity(), expect=record)) == []


def test_without_a_build_record_identity_is_unknown() -> None:
    got = bad(inventory(identity(), expect={}))
    assert {(name, result) for _, name, result in got} == {("tray.serial", Result.UNKNOWN), ("gpu.serial", Result.UNKNOWN)}


@pytest.mark.parametrize(("body", "ok"), [("link lost", False), (identity(nvml="no libnvidia-ml.so.1", gpus=[]), True)])
def test_a_tray_that_does_not_answer_is_unknown_never_fail(body: Any, ok: bool) -> None:
    got = inventory(body, ok) if ok else inventory({}, ok)
    assert {m.result for m in got if m.name != "tray.serial"} == {Result.UNKNOWN}


def test_inventory_asks_once() -> None:
    check = CHECKS["inventory"]
    (order,) = check.orders(context("audit"), [])
    assert (order.to, order.verb) == ("t07", "identify")
    assert check.orders(context("audit"), [[Answer(order, True, {})]]) == []


# ---------------------------------------------------------------- as found


def snapshots(*states: dict[str, Any] | None) -> Evidence:
    order = Order("t07", "state")
    return Evidence(answers=[[Answer(order, s is not None, s if s is not None else "lost")] for s in states])


def settings(**change: Any) -> dict[str, Any]:
    return {f"g{i}": {"power_limit_w": 1400.0, "persistence": 1, "processes": 0, **change} for i in range(4)}


def test_a_tray_left_as_it_was_found_passes_and_a_difference_holds() -> None:
    check = CHECKS["as-found"]
    assert bad(check.judge(context(), snapshots(settings(), settings()))) == []
    changed = settings()
    changed["g2"]["power_limit_w"] = 1200.0
    (m,) = (m for m in check.judge(context(), snapshots(settings(), changed)) if m.result is not Result.PASS)
    assert (m.part, m.result) == ("t07.g2", Result.UNKNOWN)
    assert m.why == "power_limit_w was 1400.0, is 1200.0"


@pytest.mark.parametrize("states", [(), (settings(),), (settings(), None), (None, settings())])
def test_as_found_needs_both_looks(states: tuple[dict[str, Any] | None, ...]) -> None:
    assert {m.result for m in CHECKS["as-found"].judge(context(), snapshots(*states))} == {Result.UNKNOWN}


def test_a_setting_that_can_no_longer_be_read_is_unknown_not_changed() -> None:
    (m,) = (m for m in CHECKS["as-found"].judge(context(), snapshots(settings(), settings(persistence=None)))[:1])
    assert (m.value, m.result) == (None, Result.UNKNOWN)


# ---------------------------------------------------------------- declarations


def test_every_check_declares_what_it_measures() -> None:
    for name, check in CHECKS.items():
        assert check.name == name
        assert check.about
        assert check.quantities
        assert all(q.name and q.unit and q.about for q in check.quantities)
    assert set(ALWAYS) <= set(CHECKS)


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_nothing_is_measured_that_was_not_declared(name: str, stage: str) -> None:
    declared = {q.name: q.unit for q in CHECKS[name].quantities}
    for m in judge(name, stage, log=[xid("t07.g2", 79)]):
        assert declared[m.name] == m.unit


# ---------------------------------------------------------------- links


def growing(size: float) -> dict[Stretch, list[float]]:
    """A counter that stands still at idle, and grows by `size` under load."""
    return {build.IDLE: [5.0] * 10, build.LOAD: [5.0] * 12 + [5.0 + size] * 12}


@pytest.mark.parametrize(
    ("metric", "readings", "name", "value"),
    [
        ("nvlink.state", {build.LOAD: [1.0] * 20 + [0.0] + [1.0] * 3}, "nvlink.state", 0.0),
        ("nvlink.speed", {build.LOAD: 26.562}, "nvlink.speed", 26.562),
        ("nvlink.effective_ber", {build.LOAD: 2e-12}, "nvlink.effective_ber", 2e-12),
        *((metric, growing(1), f"{metric}.growth", 1.0) for metric in COUNTERS),
    ],
)
def test_a_bad_link_is_named_and_only_for_what_it_is(metric: str, readings: Any, name: str, value: float) -> None:
    got = judge("links", change={("t07.g2.l13", metric): readings})
    assert [(m.part, m.name, m.value) for m in got if m.result is not Result.PASS] == [("t07.g2.l13", name, value)]
    assert ("t07.g2", name) not in {(m.part, m.name) for m in got}, "a GPU with a bad link has no good row for it"


def test_every_bad_link_is_named_not_the_worst_alone() -> None:
    got = judge("links", change={(f"t07.g2.l{i}", "nvlink.state"): {build.LOAD: 0.0} for i in (13, 0)})
    assert [m.part for m in got if m.result is Result.FAIL] == ["t07.g2.l0", "t07.g2.l13"]


def test_a_link_that_was_not_read_is_unknown_and_so_is_a_gpu_of_which_none_was() -> None:
    got = judge("links", change={("t07.g2.l13", "nvlink.state"): None})
    (one,) = [m for m in got if m.result is not Result.PASS]
    assert (one.part, one.name, one.result, one.reason) == ("t07.g2.l13", "nvlink.state", Result.UNKNOWN, "missing")
    got = judge("links", change={(f"t07.g2.l{i}", "nvlink.rx_errors"): None for i in range(18)})
    (one,) = [m for m in got if m.result is not Result.PASS]
    assert (one.part, one.name, one.result) == ("t07.g2", "nvlink.rx_errors.growth", Result.UNKNOWN)


def test_one_reading_of_a_counter_is_no_growth() -> None:
    single = {build.IDLE: [None] * 10, build.LOAD: [None] * 23 + [3.0]}
    got = judge("links", change={("t07.g2.l13", "nvlink.rx_errors"): single})
    assert results(got, "t07.g2.l13") == {"nvlink.rx_errors.growth": Result.UNKNOWN}


def test_how_many_links_there_are_is_the_profiles_to_say() -> None:
    none = CHECKS["links"].judge(context(profile=build.profile(links=None)), Evidence(telemetry=telemetry(), stretch=build.LOAD))
    nvlink = [m for m in none if m.name.startswith("nvlink.")]
    assert len(nvlink) == 4 * len(LINK)
    assert {(m.result, m.reason) for m in nvlink} == {(Result.UNKNOWN, "missing")}


def test_a_gpu_without_links_says_so() -> None:
    profile = build.profile(links=0, lacks=["fabric.state", "fabric.status", "fabric.health"])
    bare = build.series({(g, m): dict(value) for g in GPUS for m, value in HEALTHY.items()})
    for readings, want in ((bare, Result.PASS), (telemetry(), Result.FAIL), (Telemetry({}), Result.UNKNOWN)):
        got = CHECKS["links"].judge(context(profile=profile), Evidence(telemetry=readings, stretch=build.LOAD))
        assert {(m.name, m.part): m.result for m in got} == {("nvlink.links", gpu): want for gpu in GPUS}


def test_what_an_architecture_lacks_is_not_asked_for() -> None:
    fabric = ["fabric.state", "fabric.status", "fabric.health"]
    hopper = build.profile(links=18, lacks=["nvlink.effective_ber", "repair.pending", *fabric])
    evidence = Evidence(telemetry=telemetry({("t07.g1", "repair.pending"): None}), stretch=build.LOAD)
    names = {m.name for m in CHECKS["links"].judge(context(profile=hopper), evidence)}
    assert not names & {"nvlink.effective_ber", "fabric.state", "fabric.status", "fabric.health"}
    assert "nvlink.state" in names
    assert {m.result for m in CHECKS["ecc"].judge(context(profile=hopper), evidence)} == {Result.PASS}


@pytest.mark.parametrize(
    ("metric", "reading"), [("fabric.state", 2.0), ("fabric.status", 4.0), ("fabric.health", 2.0), ("fabric.health", 3.0)]
)
def test_one_moment_of_a_sick_fabric_is_seen(metric: str, reading: float) -> None:
    good = HEALTHY[metric][build.LOAD]
    got = judge("links", change={("t07.g2", metric): {build.LOAD: [good] * 23 + [reading]}})
    bad = [(m.part, m.name, m.value, m.result) for m in got if m.result is not Result.PASS]
    assert bad == [("t07.g2", metric, reading, Result.FAIL)]


@pytest.mark.parametrize("flag", ["repair.pending", "ecc.sram_threshold", "gpu.recovery_action"])
def test_what_the_driver_asks_for_is_a_fail(flag: str) -> None:
    got = judge("ecc", change={("t07.g2", flag): {build.LOAD: [0.0] * 23 + [2.0]}})
    assert [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS] == [("t07.g2", flag, Result.FAIL)]


@pytest.mark.parametrize(("number", "what"), [(1.0, "a GPU reset"), (4.0, "drained"), (5.0, "its branch alone"), (9.0, "branch")])
def test_a_recovery_is_named_where_every_driver_means_the_same_by_it(number: float, what: str) -> None:
    got = judge("ecc", change={("t07.g2", "gpu.recovery_action"): {build.LOAD: [0.0] * 23 + [number]}})
    (wish,) = [m for m in got if m.result is Result.FAIL]
    assert what in wish.why


def test_who_asks_beyond_the_agents_says_what_it_needs() -> None:
    trays, switches = ("t07",), ("s0", "s1")
    for check in CHECKS.values():
        asked = replace(context(), tray=check.parts([*trays, *switches])[0], trays=trays if check.scope == "rack" else ())
        try:
            doors = {order.via for order in check.orders(asked, ())}
        except ValueError:
            continue  # it asks for nothing unless its step says more
        assert check.needs or doors <= {"agent"}, f"{check.name} goes through {doors}"


ODD = "tensor_burn of burn, because burn_sm100f disagreed with itself 3 times in its trial"


@pytest.mark.parametrize(("odd", "held"), [((2,), (2,)), ((0, 3), (0, 3)), ((0, 1, 3), ()), ((0, 1, 2, 3), ())])
def test_a_kernel_that_was_left_because_few_gpus_disagreed_with_themselves_holds_those(
    odd: tuple[int, ...], held: tuple[int, ...]
) -> None:
    began = build.IDLE.t0_s
    log = [
        LogLine(f"t07.g{i}", began, "load", "burning", ODD if i in odd else "tensor_burn of burn_sm100f", "agent")
        for i in range(4)
    ]
    got = [m for m in judge("gpu-load", log=log) if m.result is not Result.PASS]
    assert [(m.part, m.name, m.result) for m in got] == [(f"t07.g{i}", "gpu.mismatches", Result.UNKNOWN) for i in held]
    assert all("burn_sm100f disagreed with itself 3 times" in m.why for m in got)
    seen = judge("gpu-load", change={("t07.g2", "load.wrong"): {build.LOAD: 4.0}}, log=log)
    assert results(seen)["gpu.mismatches"] is Result.FAIL, "what was counted stands"


def test_a_gpu_that_is_alone_has_nobody_who_would_blame_the_kernel() -> None:
    log = [LogLine("t07.g0", build.IDLE.t0_s, "load", "burning", ODD, "agent")]
    evidence = Evidence(telemetry=telemetry(), stretch=build.LOAD, log=log, sources={"xid": None, "kmsg": None})
    alone = PROFILE.model_copy(update={"topology": PROFILE.topology.model_copy(update={"gpus_per_tray": 1})})
    got = CHECKS["gpu-load"].judge(context(profile=alone), evidence)
    assert results(got, "t07.g0")["gpu.mismatches"] is Result.UNKNOWN


OWN = "tensor_burn of burn_sm100f"
LIBRARY = "cublaslt_burn of libcublasLt.so.13 130100, algorithm 60 tile 61 stages ?"


@pytest.mark.parametrize(
    ("asked", "ran", "value", "result"),
    [
        ("tensor", [OWN] * 4, OWN, Result.PASS),
        ("tensor", [ODD, OWN, OWN, OWN], f"t07.g0: tensor_burn of burn; t07.g[1-3]: {OWN}", Result.PASS),
        ("cublaslt", [f"{LIBRARY}; no copies beside it: no way"] * 4, LIBRARY, Result.PASS),
        ("cublaslt", [f"{OWN}, because no libcublasLt: none of 2"] * 4, OWN, Result.UNKNOWN),
        ("cublaslt", [LIBRARY] * 3, LIBRARY, Result.UNKNOWN),
    ],
    ids=["the family's", "two", "the library", "no library", "one is silent"],
)
def test_the_kernel_that_ran_is_measured_and_one_that_the_suite_names_is_meant(
    asked: str, ran: list[str], value: str, result: Result
) -> None:
    log = [LogLine(f"t07.g{i}", build.IDLE.t0_s, "load", "burning", text, "agent") for i, text in enumerate(ran)]
    stage = Stage.model_validate(
        {"stage": "load", "phase": "load", "for": "24 s", "load": {"kernel": asked}, "steps": ["gpu-load"]}
    )
    evidence = Evidence(telemetry=telemetry(), stretch=build.LOAD, log=log, sources={"xid": None, "kmsg": None})
    (got,) = (m for m in CHECKS["gpu-load"].judge(replace(context(), stage=stage), evidence) if m.name == "gpu.kernel")
    assert (got.part, got.value, got.result) == ("t07", value, result)
    assert got.why.endswith("; to do: install libcublasLt on this tray, or let the suite ask for kernel: tensor") == (
        result is Result.UNKNOWN
    )


def test_a_load_that_never_ran_says_why_beside_its_results() -> None:
    log = [LogLine("t07.g2", build.LOAD.t0_s, "load", "failed", "no CUDA driver: libcuda.so.1", "agent")]
    bad = [m for m in judge("gpu-load", change={("t07.g2", "load.wrong"): None}, log=log) if m.result is not Result.PASS]
    assert {(m.part, m.name, m.reason) for m in bad} == {
        ("t07.g2", "gpu.power_fraction", "not_attained"), ("t07.g2", "gpu.mismatches", "missing")
    }  # fmt: skip
    got = next(m for m in bad if m.name == "gpu.mismatches")
    assert got.why == "no load process reported its results; no CUDA driver: libcuda.so.1"


@pytest.mark.parametrize(
    ("reason", "words"), [("missing", "there is no /dev/kmsg"), ("no_permission", "only root may read it (`become: sudo`)")]
)
def test_a_kernel_log_that_was_not_read_holds_and_says_why(reason: str, words: str) -> None:
    for name, measurement in (("xid", "log.kernel"), ("host", "kernel.event")):
        (got,) = (m for m in judge(name, sources={"xid": None, "kmsg": reason}) if m.name == measurement)
        assert (got.result, got.reason) == (Result.UNKNOWN, reason)
        assert got.why.endswith(f"not watched: {words}")
