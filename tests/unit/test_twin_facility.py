"""What stands around the trays: which fault moves which signal, and which it leaves alone."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from burnin.twin import facility
from burnin.twin.faults import Plant
from burnin.twin.rackstate import RackState
from tests.sampled import some
from tests.unit.twin_rack import Ward, ward

READ: dict[str, tuple[Callable[[Ward], float], float]] = {
    "gpu.temp": (lambda w: statistics.mean(row["temp_c"] for row in w.gpus.gpus), 1.0),
    "gpu.power": (lambda w: sum(row["power_avg_mw"] for row in w.gpus.gpus) / 4000, 15.0),
    "cpu0": (lambda w: w.state.trays[0]["cpu0_c"], 1.5),
    "cpu1": (lambda w: w.state.trays[0]["cpu1_c"], 1.5),
    "t00 flow": (lambda w: w.state.trays[0]["flow_lpm"], 0.2),
    "supply": (lambda w: w.state.cdu["says_supply_c"], 0.3),
    "return": (lambda w: w.state.cdu["says_return_c"], 0.3),
    "flow": (lambda w: w.state.cdu["says_flow_lpm"], 2.5),
    "dp": (lambda w: w.state.cdu["says_dp_kpa"], 1.5),
    "pressure": (lambda w: w.state.cdu["says_pressure_kpa"], 1.5),
    "filter": (lambda w: w.state.cdu["says_filter_kpa"], 1.5),
    "pump": (lambda w: w.state.cdu["pump0_rpm"], 25.0),
    "level": (lambda w: w.state.cdu["level"], 0.001),
    "t00 leak": (lambda w: min(w.state.trays[0][f"leak{i}_v"] for i in range(4)), 0.1),
    "t01 leak": (lambda w: min(w.state.trays[1][f"leak{i}_v"] for i in range(4)), 0.1),
    "s3 leak": (lambda w: min(w.state.switches[3][f"leak{i}_v"] for i in range(8)), 0.1),
    "s3 asic": (lambda w: w.state.switches[3]["return_c"], 1.0),
    "p4": (lambda w: sum(psu["out_w"] for psu in w.state.psus[24:30]), 60.0),
    "p4.u2": (lambda w: w.state.psus[26]["out_w"], 60.0),
    "p5": (lambda w: sum(psu["out_w"] for psu in w.state.psus[30:36]), 60.0),
}
"""Signal -> how it is read, and how far its mean must move, or it must swing, to count."""
LOOP_SLOWED = {"flow", "t00 flow", "gpu.temp", "return", "s3 asic"}
MATRIX: dict[str, set[str]] = {
    "leak:t00:60": {"t00 leak", "level"},
    "leak:s3:60": {"s3 leak", "level"},
    "leak:t01:60@40": {"t01 leak"},
    "leak_decay:manifold:300": {"pressure"},
    "cdu_lowdp:cdu:0.5": LOOP_SLOWED | {"dp", "pressure", "filter", "pump"},
    "supply_warm:cdu:6": {"supply", "return", "gpu.temp", "s3 asic"},
    "pump_osc:cdu:0.2": {"flow", "t00 flow", "dp", "pressure", "filter", "pump"},
    "flowmeter_gain:cdu:0.1": {"flow"},
    "rtd_offset:cdu:1.5": {"return"},
    "shelf_lost:p4": {"p4", "p4.u2", "p5"},
    "psu_imbalance:p4.u2:0.4": {"p4", "p4.u2"},
    "psu_trip:p4.u2:1": set(),
    "cpu_hot:t00.c1:20": {"cpu1"},
    "switch_flow:s3:0.9": {"s3 asic"},
    "tray_flow:t00:0.5": {"t00 flow", "gpu.temp", "flow"},
    "tray_flow:t00:0.5@0": {"t00 flow", "gpu.temp", "flow"},
    "bmc_dead:t00.bmc": set(),
    "bmc_slow:cdu": set(),
    "bmc_lies:t00.bmc": set(),
    "bmc_stale:cdu": set(),
    "wrong_serial:t00.bmc": set(),
}
"""Fault -> every signal that it moves."""
Signals = dict[str, tuple[float, float]]


def signals(where: Path, *plants: str) -> Signals:
    """Mean and swing of each signal over 30 s, a minute and a half into a load on t00."""
    rack = ward(where, *plants)
    rack.load(1.0, os.getpid())
    rack.run(60, 0.5)
    values: dict[str, list[float]] = {name: [] for name in READ}
    for _ in range(60):
        rack.run(0.5, 0.5)
        for name, (read, _) in READ.items():
            values[name].append(read(rack))
    assert rack.lit
    return {name: (statistics.mean(all_of), statistics.pstdev(all_of)) for name, all_of in values.items()}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Signals:
    return signals(tmp_path_factory.mktemp("healthy"))


@pytest.mark.parametrize("plant", some(MATRIX))
def test_a_fault_moves_its_signals_and_no_others(healthy: Signals, tmp_path: Path, plant: str) -> None:
    moved = set()
    for name, (mean, swing) in signals(tmp_path, plant).items():
        tolerance = READ[name][1]
        if abs(mean - healthy[name][0]) > tolerance or swing > healthy[name][1] + tolerance:
            moved.add(name)
    assert moved == MATRIX[plant]


def test_every_fault_of_the_surroundings_is_in_the_matrix() -> None:
    planted = {plant.partition(":")[0] for plant in MATRIX}
    assert set(facility._ACTS) <= planted


def test_the_loaded_rack_draws_what_is_published(tmp_path: Path) -> None:
    """All trays at full load: 132 kW nominal (HPE, Lenovo), 9 tenths of it into the liquid, within the shelves' 264 kW."""
    rack = ward(tmp_path)
    rack.load(1.0, os.getpid())
    rack.run(60, 0.5)
    one = rack.state.trays[0]
    tray_w, liquid_w = one["power_w"] + one["air_w"], one["liquid_w"]
    assert rack.model.housing is not None
    switches_w = 9 * rack.model.housing.switch_load_w
    total = 18 * tray_w + switches_w
    assert total == pytest.approx(132_000, rel=0.04)
    assert (18 * liquid_w + switches_w) / total == pytest.approx(0.92, abs=0.03)


