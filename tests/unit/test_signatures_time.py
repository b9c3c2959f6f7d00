"""Signatures that need hours: drift, steps and swings, on synthetic soaks; false alarms counted, plants found."""

from __future__ import annotations

import numpy as np
import pytest

from burnin import signatures
from burnin.events import Finding, Severity
from burnin.rack.load import load_catalogue
from burnin.telemetry.series import Floats, Series, Stretch, Telemetry
from tests import racks
from tests.soaks import GPUS, SOAK, soak, swinging

ROWS = load_catalogue().signatures


def times() -> Floats:
    return soak(0).of("t00.g0", "gpu.temp").t_s


def look(telemetry: Telemetry) -> list[Finding]:
    return signatures.find(telemetry, racks.topology(), ROWS, {})


def grave(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(f.part, f.signature) for f in findings if f.severity is not Severity.WATCH}


def test_healthy_soaks_are_left_alone() -> None:
    assert [f for seed in range(4) for f in grave(look(soak(seed)))] == []


def test_coolant_that_warms_by_4_k_is_the_cdu_and_no_gpu_drifts() -> None:
    assert grave(look(soak(0, inlet_k=2.0))) == {("cdu", "thermal.rack")}


@pytest.mark.parametrize("rate", [1.5, 3.0])
def test_a_gpu_that_creeps_is_named_with_its_rate(rate: float) -> None:
    found = look(soak(10, {"t07.g2": rate * times() / 86400}))
    (drift,) = [f for f in found if f.signature == "thermal.drift"]
    assert (drift.part, drift.severity) == ("t07.g2", Severity.HOLD)
    assert drift.value == pytest.approx(rate, abs=0.3)
    assert "noise correlation" in drift.why


@pytest.mark.parametrize("seed", [20, 21, 22, 23])
def test_a_gpu_that_creeps_does_not_take_its_tray_along(seed: int) -> None:
    """It begins 0.5 K below the middle of its tray and ends above: what its tray shares is how they move, not where they are."""
    levels = {"t07.g0": -3.0, "t07.g1": 0.0, "t07.g3": 3.0}
    found = look(
        soak(
            seed,
            {"t07.g2": 1.5 * times() / 86400 - 0.5} | {gpu: level + 0 * times() for gpu, level in levels.items()},
            spread_k=0.1,
        )
    )
    assert {f.part for f in found if f.signature == "thermal.drift"} == {"t07.g2"}


def test_a_tray_that_creeps_is_the_tray_and_not_its_gpus() -> None:
    found = [f for f in look(soak(11, {"t11": 2.0 * times() / 86400})) if f.signature == "thermal.drift"]
    assert [(f.part, f.severity) for f in found] == [("t11", Severity.HOLD)]


def test_less_than_the_floor_and_cooling_down_are_not_named() -> None:
    for rate in (0.3, -3.0):
        assert "thermal.drift" not in {f.signature for f in look(soak(12, {"t07.g2": rate * times() / 86400}))}


def test_a_step_is_found_with_its_height_and_time() -> None:
    t = times()
    found = look(soak(13, {"t07.g2": np.where(t > 30 * 3600, 3.0, 0.0)}))
    (step,) = [f for f in found if f.signature == "thermal.step"]
    assert (step.part, step.severity) == ("t07.g2", Severity.HOLD)
    assert step.value == pytest.approx(3.0, abs=0.5)
    assert step.evidence["hours"] == pytest.approx(30, abs=1.0)


def test_a_short_run_has_no_drift() -> None:
    telemetry = soak(10, {"t07.g2": 30 * times() / 86400})
    short = Telemetry(telemetry.series, (Stretch("load", "load", 0.0, 6000.0, 0.0),))
    assert {f.signature for f in look(short)} <= {"thermal.rack"}


