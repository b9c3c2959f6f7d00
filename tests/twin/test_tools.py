"""A suite with one check of each kind, as docs/write-a-check.md shows it, followed to the letter on a small twin."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from burnin.twin.faults import parse
from burnin.twin.up import Twin, running
from tests.twin.runs import burnin
from tests.unit.test_checks_own import files_of_the_page

pytestmark = [pytest.mark.live, pytest.mark.long]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    with running(
        "gb300-nvl72", 3, [parse("bw_loss:t01.g2:0.4")], where=tmp_path_factory.mktemp("twin"), trays=2, switches=0
    ) as made:
        yield made


def test_the_page_followed_to_the_letter(twin: Twin, tmp_path: Path) -> None:
    for name, text in files_of_the_page().items():
        (tmp_path / name).write_text(text.replace("- pytest: test_site.py", f"- pytest: {tmp_path}/test_site.py"))
    assert burnin("lint", str(tmp_path / "site.yaml")).returncode == 0
    words = ["run", str(tmp_path / "site.yaml"), str(twin.rack_file), "--answers", str(tmp_path / "answers.yaml"), "--plain"]
    done = burnin(*words, "--db", str(tmp_path / "b.db"), "--json", str(tmp_path / "v.json"))
    document = json.loads((tmp_path / "v.json").read_text())
    steps = {(s["name"], s["part"]): s for s in document["steps"]}
    told = {key: (s["status"], s["result"]) for key, s in steps.items()}
    own = {key: value for key, value in told.items() if key[0] in ("ask", "pytest", "program", "nvidia-smi")}
    assert own == {
        ("ask", "rack"): ("COMPLETE", "PASS"), ("pytest", "rack"): ("COMPLETE", "PASS"),
        **{(name, tray): ("COMPLETE", "PASS") for name in ("nvidia-smi", "program") for tray in ("t00", "t01")},
    }, (done.stdout, document["holds"])  # fmt: skip
    years = [m for m in steps["pytest", "rack"]["measurements"] if m["name"] == "site.year"]
    assert {m["part"] for m in years} == {"t00", "t01"}
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        kept = connection.execute("select count(*) from measurement where name = 'site.year'").fetchone()[0]
    assert kept == 2


FAILING = """
suite: failing
about: a site's check fails the rack, and a tool finds what is planted
lease: 10 s
stages:
  - stage: own
    steps: [{pytest: PLACE/test_bad.py}]
  - stage: alone
    steps: [{program: {argv: [sh, -c, "sleep 6; echo ALL GOOD"], max: 1 min, exclusive: true, verdict: {passes: ALL GOOD}}}]
  - stage: tools
    steps: [{check: nvbandwidth}, {check: dcgm, with: {level: 2}}]
"""


def test_a_sites_check_that_fails_fails_the_rack_and_tools_find_what_is_planted(twin: Twin, tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text("def test_it(tray):\n    assert tray.name == 't00', 'not this one'\n")
    (tmp_path / "failing.yaml").write_text(FAILING.replace("PLACE", str(tmp_path)))
    words = ["run", str(tmp_path / "failing.yaml"), str(twin.rack_file), "--plain", "--db", str(tmp_path / "b.db")]
    done = burnin(*words, "--json", str(tmp_path / "v.json"))
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads((tmp_path / "v.json").read_text())
    failed = {(f["signature"], f["part"]) for f in document["findings"] if f["severity"] == "FAIL"}
    assert ("pytest.passed", "t01") in failed
    assert ("copy.h2d", "t01.g2") in failed
    assert ("dcgm.verdict", "t01.g2") in failed
    alone = [s for s in document["steps"] if s["name"] == "program"]
    assert [s["result"] for s in alone] == ["PASS", "PASS"], "NVML was let go for it, and taken again"
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        said = [text for (text,) in connection.execute("select text from log where kind = 'note'")]
    assert sum("NVML is let go" in text for text in said) == sum("NVML was taken again" in text for text in said) == 2
    assert not any(part.startswith("t00") for _, part in failed)
    assert [part for signature, part in failed if part == "t01"] == ["t01"], "the test's; what the tools found is the GPU's"
    assert "test_bad.py::test_it[t01]" in burnin("show", "last", "--db", str(tmp_path / "b.db")).stdout
    again = burnin("judge", "last", "--db", str(tmp_path / "b.db"), "--json", str(tmp_path / "again.json"))
    assert again.returncode == 1
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "v.json").read_bytes()
