"""What a site brings itself: programs with their rule, questions to a person, pytest functions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from burnin.checks import CHECKS, OFFERS
from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.errors import InputError, TrayError
from burnin.events import Measurement, Result
from burnin.rack.document import read
from burnin.rack.load import load_catalogue, load_profile
from burnin.run.person import Person, load
from burnin.run.pytests import Pytests
from burnin.suites.load import check_suite, load_suite
from burnin.suites.schema import Stage
from tests import build
from tests.unit.test_checks_tools import WHO, said

DOC = Path(__file__).parents[2] / "docs/write-a-check.md"


def files_of_the_page() -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", DOC.read_text(), re.M | re.S))


def context(name: str, args: dict[str, Any], tray: str = "t07") -> Context:
    stage = Stage.model_validate({"stage": "own", "steps": [{"check": name, "with": args}]})
    return Context(tray, build.rack(), load_profile("gb300-nvl72"), build.suite(), stage, build.catalogue(), args)


# ---------------------------------------------------------------- program

ARGV = {"argv": ["/opt/diag", "--all"], "max": "2 h"}
PARTS = {"parts": r"^GPU (?P<part>\d+): (?P<result>\w+)$"}


def ran(body: dict[str, Any], **verdict: Any) -> dict[str, Measurement]:
    rounds = [[Answer(Order("t07", "identify"), True, WHO)], [Answer(Order("t07", "program"), True, body)]]
    got = CHECKS["program"].judge(context("program", {**ARGV, "verdict": verdict}), Evidence(answers=rounds))
    return {m.part: m for m in got}


def test_a_program_is_leashed_and_says_what_it_needs() -> None:
    ctx = context("program", {**ARGV, "exclusive": True, "logs": ["*.log"], "env": {"A": "b"}})
    (order,) = CHECKS["program"].orders(ctx, [[Answer(Order("t07", "identify"), True, WHO)]])
    assert (order.verb, order.args["argv"], order.args["max_s"]) == ("program", ["/opt/diag", "--all"], 7200.0)
    assert (order.args["exclusive"], order.args["logs"], order.args["env"]) == (True, ["*.log"], {"A": "b"})
    assert CHECKS["program"].heats


@pytest.mark.parametrize(
    ("body", "rule", "result"),
    [
        (said("done"), {}, Result.PASS),
        (said("done", 2), {}, Result.UNKNOWN),
        (said("done", 2), {"fails_exit": [2]}, Result.FAIL),
        (said("done", None, signal="SIGSEGV"), {}, Result.UNKNOWN),
        (said("", 127), {}, Result.UNKNOWN),
        (said("done", 0, cut=True), {}, Result.UNKNOWN),
        (said("done", 0, ended="time"), {}, Result.UNKNOWN),
        (said("done"), {"passes": "^ALL TESTS PASSED"}, Result.UNKNOWN),
        (said("x\nALL TESTS PASSED\n"), {"passes": "^ALL TESTS PASSED"}, Result.PASS),
        (said("PASSED\nError: lane 3 bad\n"), {"passes": "PASSED", "fails": "^Error"}, Result.FAIL),
        (said("nothing"), PARTS, Result.UNKNOWN),
        (said("done", taken={"gpus": ["g0"], "lost": ["g2"]}), {}, Result.UNKNOWN),
    ],
)
def test_the_rule_decides_and_everything_else_is_unknown(body: dict[str, Any], rule: dict[str, Any], result: Result) -> None:
    assert ran(body, **rule)["t07"].result is result


def test_a_part_that_fails_is_named_by_its_place_also_at_exit_0() -> None:
    got = ran(said("GPU 0: OK\nGPU 1: OK\nGPU 2: FAULTY\nGPU 3: ODD\n"), **PARTS)
    assert {part: str(m.result) for part, m in got.items()} == {
        "t07.g1": "PASS", "t07.g0": "PASS", "t07.g3": "FAIL", "t07.g2": "UNKNOWN",
    }  # fmt: skip


def test_a_program_that_was_not_run_is_unknown() -> None:
    (one,) = CHECKS["program"].judge(context("program", ARGV), Evidence())
    assert one.result is Result.UNKNOWN


# ---------------------------------------------------------------- ask

QUESTIONS: list[dict[str, Any]] = [
    {"name": "seated", "ask": "All seated?", "part": "manifold", "photo": True},
    {"name": "hold", "ask": "Lost pressure?", "part": "manifold", "limit": {"max": 5, "unit": "kPa", "source": "ours"}},
]


def answered(body: Any, ok: bool = True) -> dict[str, Measurement]:
    rounds = [[Answer(Order("rack", "ask"), ok, body)]]
    got = CHECKS["ask"].judge(context("ask", {"questions": QUESTIONS}, "rack"), Evidence(answers=rounds))
    return {m.name.removeprefix("ask.answer."): m for m in got}


def test_a_persons_answers_are_judged_and_say_whose_they_are() -> None:
    good = answered({"seated": {"who": "J", "value": "Yes", "photo": "a.jpg"}, "hold": {"who": "J", "value": 1.5}})
    assert {m.result for m in good.values()} == {Result.PASS}
    assert "by J" in good["hold"].why
    bad = answered({"seated": {"who": "J", "value": "no", "photo": "a.jpg"}, "hold": {"who": "J", "value": 9}})
    assert {(m.part, m.result) for m in bad.values()} == {("manifold", Result.FAIL)}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seated": {"who": "J", "value": "yes"}, "hold": {"who": "J", "value": "much"}},
        {"seated": {"who": "", "value": "yes", "photo": "a"}, "hold": {"who": "", "value": 1}},
        {"seated": {"who": "J", "value": "perhaps", "photo": "a"}, "hold": {"who": "J", "value": ""}},
    ],
)
def test_no_answer_nobodys_answer_and_half_an_answer_are_unknown(body: Any) -> None:
    assert {m.result for m in answered(body).values()} == {Result.UNKNOWN}
    assert {m.result for m in answered("nobody answered within 5 s", ok=False).values()} == {Result.UNKNOWN}


def test_answers_come_from_a_file_and_a_missing_picture_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(b"x")
    file = tmp_path / "answers.yaml"
    file.write_text("answers:\n  seated: {who: J, value: true, photo: p.jpg}\n")
    given = load(file)
    assert (given["seated"]["value"], len(given["seated"]["photo_sha256"])) == ("yes", 64)
    file.write_text("answers:\n  seated: {who: J, value: true, photo: q.jpg}\n")
    with pytest.raises(InputError, match=r"q\.jpg"):
        load(file)


def test_what_the_file_does_not_answer_is_asked_at_the_terminal_and_else_left_open() -> None:
    told: list[str] = []

    def read(prompt: str) -> str:
        told.append(prompt)
        return "1.5"

    asked = {"questions": [{**one, "limit": one.get("limit")} for one in QUESTIONS]}
    given = {"seated": {"who": "J", "value": "yes", "photo": "a"}}
    out = asyncio.run(Person(given, "op", read).order("rack", "ask", asked, 5.0))
    assert (out["hold"]["who"], out["hold"]["value"], len(told)) == ("op", "1.5", 1)
    assert set(asyncio.run(Person(given, "op", None).order("rack", "ask", asked, 5.0))) == {"seated"}


# ---------------------------------------------------------------- pytest


def judged_tests(body: Any, ok: bool = True) -> dict[tuple[str, str], str]:
    rounds = [[Answer(Order("rack", "test"), ok, body)]]
    got = CHECKS["pytest"].judge(context("pytest", {"files": ["test_x.py"]}, "rack"), Evidence(answers=rounds))
    return {(m.name, m.part): str(m.result) for m in got}


@pytest.mark.parametrize(
    "body",
    [
        {"exit": 5, "tests": [], "stdout": "no tests ran"},
        {"exit": 0, "tests": []},
        {"exit": 2, "tests": [], "errors": ["test_x.py: SyntaxError"]},
        {"exit": 0, "tests": [{"id": "a", "part": "t00", "outcome": "skipped"}]},
        {"exit": 1, "tests": [{"id": "a", "part": "t00", "outcome": "error", "why": "LinkLost"}]},
        {"exit": 0, "tests": [{"id": "a", "part": "t00", "outcome": "not run"}]},
        {"exit": 137},
        {},
    ],
)
def test_a_pytest_that_errs_collects_nothing_or_skips_is_unknown(body: Any) -> None:
    assert set(judged_tests(body).values()) == {"UNKNOWN"}
    assert set(judged_tests("it is not there", ok=False).values()) == {"UNKNOWN"}


SITE = """
import pytest

