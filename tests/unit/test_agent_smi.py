"""The agent's table against nvidia-smi: every capture of `-q -x`, served through NVML's own calls, is read back equal.

What nvidia-smi says is read by the parser of that tool; what NVML says is written by tests.unit.smi_library. Captures of healthy
GPUs are full of zeros, so each is read a second time with a number of its own in every field: a swapped counter shows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pynvml
import pytest

from burnin.agent.nvml import Gpus
from burnin.checks.tools.nvidia_smi import query_xml
from burnin.rack.load import load_catalogue
from tests.unit import smi_library

ROOT = Path(__file__).parents[2]
CAPTURES = Path(os.environ.get("BURNIN_CAPTURES", ROOT.parent / "shared/captures")) / "nvidia-smi"
FILES = sorted(CAPTURES.glob("*qx*.xml"))
_US = "clocks_event_reasons_counters/clocks_event_reasons_counters_"
_ALL = "ecc_errors/aggregate/"
MAP: dict[str, tuple[str, ...]] = {
    "gpu.temp": ("temperature/gpu_temp",),
    "gpu.tlimit": ("temperature/gpu_temp_tlimit",),
    "hbm.temp": ("temperature/memory_temp",),
    "gpu.power": ("gpu_power_readings/instant_power_draw",),
    "gpu.power_avg": ("gpu_power_readings/average_power_draw",),
    "transient.power": ("gpu_power_readings/instant_power_draw",),
    "module.power": ("module_power_readings/instant_power_draw",),
    "gpu.power_limit": ("gpu_power_readings/current_power_limit",),
    "gpu.clock_sm": ("clocks/sm_clock",),
    "transient.clock_sm": ("clocks/sm_clock",),
    "gpu.clock_mem": ("clocks/mem_clock",),
    "gpu.util": ("utilization/gpu_util",),
    "throttle.sw_power": (f"{_US}sw_power_cap",),
    "throttle.sw_thermal": (f"{_US}sw_therm_slowdown",),
    "throttle.hw_thermal": (f"{_US}hw_therm_slowdown",),
    "throttle.hw_brake": (f"{_US}hw_power_brake",),
    "ecc.dram_ce": (f"{_ALL}dram_correctable",),
    "ecc.dram_ue": (f"{_ALL}dram_uncorrectable",),
    "ecc.sram_ce": (f"{_ALL}sram_correctable",),
    "ecc.sram_ue": (f"{_ALL}sram_uncorrectable_parity", f"{_ALL}sram_uncorrectable_secded"),
    "ecc.sram_threshold": (f"{_ALL}sram_threshold_exceeded",),
    "repair.pending": ("ecc_errors/channel_repair_pending", "ecc_errors/tpc_repair_pending"),
    "remap.correctable": ("remapped_rows/remapped_row_corr",),
    "remap.uncorrectable": ("remapped_rows/remapped_row_unc",),
    "remap.pending": ("remapped_rows/remapped_row_pending",),
    "remap.failed": ("remapped_rows/remapped_row_failure",),
    "gpu.recovery_action": ("gpu_recovery_action",),
    "pcie.replay": ("pci/replay_counter",),
    "pcie.gen": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",),
    "pcie.width": ("pci/pci_gpu_link_info/link_widths/current_link_width",),
    "fabric.state": ("fabric/state",),
    "fabric.status": ("fabric/status",),
    "fabric.health": ("fabric/health/summary",),
}
"""Metric -> what nvidia-smi calls it; of several the sum, or any."""
ALONE = {"gpu.energy", "c2c.crc", "c2c.replay"}
"""Metrics of a GPU that `nvidia-smi -q -x` does not show; NVLinks are not in it either."""
OF_EXCHANGES = {"gpu.bandwidth", "gpu.wait"}
"""What collectives tell of a GPU: no field of NVML's."""
UNITS = {("us", "s"): 1e-6, ("%", "1"): 0.01}
WORDS = {"No": 0.0, "Yes": 1.0, "None": 0.0, "Reset": 1.0, "Completed": 3.0, "Success": 0.0, "Healthy": 1.0, "Unhealthy": 2.0}

METRICS = load_catalogue().metrics

needs_captures = pytest.mark.skipif(not FILES, reason="no captures beside the project: set BURNIN_CAPTURES")


def marked(text: str) -> str:
    """The same capture with a number of its own in every field that is mapped, and flags that differ by GPU."""
    state = {"n": 100, "gpu": 0}

    def number(found: re.Match[str]) -> str:
        state["n"] += 1
        if found["value"] in ("No", "Yes"):
            return f"{found['open']}{('No', 'Yes')[state['n'] % 3 == 0]}{found['close']}"
        width = found["open"].endswith("link_width>") or found["open"].endswith("link_gen>")
        return f"{found['open']}{state['n'] % 90 if width else state['n']}{found['unit']}{found['close']}"

    names = {path.split("/")[-1] for paths in MAP.values() for path in paths}
    pattern = rf"(?P<open><(?P<tag>{'|'.join(names)})>)(?P<value>-?[\d.]+|(?:No|Yes)(?=<))(?P<unit>[^<]*)(?P<close></(?P=tag)>)"
    return re.sub(pattern, number, text)


