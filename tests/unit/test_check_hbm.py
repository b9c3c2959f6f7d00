"""Memory that was covered, not covered, wrong, wrong in silence, and memory that nobody answers for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.hbm import CHECK, COUNTERS
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from tests import build

TOTAL = 283261 << 20
WRONG = {"address": "0x7f00000000a0", "expected": "0x55555555", "actual": "0x55555554"}


def context(profile: str = "gb300-nvl72", **more: Any) -> Context:
    suite = build.suite()
    return replace(Context("t07", build.rack(), load_profile(profile), suite, suite.stages[2], build.catalogue()), **more)


def message(**change: Any) -> dict[str, Any]:
    return {
        "bytes": 282493 << 20, "total_bytes": TOTAL, "fraction": 0.9973, "passes": 47, "complete": True, "mismatches": 0,
        "first": [], "seconds": 4.3, "gbps": 6457.2, **change,
    }  # fmt: skip


def judge(body: Any, grown: dict[str, Any] | None = None, ok: bool = True, **more: Any) -> dict[tuple[str, str], Measurement]:
    """t07.g2 says `body`, its neighbours a healthy message; `grown`: counters of t07.g2 in the stage."""
    series = {(f"t07.g{i}", metric): {build.LOAD: 3.0} for i in range(4) for metric in COUNTERS}
    changed: Any = {("t07.g2", metric): {build.LOAD: value} for metric, value in (grown or {}).items()}
    whole = {f"g{i}": message() for i in range(4)} | {"g2": body} if ok else "link lost"
    answers = [[Answer(Order("t07", "work"), ok, whole)]]
    telemetry = build.series({**series, **changed})
    evidence = Evidence(answers=answers, telemetry=telemetry, stretch=build.LOAD, lost=not ok)
    got = CHECK.judge(context(**more), evidence)
    assert [m for m in got if ok and m.part != "t07.g2" and m.result is not Result.PASS and "profile" not in more] == []
    return {(m.part, m.name): m for m in got}


def of_g2(got: dict[tuple[str, str], Measurement]) -> tuple[Result, Result]:
    return got["t07.g2", "hbm.covered_fraction"].result, got["t07.g2", "hbm.mismatches"].result


def test_all_gpus_of_the_tray_are_asked_at_once() -> None:
    (order,) = CHECK.orders(context(args={"seconds": 60}), [])
    assert (order.to, order.verb, order.args["kind"], order.args["gpus"]) == ("t07", "work", "hbm", ["g0", "g1", "g2", "g3"])
    assert order.args["args"] == {"seconds": 60.0}
    assert order.timeout_s > order.args["max_s"] > 60
    assert CHECK.orders(context(), [[Answer(order, True, {})]]) == []
    assert (CHECK.scope, CHECK.heats) == ("tray", True)


def test_memory_that_was_tested_for_less_time_than_asked_or_in_more_bytes_than_there_are_is_not_known() -> None:
    got = judge(message(seconds=61.0), args={"seconds": 4})
    assert of_g2(got) == (Result.PASS, Result.PASS)
    short = judge(message(seconds=2.0), args={"seconds": 4})
    assert of_g2(short) == (Result.PASS, Result.UNKNOWN)
    assert short["t07.g2", "hbm.mismatches"].why == "nothing wrong so far, but it went on for 2 of 4 s"
    wrong = judge(message(seconds=2.0, mismatches=1, first=[WRONG]), args={"seconds": 4})
    assert of_g2(wrong)[1] is Result.FAIL, "what was seen wrong stands"
    assert of_g2(judge(message(bytes=2 * TOTAL))) == (Result.UNKNOWN, Result.UNKNOWN)
    assert of_g2(judge(message(mismatches=False))) == (Result.UNKNOWN, Result.UNKNOWN)


def test_a_healthy_gpu_passes_and_says_how_much_it_was() -> None:
    got = judge(message())
    assert of_g2(got) == (Result.PASS, Result.PASS)
    covered = got["t07.g2", "hbm.covered_fraction"]
    assert covered.value == pytest.approx(282493 / 284208, abs=1e-6), "of the frame buffer, not of what the driver gives"
    assert covered.why == "282493 MiB of 284208"


@pytest.mark.parametrize(
    "change", [{"bytes": 200000 << 20}, {"bytes": 212000 << 20, "total_bytes": 213000 << 20}, {"bytes": 0, "total_bytes": 0}]
)
def test_memory_that_was_not_tested_fails_also_when_the_driver_has_no_more(change: dict[str, Any]) -> None:
    assert of_g2(judge(message(**change)))[0] is Result.FAIL


def test_a_mismatch_fails_and_is_named_silent_when_no_counter_moved() -> None:
    got = judge(message(mismatches=3, first=[WRONG]))
    assert of_g2(got) == (Result.PASS, Result.FAIL)
    one = got["t07.g2", "hbm.mismatches"]
    assert one.value == 3.0
    assert "first at 0x7f00000000a0: 0x55555554 instead of 0x55555555" in one.why
    assert "silent corruption: no ECC counter grew" in one.why


@pytest.mark.parametrize("metric", COUNTERS)
def test_a_mismatch_that_ecc_saw_is_not_called_silent(metric: str) -> None:
    why = judge(message(mismatches=3, first=[WRONG]), {metric: [3.0] * 12 + [5.0] * 12})["t07.g2", "hbm.mismatches"].why
    assert f"{metric} grew by 2" in why and "silent" not in why


def test_a_mismatch_whose_counters_were_not_read_is_not_called_silent() -> None:
    why = judge(message(mismatches=1), {"ecc.dram_ce": None, "ecc.dram_ue": [None] * 24})["t07.g2", "hbm.mismatches"].why
    assert "whether ECC saw it is not known, not read: ecc.dram_ue, ecc.dram_ce" in why


def test_what_was_cut_short_proves_nothing_good_but_a_mismatch_stands() -> None:
    cut = judge(message(complete=False, passes=3))
    assert of_g2(cut) == (Result.PASS, Result.UNKNOWN)
    assert cut["t07.g2", "hbm.mismatches"].reason == "not_attained"
    assert of_g2(judge(message(complete=False, passes=0))) == (Result.UNKNOWN, Result.UNKNOWN)
    assert of_g2(judge(message(complete=False, passes=0, mismatches=1))) == (Result.UNKNOWN, Result.FAIL)


@pytest.mark.parametrize(
    "body",
    [
        {"failed": "cuEventSynchronize -> 214 CUDA_ERROR_ECC_UNCORRECTABLE"}, {}, None, [], "47",
        message(mismatches="0"), message(bytes=None), message(passes=-1), message(complete=1), message(first=None),
        {k: v for k, v in message().items() if k != "mismatches"},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown(body: Any) -> None:
    got = judge(body)
    assert of_g2(got) == (Result.UNKNOWN, Result.UNKNOWN)
    assert got["t07.g2", "hbm.mismatches"].why
    assert got["t07.g2", "hbm.mismatches"].value is None


def test_a_lost_tray_is_unknown_with_its_reason() -> None:
    got = judge({}, ok=False)
    assert {(m.result, m.reason, m.why) for m in got.values()} == {(Result.UNKNOWN, "lost", "link lost")}
    assert len(got) == 8


def test_no_answer_passes_nothing() -> None:
    got = CHECK.judge(context(), Evidence())
    assert len(got) == 8 and {m.result for m in got} == {Result.UNKNOWN}


def test_a_gpu_whose_memory_nobody_published_is_unknown() -> None:
    covered, mismatches = of_g2(judge(message(), profile="vr200-nvl72"))
    assert (covered, mismatches) == (Result.UNKNOWN, Result.PASS)