def test_good(rack, measure):
    measure("site.number", 5, "W", max=7)
    measure("site.other", 9, "W", max=7)
    measure("site.silent", None, "W", max=7, reason="not_supported")
    measure("site.unlimited", 3, "W")
    assert rack.serial == "R-1"

def test_bad():
    assert 1 == 2, "they differ"

def test_broken():
    raise OSError("the link is gone")

def test_skipped():
    pytest.skip("not today")
"""


@pytest.fixture
def rack_file(tmp_path: Path) -> Path:
    (tmp_path / "known").write_text("")
    (tmp_path / "key").write_text("")
    (tmp_path / "key").chmod(0o600)
    file = tmp_path / "rack.yaml"
    file.write_text(
        "rack: R-1\nprofile: gb300-nvl72\nssh: {user: burnin, key: key, known_hosts: known}\n"
        "trays:\n  t[00-17]: {host: '127.1.1.[11-28]'}\n"
    )
    return file


def door(rack_file: Path, *files: Path, max_s: float = 60) -> Any:
    args = {"files": [str(file) for file in files], "trays": ["t00", "t01"], "max_s": max_s}
    return asyncio.run(Pytests(rack_file).order("rack", "test", args, max_s + 5))


def test_a_sites_file_runs_in_a_process_of_its_own_and_each_outcome_is_told_apart(rack_file: Path, tmp_path: Path) -> None:
    (tmp_path / "test_site.py").write_text(SITE)
    body = door(rack_file, tmp_path / "test_site.py")
    outcomes = {one["id"].rpartition("::")[2]: one["outcome"] for one in body["tests"]}
    assert outcomes == {"test_good": "passed", "test_bad": "failed", "test_broken": "error", "test_skipped": "skipped"}
    assert "they differ" in next(one["why"] for one in body["tests"] if one["id"].endswith("bad"))
    judged = judged_tests(body)
    assert judged["pytest.passed", "rack"] == "FAIL"
    assert {name: result for (name, _), result in judged.items() if name.startswith("site")} == {
        "site.number": "PASS", "site.other": "FAIL", "site.silent": "UNKNOWN", "site.unlimited": "UNKNOWN",
    }  # fmt: skip


def test_a_file_that_cannot_be_imported_is_not_forgotten_beside_a_good_one(rack_file: Path, tmp_path: Path) -> None:
    (tmp_path / "test_good.py").write_text("def test_it(): pass\n")
    (tmp_path / "test_torn.py").write_text("import nothing_like_it\n")
    assert (
        judged_tests(door(rack_file, tmp_path / "test_good.py", tmp_path / "test_torn.py"))["pytest.passed", "rack"] == "UNKNOWN"
    )


def test_a_tray_that_cannot_be_reached_with_a_known_key_is_no_failure_of_it(rack_file: Path, tmp_path: Path) -> None:
    (tmp_path / "test_tray.py").write_text("def test_it(tray):\n    assert tray.run('true').exit == 0\n")
    body = door(rack_file, tmp_path / "test_tray.py")
    assert {(one["part"], one["outcome"]) for one in body["tests"]} == {("t00", "error"), ("t01", "error")}


def test_a_pytest_that_hangs_or_is_not_there_is_an_error_of_measuring(rack_file: Path, tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text("import time\ndef test_it():\n    time.sleep(60)\n")
    with pytest.raises(TrayError, match="did not come to its end"):
        door(rack_file, tmp_path / "test_long.py", max_s=1.0)
    with pytest.raises(TrayError, match="test_absent"):
        door(rack_file, tmp_path / "test_absent.py")


# ---------------------------------------------------------------- how suites write them


def test_the_pages_suite_is_one_that_lint_takes(tmp_path: Path) -> None:
    for name, text in files_of_the_page().items():
        (tmp_path / name).write_text(text)
    suite = load_suite(tmp_path / "site.yaml", checks=OFFERS, metrics=load_catalogue().metrics)
    assert [step.check for stage in suite.stages for step in stage.steps] == ["ask", "pytest", "nvidia-smi", "program"]
    assert set(load(tmp_path / "answers.yaml")) == {"couplings", "hold"}


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        ("[{program: {argv: [], max: 1 h}}]", "argv"),
        ("[{program: {argv: [x], max: 1 h, verdict: {parts: '('}}}]", "no regular expression"),
        ("[{program: {argv: [x]}}]", "max"),
        ("[{ask: [{name: a, ask: b}, {name: a, ask: c}]}]", "asked twice"),
        ("[{ask: []}]", "questions"),
        ("[{pytest: a.py}, {pytest: b.py}]", "stand twice"),
        ("[{pytest: 5}]", "file"),
    ],
)
def test_mistakes_in_them_are_found_before_the_run(tmp_path: Path, steps: str, what: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"suite: s\nabout: x\nstages:\n  - {{stage: a, steps: {steps}}}\n")
    _, problems, _ = check_suite(read(file), OFFERS, load_catalogue().metrics)
    assert what in " ".join(map(str, problems))
