"""Both ends of all 1,296 links of a twin in one table; what one end does not say is UNKNOWN, and no end is blamed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from burnin.checks import link_table
from burnin.checks.base import Answer, Evidence, Order
from burnin.checks.link_ends import CHECK, rows_of
from burnin.checks.link_table import End, Row
from burnin.events import Measurement, Result
from burnin.telemetry.series import Telemetry
from burnin.twin.faults import Plant
from tests import build
from tests.sampled import some
from tests.unit.nvos_rack import MODEL, RACK, WIRES, Switches, context, end

ALL = MODEL.topology.trays()
LINKS = [f"{gpu}.l{i}" for tray in ALL for gpu in MODEL.topology.gpus(tray) for i in range(18)]
TRUTH = {port.link: port.part(tray) for tray, ports in WIRES.items() for port in ports}


@cache
def healthy() -> Telemetry:
    return readings({})


def readings(errors: Mapping[str, Sequence[float]], down: tuple[str, ...] = ()) -> Telemetry:
    """The GPUs' ends."""
    n = build.LOAD
    values: dict[tuple[str, str], Any] = {(link, "nvlink.state"): {n: float(link not in down)} for link in LINKS}
    for link in LINKS:
        values[link, "nvlink.symbol_errors"] = {n: errors.get(link, 3.0)}
    return build.series(values)


def ask(rack: Switches, mute: tuple[str, ...] = ()) -> Callable[[Order], Answer]:
    def one(order: Order) -> Answer:
        if order.to in mute:
            return Answer(order, False, f"{order.to}: link lost")
        if order.verb != "identify":
            return rack.ask(order)
        gpus = [{"gpu": f"g{i}", "guid": gpu.guid.hex()} for i, gpu in enumerate(RACK.trays[order.to].gpus)]
        return Answer(order, True, {"gpus": gpus})

    return one


def look(rack: Switches, telemetry: Telemetry, mute: tuple[str, ...] = ()) -> tuple[list[Row], list[Measurement]]:
    at = context("link-ends", "rack", ALL)
    answers = [tuple(ask(rack, mute)(order) for order in CHECK.orders(at, []))]
    evidence = Evidence(answers=answers, telemetry=telemetry, stretch=build.LOAD)
    assert CHECK.orders(at, answers) == []
    return rows_of(at, evidence, 18)[0], CHECK.judge(at, evidence)


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


def test_all_links_stand_in_one_table_with_both_ends(tmp_path: Path) -> None:
    rows, got = look(Switches(tmp_path, compute=ALL), healthy())
    assert {row.link: row.port for row in rows} == TRUTH and len(rows) == 1296
    assert all(row.both and row.agree and row.erring == (False, False) for row in rows)
    assert [(m.name, m.value, m.result) for m in got] == [("link.joined", 1296.0, Result.PASS)]


@pytest.mark.parametrize(("part", "severity"), some([("s2.a0.p17", 3.0), ("s8.a1.p5", 4.0)]))
def test_errors_at_the_port_alone_name_the_port(tmp_path: Path, part: str, severity: float) -> None:
    _, got = look(Switches(tmp_path, [Plant("switchport_margin", part, severity)], ALL), healthy())
    assert bad(got) == [(part, "link.errors", Result.FAIL)]


@pytest.mark.parametrize("link", ["t03.g1.l7", "t16.g0.l17"])
def test_errors_at_the_gpus_end_or_at_both_name_the_link(tmp_path: Path, link: str) -> None:
    rack = Switches(tmp_path, compute=ALL)
    grown = readings({link: [3.0] * 12 + [9.0] * 12})
    _, got = look(rack, grown)
    assert bad(got) == [(link, "link.errors", Result.FAIL)] and f"port {TRUTH[link]} counts none" in got[0].why
    row = rack.states[link[:3]].links[int(link[5])][int(link[8:])]
    asked = rack.ask

    def counting(order: Order) -> Answer:
        row["symbol_errors"] = 0
        answer = asked(order)
        text = answer.body["stdout"].rsplit("@@burnin 3", 1)
        text[1] = text[1].replace('"in-symbol-errors": 0', '"in-symbol-errors": 5')
        return Answer(order, True, {**answer.body, "stdout": "@@burnin 3".join(text)}) if order.to == end(link)[0] else answer

    rack.ask = counting  # type: ignore[method-assign]
    _, got = look(rack, grown)
    (mine,) = (m for m in got if m.part == link)
    assert "both ends" in mine.why and mine.result is Result.FAIL


def test_an_end_that_was_not_read_is_unknown(tmp_path: Path) -> None:
    rows, got = look(Switches(tmp_path, compute=ALL), healthy(), mute=("s4",))
    assert sum(row.both for row in rows) == 1296 - 144
    assert {row.port for row in rows if not row.both} == {None} and len(rows) == 1296
    assert bad(got) == [("rack", "link.joined", Result.UNKNOWN)] and "s4: link lost" in got[0].why
    rows, got = look(Switches(tmp_path / "b", compute=ALL), healthy(), mute=("t09",))
    assert bad(got) == [("rack", "link.joined", Result.UNKNOWN)]
    assert sum(row.link is None for row in rows) == sum(row.port is None for row in rows) == 72


def test_a_link_that_is_down_cannot_be_joined_and_both_halves_are_named(tmp_path: Path) -> None:
    rack, link = Switches(tmp_path, compute=ALL), "t11.g2.l0"
    rack.states["t11"].links[2][0]["down"] = 1
    rows, got = look(rack, readings({}, down=(link,)))
    assert [(row.link, row.port) for row in rows if not row.both] == [(link, None), (None, TRUTH[link])]
    assert {part for part, _, result in bad(got) if result is Result.UNKNOWN} == {"rack", link, TRUTH[link]}


def test_ends_that_contradict_each_other_prove_nothing(tmp_path: Path) -> None:
    _, got = look(Switches(tmp_path, compute=ALL), readings({}, down=("t00.g0.l3",)))
    assert bad(got) == [("t00.g0.l3", "link.agree", Result.UNKNOWN)]


@pytest.mark.parametrize(
    ("old", "new"),
    some(
        [("N5200_LD/U", "N5200_LD/X"), ('"hostname": "nvos-s', '"hostname": "other-s'), ("==(", "=("), ("0xa088c2", "0x111111")]
    ),
)
def test_a_fabric_that_does_not_say_who_is_who_joins_nothing(tmp_path: Path, old: str, new: str) -> None:
    rack = Switches(tmp_path, compute=ALL, edit=lambda words, text: text.replace(old, new))
    rows, got = look(rack, healthy())
    assert not any(row.both for row in rows)
    assert bad(got) == [("rack", "link.joined", Result.UNKNOWN)]


def test_two_ports_that_claim_one_link_are_both_left_out_and_guids_may_be_said_backwards() -> None:
    up = End(True, 0.0)
    gpus, links = {"0011223344556677": "t00.g0"}, {"t00.g0.l0": up, "t00.g0.l1": up}
    peers = {"s0.a0.p1": ("7766554433221100", 1), "s0.a0.p2": ("0011223344556677", 2), "s0.a1.p2": ("0011223344556677", 2)}
    rows = link_table.table(gpus, links, peers, dict.fromkeys(peers, up))
    assert [(row.link, row.port) for row in rows] == [
        ("t00.g0.l0", "s0.a0.p1"), ("t00.g0.l1", None), (None, "s0.a0.p2"), (None, "s0.a1.p2"),
    ]  # fmt: skip
