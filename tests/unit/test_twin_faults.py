"""What people type to plant a fault, and what they are told when it makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.errors import InputError
from burnin.twin.faults import (
    ASIC,
    BMC,
    CARTRIDGE,
    CDU,
    CPU,
    GPU,
    KINDS,
    LINK,
    MANIFOLD,
    NIC,
    NVME,
    PORT,
    PSU,
    SHELF,
    SWITCH,
    TRAY,
    Plant,
    parse,
)  # fmt: skip


def test_all_kinds_of_this_version_exist_and_say_what_they_do() -> None:
    names = "tim_void tray_flow clock_cap ecc_ue xid gpu_off_bus tray_dead wrong_serial nvml_hang"
    names += " link_down link_margin lane_flap sdc bw_loss slow_gpu"
    names += " cpu_edac nic_flap nvme_media pcie_downtrain pcie_replay"
    names += " coldplate_clog plate_tilt hbm_tim leaky_die weak_vmin vr_loss tsensor_off psensor_gain tim_pumpout dryout"
    names += " ecc_ce_rate row_cluster sram_ue c2c_crc sensor_stuck fabric_unhealthy cartridge_margin switchport_margin"
    names += " cpu_hot leak leak_decay cdu_lowdp supply_warm pump_osc flowmeter_gain rtd_offset shelf_lost psu_imbalance"
    names += " bmc_dead bmc_slow bmc_errors bmc_lies bmc_stale boot_intermittent tray_hang slow_ssh wrong_host_key switch_flow"
    names += " clock_skew tray_disk_full proc_stuck"
    names += " other_firmware hbm_bits host_bits reset_lost nic_down psu_trip"
    assert set(KINDS) == set(names.split())
    assert all(kind.about.endswith(".") and kind.parts and kind.unit for kind in KINDS.values())
    assert all(kind.least <= kind.default <= kind.most for kind in KINDS.values())


@pytest.mark.parametrize(
    ("text", "plant"),
    [
        ("tim_void:t07.g2:1.25", Plant("tim_void", "t07.g2", 1.25)),
        ("tray_flow:t03", Plant("tray_flow", "t03", 0.4)),
        ("xid:t00.g0:119", Plant("xid", "t00.g0", 119)),
        ("wrong_serial:t11", Plant("wrong_serial", "t11", 0)),
        ("wrong_serial:t11.g3", Plant("wrong_serial", "t11.g3", 0)),
        ("tray_dead:t17:0", Plant("tray_dead", "t17", 0)),
        ("nic_flap:t07.n2", Plant("nic_flap", "t07.n2", 3)),
        ("pcie_downtrain:t07.d0:0.75", Plant("pcie_downtrain", "t07.d0", 0.75)),
        ("pcie_replay:t07.g2", Plant("pcie_replay", "t07.g2", 5)),
        ("leak:t07:5@30", Plant("leak", "t07", 5, 30)),
        ("leak:s3", Plant("leak", "s3", 10)),
        ("shelf_lost:p4@0.5", Plant("shelf_lost", "p4", 0, 0.5)),
        ("psu_imbalance:p4.u2:0.2", Plant("psu_imbalance", "p4.u2", 0.2)),
        ("wrong_serial:t11.bmc", Plant("wrong_serial", "t11.bmc", 0)),
        ("rtd_offset:cdu:-1.5", Plant("rtd_offset", "cdu", -1.5)),
    ],
)
def test_parse(text: str, plant: Plant) -> None:
    assert parse(text) == plant


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("melt:t07.g2", "there are bmc_dead, bmc_errors"),
        ("", "there is no fault ''"),
        ("tim_void", "'' is not a part id; tim_void takes a GPU"),
        ("tim_void:t7.g2", "'t7.g2' is not a part id"),
        ("tim_void:t07", "t07 is a compute tray, but tim_void takes a GPU (t07.g2)"),
        ("tray_flow:t07.g2", "t07.g2 is a GPU, but tray_flow takes a compute tray (t07)"),
        ("wrong_serial:s3", "takes a GPU (t07.g2) or a compute tray (t07)"),
        ("wrong_serial:t07:1", "wrong_serial takes no severity"),
        ("tray_flow:t07:1.5", "fraction of the tray's coolant flow lost"),
        ("tray_flow:t07:", "'' is not a severity"),
        ("nvme_media:t07.n2", "t07.n2 is a NIC, but nvme_media takes a NVMe (t07.d0)"),
        ("tim_void:t07.g2:nan", "rise of the TIM's thermal resistance"),
        ("tim_void:t07.g2:hot", "'hot' is not a severity of tim_void"),
        ("ecc_ue:t07.g2:1.5", "a whole number"),
        ("leak:t07:5@", "'' is not a start time; expected seconds after the rack's first load begins"),
        ("leak:t07:5@-1", "'-1' is not a start time"),
        ("leak:cdu", "cdu is a cdu, but leak takes a compute tray (t07) or a switch tray (s3)"),
        ("tim_void:t07.g2:1@5", "tim_void takes no start time"),
        ("gpu_off_bus:t07.g2:-1", "seconds after the tray's first load begins"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


EXAMPLE = {
    TRAY: "t{tray:02}", GPU: "t{tray:02}.g{one}", LINK: "t{tray:02}.g{one}.l13", NIC: "t{tray:02}.n{one}",
    NVME: "t{tray:02}.d{one}", CPU: "t{tray:02}.c{one}", BMC: "t{tray:02}.bmc", SWITCH: "s{one}", SHELF: "p{one}",
    PSU: "p{one}.u2", CDU: "cdu", MANIFOLD: "manifold",
    CARTRIDGE: "x{one}", ASIC: "s{one}.a1", PORT: "s{one}.a1.p44",
}  # fmt: skip


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 17), st.integers(0, 3), st.data())
def test_what_is_printed_parses_back(name: str, tray: int, one: int, data: st.DataObject) -> None:
    kind = KINDS[name]
    part = EXAMPLE[data.draw(st.sampled_from(kind.parts))].format(tray=tray, one=one)
    severity = data.draw(st.integers(int(kind.least) + 1, int(max(kind.most, 1)))) if kind.has_severity else 0
    start = data.draw(st.none() | st.integers(0, 900).map(float)) if kind.starts else None
    plant = Plant(name, part, min(float(severity), kind.most), start)
    assert parse(str(plant)) == plant
