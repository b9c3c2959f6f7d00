"""Whole runs as a newcomer does them: `burnin demo`, healthy and with three faults at once."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.twin.runs import burnin

pytestmark = pytest.mark.live


def test_a_healthy_rack_passes_and_its_verdict_can_be_derived_again(tmp_path: Path) -> None:
    db, said, derived = tmp_path / "burnin.db", tmp_path / "said.json", tmp_path / "derived.json"
    done = burnin("demo", "--healthy", "--seed", "5", "--plain", "--db", str(db), "--json", str(said))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(said.read_text())
    assert (document["verdict"], document["whole"], document["ships"]) == ("PASS", True, False)
    assert (
        document["coverage"]["measured"] == document["coverage"]["required"] == (16 + 18) * 72 * 2
    )  # metrics of a GPU, state of its 18 NVLinks; idle and load
    assert {s["result"] for s in document["steps"]} == {"PASS"}
    assert [w["interlock"] for w in document["waivers"]] == ["leak_policy"]

    again = burnin("judge", "last", "--db", str(db), "--json", str(derived))
    assert again.returncode == 0
    assert derived.read_bytes() == said.read_bytes()

    with closing(sqlite3.connect(db)) as connection:
        count = dict(
            connection.execute(
                "select 'run', count(*) from run union all select 'step', count(*) from step union all "
                "select 'measurement', count(*) from measurement union all select 'rollup', count(*) from rollup union all "
                "select 'finding', count(*) from finding"
            ).fetchall()
        )
        hot = connection.execute("select max(max) from rollup where metric = 'gpu.temp'").fetchone()[0]
    assert (count["run"], count["finding"]) == (1, 0)
    assert count["step"] == 17 * 18
    assert count["measurement"] > document["coverage"]["required"], "slots of coverage are the least of what is judged"
    assert count["rollup"] >= 72 * 15
    assert 60 < hot < 85


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
