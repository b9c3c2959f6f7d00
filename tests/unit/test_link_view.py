"""`burnin links`: 1,296 NVLinks of a run from both ends, out of its database; an end that was not read is UNKNOWN."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from burnin.assess import link_view
from burnin.assess.case import gather
from burnin.assess.judge import signatures
from burnin.checks import CHECKS
from burnin.checks.base import Answer, Order
from burnin.checks.link_table import End, Row
from burnin.cli import run as burnin
from burnin.events import Result, StageBegan, StageEnded, Status, Tick
from burnin.rack.load import load_catalogue, load_profile
from burnin.run.keep import _evidence
from burnin.store import Attempt, RunStart, open_store
from burnin.suites.schema import Suite
from burnin.twin.faults import Plant
from tests.unit.nvos_rack import RACK, WIRES, Switches, context, end

TRAYS = sorted(RACK.trays)
TRUTH = {port.link: port.part(tray) for tray, ports in WIRES.items() for port in ports}
SUITE: dict[str, Any] = {
    "suite": "mine", "about": "mine", "coverage": {"metrics": []},
    "stages": [{"stage": "idle", "phase": "idle", "for": "10 s", "steps": ["links", "link-ends"]}],
}  # fmt: skip


def keep(place: Path, mute: str = "", asked: bool = True, bad: str = "") -> None:
    """A run that looked at both ends, in burnin.db of this folder; the port of t04.g1.l3 counts errors.

    `bad`: a chip; the GPUs at the other ends of its links count errors.
    """
    tray, port = end("t04.g1.l3")
    rack, at = (
        Switches(place / "twin", [Plant("switchport_margin", port.part(tray), 4.0)], TRAYS),
        context("link-ends", "rack", TRAYS),
    )
    dump: Any = {"mode": "json", "by_alias": True}
    config = {
        "rack": at.rack.model_dump(**dump), "profile": load_profile("gb300-nvl72").model_dump(**dump, exclude_unset=True),
        "suite": Suite.model_validate(SUITE).model_dump(**dump),
        "catalogue": load_catalogue().model_dump(**dump, exclude_unset=True),
        "plan": {"trays": [*TRAYS, *at.rack.switches()], "only": []}, "versions": {"burnin": "test"},
    }  # fmt: skip

    def answer(order: Order) -> Answer:
        if order.to == mute:
            return Answer(order, False, f"{order.to}: link lost")
        if order.verb != "identify":
            return rack.ask(order)
        return Answer(
            order, True, {"gpus": [{"gpu": f"g{i}", "guid": g.guid.hex()} for i, g in enumerate(RACK.trays[order.to].gpus)]}
        )

    with closing(open_store(place / "burnin.db")) as store:
        store.begin_run(RunStart("r1", "R-1", "gb300-nvl72", "mine", False, True, "me", "2026-11-21T10:00:00Z", config))
        store.keep([StageBegan(0, "idle", "idle", 10.0, 1.0)])
        for one in TRAYS:
            links = [f"{one}.g{g}.l{n}" for g in range(4) for n in range(18)]
            columns = tuple((link, m) for link in links for m in ("nvlink.state", "nvlink.symbol_errors"))
            grown = tuple(x for link in links for x in (1.0, 3.0 + 5.0 * bool(bad and TRUTH[link].startswith(bad))))
            store.keep([Tick(one, 2.0, columns, (1.0, 3.0) * len(links)), Tick(one, 9.0, columns, grown)])
        if asked:
            brought = [
                _evidence("idle", "link-ends", "rack", 1, 0, answer(order)) for order in CHECKS["link-ends"].orders(at, [])
            ]
            store.end_attempt(Attempt("idle", "link-ends", "rack", 1, Status.COMPLETE, Result.UNKNOWN, 11.0, 12.0, ""), brought)
        store.keep([StageEnded(0, "idle", 12.0, Status.COMPLETE)])
        store.end_run("r1", "2026-11-21T10:01:00Z", "COMPLETE")


def table(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    """The table as JSON and as people see it."""
    assert burnin(["links", "last", "--db", str(place / "burnin.db"), "--json", str(place / "links.json"), *words]) == 0
    return json.loads((place / "links.json").read_text()), capsys.readouterr().out


def test_every_link_stands_in_the_table_with_both_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path)
    document, text = table(tmp_path, capsys)
    assert {row["link"]: row["port"] for row in document["rows"]} == TRUTH and document["links"] == 1296
    assert document["results"] == {"PASS": 1295, "FAIL": 1, "UNKNOWN": 0} and document["missing"] == []
    assert TRUTH["t04.g1.l3"] in text and len(text.splitlines()) == 3, "only what is not good is shown"
    assert len(table(tmp_path, capsys, "--all")[1].splitlines()) == 1298


def test_an_end_that_was_not_read_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, mute="s4")
    document, text = table(tmp_path, capsys)
    alone = [row for row in document["rows"] if row["switch"] is None]
    assert len(document["rows"]) == 1296 and len(alone) == 144
    assert {row["result"] for row in alone} == {"UNKNOWN"} and {TRUTH[row["link"]][:2] for row in alone} == {"s4"}
    assert "missing: s4: s4: link lost" in text and "UNKNOWN" in text


@pytest.mark.parametrize(("asked", "part"), [(True, "s3.a1"), (False, "rack")])
def test_what_ends_in_one_chip_is_named_on_it_where_the_run_knows_who_is_plugged_where(
    tmp_path: Path, asked: bool, part: str
) -> None:
    keep(tmp_path, asked=asked, bad="s3.a1.")
    with closing(open_store(tmp_path / "burnin.db")) as store:
        case = gather(store, "r1")
    assert link_view.ports(case) == (TRUTH if asked else {})
    (found,) = [one for one in signatures(case) if one.signature == "nvlink.errors"]
    assert (found.part, found.value) == (part, 72.0)


def test_a_run_that_asked_no_switch_tray_shows_the_gpus_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, asked=False)
    document, text = table(tmp_path, capsys)
    assert document["results"] == {"PASS": 0, "FAIL": 0, "UNKNOWN": 1296} and "no stage of this run did link-ends" in text


@pytest.mark.parametrize(
    ("gpu", "switch", "result"),
    [
        (End(True, 0), End(True, 0), Result.PASS),
        (End(True, 0), End(True, None), Result.UNKNOWN),
        (End(True, 0), End(None, 0), Result.UNKNOWN),
        (End(True, 0), None, Result.UNKNOWN),
        (End(True, 0), End(False, 0), Result.UNKNOWN),
        (End(False, 0), End(False, 0), Result.FAIL),
        (End(True, 2), None, Result.FAIL),
        (End(True, 0), End(True, 1), Result.FAIL),
    ],
)
def test_what_both_ends_say_together(gpu: End, switch: End | None, result: Result) -> None:
    assert Row("t00.g0.l0", "s0.a0.p1", gpu, switch).result is result
