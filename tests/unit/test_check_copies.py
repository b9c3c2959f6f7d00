"""Which GPU is slow, and when it is not a GPU at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.copies import CHECK
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from tests import build

GPUS = ("g0", "g1", "g2", "g3")


def context(profile: str = "gb300-nvl72", tray: str = "t07", **more: Any) -> Context:
    suite = build.suite()
    return replace(Context(tray, build.rack(), load_profile(profile), suite, suite.stages[0], build.catalogue()), **more)


def speed(gbps: Any) -> dict[str, Any]:
    return {"gbps": gbps, "lowest_gbps": gbps, "copies": 63} if not isinstance(gbps, dict) else gbps


COPIED = 65 * (1 << 29)


def counted(sent: float = 1.0, received: float = 1.0, errors: Any = None, unread: Any = None) -> dict[str, Any]:
    """What both ends of a pair counted, as shares of what was copied; `errors` at its target."""
    ends = {"from": {"tx_bytes": sent * COPIED, "rx_bytes": 0.0}, "to": {"tx_bytes": 0.0, "rx_bytes": received * COPIED}}
    more = {"from": {"errors": {}, "unread": {}}, "to": {"errors": errors or {}, "unread": unread or {}}}
    return {"copied": COPIED, **{end: {**ends[end], **more[end]} for end in ends}}


def message(gpu: str, pairs: dict[tuple[str, str], Any] | None = None, **change: Any) -> dict[str, Any]:
    peers = {other: speed((pairs or {}).get((gpu, other), 765.0)) for other in GPUS if other != gpu}
    peers = {other: {"nvlink": counted(), **peer} if "gbps" in peer else peer for other, peer in peers.items()}
    ways = {"h2d": 210.5, "d2h": 192.2, "d2d": 3290.0, **change}
    return {"bytes": 1 << 29, "repeats": 9, "peers": peers, **{way: speed(gbps) for way, gbps in ways.items()}}


def judge(said: dict[str, Any], **more: Any) -> dict[tuple[str, str], Measurement]:
    """One round a GPU; a sentence stands for an answer that is not ok."""
    rounds = [
        [Answer(Order("t07", "work"), not isinstance(b, str), b if isinstance(b, str) else {g: b})] for g, b in said.items()
    ]
    got = CHECK.judge(context(), Evidence(answers=rounds, **more))
    assert len({(m.part, m.name) for m in got}) == len(got), "each is said once"
    return {(m.part, m.name): m for m in got}


def tray(pairs: dict[tuple[str, str], Any] | None = None, **instead: Any) -> dict[str, Any]:
    return {gpu: instead.get(gpu, message(gpu, pairs)) for gpu in GPUS}


def not_passed(got: dict[tuple[str, str], Measurement]) -> dict[tuple[str, str], Result]:
    return {key: m.result for key, m in got.items() if m.result is not Result.PASS}


def pairs_of(gpu: str, gbps: Any) -> dict[tuple[str, str], Any]:
    return {(a, b): gbps for a in GPUS for b in GPUS if a != b and gpu in (a, b)}


def test_one_gpu_is_asked_after_the_other() -> None:
    answers: list[list[Answer]] = []
    asked = []
    while orders := CHECK.orders(context(args={"repeats": 5}), answers):
        (order,) = orders
        asked.append((order.to, order.args["kind"], order.args["gpus"], order.args["args"]))
        assert order.timeout_s > order.args["max_s"]
        answers.append([Answer(order, True, {})])
    assert asked == [("t07", "copies", [gpu], {"repeats": 5}) for gpu in GPUS]
    assert (CHECK.scope, CHECK.heats) == ("tray", True)


def test_a_healthy_tray_passes() -> None:
    got = judge(tray())
    assert not_passed(got) == {}
    assert len(got) == 4 * 5 + 2
    assert got["t07", "p2p.nvlink"].value == 1.0 and got["t07.g3", "p2p.link_errors"].value == 0.0
    assert got["t07", "p2p.bandwidth"].value == 765.0


@pytest.mark.parametrize(("way", "value"), [("h2d", 150.0), ("d2h", 173.9), ("d2d", 2000.0)])
def test_a_slow_way_fails_on_its_gpu_only(way: str, value: float) -> None:
    got = judge(tray(g2={**message("g2"), way: speed(value)}))
    assert not_passed(got) == {("t07.g2", f"copy.{way}"): Result.FAIL}


def test_a_gpu_whose_pairs_are_slow_is_named_and_its_partners_are_not() -> None:
    got = judge(tray(pairs_of("g2", 400.0)))
    assert not_passed(got) == {("t07.g2", "p2p.bandwidth"): Result.FAIL}
    assert got["t07.g2", "p2p.bandwidth"].value == 400.0
    assert "its pairs run at 400 to 400 GB/s" in got["t07.g2", "p2p.bandwidth"].why


@pytest.mark.parametrize("pair", [("g0", "g3"), ("g3", "g0")])
def test_one_slow_pair_is_the_trays_because_either_end_may_be_it(pair: tuple[str, str]) -> None:
    got = judge(tray({pair: 300.0}))
    assert not_passed(got) == {("t07", "p2p.bandwidth"): Result.FAIL}
    assert f"from {pair[0]} to {pair[1]}: 300 GB/s" in got["t07", "p2p.bandwidth"].why


def test_a_slow_pair_beside_a_slow_gpu_is_still_said() -> None:
    got = judge(tray({**pairs_of("g2", 400.0), ("g0", "g1"): 500.0}))
    assert not_passed(got) == {("t07.g2", "p2p.bandwidth"): Result.FAIL, ("t07", "p2p.bandwidth"): Result.FAIL}


def test_when_most_are_slow_it_is_the_tray() -> None:
    got = judge(tray({(a, b): 400.0 for a in GPUS for b in GPUS}))
    assert not_passed(got) == {
        ("t07", "p2p.bandwidth"): Result.FAIL, **{(f"t07.{g}", "p2p.bandwidth"): Result.UNKNOWN for g in GPUS},
    }  # fmt: skip


def test_pairs_that_the_driver_does_not_connect_are_unknown_not_supported() -> None:
    absent = {"reason": "not_supported", "why": "the driver says that this GPU cannot reach that one"}
    got = judge(tray({(a, b): absent for a in GPUS for b in GPUS}))
    assert set(not_passed(got).values()) == {Result.UNKNOWN}
    assert {(m.name, m.reason) for m in got.values() if m.result is Result.UNKNOWN} == {
        (name, "not_supported") for name in ("p2p.bandwidth", "p2p.nvlink", "p2p.link_errors")
    }  # fmt: skip


def test_one_pair_that_was_not_measured_leaves_both_ends_unknown() -> None:
    got = judge(tray({("g0", "g1"): {"reason": "not_attained", "why": "the time was over"}}))
    names = {"t07": ("p2p.bandwidth", "p2p.nvlink"), "t07.g0": ("p2p.bandwidth", "p2p.link_errors")}
    names["t07.g1"] = names["t07.g0"]
    assert not_passed(got) == {(part, name): Result.UNKNOWN for part, both in names.items() for name in both}


@pytest.mark.parametrize(
    "body",
    [
        {"failed": "cuInit -> 999"}, {}, None, [], 7,
        {"h2d": 210.0, "d2h": None, "d2d": {}, "peers": []},
        {**message("g2"), "h2d": speed(float("nan")), "d2h": speed(-1.0), "d2d": speed("fast"), "peers": {"g0": speed(True)}},
        {**message("g2"), "h2d": speed(0), "d2h": speed(float("inf")), "d2d": {"reason": "bored"}, "peers": None},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown(body: Any) -> None:
    got = judge(tray(g2=body))
    assert {got["t07.g2", name].result for name in ("copy.h2d", "copy.d2h", "copy.d2d", "p2p.bandwidth")} == {Result.UNKNOWN}
    assert set(not_passed(got).values()) == {Result.UNKNOWN}
    assert all(m.reason and m.why for m in got.values() if m.result is Result.UNKNOWN)


def test_a_link_that_is_lost_in_the_middle_leaves_what_was_measured() -> None:
    got = judge({"g0": message("g0"), "g1": "link lost"}, lost=True)
    assert got["t07.g0", "copy.h2d"].result is Result.PASS
    assert (got["t07.g1", "copy.h2d"].reason, got["t07.g3", "copy.d2d"].why) == ("lost", "link lost")
    assert {m.result for (part, name), m in got.items() if part != "t07.g0" or name == "p2p.bandwidth"} == {Result.UNKNOWN}


def test_no_answer_passes_nothing() -> None:
    got = CHECK.judge(context(), Evidence())
    assert len(got) == 22 and {m.result for m in got} == {Result.UNKNOWN}


def test_a_speed_that_nobody_published_is_unknown_and_one_gpu_has_no_pairs() -> None:
    rounds = [[Answer(Order("t00", "work"), True, {"g0": {**message("g0"), "peers": {}}})]]
    got = {m.name: m for m in CHECK.judge(context("h200-1gpu", "t00"), Evidence(answers=rounds))}
    assert {name: m.result for name, m in got.items()} == {
        "copy.h2d": Result.PASS, "copy.d2h": Result.PASS, "copy.d2d": Result.UNKNOWN,
    }  # fmt: skip
    assert got["copy.d2d"].value == 3290.0 and "no limit is known" in got["copy.d2d"].why


def nvlink(pairs: dict[tuple[str, str], Any], gbps: dict[tuple[str, str], float] | None = None) -> dict[str, Any]:
    """A tray of which these ordered pairs counted something else."""
    said = tray(gbps)
    for (source, target), what in pairs.items():
        said[source]["peers"][target]["nvlink"] = what
    return said


def test_a_slow_copy_that_neither_end_counted_went_another_way() -> None:
    got = judge(nvlink({("g1", "g2"): counted(0.0, 0.01)}, {("g1", "g2"): 150.0}))
    assert not_passed(got) == {("t07", "p2p.bandwidth"): Result.FAIL, ("t07", "p2p.nvlink"): Result.FAIL}
    assert got["t07", "p2p.nvlink"].value == 0.01
    assert "not over NVLink at either end" in got["t07", "p2p.nvlink"].why and "g1 > g2: 0 sent" in got["t07", "p2p.nvlink"].why


@pytest.mark.parametrize(
    ("what", "gbps"),
    [(counted(0.0, 0.0), 765.0), (counted(1.0, 0.2), 765.0), (counted(0.2, 1.0), 150.0)],
    ids=["fast and not counted", "fast and one end", "slow and one end"],
)
def test_counters_that_contradict_speed_or_each_other_are_unknown(what: Any, gbps: float) -> None:
    got = judge(nvlink({("g1", "g2"): what}, {("g1", "g2"): gbps}))
    assert got["t07", "p2p.nvlink"].result is Result.UNKNOWN
    assert "does not follow the copies" in got["t07", "p2p.nvlink"].why and "g1 > g2" in got["t07", "p2p.nvlink"].why


def test_an_error_that_grew_while_a_pair_copied_is_named_on_its_link() -> None:
    grew = {"l13": {"nvlink.rx_errors": 2.0, "nvlink.recovery_ok": 1.0}, "l4": {"nvlink.symbol_errors": 9.0}}
    got = judge(nvlink({("g0", "g3"): counted(errors=grew)}))
    assert not_passed(got) == {("t07.g3.l13", "p2p.link_errors"): Result.FAIL, ("t07.g3.l4", "p2p.link_errors"): Result.FAIL}
    assert got["t07.g3.l13", "p2p.link_errors"].value == 3.0
    assert "nvlink.rx_errors by 2 from g0 to g3" in got["t07.g3.l13", "p2p.link_errors"].why
    assert ("t07.g3", "p2p.link_errors") not in got, "a GPU with a bad link has no row that says it is good"


def test_a_counter_that_was_not_read_is_unknown_with_its_reason() -> None:
    lost = counted(unread={"nvlink.rx_errors": "lost", "nvlink.rx_bytes": "lost"})
    del lost["to"]["rx_bytes"]
    got = judge(nvlink({("g0", "g1"): lost}))
    assert {key: got[key].reason for key in not_passed(got)} == {
        ("t07.g1", "p2p.link_errors"): "lost",
        ("t07", "p2p.nvlink"): "lost",
    }


@pytest.mark.parametrize(
    "what",
    [
        None, {}, [], {"copied": 0}, {"copied": "much"}, {"copied": float("nan")}, {**counted(), "to": 7},
        {**counted(), "to": {}},
        counted(received=float("nan"), errors={"l99": {"nvlink.rx_errors": 1}}),
        counted(received=-1, errors={"l1": {"nvlink.rx_errors": -1}}),
    ],
)  # fmt: skip
def test_what_is_told_of_links_and_cannot_be_read_is_no_pass(what: Any) -> None:
    got = judge(nvlink({("g0", "g1"): what}))
    assert got["t07", "p2p.nvlink"].result is Result.UNKNOWN
    assert got["t07.g1", "p2p.link_errors"].result is Result.UNKNOWN
    assert all(m.result is not Result.FAIL for m in got.values())


def test_gpus_before_nvlink_5_are_not_asked_for_its_counters() -> None:
    got = CHECK.judge(context("hgx-h200", "t00"), Evidence())
    assert {m.name for m in got} == {"copy.h2d", "copy.d2h", "copy.d2d", "p2p.bandwidth"}
