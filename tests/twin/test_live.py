"""A whole rack as a newcomer runs it: `burnin demo`, with faults that are there at once. It wants the machine for itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.twin.runs import burnin

pytestmark = pytest.mark.live

ECC, DEAD, VOID = "ecc_ue:t09.g2", "tray_dead:t14", "tim_void:t03.g1:1.5"


def demo(place: Path, plants: Sequence[str]) -> dict[str, Any]:
    """Its verdict; what was planted, and nobody else, is named."""
    words = [word for plant in plants for word in ("--plant", plant)]
    done = burnin("demo", *words, "--seed", "6", "--plain", "--db", str(place / "b.db"), "--json", str(place / "v.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads((place / "v.json").read_text())
    assert document["verdict"] == "FAIL"
    found = {(f["part"], f["signature"]): f["severity"] for f in document["findings"] if f["severity"] != "WATCH"}
    assert found["t09.g2", "ecc.dram_ue.growth"] == "FAIL"
    assert found["t14", "tray.lost"] == "HOLD"
    assert {part for part, _ in found} == {plant.split(":")[1] for plant in plants}
    return document


def test_two_faults_at_once_are_named_and_nobody_else(tmp_path: Path) -> None:
    demo(tmp_path, [ECC, DEAD])


@pytest.mark.long
def test_three_faults_at_once_are_named_one_of_them_after_a_second_look(tmp_path: Path) -> None:
    found = demo(tmp_path, [VOID, ECC, DEAD])["findings"]
    weak = next(f for f in found if f["signature"] == "thermal.rth")
    assert weak["part"] == "t03.g1"
    assert weak["severity"] in ("HOLD", "FAIL"), "re-tested; FAIL takes what healthy parts of heavy tails never are"
    assert weak["serial"]
    assert weak["slot"].startswith("slot 13, module 2")
    assert weak["action"]
