"""NVOS over real SSH: two compute and two switch trays, the scripts of the checks through the shell door, faults found."""

from __future__ import annotations

import asyncio
from pathlib import Path

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile, load_rack
from burnin.transport.rack import dialer
from burnin.transport.shell import Shell
from burnin.twin.faults import Plant
from burnin.twin.up import running
from tests import build

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
