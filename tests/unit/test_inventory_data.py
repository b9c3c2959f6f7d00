"""The data that is shipped: architectures as they are, every limit with its source, nothing unknown that could pass."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from burnin.checks import OFFERS
from burnin.checks.base import Quantity
from burnin.events import Result
from burnin.rack.load import list_profiles, load_catalogue, load_profile, load_rack, load_site
from burnin.rack.schema import INTERLOCKS, WHERE_READ, Profile
from burnin.suites.load import list_suites, load_suite
from burnin.suites.schema import Suite

ROOT = Path(__file__).parents[2]
NVL72 = ("gb200-nvl72", "gb300-nvl72", "vr200-nvl72")


def test_topologies() -> None:
    """Counts of NVIDIA's product pages: 72 GPUs in 18 trays, 9 switch trays, 18 NVLinks a GPU (36 for Rubin)."""
    found = {name: load_profile(name).topology for name in list_profiles()}
    assert {name: (t.compute_trays * t.gpus_per_tray, t.switch_trays) for name, t in found.items()} == {
        "gb200-nvl72": (72, 9), "gb300-nvl72": (72, 9), "vr200-nvl72": (72, 9), "hgx-h200": (8, 0), "h200-1gpu": (1, 0),
    }  # fmt: skip
    assert [found[name].links_per_gpu for name in NVL72[:2]] == [18, 18]


@pytest.mark.parametrize("name", ["gb200-nvl72", "gb300-nvl72", "vr200-nvl72", "hgx-h200", "h200-1gpu"])
def test_every_profile_limits_everything_that_is_judged_and_says_where_from(name: str) -> None:
    profile = load_profile(name)
    lacking = {name for name in load_profile("gb300-nvl72").limits if name.removesuffix(".growth") in profile.lacks}
    assert set(profile.limits) == set(load_profile("gb300-nvl72").limits) - lacking
    assert not (profile.lacks and name in NVL72), "a rack's counters can be read"
    for limit in profile.limits.values():
        assert len(limit.source) >= 10 and limit.unit
        assert limit.known or limit.mark in ("documented", "estimated")
    wanted = set(INTERLOCKS) - set(WHERE_READ) if name in NVL72 else {"gpu_margin"}
    assert set(profile.interlocks) >= wanted
    assert {"GPU", "compute tray"} <= set(profile.frus)


@pytest.mark.parametrize("name", ["gb200-nvl72", "gb300-nvl72", "vr200-nvl72", "hgx-h200", "h200-1gpu"])
def test_what_nobody_published_is_unknown_whatever_is_measured(name: str) -> None:
    limits = load_profile(name).limits
    for key, limit in limits.items():
        for value in (-1e9, 0.0, 1e9):
            result = Quantity(key, limit.unit, "").judge("t00.g0", value, limits).result
            assert limit.known or result is Result.UNKNOWN


def test_vera_rubin_is_not_known_well_enough_to_pass() -> None:
    assert not all(limit.known for limit in load_profile("vr200-nvl72").limits.values())


def test_the_example_rack_shows_what_a_rack_file_can_say() -> None:
    text = (ROOT / "inventory/racks/example.yaml").read_text()
    file = load_rack(ROOT / "inventory/racks/example.yaml", need_known_hosts=False, need_keys=False)
    assert len(file.rack.trays) == 27
    for key in ("ssh", "become", "jump", "expect", "firmware", "waive", "chassis", "bmc", "coolant", "allow"):
        assert re.search(rf"\b{key}\b", text), f"{key} is not shown"


def test_suites() -> None:
    metrics = load_catalogue().metrics
    suites = {name: load_suite(name, checks=OFFERS, metrics=metrics) for name in list_suites()}
    short = {name: (suite.duration_s(), suite.ships) for name, suite in suites.items() if not name.startswith("l11")}
    assert short == {
        "demo": (50, False), "smoke": (300, False), "l10-tray": (3600, False), "commissioning": (120, False),
        "post-repair": (3600, False), "hot-inlet": (9600, False),
    }  # fmt: skip
    for hours in (24, 48, 72):
        suite = suites.pop(f"l11-rack-{hours}h")
        assert suite.ships
        assert 0.96 <= suite.duration_s() / 3600 / hours <= 1, "what checks need by themselves comes on top"
    assert load_site().ships_after == "l11-rack-48h"


