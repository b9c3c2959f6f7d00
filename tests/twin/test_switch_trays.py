"""NVOS over real SSH: two compute and two switch trays, the scripts of the checks through the shell door, faults found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile, load_rack
from burnin.transport.rack import dialer
from burnin.transport.shell import Shell
from burnin.twin.faults import Plant
from burnin.twin.up import running
from tests import build
from tests.twin.runs import burnin

PORT = "s1.a1.p8"
"""Of this seed: it ends a link of t00."""


def test_a_leak_and_a_weak_port_of_switch_trays_are_found_over_ssh(tmp_path: Path) -> None:
    plants = [Plant("leak", "s0", 600.0), Plant("switchport_margin", PORT, 6.0)]
    with running("gb300-nvl72", 5, plants, where=tmp_path, trays=2, switches=2) as twin:
        got = asyncio.run(_judged(twin.rack_file))
    bad = {(m.part, m.name, m.result) for m in got if m.result is not Result.PASS}
    assert bad == {("s0", "switch.leak", Result.FAIL), (PORT, "port.symbol_errors.growth", Result.FAIL)}
    assert {m.part for m in got if m.name == "switch.leak" and m.result is Result.PASS} == {"s1"}
    assert {m.value for m in got if m.name == "port.count"} == {16.0}
    assert {m.part for m in got if m.name == "switch.chassis" and m.result is Result.PASS} == {"s0", "s1"}


async def _judged(rack_file: Path) -> list[Measurement]:
    file = load_rack(rack_file)
    shell, out = Shell(dialer(file)), list[Measurement]()
    suite = build.suite()

    async def one(name: str, tray: str) -> list[Measurement]:
        at = Context(tray, file.rack, load_profile("gb300-nvl72"), suite, suite.stages[1], build.catalogue(), {"seconds": 1.0})
        (order,) = CHECKS[name].orders(at, [])
        body = await shell.order(order.to, order.verb, order.args, order.timeout_s)
        return CHECKS[name].judge(at, Evidence(answers=[(Answer(order, True, body),)], stretch=build.LOAD))

    for found in await asyncio.gather(*(one(name, tray) for name in ("switch", "switch-ports") for tray in ("s0", "s1"))):
        out += found
    return out


SUITE = """
suite: ends
about: the switch side through a whole run
lease: 10 s
sample_links: 2 s
stages:
  - {stage: audit, steps: [switch, nmx]}
  - {stage: idle, phase: idle, for: 10 s, settle: 2 s,
     steps: [{check: switch-ports, with: {seconds: 3}}, {check: link-ends, with: {seconds: 3}}]}
"""


@pytest.mark.live
@pytest.mark.long
def test_a_run_names_the_weak_port_and_shows_both_ends_of_every_link(tmp_path: Path) -> None:
    (tmp_path / "ends.yaml").write_text(SUITE)
    with running("gb300-nvl72", 5, [Plant("switchport_margin", PORT, 6.0)], where=tmp_path, trays=2, switches=2) as twin:
        words = ["run", str(tmp_path / "ends.yaml"), str(twin.rack_file), "--plain", "--db", str(tmp_path / "b.db")]
        done = burnin(*words, "--json", str(tmp_path / "v.json"))
    assert done.returncode == 1, done.stdout + done.stderr
    document = json.loads((tmp_path / "v.json").read_text())
    failed = {(f["signature"], f["part"]) for f in document["findings"] if f["severity"] == "FAIL"}
    assert failed == {("port.symbol_errors.growth", PORT), ("link.errors", PORT)}
    good = {(s["name"], s["part"]) for s in document["steps"] if s["result"] == "PASS"}
    assert {("switch", "s0"), ("switch", "s1"), ("nmx", "rack"), ("switch-ports", "s0")} <= good
    assert burnin("links", "last", "--db", str(tmp_path / "b.db"), "--json", str(tmp_path / "l.json")).returncode == 0
    rows = {row["link"]: row for row in json.loads((tmp_path / "l.json").read_text())["rows"] if row["link"]}
    assert len(rows) == 144 and sum(row["switch"] is not None for row in rows.values()) == 32, "seven switch trays are not there"
    assert [row["result"] for row in rows.values() if row["port"] == PORT] == ["FAIL"]
    assert {row["result"] for row in rows.values() if row["switch"] is None} == {"UNKNOWN"}
