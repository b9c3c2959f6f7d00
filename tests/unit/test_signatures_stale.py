"""Services whose readings stand still while the load steps."""

from __future__ import annotations

import numpy as np
import pytest

from burnin import signatures
from burnin.events import Finding, Severity
from burnin.rack.load import load_catalogue
from burnin.signatures.stale import STALE
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import racks

ROWS = {STALE: load_catalogue().signatures[STALE]}
IDLE, LOAD, COOL = (
    Stretch("idle", "idle", 0, 120),
    Stretch("burn", "load", 120, 420, settle_s=10),
    Stretch("cool", "cool", 420, 540),
)
T_S = np.arange(0.0, 540.0, 5.0)
LOADED = (T_S >= 120) & (T_S < 420)
SENSORS = {"tray.power": ["t01", "t02"], "psu.power": ["p4.u0", "p4.u1"], "coolant.return_temp": ["cdu"]}


def rack(frozen: dict[str, float], until_s: float = 540.0, off: tuple[str, ...] = (), trays: int = 18) -> Telemetry:
    """So many trays at 180 W a GPU, then at 1400. `frozen`: part -> since when it repeats its last reading."""
    power = Series(T_S, np.where(LOADED, 1400.0, 180.0))
    series = {(f"t{n:02}.g{g}", "gpu.power"): power for n in range(trays) for g in range(4)}
    for metric, parts in SENSORS.items():
        for part in parts:
            value = np.where(LOADED, 60.0, 35.0) if part == "cdu" else np.where(LOADED, 6200.0, 1300.0)
            value = value + 0.1 * (np.arange(T_S.size) % 7)
            since = frozen.get(part)
            if since is not None:
                value = np.where(since > T_S, value, value[np.searchsorted(T_S, since)])
            if part in off:
                value = np.zeros(T_S.size)
            kept = until_s > T_S
            series[part, metric] = Series(T_S[kept], value[kept])
    return Telemetry(series, (IDLE, LOAD, COOL))


def found(telemetry: Telemetry) -> list[Finding]:
    return [f for f in signatures.find(telemetry, racks.topology(), ROWS, {}) if f.signature == STALE]


def test_services_that_follow_the_load_are_believed() -> None:
    assert found(rack({})) == []


@pytest.mark.parametrize(("parts", "service"), [(["t01"], "t01.bmc"), (["p4.u0", "p4.u1"], "p4"), (["cdu"], "cdu")])
def test_one_that_repeats_itself_holds_the_rack(parts: list[str], service: str) -> None:
    (one,) = found(rack(dict.fromkeys(parts, 0.0)))
    assert (one.part, one.severity, one.evidence["stages"]) == (service, Severity.HOLD, ["idle", "burn"])
    assert "leaks" in one.why


def test_what_began_to_stand_still_within_the_stretch_before_is_seen_at_the_next_step() -> None:
    (one,) = found(rack({"t01": 20.0}))
    assert (one.part, one.evidence["stages"]) == ("t01.bmc", ["burn", "cool"])


def test_a_few_trays_may_not_move_what_serves_a_rack() -> None:
    frozen = rack({"t01": 0.0, "p4.u0": 0.0, "p4.u1": 0.0, "cdu": 0.0}, trays=4)
    assert [one.part for one in found(frozen)] == ["t01.bmc"]


def test_one_supply_of_a_shelf_that_stands_still_is_not_its_service() -> None:
    assert found(rack({"p4.u0": 0.0})) == []


def test_what_is_off_stands_still_and_is_not_stale() -> None:
    assert found(rack({}, off=("p4.u0", "p4.u1"))) == []


def test_half_a_minute_after_the_step_tells_nothing_yet() -> None:
    assert found(rack({"t01": 0.0}, until_s=160)) == []
    assert [one.part for one in found(rack({"t01": 0.0}, until_s=200))] == ["t01.bmc"]


def test_a_service_that_is_read_seldom_is_compared_with_the_power_of_its_own_moments() -> None:
    """A ramp whose first minute is idle, and whose BMC was read only after it, at the power it then keeps."""
    still = rack({"t01": 200.0})
    late = {
        key: Series(one.t_s[one.t_s >= 200], one.v[one.t_s >= 200]) for key, one in still.series.items() if key[1] == "tray.power"
    }
    ramp, on = Stretch("ramp", "ramp", 0, 240), Stretch("burn", "load", 240, 410)
    assert found(Telemetry({**still.series, **late}, (ramp, on))) == []


def test_without_a_step_of_the_load_nothing_has_to_move() -> None:
    still = rack({"t01": 0.0})
    assert found(Telemetry(still.series, (Stretch("one", "load", 130, 260), Stretch("two", "load-2", 260, 410)))) == []


def test_a_run_that_was_kept_with_a_catalogue_before_the_step_is_judged_again() -> None:
    row = ROWS[STALE]
    before = row.model_copy(update={"limits": {name: one for name, one in row.limits.items() if name != "step"}})
    (one,) = signatures.find(rack({"t01": 60.0}), racks.topology(), {STALE: before}, {})
    assert (one.part, one.severity) == ("t01.bmc", Severity.HOLD)
