"""The guard trips while a supply is switched off: it is switched on again all the same, and the rack is left as it was found."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from burnin.twin.faults import parse
from burnin.twin.rackstate import RackState
from burnin.twin.tray import RACK
from burnin.twin.up import running
from tests.twin.runs import LOADED_S, ROOM_S, wait_for, workers

pytestmark = [pytest.mark.live, pytest.mark.long]

SUITE = """
suite: spare
about: a supply is off for 40 s, under load
lease: 15 s
stages:
  - stage: spare
    phase: ramp-redundancy
    for: 8 s
    load: {}
    steps: [{check: redundancy, with: {part: p4.u2, seconds: 40}}]
"""
LEAKS_S = 30
"""Of load, after which a tray leaks: its supply goes off after eight and a little, and is to stay so for forty."""


def test_a_guard_that_trips_leaves_no_supply_switched_off(tmp_path: Path) -> None:
    (tmp_path / "spare.yaml").write_text(SUITE)
    db, said = tmp_path / "runs.db", tmp_path / "out"
    with running("gb300-nvl72", 29, [parse(f"leak:t01:600@{LEAKS_S}")], where=tmp_path, trays=2, switches=0) as twin:
        with twin.rack_file.open("a") as file:
            file.write("allow: [redundancy]\n")
        words = ["run", str(tmp_path / "spare.yaml"), str(twin.rack_file), "--db", str(db), "--plain", "--operator", "test"]
        with said.open("wb") as out:
            run = subprocess.Popen([sys.executable, "-m", "burnin", *words], stdout=out, stderr=out)
        rack = RackState.open(str(twin.private / RACK))
        supply = rack.psus[4 * len(rack.psus) // 8 + 2]
        wait_for(lambda: supply["off"] == 1.0, LOADED_S, "it was never switched off")
        trays = [place.pid for place in twin.trays.values()]
        wait_for(lambda: not any(workers(pid) for pid in trays), LEAKS_S + 10 + ROOM_S, "the leak ended nothing")
        assert run.wait(60) in (1, 3)
        assert [one["off"] for one in rack.psus] == [0.0] * len(rack.psus), said.read_text()
        assert not any(workers(pid) for pid in trays)
    with closing(sqlite3.connect(db)) as kept:
        lines = kept.execute("SELECT t_s, kind, code, text FROM log WHERE kind IN ('undo', 'guard') ORDER BY t_s").fetchall()
    told = [(kind, code) for _, kind, code, _ in lines if (kind, code) != ("guard", "outcome")]
    assert told == [("undo", "pending"), ("guard", "leak"), ("undo", "done")]
    assert [json.loads(text)["args"]["body"] for _, kind, _, text in lines if kind == "undo"] == [{"ResetType": "On"}] * 2
