"""A whole rack as a newcomer runs it: `burnin demo`, with three faults at once. It wants the machine for itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.twin.runs import burnin

pytestmark = pytest.mark.live


def test_three_faults_at_once_are_named_and_nobody_else(tmp_path: Path) -> None:
    plants = ["tim_void:t03.g1:1.5", "ecc_ue:t09.g2", "tray_dead:t14"]
    words = [word for plant in plants for word in ("--plant", plant)]
    done = burnin("demo", *words, "--seed", "6", "--plain", "--db", str(tmp_path / "b.db"), "--json", str(tmp_path / "v.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "v.json").read_text())
    assert document["verdict"] == "FAIL"
    found = {(f["part"], f["signature"]): f["severity"] for f in document["findings"] if f["severity"] != "WATCH"}
    assert found["t03.g1", "thermal.rth"] in ("HOLD", "FAIL"), "re-tested; FAIL takes what healthy parts of heavy tails never are"
    assert found["t09.g2", "ecc.dram_ue.growth"] == "FAIL"
    assert found["t14", "tray.lost"] == "HOLD"
    assert {part for part, _ in found} == {"t03.g1", "t09.g2", "t14"}
    weak = next(f for f in document["findings"] if f["signature"] == "thermal.rth")
    assert weak["serial"]
    assert weak["slot"].startswith("slot 13, module 2")
    assert weak["action"]
