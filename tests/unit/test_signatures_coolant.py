"""Virtual sensors: what GPUs alone say of the coolant, on racks whose coolant is known because it was put in."""

from __future__ import annotations

import numpy as np
import pytest

from burnin import signatures
from burnin.events import Severity
from burnin.rack.load import load_catalogue
from burnin.signatures import coolant
from burnin.signatures.readings import Readings
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import racks

ROWS = load_catalogue().signatures

ROW = load_catalogue().signatures[coolant.VIRTUAL]
IDLE, LOAD = Stretch("idle", "idle", 0, 600, 60), Stretch("load", "load", 600, 1800, 300)
T = np.arange(0.0, 1800.0, 10.0)


def readings(supply: float = 31.0, *, slow_tray: float = 1.0, meter: float | None = None, loaded: int = 18) -> Readings:
    """T = supply + R P; GPUs 1 and 3 also breathe 10 % of what the one before adds; a tray resists `slow_tray` times as much."""
    rng, topology, series = np.random.default_rng(3), racks.topology(), {}
    for number, tray in enumerate(topology.trays()):
        for slot, gpu in enumerate(topology.gpus(tray)):
            watts = np.where((LOAD.t0_s <= T) & (number < loaded), 1380.0, 180.0)
            r = 0.024 * (1 + 0.03 * rng.standard_normal()) * (1.1 if slot % 2 else 1.0) * (slow_tray if number == 7 else 1.0)
            series[gpu, "gpu.power"] = Series(T, watts)
            series[gpu, "gpu.temp"] = Series(T, np.round(supply + r * watts + rng.standard_normal()))
    if meter is not None:
        series["cdu", "coolant.supply_temp"] = Series(T, np.full(T.size, meter))
    return Readings(Telemetry(series, (IDLE, LOAD)), topology, {})


@pytest.mark.parametrize("supply", [20.0, 31.0, 44.0])
def test_gpus_alone_say_how_warm_the_coolant_is(supply: float) -> None:
    one = coolant.read(readings(supply), ROW)
    assert one is not None and one.meter != one.meter
    assert abs(one.supply - supply) < one.error
    assert one.heat == pytest.approx(72 * 1380) and one.gpus == 72
    assert one.slope == pytest.approx(0.0252, rel=0.03)
    assert "no sensor of the loop beside it" in coolant.sentence(one)


def test_a_trays_flow_shows_against_the_others() -> None:
    one = coolant.read(readings(slow_tray=1.15), ROW)
    assert one is not None
    assert int(np.argmin(one.tray_flow)) == 7 and one.tray_flow[7] == pytest.approx(0.7, abs=0.06)  # 1.15 ** (-1 / 0.4)
    assert np.median(one.tray_flow) == pytest.approx(1.0, abs=0.02)


def test_a_sensor_of_the_loop_is_compared_and_only_a_large_gap_holds() -> None:
    assert coolant.apart(readings(31.0, meter=32.5), ROW) == []
    (one,) = coolant.apart(readings(31.0, meter=36.0), ROW)
    assert (one.part, one.severity) == ("cdu", Severity.HOLD) and one.value == pytest.approx(5.0, abs=0.5)
    assert coolant.apart(readings(31.0), ROW) == [], "no sensor, nothing to compare"


def test_half_a_rack_that_was_not_loaded_says_nothing() -> None:
    assert coolant.read(readings(loaded=8), ROW) is None
    assert coolant.read(Readings(Telemetry({}, (IDLE, LOAD)), racks.topology(), {}), ROW) is None


def test_a_meter_that_reads_nothing_and_a_shelf_without_power_break_nothing() -> None:
    """Until 2026-11-21 a flow of 0 or a shelf of 0 W ended judging with a division by zero."""
    whole = racks.telemetry(racks.rack(3))
    t = whole.of("t07.g2", "gpu.power").t_s
    around = {("cdu", f"coolant.{name}"): 0.0 for name in ("flow", "supply_temp", "return_temp")}
    around |= {("cdu", "pump.speed"): 3000.0}
    around |= {(f"p{i}.u{j}", "psu.power"): 0.0 if i == 1 else 3000.0 for i in range(4) for j in range(6)}
    series = {**whole.series, **{key: Series(t, np.full(t.size, value)) for key, value in around.items()}}
    found = signatures.find(Telemetry(series, whole.stretches), racks.topology(), ROWS, {})
    assert {f.part for f in found if f.signature == "psu.share"} == {"p1"}
