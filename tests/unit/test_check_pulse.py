"""Pulses judged: a swing, its edges and its clocks are there or UNKNOWN; what trips over them is FAIL."""

from __future__ import annotations

from typing import Any

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Context, Evidence
from burnin.errors import InputError
from burnin.events import LogLine, Measurement, Result
from burnin.rack.load import load_profile
from burnin.suites.schema import Suite
from burnin.telemetry.series import Stretch
from tests import build

PULSES = Stretch("pulses", "ramp-pulse", 10.0, 54.0, 4.0)
GPUS = [f"t07.g{i}" for i in range(4)]
WAVE = ([200.0] * 2 + [1390.0] * 2) * 11
SYNC = [LogLine("t07", t_s, "pulse", "sync_ms", text, "controller") for t_s, text in ((11.0, "0.8"), (53.0, "1.9"))]


def suite(**pulse: Any) -> Suite:
    load = {"pulse": {"period": "4 s", "duty": 0.5, **pulse}}
    stage = {"stage": "pulses", "phase": "ramp-pulse", "for": "44 s", "settle": "4 s", "load": load, "steps": ["pulse"]}
    return build.suite(stages=[stage])


def readings(change: dict[tuple[str, str], Any] | None = None) -> dict[tuple[str, str], Any]:
    rows: dict[tuple[str, str], Any] = {}
    for gpu in GPUS:
        rows[gpu, "gpu.power"], rows[gpu, "gpu.power_limit"] = WAVE, 1400.0
        rows[gpu, "load.edges"], rows[gpu, "load.edges_missed"] = [n // 4 for n in range(44)], 0.0
        rows[gpu, "load.edge_late"], rows[gpu, "throttle.hw_brake"], rows[gpu, "throttle.hw_thermal"] = 2.5, 7.0, 7.0
    rows |= change or {}
    return {key: {PULSES: value} for key, value in rows.items() if value is not None}


def judge(change: dict[tuple[str, str], Any] | None = None, log: list[LogLine] | None = None, **more: Any) -> list[Measurement]:
    profile = load_profile("gb300-nvl72")
    asked = suite()
    context = Context("t07", build.rack(), profile, asked, asked.stages[0], build.catalogue())
    evidence = Evidence(telemetry=build.series(readings(change)), stretch=PULSES, log=SYNC if log is None else log, **more)
    return CHECKS["pulse"].judge(context, evidence)


def bad(got: list[Measurement]) -> list[tuple[str, str, Result, str | None]]:
    return [(m.part, m.name, m.result, m.reason) for m in got if m.result is not Result.PASS]


def test_a_tray_that_pulses_passes() -> None:
    got = judge()
    assert bad(got) == []
    values = {(m.part, m.name): m.value for m in got}
    assert values["t07.g2", "pulse.swing"] == pytest.approx(0.85)
    assert values["t07", "pulse.sync"] == pytest.approx(1.9 + 2.5), "the worse of the two comparisons, and the latest edge"


FLAT = [1390.0] * 44
SMALL = ([900.0] * 2 + [1390.0] * 2) * 11


@pytest.mark.parametrize("power", [FLAT, SMALL, [200.0] * 44])
def test_power_that_did_not_swing_proves_nothing(power: list[float]) -> None:
    assert bad(judge({("t07.g2", "gpu.power"): power})) == [("t07.g2", "pulse.swing", Result.UNKNOWN, "not_attained")]


def test_power_that_was_not_read_is_unknown() -> None:
    assert bad(judge({("t07.g2", "gpu.power"): None})) == [("t07.g2", "pulse.swing", Result.UNKNOWN, "missing")]
    assert bad(judge({("t07.g2", "gpu.power_limit"): None})) == [("t07.g2", "pulse.swing", Result.UNKNOWN, "missing")]
    few = [*[None] * 20, *[200.0, 1390.0] * 3, *[None] * 18]
    assert bad(judge({("t07.g2", "gpu.power"): few})) == [("t07.g2", "pulse.swing", Result.UNKNOWN, "not_attained")]


def test_why_a_gpu_did_not_pulse_is_said() -> None:
    cut = LogLine("t07.g2", 30.0, "cut", "margin", "the agent ended the load of t07.g2: T.Limit margin -1 Cel", "agent")
    got = judge({("t07.g2", "gpu.power"): FLAT}, [*SYNC, cut])
    assert "T.Limit margin -1" in next(m.why for m in got if m.name == "pulse.swing" and m.part == "t07.g2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({("t07.g2", "load.edges_missed"): [0.0] * 20 + [1.0] * 24}, "1 edges late"),
        ({("t07.g2", "load.edges"): [min(n, 20) // 4 for n in range(44)]}, "4 of 8 absent"),
    ],
)
def test_a_missed_edge_proves_nothing(change: Any, said: str) -> None:
    got = judge(change)
    assert bad(got) == [("t07.g2", "pulse.missed", Result.UNKNOWN, "not_attained")]
    assert said in next(m.why for m in got if m.result is not Result.PASS)


def test_edges_that_nobody_counted_are_unknown() -> None:
    assert bad(judge({("t07.g2", "load.edges_missed"): None})) == [("t07.g2", "pulse.missed", Result.UNKNOWN, "missing")]


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ([], "not_attained"),
        ([LogLine("t07", 11.0, "pulse", "sync_ms", "45.0", "controller")], "not_attained"),
        ([LogLine("t07", 11.0, "pulse", "sync_ms", "?", "controller")], "missing"),
        ([LogLine("t07", 5.0, "pulse", "sync_ms", "0.5", "controller")], "not_attained"),
        ([LogLine("t08", 11.0, "pulse", "sync_ms", "0.5", "controller")], "not_attained"),
    ],
)
def test_a_tray_whose_clock_is_not_known_well_enough_proves_nothing(log: list[LogLine], reason: str) -> None:
    assert bad(judge(log=log)) == [("t07", "pulse.sync", Result.UNKNOWN, reason)]


def test_edges_that_come_late_spoil_the_synchronisation() -> None:
    assert bad(judge({("t07.g1", "load.edge_late"): 30.0})) == [("t07", "pulse.sync", Result.UNKNOWN, "not_attained")]
    assert bad(judge({("t07.g1", "load.edge_late"): None})) == [("t07", "pulse.sync", Result.UNKNOWN, "missing")]


@pytest.mark.parametrize("name", ["throttle.hw_brake", "throttle.hw_thermal"])
def test_a_brake_under_pulses_is_a_fail(name: str) -> None:
    assert bad(judge({("t07.g3", name): [7.0] * 30 + [7.2] * 14})) == [("t07.g3", f"{name}.growth", Result.FAIL, None)]


def test_an_xid_of_this_stage_counts_and_one_before_it_does_not() -> None:
    def xid(t_s: float) -> list[LogLine]:
        return [*SYNC, LogLine("t07.g0", t_s, "xid", "79", "fallen off the bus", "nvml")]

    assert bad(judge(log=xid(30.0))) == [("t07.g0", "xid", Result.FAIL, None)]
    assert bad(judge(log=xid(5.0))) == []


def test_a_lost_tray_is_unknown_everywhere() -> None:
    silent = dict.fromkeys(readings())
    got = judge(silent, [], lost=True)
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert {m.part for m in got} == {*GPUS, "t07"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"phase": "load"}, "their phase is a ramp"),
        ({"load": {"pulse": {"period": "2 s"}}}, "cannot be seen"),
        ({"load": {"pulse": {"period": "8 s", "duty": 0.1}}}, "cannot be seen"),
        ({"load": {"pulse": {"period": "10 s"}}}, "fewer than 5 pulses"),
        ({"load": {"pulse": {"period": "90 s"}}}, "0.2 s to 60 s"),
        ({"load": {"pulse": {"period": "4 s", "duty": 1}}}, "duty"),
    ],
)
def test_pulses_that_could_not_be_judged_are_refused_in_the_suite(change: dict[str, Any], why: str) -> None:
    stage = suite().stages[0].model_dump(mode="json", by_alias=True)
    with pytest.raises((ValueError, InputError), match=why):
        build.suite(stages=[{**stage, **change}])


def test_power_that_is_read_often_is_judged_by_those_readings() -> None:
    flat = {("t07.g2", "gpu.power"): FLAT, ("t07.g2", "transient.power"): WAVE}
    assert bad(judge(flat)) == []
    assert bad(judge({("t07.g2", "transient.power"): FLAT})) == [("t07.g2", "pulse.swing", Result.UNKNOWN, "not_attained")]