def test_a_load_at_a_locked_clock_is_neither_step_nor_drift() -> None:
    """At 900 W a GPU that resists less than its peers is less far below them: until 2026-11-21 that was a step of up to 2 K."""
    locked = Stretch("locked", "load@1500", 48 * 3600.0, 50 * 3600.0, 600.0)
    long, series = soak(14), {}
    t = np.arange(locked.t0_s, locked.t1_s, 120.0)
    apart = {gpu: float(np.random.default_rng(i).normal(0, 4)) for i, gpu in enumerate(GPUS)}
    for (part, metric), one in long.series.items():
        here = np.full(t.size, 900.0) if metric == "gpu.power" else np.floor(45.5 + apart[part] * 900 / 1395 + 0 * t)
        before = one.v if metric == "gpu.power" else np.floor(one.v + apart[part])
        series[part, metric] = Series(np.concatenate([one.t_s, t]), np.concatenate([before, here]))
    found = look(Telemetry(series, (*SOAK, locked)))
    assert [f for f in found if f.signature in ("thermal.step", "thermal.drift")] == []


def test_a_load_that_ended_early_is_no_drift() -> None:
    telemetry = soak(14)
    power, temp = telemetry.of("t07.g2", "gpu.power"), telemetry.of("t07.g2", "gpu.temp")
    cold = power.t_s > 40 * 3600
    series = {
        **telemetry.series,
        ("t07.g2", "gpu.power"): Series(power.t_s, np.where(cold, 190.0, power.v)),
        ("t07.g2", "gpu.temp"): Series(temp.t_s, np.where(cold, 35.0, temp.v)),
    }
    assert not {f for f in grave(look(Telemetry(series, SOAK))) if f[0].startswith("t07")}


# ---------------------------------------------------------------- swings


def test_steady_racks_do_not_swing() -> None:
    assert [f for seed in range(6) for f in look(swinging(seed))] == []


@pytest.mark.parametrize("period", [15.0, 60.0, 150.0])
def test_a_pump_that_hunts_is_the_cdu(period: float) -> None:
    (found,) = look(swinging(1, rack_k=0.9, period_s=period))
    assert (found.part, found.signature, found.severity) == ("cdu", "thermal.swing", Severity.HOLD)
    assert found.value == pytest.approx(0.9, abs=0.15)
    assert found.evidence["period_s"] == pytest.approx(period, rel=0.06)


def test_air_in_one_branch_is_that_tray() -> None:
    (found,) = look(swinging(2, tray_k=1.2))
    assert (found.part, found.signature) == ("t11", "thermal.swing")


def test_a_load_that_swings_by_itself_is_no_pump() -> None:
    (found,) = look(swinging(3, rack_k=0.9, watts=60.0))
    assert found.severity is Severity.WATCH and "it is the load" in found.why


def test_half_a_kelvin_is_the_floor_and_ten_minutes_the_least() -> None:
    assert look(swinging(4, rack_k=0.3)) == []
    telemetry = swinging(5, rack_k=2.0)
    assert look(Telemetry(telemetry.series, (Stretch("load", "load", 0.0, 300.0, 0.0),))) == []


def test_a_lone_tray_that_swings_is_itself_and_no_cdu_is_named() -> None:
    telemetry = swinging(6, tray_k=1.2)
    alone = Telemetry({key: one for key, one in telemetry.series.items() if key[0].startswith("t11")}, telemetry.stretches)
    (found,) = look(alone)
    assert (found.part, found.signature) == ("t11", "thermal.swing")


def test_loads_too_short_to_come_to_rest_are_no_warm_coolant() -> None:
    """Cycles of three minutes, 40 K with a time constant of one: the end of each is 9 K above the beginning of the first."""
    t = np.arange(0.0, 3600.0, 10.0)
    loaded = (t // 180) % 2 == 1
    temp = np.where(loaded, 80 - 40 * np.exp(-(t % 180) / 60), 40 + 40 * np.exp(-(t % 180) / 60))
    cycles = tuple(
        Stretch(f"{name} ({i})", name, 360.0 * i + at, 360.0 * i + at + 180, 45.0)
        for i in range(10)
        for name, at in (("idle", 0.0), ("load", 180.0))
    )
    later = np.where(t > 2000, 6.0, 0.0)
    for more, named in ((0.0 * t, set()), (later, {("cdu", "thermal.rack")})):
        series = {
            (gpu, "gpu.temp"): Series(t, temp + more) for tray in racks.topology().trays() for gpu in racks.topology().gpus(tray)
        }
        series |= {(gpu, "gpu.power"): Series(t, np.where(loaded, 1400.0, 200.0)) for gpu, _ in series}
        assert {f for f in grave(look(Telemetry(series, cycles))) if f[1] == "thermal.rack"} == named