def agent_reads(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Gpus, dict[tuple[str, str], Any]]:
    """(PCI address, metric) -> reading, through unmodified pynvml."""
    driver = re.search(r"<driver_version>(.*?)<", text)
    assert driver is not None
    monkeypatch.setattr(pynvml, "nvmlLib", smi_library.library(driver[1], smi_library.gpus(text)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    found = Gpus(pynvml)
    out: dict[tuple[str, str], Any] = {}
    for gpu in found.gpus:
        for group in (gpu.fast, gpu.slow, gpu.transient, gpu.links):
            names = [metric for _, metric in group.metrics]
            out.update({(gpu.bdf or "", name): value for name, value in zip(names, group.read(), strict=True)})
    return found, out


def smi_says(rows: dict[tuple[str, str], Any], gpu: str, metric: str) -> float | None:
    """What the tool's parser read for a metric, in the metric's unit; None when it has no row for it."""
    unit = METRICS[metric].unit
    values = []
    for path in MAP[metric]:
        row = rows.get((gpu, path))
        if row is None:
            return None
        word = WORDS.get(row.value) if isinstance(row.value, str) else row.value
        if word is None:
            return None  # a reason, in the tool's words
        values.append(word * UNITS.get((row.unit, unit), 1.0))
        assert isinstance(row.value, str) or (row.unit, unit) in UNITS or row.unit == unit, (metric, row.unit, unit)
    return float(any(values)) if metric == "repair.pending" else sum(values)


@needs_captures
@pytest.mark.parametrize("change", [str, marked], ids=["as captured", "with numbers of their own"])
@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_agent_reads_what_nvidia_smi_shows(file: Path, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = change(file.read_text())
    page = query_xml(text, 0)
    rows = {(row.part, row.name): row for row in page.rows}
    found, read = agent_reads(text, monkeypatch)
    listed = [gpu for gpu, _ in smi_library.gpus(text)]
    assert {gpu for gpu, _ in read} == set(listed) and not found.failed
    compared = 0
    for gpu in {gpu for gpu, _ in read}:
        for metric in MAP:
            said, got = smi_says(rows, gpu, metric), read[gpu, metric]
            if said is None:
                assert isinstance(got, str), (gpu, metric, got)
            else:
                assert got == pytest.approx(said, rel=1e-9, abs=1e-9), (gpu, metric)
                compared += 1
    lost = {gpu for (gpu, metric), got in read.items() if metric == "gpu.temp" and got == "lost"}
    assert compared >= 20 * (len(listed) - len(lost))
    assert bool(lost) == ("lost" in file.stem)


@needs_captures
@pytest.mark.parametrize("file", [f for f in FILES if f.stem.startswith("real")], ids=lambda path: path.stem)
def test_the_agent_names_gpus_as_nvidia_smi_does(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = file.read_text()
    rows = {(row.part, row.name): row.value for row in query_xml(text, 0).rows}
    found, _ = agent_reads(text, monkeypatch)
    names = {
        "name": "product_name",
        "serial": "serial",
        "uuid": "uuid",
        "vbios": "vbios_version",
        "part_number": "board_part_number",
    }
    places = {"chassis": "chassis_serial_number", "slot": "slot_number", "tray_index": "tray_index", "host_id": "host_id"}
    for gpu in found.gpus:
        who = gpu.identity()
        for key, path in {**names, **{key: f"platformInfo/{name}" for key, name in places.items()}}.items():
            said = rows.get((gpu.bdf or "", path))
            assert str(who.get(key)) == str(said) or (said is None and key not in who), (key, who.get(key), said)


def test_every_metric_of_a_gpu_is_mapped_or_said_to_be_alone() -> None:
    assert set(MAP) | ALONE <= set(METRICS)
    assert not set(MAP) & ALONE
    page = (ROOT / "docs/agent.md").read_text()
    for metric, paths in MAP.items():
        assert f"| `{metric}` | " + " + ".join(f"`{path}`" for path in paths) in page, metric
    for metric in ALONE:
        assert f"`{metric}`" in page
    nvml = {
        name
        for name in METRICS
        if name.split(".")[0] in ("gpu", "hbm", "module", "throttle", "ecc", "remap", "repair", "fabric", "c2c")
    }
    assert nvml - OF_EXCHANGES <= set(MAP) | ALONE