def test_power_is_conserved_from_the_line_to_coolant_and_air(tmp_path: Path) -> None:
    rack = ward(tmp_path)
    rack.load(0.6, os.getpid())
    rack.run(150, 0.5)
    state = rack.state
    drawn = sum(row["power_w"] + row["air_w"] for row in state.trays) + sum(row["power_w"] for row in state.switches)
    assert sum(psu["out_w"] for psu in state.psus) == pytest.approx(drawn, rel=1e-6)
    air = sum(row["air_w"] for row in state.trays)
    assert state.cdu["heat_w"] + air == pytest.approx(drawn, rel=0.01)
    assert sum(psu["in_w"] for psu in state.psus) == pytest.approx(drawn / 0.965, rel=1e-6)
    shares = [psu["out_w"] / drawn * 48 for psu in state.psus]
    assert statistics.stdev(shares) == pytest.approx(0.01, abs=0.005)


def test_the_others_carry_what_a_lost_shelf_does_not(tmp_path: Path) -> None:
    rack = ward(tmp_path, "shelf_lost:p4")
    rack.run(1)
    lost = rack.state.psus[24:30]
    assert [psu["out_w"] for psu in lost] == [0.0] * 6
    total = sum(row["power_w"] + row["air_w"] for row in rack.state.trays) + sum(row["power_w"] for row in rack.state.switches)
    assert sum(psu["out_w"] for psu in rack.state.psus) == pytest.approx(total, rel=1e-6)
    supplies = rack.get("p4", "/redfish/v1/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies")["Members"]
    assert {(s["Status"]["Health"], s["Status"]["State"]) for s in supplies} == {("Critical", "UnavailableOffline")}
    assert rack.get("p4", "/redfish/v1/Chassis/PowerShelf_0")["Status"]["Health"] == "Critical"
    assert rack.get("p5", "/redfish/v1/Chassis/PowerShelf_0")["Status"]["Health"] == "OK"


def test_what_begins_later_begins_after_the_first_load(tmp_path: Path) -> None:
    rack = ward(tmp_path, "supply_warm:cdu:10@5")
    rack.run(60, 0.5)
    assert rack.state.cdu["supply_c"] == pytest.approx(30, abs=0.01)
    rack.load(1.0, os.getpid())
    rack.run(4)
    assert rack.state.cdu["supply_c"] == pytest.approx(30, abs=0.01)
    rack.run(100, 0.5)
    assert rack.state.cdu["supply_c"] == pytest.approx(40, abs=0.1)


