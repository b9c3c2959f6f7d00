"""A whole run on healthy trays: PASS, nobody named, everything measured, and the same bytes when it is judged again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from burnin.twin.up import running
from tests.twin.runs import burnin

pytestmark = [pytest.mark.live, pytest.mark.long]
TRAYS = 7
"""Six have a family to be out of."""


def test_a_healthy_rack_passes_and_its_verdict_can_be_derived_again(tmp_path: Path) -> None:
    db, said, derived = tmp_path / "burnin.db", tmp_path / "said.json", tmp_path / "derived.json"
    with running("gb300-nvl72", 5, where=tmp_path, trays=TRAYS, switches=1) as twin:
        done = burnin("run", "demo", str(twin.rack_file), "--plain", "--db", str(db), "--json", str(said))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(said.read_text())
    assert (document["verdict"], document["whole"], document["ships"]) == ("PASS", False, False)
    assert (
        document["coverage"]["measured"] == document["coverage"]["required"] == (16 + 18) * 4 * TRAYS * 2
    )  # metrics of a GPU, state of its 18 NVLinks; idle and load
    assert {s["result"] for s in document["steps"]} == {"PASS"}
    assert [w["interlock"] for w in document["waivers"]] == ["leak_policy", "switch_trays"], "one of nine is there"

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
    assert count["step"] == 17 * TRAYS
    assert count["measurement"] > document["coverage"]["required"], "slots of coverage are the least of what is judged"
    assert count["rollup"] >= 4 * TRAYS * 15
    assert 60 < hot < 85
