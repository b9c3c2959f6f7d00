"""Who the parts of a twin rack are, and what a wrong part at an address looks like."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from burnin.errors import InputError
from burnin.twin import identity
from burnin.twin.faults import parse
from burnin.twin.model import load, profiles

GB300 = load("gb300-nvl72")


def test_the_architectures_of_this_version() -> None:
    assert profiles() == ["gb200-nvl72", "gb300-nvl72", "h200-1gpu", "hgx-h200"]
    with pytest.raises(InputError, match="there is no twin of 'vr200-nvl72'; there are gb200-nvl72, gb300-nvl72"):
        load("vr200-nvl72")


@pytest.mark.parametrize("profile", profiles())
def test_a_model_is_whole(profile: str) -> None:
    model = load(profile)
    count = model.topology.gpus_per_tray
    assert model.profile == profile
    assert len(model.gpu.bdf) == count
    assert sorted(model.gpu.module_id) == list(range(1, count + 1))
    assert sorted(p for loop in model.coolant.loops for p in loop) == list(range(count))


def test_a_seed_is_one_rack_and_no_two_parts_share_an_identity() -> None:
    rack = identity.build(GB300, 4)
    assert rack == identity.build(GB300, 4)
    assert len(rack.trays) == 18
    assert rack.serial != identity.build(GB300, 5).serial
    uuids = [gpu.uuid for tray in rack.trays.values() for gpu in tray.gpus]
    assert len(set(uuids)) == 72
    assert all(re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) for uuid in uuids)
    assert len({tray.serial for tray in rack.trays.values()}) == 18
    assert {tray.chassis for tray in rack.trays.values()} == {rack.chassis}
    assert len(rack.chassis) < 16  # NVML gives 16 bytes, with a NUL


def test_two_gpus_of_a_module_share_its_serial() -> None:
    a, b, c, d = identity.build(GB300, 4).trays["t03"].gpus
    assert a.serial == b.serial != c.serial == d.serial


def test_a_tray_of_the_rack_next_door_keeps_its_index_and_nothing_else() -> None:
    rack = identity.build(GB300, 4)
    standing = identity.swap(GB300, rack, 4, [parse("wrong_serial:t07")])
    wrong, built = standing["t07"], rack.trays["t07"]
    assert wrong.index == built.index == 7
    assert wrong.chassis != built.chassis
    assert wrong.serial != built.serial
    assert not {gpu.uuid for gpu in wrong.gpus} & {gpu.uuid for gpu in built.gpus}
    assert {name: standing[name] for name in standing if name != "t07"} == {
        name: rack.trays[name] for name in rack.trays if name != "t07"
    }


def test_a_spare_gpu_is_alone_in_being_another() -> None:
    rack = identity.build(GB300, 4)
    wrong = identity.swap(GB300, rack, 4, [parse("wrong_serial:t07.g2")])["t07"]
    built = rack.trays["t07"]
    assert wrong.chassis == built.chassis
    assert [a == b for a, b in zip(wrong.gpus, built.gpus, strict=True)] == [True, True, False, True]
    assert wrong.gpus[2].serial != built.gpus[2].serial


@pytest.mark.parametrize("name", ["gb300", "gb200"])
def test_facts_are_those_of_the_captured_node(name: str) -> None:
    captures = Path(os.environ.get("BURNIN_CAPTURES", Path(__file__).parents[3] / "shared/captures"))
    capture = captures / f"nvidia-smi/real_qx_{name}.xml"
    if not capture.is_file():
        pytest.skip(f"no capture at {capture}: set BURNIN_CAPTURES")
    text = capture.read_text()
    facts = load(f"{name}-nvl72").gpu

    def captured(tag: str, count: int = 1) -> list[str]:
        found = re.findall(rf"<{tag}>([^<]*)</{tag}>", text)
        return found[: count or None]

    assert captured("product_name") == [facts.name]
    assert captured("vbios_version") == [facts.vbios]
    assert captured("board_part_number") == [facts.board_part]
    assert captured("img_version") == [facts.inforom]
    assert captured("driver_version") == [load(f"{name}-nvl72").driver.version]
    assert re.findall(r'<gpu id="([^"]*)">', text) == facts.bdf
    assert list(map(int, captured("module_id", 0))) == facts.module_id
    assert [int(x, 16) for x in captured("pci_device_id")] == [facts.pci_device]
    assert [int(x, 16) for x in captured("pci_sub_system_id")] == [facts.pci_subsystem]
    power = [float(x.split()[0]) for x in captured("max_power_limit", 2)]
    assert power == [facts.limit_w, facts.module_limit_w]
    assert captured("row_remapper_histogram_max") == [f"{facts.remap_banks} bank(s)"]
    assert captured("gpu_temp_slow_tlimit_threshold") == [f"{facts.slowdown_margin_c} C"]
    assert captured("gpu_temp_max_tlimit_threshold") == [f"{facts.shutdown_margin_c} C"]
    assert int(captured("gpu_temp")[0].split()[0]) + int(captured("gpu_temp_tlimit")[0].split()[0]) == facts.max_operating_c
    clocks = [int(x.split()[0]) for x in captured("sm_clock", 2)]
    assert clocks == [facts.clock_idle_mhz, facts.clock_max_mhz]
    memory = int(captured("total")[0].split()[0]), int(captured("reserved")[0].split()[0])
    assert memory == (facts.memory_mib, facts.reserved_mib)
