"""A program that the site brings: field diagnostics, a customer's test. It runs on every tray, leashed, and is judged by a rule.

The rule is written before the run: which exit codes are good and which mean that hardware is bad, what the output must and
must not say, and, part by part, which line is whose verdict. Everything else is UNKNOWN: a program that crashed has shown
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tooling import leashed, names, part_of, worst
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.suites.schema import Duration

VERDICT = Quantity(
    "program.verdict",
    "1",
    "what the step's own rule says of the program's exit and output",
    action="read its output and logs, kept with the step",
)
_LINE = 2000
"""Characters of a line that patterns see."""
_LIMIT = "= PASS"


class Rule(Data):
    """When it is good, and when bad. `fails` and `parts` are looked for in each line of the output, `passes` in any."""

    exit: list[int] = Field(default=[0], min_length=1, description="exit codes that are good")
    fails_exit: list[int] = Field(default=[], description="exit codes that mean that hardware is bad; others prove nothing")
    passes: str = Field(default="", description="a line must match this, or nothing was shown")
    fails: str = Field(default="", description="a line that matches this is a FAIL of the tray, or of its group `part`")
    parts: str = Field(default="", description="a line with the groups `part` and `result` is that part's own verdict")
    good: list[str] = Field(default=["PASS", "PASSED", "OK"], description="words of `result` that are good")
    bad: list[str] = Field(default=["FAIL", "FAILED", "FAULTY"], description="words of `result` that are bad; others are UNKNOWN")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for name in ("passes", "fails", "parts"):
            try:
                groups = re.compile(getattr(self, name)).groupindex
            except re.error as error:
                raise ValueError(f"{name} is no regular expression: {error}") from None
            if name == "parts" and self.parts and not {"part", "result"} <= set(groups):
                raise ValueError("parts needs the groups (?P<part>...) and (?P<result>...)")
        if set(self.exit) & set(self.fails_exit):
            raise ValueError("an exit code cannot be good and bad")
        return self


class Args(Data):
    """`exclusive`: NVML is let go while it runs, as field diagnostics want; lease, time, guard and the BMC end it."""

    argv: list[str] = Field(min_length=1, max_length=256)
    longest: Duration = Field(alias="max")
    exclusive: bool = False
    env: dict[str, str] = Field(default={}, description="not for secrets: it is kept with the run")
    logs: list[str] = Field(default=[], max_length=8, description="files to keep, by patterns in its working directory or from /")
    verdict: Rule = Rule()


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Who the GPUs are, then the program."""
    if not answers:
        return [Order(context.tray, "identify")]
    if len(answers) > 1:
        return []
    args = Args.model_validate(dict(context.args))
    return [leashed(context, "program", args.argv, args.longest, exclusive=args.exclusive, env=args.env, logs=args.logs)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """The tray, and every part that a line speaks of."""
    args = Args.model_validate(dict(context.args))
    bodies = [a.body for given in evidence.answers for a in given if a.ok and isinstance(a.body, dict)]
    who = next((body for body in bodies if "stdout" not in body), {})
    body = next((body for body in bodies if "stdout" in body), None)
    if body is None:
        why = next((str(a.body) for given in evidence.answers for a in given if not a.ok), "it was not run")
        return [VERDICT.unknown(context.tray, "lost" if evidence.lost else "missing", why, _LIMIT)]
    return list(worst(_judged(context.tray, args.verdict, body, names(context.tray, who))))


def _judged(tray: str, rule: Rule, body: Mapping[str, Any], parts: Mapping[str, str]) -> Iterator[Measurement]:
    lines = [line[:_LINE] for line in f"{body.get('stdout', '')}\n{body.get('stderr', '')}".split("\n")]
    found = list(_lines(tray, rule, lines, parts))
    yield from found
    code, ended = body.get("exit"), str(body.get("ended", ""))
    if ended:
        reason = {"time": "hung", "lease": "lost"}.get(ended, "missing")
        yield VERDICT.unknown(tray, reason, f"it was ended: {ended}", _LIMIT)
    elif code in rule.fails_exit:
        yield _measured(tray, Result.FAIL, f"exit status {code}")
    elif code not in rule.exit:
        said = f"signal {body.get('signal')}" if code is None else f"exit status {code}"
        yield VERDICT.unknown(tray, "missing", f"{said}: it has shown nothing", _LIMIT)
    elif body.get("cut"):
        yield VERDICT.unknown(tray, "missing", "its output was too long, and is cut: not every line was read", _LIMIT)
    elif rule.passes and not any(re.search(rule.passes, line) for line in lines):
        yield VERDICT.unknown(tray, "missing", f"no line says {rule.passes}", _LIMIT)
    elif rule.parts and not found:
        yield VERDICT.unknown(tray, "missing", "no line is any part's verdict", _LIMIT)
    elif isinstance(body.get("taken"), dict) and (body["taken"].get("lost") or body["taken"].get("failed")):
        yield VERDICT.unknown(tray, "lost", f"NVML was not taken again as it was: {body['taken']}", _LIMIT)
    elif not any(one.result is Result.FAIL for one in found):
        yield _measured(tray, Result.PASS, "")


def _lines(tray: str, rule: Rule, lines: Sequence[str], parts: Mapping[str, str]) -> Iterator[Measurement]:
    for line in lines:
        if rule.fails and (match := re.search(rule.fails, line)):
            yield _measured(_part(tray, match.groupdict().get("part"), parts), Result.FAIL, line.strip()[:300])
        if rule.parts and (match := re.search(rule.parts, line)):
            part, word = _part(tray, match["part"], parts), match["result"]
            if word in rule.bad:
                yield _measured(part, Result.FAIL, line.strip()[:300])
            elif word in rule.good:
                yield _measured(part, Result.PASS, "")
            else:
                yield VERDICT.unknown(part, "missing", f"{word!r} is neither good nor bad: {line.strip()[:200]}", _LIMIT)


def _part(tray: str, word: str | None, parts: Mapping[str, str]) -> str:
    """`g2`, an NVML index, `GPU 2` or a PCI address; anything else is the tray's."""
    if word is None:
        return tray
    if re.fullmatch(r"[gcnd]\d{1,2}", word):
        return f"{tray}.{word}"
    return part_of(f"GPU {word}" if word.isdecimal() else word, parts) or tray


def _measured(part: str, result: Result, why: str) -> Measurement:
    return Measurement(VERDICT.name, part, str(result), "1", _LIMIT, result, None, why)


CHECK = Check(
    name="program",
    about="a program that the site brings, judged by the step's own rule",
    quantities=(VERDICT,),
    judge=judge,
    orders=orders,
    heats=True,
    args=Args,
    seconds=lambda profile, said: Args.model_validate(dict(said)).longest if said else 0.0,
    equipment=("the program",),
)
