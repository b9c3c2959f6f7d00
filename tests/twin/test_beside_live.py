"""A stage that loads GPUs, NVLink, cores and network cards together, as a run does it on a twin: attained, and let go."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from burnin.twin.up import running

SUITE = """
suite: beside
about: GPUs, NVLink, cores and network cards together
lease: 5 s
sample_slow: 2 s
coverage: {metrics: [gpu.temp, cpu.util]}
stages:
  - {stage: idle, phase: idle, for: 6 s, settle: 2 s, steps: [xid]}
  - {stage: all, phase: load, for: 20 s, settle: 8 s, load: {cpu: true, nvlink: true, nic: true}, steps: [together]}
"""

pytestmark = [pytest.mark.live, pytest.mark.long]


@pytest.mark.timeout(120)
def test_gpus_nvlink_cores_and_network_cards_are_loaded_together(tmp_path: Path) -> None:
    (tmp_path / "beside.yaml").write_text(SUITE)
    with running("gb300-nvl72", 1, where=tmp_path, trays=2, switches=0) as twin:
        words = ["run", str(tmp_path / "beside.yaml"), str(twin.rack_file), "--db", str(tmp_path / "runs.db"), "--plain"]
        words += ["--json", str(tmp_path / "verdict.json"), "--operator", "test"]
        done = subprocess.run([sys.executable, "-m", "burnin", *words], capture_output=True, text=True, timeout=100, check=False)
        assert (tmp_path / "verdict.json").exists(), done.stderr
    document = json.loads((tmp_path / "verdict.json").read_text())
    step = next(step for step in document["steps"] if step["name"] == "together")
    measured = {(one["name"], one["part"]): one for one in step["measurements"]}
    cores = measured.pop(("together.cpu", "t00"))
    assert cores["result"] == "PASS", cores
    cards = {f"t00.n{i}": measured.pop(("together.nic", f"t00.n{i}")) for i in range(5)}
    assert {part: one["result"] for part, one in cards.items()} == dict.fromkeys(cards, "PASS"), cards
    assert 0.8 < cores["value"] <= 1
    assert {part for name, part in measured if name == "together.nvlink"} == {f"t00.g{i}" for i in range(4)}
    assert min(one["value"] for one in measured.values()) > 50, "GB/s; how many depends on how busy this machine is"
    assert not [hold for hold in document["holds"] if "cpu.util" in hold["why"]]
