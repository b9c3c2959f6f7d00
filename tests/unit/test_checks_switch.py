"""The checks of switch trays, on the twin's own NVOS: health passes, each fault fails by name, silence is UNKNOWN."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.checks.base import Answer, Order
from burnin.events import Measurement, Result
from burnin.twin.faults import Plant
from tests.unit.nvos_rack import MODEL, WIRES, Switches, context, end, judged

ALL = MODEL.topology.trays()
TWO = ["t03", "t11"]
VOLTS = '"state": "{}",\n    "type": "voltage"'


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


def lost(order: Order) -> Answer:
    return Answer(order, False, f"{order.to}: link lost")


def test_every_link_ends_in_a_port_of_its_own() -> None:
    ends = [port.link for ports in WIRES.values() for port in ports]
    assert len(ends) == len(set(ends)) == 1296
    assert {len(ports) for ports in WIRES.values()} == {144}
    assert len({port.part(tray) for tray, ports in WIRES.items() for port in ports}) == 1296


# ---------------------------------------------------------------- the tray


def test_a_healthy_switch_tray_passes(tmp_path: Path) -> None:
    for tray in ("s0", "s7"):
        assert bad(judged("switch", context("switch", tray), Switches(tmp_path / tray).ask)) == []


@pytest.mark.parametrize(("tray", "wet"), [("s1", (0,)), ("s6", (3, 7))])
def test_a_leak_is_found_in_the_tray_that_leaks(tmp_path: Path, tray: str, wet: tuple[int, ...]) -> None:
    rack = Switches(tmp_path)
    for i in wet:
        rack.rack_state.tray(tray)[f"leak{i}_v"] = 0.4
    assert bad(judged("switch", context("switch", tray), rack.ask)) == [(tray, "switch.leak", Result.FAIL)] * len(wet)
    assert bad(judged("switch", context("switch", "s2"), rack.ask)) == []


@pytest.mark.parametrize(
    ("command", "old", "new", "expected"),
    [
        ("environment", VOLTS.format("ok"), VOLTS.format("not ok"), [("sensor", "FAIL")] * 2),
        ("inventory", '"state": "ok",\n    "type": "bmc"', '"state": "fault",\n    "type": "bmc"', [("part", "FAIL")]),
        ("inventory", '"state": "ok",\n    "type": "bmc"', '"state": "",\n    "type": "bmc"', [("part", "UNKNOWN")]),
        ("leakage", '"state": "normal"\n  }\n}', '"state": "unknown"\n  }\n}', [("leak.detectors", "FAIL"), ("leak", "UNKNOWN")]),
        ("chassis-location", "chassis-sn", "chassis", [("chassis", "UNKNOWN")]),
        ("firmware", "88.0002.1950", "N/A", [("firmware", "UNKNOWN")]),
    ],
)  # fmt: skip
def test_each_word_of_nvos_counts(tmp_path: Path, command: str, old: str, new: str, expected: list[tuple[str, str]]) -> None:
    def edit(words: list[str], text: str) -> str:
        return text.replace(old, new) if words[-3] == command else text

    got = judged("switch", context("switch", "s4"), Switches(tmp_path, edit=edit).ask)
    assert [(m.name.removeprefix("switch."), m.result.name) for m in got if m.result is not Result.PASS] == expected


def test_another_racks_switch_tray_and_another_firmware_are_named(tmp_path: Path) -> None:
    rack = Switches(tmp_path, edit=lambda words, text: text.replace('"chassis-sn": "', '"chassis-sn": "9'))
    at = context("switch", "s4", firmware={"BMC": "88.0002.2000", "ASIC": "35.2014.1694", "FPGA": "1"})
    assert bad(judged("switch", at, rack.ask)) == [
        ("s4", "switch.chassis", Result.FAIL), ("s4", "switch.firmware", Result.FAIL), ("s4", "switch.firmware", Result.UNKNOWN),
    ]  # fmt: skip


@pytest.mark.parametrize("check", ["switch", "switch-ports", "nmx"])
def test_silence_and_a_cut_are_never_a_pass(tmp_path: Path, check: str) -> None:
    part = "rack" if check == "nmx" else "s3"
    assert all(m.result is Result.UNKNOWN for m in judged(check, context(check, part), lost))
    rack = Switches(tmp_path)

    def cut(order: Order) -> Answer:
        answer = rack.ask(order)
        return Answer(order, True, {**answer.body, "stdout": answer.body["stdout"][:150], "cut": True})

    got = judged(check, context(check, part), cut)
    assert got and Result.PASS not in {m.result for m in got}
    gone = judged(
        check, context(check, part), lambda order: Answer(order, True, {"exit": 127, "stdout": "", "stderr": "nv: not found"})
    )
    assert gone and all(m.result is Result.UNKNOWN for m in gone)


# ---------------------------------------------------------------- ports


def test_all_ports_of_a_whole_rack_pass_and_of_a_part_of_it_too(tmp_path: Path) -> None:
    assert bad(judged("switch-ports", context("switch-ports", "s8", ALL), Switches(tmp_path / "a", compute=ALL).ask)) == []
    assert bad(judged("switch-ports", context("switch-ports", "s8", TWO), Switches(tmp_path / "b", compute=TWO).ask)) == []


@pytest.mark.parametrize(("part", "severity"), [("s2.a0.p17", 3.0), ("s5.a1.p63", 3.5)])
def test_a_port_without_margin_counts_errors_at_its_own_end(tmp_path: Path, part: str, severity: float) -> None:
    rack, tray = Switches(tmp_path, [Plant("switchport_margin", part, severity)], ALL), part[:2]
    got = judged("switch-ports", context("switch-ports", tray, ALL), rack.ask)
    assert bad(got) == [(part, "port.symbol_errors.growth", Result.FAIL)]
    assert bad(judged("switch-ports", context("switch-ports", "s4", ALL), rack.ask)) == []


@pytest.mark.parametrize("link", ["t03.g1.l7", "t11.g2.l0"])
def test_a_link_that_is_down_is_down_at_the_port_too(tmp_path: Path, link: str) -> None:
    rack, (tray, port) = Switches(tmp_path, compute=ALL), end(link)
    rack.states[link[:3]].links[int(link[5])][int(link[8:])]["down"] = 1
    expected = [
        (tray, "port.count", Result.FAIL),
        (port.part(tray), "port.state", Result.FAIL),
        (port.part(tray), "port.diagnostics", Result.FAIL),
    ]
    assert bad(judged("switch-ports", context("switch-ports", tray, ALL), rack.ask)) == expected
    assert bad(judged("switch-ports", context("switch-ports", tray, ALL[:-1]), rack.ask)) == []  # one more than are needed
    other = next(one for one in WIRES if one != tray)
    assert bad(judged("switch-ports", context("switch-ports", other, ALL), rack.ask)) == []


def test_a_tray_that_is_missing_leaves_too_few_ports(tmp_path: Path) -> None:
    got = judged("switch-ports", context("switch-ports", "s1", TWO), Switches(tmp_path, compute=TWO[:1]).ask)
    assert bad(got) == [("s1", "port.count", Result.FAIL)]


def test_counters_that_are_not_said_or_were_set_back_are_unknown(tmp_path: Path) -> None:
    times = iter(range(9))

    def edit(words: list[str], text: str) -> str:
        return text.replace('"link-downed": 0', f'"link-downed": {4 - next(times)}').replace('"in-errors"', '"in-errs"')

    got = judged("switch-ports", context("switch-ports", "s1", ALL), Switches(tmp_path, compute=ALL, edit=edit).ask)
    expected = [("s1", "port.in_errors.growth", Result.UNKNOWN), ("s1", "port.downed.growth", Result.UNKNOWN)]
    assert bad(got) == expected


def test_a_port_slower_than_it_can_be(tmp_path: Path) -> None:
    def edit(words: list[str], text: str) -> str:
        return text.replace('"speed": "400G"', '"speed": "200G"', 1)

    got = judged("switch-ports", context("switch-ports", "s1", ALL), Switches(tmp_path, compute=ALL, edit=edit).ask)
    assert [(m.name, m.result) for m in got if m.result is not Result.PASS] == [("port.speed", Result.FAIL)]


# ---------------------------------------------------------------- the fabric manager


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", []),
        ('"nmxc-conn": "up"', '"nmxc-conn": "down"', [("s0", "nmx.controller", Result.FAIL)]),
        ('"status": "ok"', '"status": "not ok"', [("s0", "nmx.controller", Result.FAIL)] * 2),
        ("STATE_CONFIGURED", "STATE_OFFLINE", [("s0", "nmx.controller", Result.FAIL)]),
        ('"healthy"', '"degraded"', [("s0", "nmx.partition", Result.FAIL)]),
        ('"num-gpus": 72', '"num-gpus": 68', [("s0", "nmx.gpus", Result.UNKNOWN)]),
        ('"enabled"', '"disabled"', [("rack", "nmx.manager", Result.UNKNOWN)]),
    ],
)
def test_the_fabric_manager(tmp_path: Path, old: str, new: str, expected: list[tuple[str, str, Result]]) -> None:
    rack = Switches(tmp_path, edit=lambda words, text: text.replace(old, new) if old else text)
    assert bad(judged("nmx", context("nmx", "rack", ALL), rack.ask)) == expected


def test_a_switch_tray_that_was_not_asked_may_run_another_manager(tmp_path: Path) -> None:
    rack = Switches(tmp_path)
    got = judged("nmx", context("nmx", "rack", ALL), lambda order: lost(order) if order.to == "s5" else rack.ask(order))
    assert bad(got) == [("rack", "nmx.manager", Result.UNKNOWN)] and "s5" in got[-1].why
