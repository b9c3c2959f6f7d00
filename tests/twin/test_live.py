"""Three faults at once, named and nobody else: on a part of a rack, and on a whole one as a newcomer runs it (`burnin demo`).

They want the machine for themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnin.twin.faults import parse
from burnin.twin.up import running
from tests.twin.runs import burnin

pytestmark = pytest.mark.live


def test_three_faults_at_once_are_named_and_nobody_else(tmp_path: Path) -> None:
    plants = [parse(plant) for plant in ("tim_void:t03.g1:1.5", "ecc_ue:t05.g2", "tray_dead:t06")]
    with running("gb300-nvl72", 6, plants, where=tmp_path, trays=8, switches=1, lean=True) as twin:
        done = burnin("run", "demo", str(twin.rack_file), *kept(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    named(tmp_path, "t05.g2", "t06")


@pytest.mark.long
def test_of_a_whole_rack_too(tmp_path: Path) -> None:
    words = ["--plant", "tim_void:t03.g1:1.5", "--plant", "ecc_ue:t09.g2", "--plant", "tray_dead:t14"]
    done = burnin("demo", *words, "--seed", "6", *kept(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    named(tmp_path, "t09.g2", "t14")


def kept(place: Path) -> list[str]:
    return ["--plain", "--db", str(place / "b.db"), "--json", str(place / "v.json")]


def named(place: Path, failing: str, dead: str) -> None:
    """These, the voided interface of t03.g1, and nobody else."""
    document = json.loads((place / "v.json").read_text())
    assert document["verdict"] == "FAIL"
    found = {(f["part"], f["signature"]): f["severity"] for f in document["findings"] if f["severity"] != "WATCH"}
    assert found["t03.g1", "thermal.rth"] in ("HOLD", "FAIL"), "re-tested; FAIL takes what healthy parts of heavy tails never are"
    assert found[failing, "ecc.dram_ue.growth"] == "FAIL"
    assert found[dead, "tray.lost"] == "HOLD"
    assert {part for part, _ in found} == {"t03.g1", failing, dead}
    weak = next(f for f in document["findings"] if f["signature"] == "thermal.rth")
    assert weak["serial"]
    assert weak["slot"].startswith("slot 13, module 2")
    assert weak["action"]