def test_a_bmc_of_another_rack_tells_another_serial(tmp_path: Path) -> None:
    rack = ward(tmp_path, "wrong_serial:t05.bmc", "wrong_serial:s3.bmc")
    right = ward(tmp_path / "right")
    system = "/redfish/v1/Systems/System_0"
    for part in ("t05.bmc", "s3.bmc"):
        assert rack.get(part, system)["SerialNumber"] != right.get(part, system)["SerialNumber"]
    assert rack.get("t06.bmc", system)["SerialNumber"] == right.get("t06.bmc", system)["SerialNumber"]


def test_a_tray_that_goes_dark_draws_nothing(tmp_path: Path) -> None:
    rack = ward(tmp_path, "tray_dead:t00:2")
    before = rack.state.cdu["heat_w"]
    rack.load(1.0, os.getpid())
    rack.run(10)
    assert not rack.lit
    assert rack.state.trays[0]["power_w"] == rack.state.trays[0]["air_w"] == 0.0
    rack.run(60, 0.5)
    assert rack.state.cdu["heat_w"] < before


def test_a_seed_is_one_rack(tmp_path: Path) -> None:
    def words(name: str, seed: int) -> list[float]:
        (tmp_path / name).mkdir()
        rack = ward(tmp_path / name, seed=seed)
        rack.run(5)
        return [rack.state.cdu[name] for name in ("says_flow_lpm", "says_supply_c", "says_return_c", "says_dp_kpa")]

    assert words("one", 3) == words("same", 3) != words("other", 4)


def test_the_mapped_state_is_shared_and_checked(tmp_path: Path) -> None:
    path = str(tmp_path / "rack")
    one = RackState.create(path, 18, 9, 48)
    other = RackState.open(path)
    one.tray("t07")["flow_lpm"] = 9.25
    one.tray("s3")["power_w"] = 1500.5
    one.psus[47]["out_w"] = 2.5
    assert (other.trays[7]["flow_lpm"], other.switches[3]["power_w"], other.psus[47]["out_w"]) == (9.25, 1500.5, 2.5)
    (tmp_path / "short").write_bytes(b"x" * 10)
    (tmp_path / "wrong").write_bytes(b"x" * 4096)
    for name in ("short", "wrong"):
        with pytest.raises(ValueError, match="is not a twin rack's state"):
            RackState.open(str(tmp_path / name))
    other.close()
    one.close()


def test_a_fault_may_grow(tmp_path: Path) -> None:
    rack = ward(tmp_path)
    grows = Plant("supply_warm", "cdu", 10, start_s=5, growth="linear", over_s=100)
    rack.facility._plants.append(grows)
    rack.load(1.0, os.getpid())
    rack.run(55.5, 0.5)
    assert rack.facility.loop.set_c == pytest.approx(35, abs=0.1)
    rack.run(100, 0.5)
    assert rack.facility.loop.set_c == pytest.approx(40, abs=1e-6)


def test_a_hung_tray_has_power_and_does_nothing(tmp_path: Path) -> None:
    rack = ward(tmp_path, "tray_hang:t00:5")
    rack.load(1.0, os.getpid())
    rack.run(4)
    assert rack.state.trays[0]["power_w"] > 5000
    rack.run(2)
    assert rack.tray.frozen
    rack.lit = False  # its process stands
    rack.run(10, 0.5)
    assert rack.get("t00.bmc", "/redfish/v1/Systems/System_0")["PowerState"] == "On"
    assert rack.state.trays[0]["power_w"] == pytest.approx(930, rel=0.1)
    reset = "/redfish/v1/Systems/System_0/Actions/ComputerSystem.Reset"
    assert rack.ask("t00.bmc", reset, "POST", {"ResetType": "ForceOff"}).status == 204
    assert rack.get("t00.bmc", "/redfish/v1/Systems/System_0")["PowerState"] == "Off"


@pytest.mark.parametrize("holds_s", [1.0, 3.0])
def test_a_supply_that_trips_when_another_of_its_shelf_is_off(tmp_path: Path, holds_s: float) -> None:
    """It works as ever until then, goes off so much later, and does not come back with the other."""
    rack = ward(tmp_path / "rack", f"psu_trip:p4.u3:{holds_s}")
    psus = rack.state.psus
    psus[5 * 6]["off"] = 1.0  # of another shelf
    rack.run(5)
    assert psus[27]["out_w"] > 0
    psus[26]["off"] = 1.0
    rack.run(holds_s - 0.3)
    assert psus[27]["out_w"] > 0
    rack.run(0.8)
    assert psus[27]["out_w"] == 0
    psus[26]["off"] = 0.0
    rack.run(2)
    assert psus[26]["out_w"] > 0
    assert psus[27]["lost"] == 1
