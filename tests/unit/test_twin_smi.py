"""The twin's `nvidia-smi -q -x` beside those of real idle trays: element for element, word for word, but for what is named."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from burnin.twin.tools.main import said
from tests.unit.twin_tray import bench

CAPTURES = Path(os.environ.get("BURNIN_CAPTURES", Path(__file__).parents[3] / "shared/captures")) / "nvidia-smi"
PAGE = Path(__file__).parents[2] / "docs/twin.md"
REAL = {"gb300-nvl72": "real_qx_gb300.xml", "gb200-nvl72": "real_qx_gb200.xml"}
OWN = {
    "serial", "uuid", "pdi", "platformInfo/chassis_serial_number", "platformInfo/slot_number", "platformInfo/tray_index",
    "platformInfo/gpu_fabric_guid", "fabric/clusterUuid", "temperature/gpu_temp", "temperature/gpu_temp_tlimit",
    "temperature/memory_temp", "gpu_power_readings/average_power_draw", "gpu_power_readings/instant_power_draw",
    "gpu_memory_power_readings/average_power_draw", "module_power_readings/average_power_draw",
    "module_power_readings/instant_power_draw", "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_power_cap",
    "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_therm_slowdown",
}  # fmt: skip
"""What each GPU says for itself: of the captures' form, in other numbers (scrubbed in the captures)."""
NAMED = {
    "inforom_bbx_flush/latest_timestamp", "inforom_bbx_flush/latest_duration", "pci/pci_gpu_link_info/pcie_gen/max_host_link_gen",
    "gpu_virtualization_mode/virtualization_mode", "fabric/health/incorrect_configuration",
}  # fmt: skip
"""What the twin says otherwise, as docs/twin.md has it."""


def flat(element: ElementTree.Element, above: str = "") -> list[tuple[str, str]]:
    """(path, text) of everything below, in order."""
    out = []
    for one in element:
        path = f"{above}{one.tag}"
        out += flat(one, f"{path}/") if len(one) else [(path, (one.text or "").strip())]
    return out


def twins(where: Path, profile: str) -> ElementTree.Element:
    tray = bench(where, profile=profile)
    tray.run(2)
    answer = said("nvidia-smi", ["-q", "-x"], tray.facts, tray.state, {})
    assert answer is not None and answer[1:] == ("", 0)
    return ElementTree.fromstring(answer[0].encode())


def form(text: str) -> str:
    """A text without its own letters and digits: lengths of ids, units and separators stay."""
    if re.fullmatch(r"-?[\d.]+( [A-Za-z]+)?", text):
        return re.sub(r"-?\d+", "0", text)
    return re.sub(r"[0-9a-f]", "0", text)


@pytest.mark.parametrize("profile", sorted(REAL))
def test_it_says_what_a_real_tray_says(tmp_path: Path, profile: str) -> None:
    if not (CAPTURES / REAL[profile]).is_file():
        pytest.skip(f"no captures in {CAPTURES}")
    real = ElementTree.fromstring((CAPTURES / REAL[profile]).read_bytes())
    own = twins(tmp_path, profile)
    assert [one.tag for one in own] == [one.tag for one in real]
    differing = set()
    for mine, theirs in zip(own.iter("gpu"), real.iter("gpu"), strict=True):
        assert mine.attrib == theirs.attrib
        one, other = flat(mine), flat(theirs)
        assert [path for path, _ in one] == [path for path, _ in other], "the same elements in the same order"
        for (path, said_here), (_, said_there) in zip(one, other, strict=True):
            if path in OWN:
                assert form(said_here) == form(said_there) or path.endswith("number") or path == "pdi", (path, said_here)
            elif said_here != said_there:
                differing.add(path)
    assert differing <= NAMED
    assert [own.findtext(name) for name in ("driver_version", "cuda_version", "attached_gpus")] == [
        real.findtext(name) for name in ("driver_version", "cuda_version", "attached_gpus")
    ]


def test_what_differs_is_named_on_the_page() -> None:
    page = PAGE.read_text()
    for path in NAMED:
        assert f"`{path.rsplit('/', 1)[1]}`" in page


@pytest.mark.parametrize("profile", ["hgx-h200", "h200-1gpu"])
def test_other_machines_have_the_same_document(tmp_path: Path, profile: str) -> None:
    own = twins(tmp_path, profile)
    (first, *_) = own.iter("gpu")
    assert first.findtext("product_architecture") == "Hopper" and first.findtext("fabric/state") is not None


def test_who_works_is_listed_with_its_memory_and_a_lost_gpu_says_so(tmp_path: Path) -> None:
    tray = bench(tmp_path, "gpu_off_bus:t00.g2:0")
    tray.queue(os.getpid(), 2, 30)
    slot = next(row for _, row in tray.state.slots())
    slot["mem_bytes"] = 3 << 30
    tray.run(1)
    answer = said("nvidia-smi", ["-q", "-x"], tray.facts, tray.state, {})
    assert answer is not None
    gpus = {one.findtext("platformInfo/module_id"): one for one in ElementTree.fromstring(answer[0].encode()).iter("gpu")}
    assert gpus["3"].findtext("processes/process_info/pid") == str(os.getpid())
    assert gpus["3"].findtext("processes/process_info/used_memory") == "3072 MiB"
    assert gpus["3"].findtext("temperature/gpu_temp") == gpus["3"].findtext("serial") == "GPU is lost"
    assert (
        gpus["1"].findtext("processes/process_info/pid") is None and gpus["1"].findtext("temperature/gpu_temp") != "GPU is lost"
    )
