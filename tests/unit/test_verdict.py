"""Many reasons, one word: what beats what, what explains what, and what never ships."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.cli import exits
from burnin.cli.demo import compare
from burnin.events import Coverage, Finding, Hold, Measurement, Result, Severity, Status, Step, Verdict, Word
from burnin.rack.schema import Site
from burnin.verdict import document, fold, gate
from tests import build

TOPOLOGY = build.profile(trays=3).topology
TRAYS = ("t00", "t01", "t02")
GOOD = Step("ecc", "load", "t00", Status.COMPLETE, Result.PASS, 1)
FULL = Coverage(10, 10)


def finding(
    part: str = "t00.g1", severity: Severity = Severity.FAIL, signature: str = "x", why: str = "why", stage: str = ""
) -> Finding:
    evidence = {"stage": stage} if stage else {}
    return Finding(part, signature, severity, 1.0, 0.0, "1", why, "do", evidence=evidence)


def hold(part: str, why: str = "why", kind: str = "unmeasured") -> Hold:
    return Hold(kind, part, why, "next")


# ---------------------------------------------------------------- the word


def test_pass_needs_everything() -> None:
    assert fold.word([], [], [GOOD], FULL) is Word.PASS
    assert fold.word([finding(severity=Severity.WATCH)], [], [GOOD], FULL) is Word.PASS


@pytest.mark.parametrize(
    ("findings", "holds", "steps", "coverage"),
    [
        ([finding(severity=Severity.HOLD)], [], [GOOD], FULL),
        ([], [hold("t00")], [GOOD], FULL),
        ([], [], [], FULL),
        ([], [], [GOOD], Coverage(10, 9)),
        ([], [], [GOOD, replace(GOOD, result=Result.UNKNOWN, measurements=())], FULL),
        *[([], [], [GOOD, replace(GOOD, status=s, result=Result.UNKNOWN)], FULL) for s in Status if s is not Status.COMPLETE],
    ],
)
def test_anything_less_is_hold(findings: list[Finding], holds: list[Hold], steps: list[Step], coverage: Coverage) -> None:
    assert fold.word(findings, holds, steps, coverage) is Word.HOLD


@pytest.mark.parametrize("holds", [[], [hold("rack")]])
def test_fail_beats_hold(holds: list[Hold]) -> None:
    assert fold.word([finding()], holds, [GOOD], Coverage(10, 0)) is Word.FAIL
    assert fold.word([], holds, [replace(GOOD, result=Result.FAIL)], FULL) is Word.FAIL


@given(st.lists(st.sampled_from(list(Severity)), max_size=5), st.booleans(), st.integers(0, 3), st.sampled_from(list(Status)))
def test_the_word_never_says_pass_when_anything_speaks_against_it(
    severities: list[Severity], held: bool, missing: int, status: Status
) -> None:
    word = fold.word(
        [finding(severity=s) for s in severities],
        [hold("rack")] if held else [],
        [replace(GOOD, status=status)],
        Coverage(3, 3 - missing),
    )
    clean = set(severities) <= {Severity.WATCH} and not held and missing == 0 and status is Status.COMPLETE
    assert (word is Word.PASS) == clean
    assert (word is Word.FAIL) == (Severity.FAIL in severities)


# ---------------------------------------------------------------- findings and holds


def test_one_finding_per_part_and_signature_and_the_gravest_stays() -> None:
    got = fold.findings(
        [finding(severity=Severity.HOLD, why="a", stage="idle"), finding(why="b", stage="load"), finding(why="b", stage="cool")]
    )
    (one,) = got
    assert (one.severity, one.why) == (Severity.FAIL, "b (load, cool); a (idle)")


def test_gravest_and_highest_come_first() -> None:
    parts = [("t01.g1", Severity.WATCH), ("t02.g1", Severity.FAIL), ("t00", Severity.HOLD), ("t01", Severity.FAIL)]
    got = fold.findings([finding(part, severity) for part, severity in parts])
    assert [f.part for f in got] == ["t01", "t02.g1", "t00", "t01.g1"]


def test_what_sits_in_a_lost_tray_is_not_listed_again() -> None:
    raw = [hold("t01", "link gone"), hold("t01.g0", "no power"), hold("t01", "ecc did not run"), hold("t02.g0", "no power")]
    got = fold.holds(raw, {"t01": "link gone"}, TOPOLOGY, TRAYS)
    assert [(h.part, h.why) for h in got] == [("t01", "link gone"), ("t02.g0", "no power")]


def test_a_cause_does_not_hide_a_suspicion() -> None:
    raw = [hold("t01", "link gone"), hold("t01.g0", "settings changed", kind="suspect")]
    assert len(fold.holds(raw, {"t01": "link gone"}, TOPOLOGY, TRAYS)) == 2


def test_what_all_gpus_of_a_tray_share_is_the_trays_and_what_all_trays_share_is_the_racks() -> None:
    one = fold.holds([hold(f"t01.g{i}", f"t01.g{i} not read") for i in range(4)], {}, TOPOLOGY, TRAYS)
    assert [(h.part, h.why) for h in one] == [("t01", "each not read")]
    both = fold.holds([hold("t01", "x"), *(hold(f"t01.g{i}", "y") for i in range(4))], {}, TOPOLOGY, TRAYS)
    assert [(h.part, h.why) for h in both] == [("t01", "x; y")]
    three = fold.holds([hold(f"t01.g{i}") for i in range(3)], {}, TOPOLOGY, TRAYS)
    assert [h.part for h in three] == ["t01.g0", "t01.g1", "t01.g2"]
    trays = fold.holds([Hold("unmeasured", t, "x", f"run this stage again on {t}") for t in TRAYS], {}, TOPOLOGY, TRAYS)
    assert [(h.part, h.next) for h in trays] == [("rack", "run this stage again on rack")]
    everyone = fold.holds([hold(f"{t}.g{i}") for t in TRAYS for i in range(4)], {}, TOPOLOGY, TRAYS)
    assert [h.part for h in everyone] == ["rack"]


def test_what_helps_is_said_of_every_reason_and_once_more_only_where_nothing_does() -> None:
    said = ["run this stage again on t01", "install NCCL", "run this stage again on t01", "install NCCL", "open a valve"]
    holds = [Hold("unmeasured", "t01", f"reason {i}", do) for i, do in enumerate(said)]
    assert [h.next for h in fold.holds(holds, {}, TOPOLOGY, TRAYS)] == ["install NCCL; open a valve"]
    assert [h.next for h in fold.holds(holds[:1], {}, TOPOLOGY, TRAYS)] == ["run this stage again on t01"]


@given(
    st.lists(st.tuples(st.sampled_from(["rack", "t00", "t01", "t01.g0", "t01.g1", "t02.g3"]), st.sampled_from("ab")), max_size=20)
)
def test_folding_loses_no_trouble(raw: list[tuple[str, str]]) -> None:
    got = fold.holds([hold(part, why) for part, why in raw], {}, TOPOLOGY, TRAYS)
    assert bool(got) == bool(raw)
    for part, _ in raw:
        assert any(part == h.part or part.startswith(h.part + ".") or h.part == "rack" for h in got)


# ---------------------------------------------------------------- the document


def verdict(**change: Any) -> Verdict:
    measured = Measurement("ecc.dram_ue.growth", "t00.g0", 0.0, "1", "<= 0", Result.PASS)
    base = Verdict(
        run="r1", rack="R-1", profile="test-rack", suite="test", ships=True, whole=True, word=Word.PASS,
        started="2026-11-20T10:00:00Z", ended="2026-11-20T12:00:00Z", coverage=FULL, findings=(), holds=(),
        steps=(replace(GOOD, measurements=(measured,)),),
    )  # fmt: skip
    return replace(base, **change)


def test_the_json_has_the_keys_that_scripts_rely_on() -> None:
    said = verdict(findings=(finding(),), holds=(hold("t03"),), coverage=Coverage(2, 1, (("t07.g2", "gpu.temp", "load"),)))
    plain = json.loads(document.canonical(said))
    assert plain.keys() >= {
        "run", "rack", "profile", "suite", "ships", "verdict", "started", "ended", "coverage", "findings", "holds", "steps"
    }  # fmt: skip
    assert plain["coverage"] == {"required": 2, "measured": 1, "fraction": 0.5, "missing": ["t07.g2 gpu.temp load"]}
    keys = {"part", "signature", "severity", "fru", "serial", "slot", "value", "limit", "unit", "why", "action"}
    assert plain["findings"][0].keys() >= keys
    assert plain["holds"][0].keys() >= {"kind", "part", "why", "next"}
    assert plain["steps"][0].keys() >= {"name", "part", "status", "result", "attempts", "measurements"}
    assert plain["steps"][0]["measurements"][0].keys() >= {"name", "part", "value", "unit", "limit", "result", "reason"}


def test_floats_have_six_digits_and_no_nan() -> None:
    said = verdict(findings=(replace(finding(), value=0.123456789, limit=float("nan")),))
    plain = json.loads(document.canonical(said))
    assert (plain["findings"][0]["value"], plain["findings"][0]["limit"]) == (0.123457, None)


def test_the_same_verdict_is_the_same_bytes() -> None:
    assert document.canonical(verdict()) == document.canonical(verdict())


# ---------------------------------------------------------------- exit codes and the demo's comparison


def test_words_and_exit_codes() -> None:
    assert {word: exits.of_word(word) for word in Word} == {Word.PASS: 0, Word.FAIL: 1, Word.HOLD: 3}
    assert (exits.USAGE, exits.BROKEN, exits.INTERRUPTED) == (2, 4, 130)


def said(word: str, findings: list[tuple[str, str]] = [], holds: list[str] = []) -> dict[str, Any]:  # noqa: B006 - only read
    return {
        "verdict": word,
        "findings": [{"part": p, "severity": s} for p, s in findings],
        "holds": [{"part": p} for p in holds],
    }


@pytest.mark.parametrize(
    ("planted", "document", "right"),
    [
        ([], said("PASS"), True),
        ([], said("HOLD", holds=["rack"]), False),
        ([], said("PASS", [("t01", "WATCH")]), True),
        (["t07.g2"], said("FAIL", [("t07.g2", "FAIL")]), True),
        (["t07.g2"], said("HOLD", holds=["t07"]), True),
        (["t07.g2"], said("HOLD", holds=["rack"]), False),
        (["t07.g2"], said("PASS"), False),
        (["t07.g2"], said("FAIL", [("t07.g2", "FAIL"), ("t07.g3", "HOLD")]), False),
        (["t07.g2"], said("FAIL", [("t07.g2", "FAIL"), ("t07.g2.l13", "HOLD")], ["rack"]), True),
        (["t11"], said("FAIL", [("t11", "FAIL"), ("t11.g1", "FAIL")]), True),
        (["t11"], said("FAIL", [("t11.g1", "FAIL")]), False),
        (["t07.g2", "t11"], said("FAIL", [("t07.g2", "FAIL")]), False),
        (["t07.g2"], said("FAIL", [("t07.g2", "FAIL"), ("t08", "HOLD")]), False),
    ],
)
def test_demo_compares_planted_with_found(planted: list[str], document: dict[str, Any], right: bool) -> None:
    assert (compare(planted, document) == []) is right


# ---------------------------------------------------------------- the gate

POLICY = Site.model_validate({"ships_after": "test", "max_age_days": 7})
NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)


def decide(stored: Any = None, rejudged: Any = None, now: dt.datetime = NOW, live: Any = ()) -> gate.Gate:
    one = document.document(verdict()) if stored is None else stored
    return gate.decide(one, one if rejudged is None else rejudged, POLICY, "test", now, live)


def test_the_gate_opens_for_a_whole_fresh_pass_of_the_right_suite_with_the_same_parts() -> None:
    assert decide() == gate.Gate(Word.PASS, ())


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "HOLD"}, {"verdict": "FAIL"}, {"ships": False}, {"whole": False}, {"ended": "2026-11-01T12:00:00Z"},
        {"ended": "2026-12-01T12:00:00Z"}, {"waivers": [{"interlock": "leak", "by": "me", "why": "w", "until": "2026-11-20"}]},
    ],
)  # fmt: skip
def test_the_gate_stays_shut_for_anything_less(change: dict[str, Any]) -> None:
    one = {**document.document(verdict()), **change}
    got = decide(one)
    assert got.word is (Word.FAIL if change.get("verdict") == "FAIL" else Word.HOLD)
    assert got.reasons


def test_the_gate_stays_shut_without_a_run_or_without_asking_the_rack() -> None:
    assert gate.decide(None, None, POLICY, "test", NOW, []).word is Word.HOLD
    assert decide(live=None).word is Word.HOLD
    assert decide(live=["t07.g2 is another"]) == gate.Gate(Word.HOLD, ("t07.g2 is another",))


def test_the_gate_stays_shut_while_a_part_that_was_replaced_is_not_tested() -> None:
    one = document.document(verdict())
    said = gate.decide(one, one, POLICY, "test", NOW, [], ["x1 was A, which was replaced on 2026-11-21"])
    why = f"x1 was A, which was replaced on 2026-11-21: `burnin run --resume {one['run']}` tests what depends on it"
    assert said == gate.Gate(Word.HOLD, (why,))


def test_a_stored_pass_that_cannot_be_derived_again_does_not_ship() -> None:
    one = document.document(verdict())
    for other in ({**one, "verdict": "HOLD"}, {**one, "coverage": {**one["coverage"], "measured": 9}}):
        assert decide(one, other).word is Word.HOLD
        assert decide(other, one).word is Word.HOLD
    assert decide(one, {**one, "verdict": "FAIL"}).word is Word.FAIL


@given(
    st.sampled_from(["PASS", "HOLD", "FAIL"]), st.sampled_from(["PASS", "HOLD", "FAIL"]), st.booleans(), st.booleans(),
    st.sampled_from([None, (), ("t00 is another",)]), st.integers(-3, 20),
)  # fmt: skip
def test_the_gate_never_opens_by_accident(stored: str, derived: str, ships: bool, whole: bool, live: Any, age: int) -> None:
    one = {**document.document(verdict()), "ships": ships, "whole": whole}
    one["ended"] = (NOW - dt.timedelta(days=age)).isoformat()
    got = decide({**one, "verdict": stored}, {**one, "verdict": derived}, live=live)
    everything = stored == derived == "PASS" and ships and whole and live == () and 0 <= age <= 7
    assert (got.word is Word.PASS) == everything


def test_parts_that_changed_are_named() -> None:
    then = {"t00": {"host": {"serial": "J0"}, "gpus": [{"gpu": "g0", "uuid": "GPU-a"}, {"gpu": "g1", "uuid": "GPU-b"}]}}
    same = then["t00"]
    assert gate.differences(then, {"t00": same}) == []
    swapped = {"host": {"serial": "J0"}, "gpus": [{"gpu": "g0", "uuid": "GPU-c"}]}
    got = gate.differences(then, {"t00": swapped, "t01": "no answer"})
    assert got == [
        "t00.g0 is GPU-c, the run tested GPU-a",
        "t00.g1 is gone, the run tested GPU-b",
        "t01 does not say what is in it: no answer",
    ]
    assert gate.differences(then, {}) == ["t00 does not say what is in it: it is not in the rack file"]


def test_two_unknown_identities_are_not_the_same_part() -> None:
    mute = {"host": {"serial": "J0"}, "gpus": [{"gpu": "g0", "uuid": None}]}
    assert gate.differences({"t00": mute}, {"t00": mute}) == ["t00.g0 does not say who it is"]


def test_every_verdict_word_is_an_exit_code_of_its_own() -> None:
    codes = [exits.of_word(w) for w in Word] + [exits.USAGE, exits.BROKEN, exits.INTERRUPTED]
    assert all(a != b for a, b in itertools.combinations(codes, 2))
