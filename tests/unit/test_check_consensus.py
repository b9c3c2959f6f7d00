"""Who is the odd one out: on answers as the agent gives them, good, bad, torn and silent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from burnin.checks.base import RACK, Answer, Context, Evidence, Order
from burnin.checks.consensus import CHECK
from burnin.events import Measurement, Result
from tests import build

TRAYS = ("t00", "t01", "t02")
GOOD, BAD = "6c671f542b3471e7", "00671f542b3471e7"
LIMITS = {"consensus.wrong": {"max": 0, "unit": "1", "source": "test"}}


def context(trays: tuple[str, ...] = TRAYS, **more: Any) -> Context:
    suite = build.suite(limits=LIMITS)
    return replace(Context(RACK, build.rack(), build.profile(), suite, suite.stages[0], build.catalogue(), trays=trays), **more)


def message(digest: str | None = GOOD, unstable: int = 0, arch: str = "10.3", **more: Any) -> dict[str, Any]:
    first = [{"kernel": "gemm_digest", "round": 3, "tile": 580, "sm": 100}] * min(unstable, 16)
    return {
        "digest": digest, "digests": {"gemm_digest": "0" * 16, "fma_digest": "1" * 16}, "seed": 1, "rounds": 32,
        "unstable": unstable, "first": first, "arch": arch, "seconds": 10.01, **more,
    }  # fmt: skip


def turn(change: dict[str, Any] | None = None, trays: tuple[str, ...] = TRAYS) -> list[Answer]:
    """One round: every GPU says GOOD, but for the changes (part -> message, or tray -> why it did not answer)."""
    change = change or {}
    out = []
    for tray in trays:
        body = {f"g{i}": change.get(f"{tray}.g{i}", message()) for i in range(4)}
        out.append(Answer(Order(tray, "work"), tray not in change, change.get(tray, body)))
    return out


def second(**said: dict[str, Any]) -> list[Answer]:
    """The second round; `t01_g2` stands for t01.g2."""
    return [Answer(Order(key[:3], "work"), True, {key[4:]: body}) for key, body in said.items()]


def judge(*rounds: list[Answer], **more: Any) -> dict[str, Measurement]:
    got = CHECK.judge(context(**more), Evidence(answers=rounds))
    assert len({m.part for m in got}) == len(got)
    return {m.part: m for m in got}


def not_passed(got: dict[str, Measurement]) -> dict[str, Result]:
    return {part: m.result for part, m in got.items() if m.result is not Result.PASS}


def asked(*rounds: list[Answer], **more: Any) -> dict[str, list[str]]:
    return {order.to: order.args["gpus"] for order in CHECK.orders(context(**more), rounds)}


def test_it_is_asked_of_all_gpus_at_once_with_the_same_seed() -> None:
    orders = CHECK.orders(context(args={"seconds": 60, "seed": 7}), [])
    assert [(o.to, o.verb, o.args["gpus"]) for o in orders] == [(t, "work", ["g0", "g1", "g2", "g3"]) for t in TRAYS]
    assert {str(o.args["args"]) for o in orders} == {"{'seed': 7, 'rounds': 32, 'seconds': 60.0}"}
    assert all(o.timeout_s > o.args["max_s"] > 60 for o in orders)
    assert (CHECK.scope, CHECK.heats) == ("rack", True)


def test_a_gpu_that_was_cut_short_or_answers_for_another_seed_has_not_agreed() -> None:
    said = {
        "t00.g1": message(seconds=3.2),
        "t01.g0": message(seconds=None),
        "t02.g3": message(seed=2),
        "t02.g0": message(rounds=1),
    }
    got = judge(turn(said))
    assert not_passed(got) == dict.fromkeys(said, Result.UNKNOWN)
    assert got["t00.g1"].why == "it agreed as far as it came, but it went on for 3.2 of 10 s"
    assert got["t02.g3"].why == "it answers for seed 2 and 32 rounds, asked for 1 and 32"


def test_all_agree() -> None:
    got = judge(turn())
    assert (len(got), not_passed(got)) == (12, {})
    assert asked(turn()) == {}


ODD = {"t01.g2": message(BAD)}
SHAKY = {"t01.g2": message(GOOD, unstable=3)}


@pytest.mark.parametrize("first", [ODD, SHAKY, {"t01.g2": message(BAD, unstable=5)}])
@pytest.mark.parametrize("later", [message(BAD), message(GOOD, unstable=1), message("1" * 16)])
def test_the_odd_one_out_that_is_wrong_again_fails(first: dict[str, Any], later: dict[str, Any]) -> None:
    assert asked(turn(first)) == {"t00": ["g0"], "t01": ["g2"], "t02": ["g3"]}
    got = judge(turn(first), second(t00_g0=message(), t01_g2=later, t02_g3=message()))
    assert not_passed(got) == {"t01.g2": Result.FAIL}
    assert got["t01.g2"].value == 2.0
    assert "wrong again" in got["t01.g2"].why
    assert asked(turn(first), second(t00_g0=message(), t01_g2=later, t02_g3=message())) == {}


def test_the_multiprocessor_is_named() -> None:
    got = judge(turn(SHAKY), second(t00_g0=message(), t01_g2=message(BAD, unstable=2), t02_g3=message()))
    assert "gemm_digest on SM 100" in got["t01.g2"].why


@pytest.mark.parametrize("first", [ODD, SHAKY])
def test_what_does_not_come_again_is_unknown_never_pass(first: dict[str, Any]) -> None:
    got = judge(turn(first), second(t00_g0=message(), t01_g2=message(), t02_g3=message()))
    assert not_passed(got) == {"t01.g2": Result.UNKNOWN}
    assert "not again when repeated" in got["t01.g2"].why


@pytest.mark.parametrize(
    "later",
    [
        [],
        second(t00_g0=message(), t02_g3=message()),
        second(t00_g0=message(), t01_g2={"failed": "cut"}, t02_g3=message()),
        second(t00_g0=message(), t01_g2=message(BAD)),
        second(t00_g0=message(), t01_g2=message(BAD), t02_g3={"failed": "cut"}),
        [Answer(Order(t, "work"), False, "link lost") for t in TRAYS],
    ],
)
def test_without_a_whole_second_round_nobody_is_condemned(later: list[Answer]) -> None:
    assert not_passed(judge(turn(ODD), later)) == {"t01.g2": Result.UNKNOWN}
    assert not_passed(judge(turn(ODD))) == {"t01.g2": Result.UNKNOWN}


def test_a_referee_that_turns_is_held_too() -> None:
    got = judge(turn(ODD), second(t00_g0=message(BAD), t01_g2=message(BAD), t02_g3=message()))
    assert not_passed(got) == {"t00.g0": Result.UNKNOWN, "t01.g2": Result.UNKNOWN}


def test_several_that_are_wrong_alike_are_another_kind_and_not_condemned() -> None:
    alike = {"t01.g2": message(BAD), "t02.g0": message(BAD), "t00.g3": message("a" * 16)}
    said = {"t00_g0": message(), "t00_g3": message("a" * 16), "t01_g2": message(BAD), "t02_g0": message(BAD), "t02_g3": message()}
    got = judge(turn(alike), second(**said))
    assert not_passed(got) == {"t00.g3": Result.FAIL, "t01.g2": Result.UNKNOWN, "t02.g0": Result.UNKNOWN}
    assert "2 GPUs say the same" in got["t01.g2"].why


def test_a_tie_condemns_nobody() -> None:
    tie = {f"t00.g{i}": message(BAD) for i in range(4)} | {"t01.g0": message(BAD), "t01.g1": message(BAD)}
    got = judge(turn(tie))
    assert set(not_passed(got).values()) == {Result.UNKNOWN} and len(not_passed(got)) == 12
    assert "no strict majority" in got["t02.g0"].why
    assert asked(turn(tie)) == {}


def test_two_of_a_kind_cannot_say_who_is_wrong() -> None:
    mixed = {"t01.g2": message(BAD, arch="9.0"), "t01.g3": message(GOOD, arch="9.0")}
    got = judge(turn(mixed))
    assert not_passed(got) == {"t01.g2": Result.UNKNOWN, "t01.g3": Result.UNKNOWN}
    assert "it takes 3" in got["t01.g2"].why


def test_kinds_are_compared_among_themselves() -> None:
    other = {f"t02.g{i}": message("f" * 16, arch="9.0") for i in range(4)}
    assert not_passed(judge(turn(other))) == {}
    seeds = {f"t02.g{i}": message("f" * 16, seed=2) for i in range(4)}
    assert not_passed(judge(turn(seeds))) == dict.fromkeys(seeds, Result.UNKNOWN), "another seed is another question"


def test_a_lost_tray_is_unknown_and_the_others_still_vote() -> None:
    got = judge(turn({"t02": "link lost", **ODD}), second(t00_g0=message(), t01_g2=message(BAD), t01_g3=message()))
    assert not_passed(got) == {f"t02.g{i}": Result.UNKNOWN for i in range(4)} | {"t01.g2": Result.FAIL}
    assert {(got[f"t02.g{i}"].reason, got[f"t02.g{i}"].why) for i in range(4)} == {("lost", "link lost")}


@pytest.mark.parametrize(
    "body",
    [
        {"failed": "cuInit -> 999 CUDA_ERROR_UNKNOWN"}, {}, [], None, "digest", {"digest": GOOD}, message(digest=None),
        message(digest="not hex"), message(digests={}), {**message(), "unstable": None}, {**message(), "digest": 7},
        {k: v for k, v in message().items() if k != "arch"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown(body: Any) -> None:
    got = judge(turn({"t01.g2": body}))
    assert not_passed(got) == {"t01.g2": Result.UNKNOWN}
    assert got["t01.g2"].value is None and got["t01.g2"].why


@pytest.mark.parametrize("answers", [(), ([],), ([Answer(Order("t00", "work"), True, "junk")],), (turn(trays=("t09",)),)])
def test_silence_passes_nothing(answers: tuple[list[Answer], ...]) -> None:
    got = judge(*answers)
    assert len(got) == 12 and {m.result for m in got.values()} == {Result.UNKNOWN}
