"""Checks that a site writes as pytest functions (docs/write-a-check.md), judged from what the plugin reported of each test.

A test that fails is a FAIL of its part; one that breaks in a fixture or with any other exception, is skipped, or was never
reached, has shown nothing: UNKNOWN. What it measured (`measure`) is judged by the limits that it gives, and kept like any other
measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tooling import worst
from burnin.events import REASONS, Measurement, Result
from burnin.rack.data import Data
from burnin.rack.schema import Limit
from burnin.suites.schema import Duration

PASSED = Quantity("pytest.passed", "1", "what each test of a part said", action="read the test's own words, kept with the step")


class Args(Data):
    """Files of test_suites/checks/, or paths."""

    files: list[str] = Field(min_length=1, max_length=32)
    longest: Duration = Field(default=600.0, alias="max")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """One pytest over all files."""
    if answers:
        return []
    args = Args.model_validate(dict(context.args))
    asked = {"files": args.files, "trays": list(context.trays), "max_s": args.longest}
    return [Order(RACK, "test", asked, "pytest", args.longest + 15)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Every test, by part, and every measurement."""
    answer = evidence.answers[0][0] if evidence.answers and evidence.answers[0] else None
    if answer is None or not answer.ok or not isinstance(answer.body, dict):
        why = str(answer.body) if answer is not None else "it was not run"
        return [PASSED.unknown(RACK, "missing", why, "= passed")]
    tests = answer.body.get("tests")
    tests = [one for one in tests if isinstance(one, dict)] if isinstance(tests, list) else []
    return list(worst((*_whole(answer.body, tests), *(m for one in tests for m in _test(context, one)))))


def _whole(body: Mapping[str, Any], tests: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    """pytest's exit: 0 and 1 are of tests that ran; 5 is that none was found; anything else did not come to its end."""
    code, words = body.get("exit"), " ".join(str(body.get("stdout", "")).split())[-400:]
    if code not in (0, 1) or not tests:
        why = "no test was found" if code == 5 or (code == 0 and not tests) else f"pytest ended with {code}"
        yield PASSED.unknown(RACK, "missing", f"{why}: {words}", "= passed")
    elif body.get("errors"):
        yield PASSED.unknown(RACK, "missing", f"not collected: {'; '.join(map(str, body['errors']))[:400]}", "= passed")
    elif code == 1 and not any(one.get("outcome") in ("failed", "error") for one in tests):
        yield PASSED.unknown(RACK, "missing", f"pytest says that something failed, and no test does: {words}", "= passed")


def _test(context: Context, one: Mapping[str, Any]) -> Iterator[Measurement]:
    part, name = str(one.get("part") or RACK), str(one.get("id", "?"))
    outcome, why = one.get("outcome"), f"{name}: {one.get('why', '')}".rstrip(": ")
    if outcome == "failed":
        yield Measurement(PASSED.name, part, "failed", "1", "= passed", Result.FAIL, None, why[:600])
    elif outcome == "passed":
        yield Measurement(PASSED.name, part, "passed", "1", "= passed", Result.PASS)
    else:
        yield PASSED.unknown(part, "missing", f"{why} ({outcome})"[:600], "= passed")
    given = one.get("measurements")
    for each in given if isinstance(given, list) else ():
        yield _measured(context, part, each if isinstance(each, dict) else {})


def _measured(context: Context, part: str, said: Mapping[str, Any]) -> Measurement:
    """By the limit that the test gave, else by that of the suite or profile; with neither it is UNKNOWN."""
    name, unit, value = str(said.get("name", "?")), str(said.get("unit", "1")), said.get("value")
    part = str(said.get("part") or part)
    quantity = Quantity(name, unit, "")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        reason = str(said.get("reason", "missing"))
        return quantity.unknown(part, reason if reason in REASONS else "missing", str(said.get("why") or "it was not read"))
    bounds = {key: said[key] for key in ("min", "max", "equals") if said.get(key) is not None}
    limits = {name: Limit.model_validate({**bounds, "unit": unit, "source": "the test"})} if bounds else context.limits
    return quantity.judge(part, float(value) if isinstance(value, int) else value, limits)


CHECK = Check(
    name="pytest",
    about="checks that the site wrote as pytest functions",
    quantities=(PASSED,),
    judge=judge,
    orders=orders,
    scope="rack",
    args=Args,
    equipment=("pytest files",),
)