def test_what_a_run_keeps_of_a_suite_and_a_profile_is_read_back_as_it_was() -> None:
    """Limits of a suite too: a bound that was not given stays away, a null one stays null."""
    metrics = load_catalogue().metrics
    for name in list_suites():
        suite = load_suite(name, checks=OFFERS, metrics=metrics)
        assert Suite.model_validate(suite.model_dump(mode="json", by_alias=True)) == suite
    for name in list_profiles():
        profile = load_profile(name)
        assert Profile.model_validate(profile.model_dump(mode="json", by_alias=True)) == profile


METRICS = """
gpu.temp gpu.tlimit hbm.temp gpu.power gpu.power_avg gpu.energy module.power gpu.clock_sm gpu.clock_mem gpu.util gpu.power_limit
throttle.sw_power throttle.sw_thermal throttle.hw_thermal throttle.hw_brake ecc.dram_ce ecc.dram_ue ecc.sram_ce ecc.sram_ue
remap.correctable remap.uncorrectable remap.pending remap.failed nvlink.state nvlink.speed nvlink.rx_bytes nvlink.tx_bytes
nvlink.symbol_errors nvlink.symbol_ber nvlink.effective_errors nvlink.effective_ber nvlink.raw_ber nvlink.recovery_ok
nvlink.recovery_failed nvlink.rx_errors nvlink.integrity_errors c2c.crc c2c.replay pcie.replay pcie.gen pcie.width fabric.state
fabric.status fabric.health gpu.recovery_action ecc.sram_threshold repair.pending xid
cpu.temp cpu.util cpu.edac_ce cpu.edac_ue ras.mc ras.aer ras.mce
nic.temp nic.link_flaps nic.symbol_errors nvme.temp nvme.media_errors
tray.power psu.power
coolant.supply_temp coolant.return_temp coolant.flow coolant.dp coolant.pressure pump.speed leak.state leak.voltage
load.launches load.wrong load.edges load.edges_missed load.edge_late load.copied nvlink.fec_tail
pcie.gen_max pcie.width_max pcie.aer_correctable pcie.aer_nonfatal pcie.aer_fatal cpu.temp_limit nic.crc_errors nic.ack_timeouts
nic.tx_bytes nic.rx_bytes
nic.ports_up nic.speed nvme.critical_warning nvme.spare nvme.used host.nics host.nvmes host.cpus host.load1 host.mem_available
transient.power transient.clock_sm agent.cpu agent.cpu_fast agent.cpu_slow agent.cpu_links agent.cpu_transient agent.stretch
gpu.wait gpu.bandwidth
nvml.latency nvml.latency_max nvlink.fec_0 nvlink.fec_1 nvlink.fec_2 nvlink.fec_3 nvlink.fec_4 nvlink.fec_5 nvlink.fec_6
nvlink.fec_7 nvlink.fec_8 nvlink.fec_9 nvlink.fec_10 nvlink.fec_11 nvlink.fec_12 nvlink.fec_13 nvlink.fec_14 nvlink.fec_15
gpu.bandwidth gpu.wait
"""


def test_the_catalogue_names_what_the_house_names() -> None:
    catalogue = load_catalogue()
    assert set(catalogue.metrics) == set(METRICS.split())
    counters = {name for name, metric in catalogue.metrics.items() if metric.counter}
    assert {"ecc.dram_ue", "throttle.hw_thermal", "gpu.energy", "nvlink.symbol_errors"} <= counters
    assert not {"gpu.temp", "gpu.power", "remap.pending", "nvlink.raw_ber"} & counters


def test_xids() -> None:
    """NVIDIA's catalogue: what a burn-in must never pass over, and what a program's own mistake may cause."""
    xids = load_catalogue().xids
    assert {code: xids[code].gate for code in (48, 79, 95, 64)} == dict.fromkeys((48, 79, 95, 64), "FAIL")
    assert all(len(row.action) > 10 and row.source for row in xids.values())
    shared = Path(os.environ.get("BURNIN_REFERENCE", ROOT.parent / "shared/reference")) / "xids.tsv"
    if not shared.is_file():
        pytest.skip("the vendor's table of XIDs is not beside this checkout")
    rows = list(csv.DictReader(shared.read_text().splitlines(), delimiter="\t"))
    used = {int(row["Code"]) for row in rows if row["Description"] != "Unused" and row["Code"].isdigit()}
    assert used - set(xids) == set()


def test_files_hold_no_tabs_and_no_addresses_of_this_machine() -> None:
    for path in [*ROOT.glob("inventory/**/*.yaml"), *ROOT.glob("test_suites/*.yaml"), *ROOT.glob("burnin/**/*.yaml")]:
        text = path.read_text()
        folders = set(re.findall(r"(?<![\w./])/\w+(?=/)", text))
        assert "\t" not in text and folders <= {"/dev", "/proc", "/redfish", "/sys"}, path
