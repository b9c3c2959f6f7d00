"""What only a person can see or do: quick disconnects seated, torque, fill and purge, pressure hold, drip.

Each question names its part and what a good answer is. Who answered is kept with the answer; what was not answered is UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.rack.schema import Limit
from burnin.suites.schema import Duration

ANSWER = Quantity(
    "ask.answer",
    "1",
    "a person's answer to a question of the suite, by its name",
    action="do what the question asks for, and run this step again",
)
_YES, _NO = ("yes", "y", "true"), ("no", "n", "false")


class Question(Data):
    """A yes is good, or a number within `limit`. `photo`: the path of a picture must be given."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,59}$")
    ask: str = Field(min_length=1, max_length=500)
    part: str = Field(default=RACK, pattern=r"^(rack|manifold|cdu|[tsxp]\d{1,2}(\.\w{1,20})*)$")
    limit: Limit | None = None
    photo: bool = False


class Args(Data):
    """The questions of one step."""

    questions: list[Question] = Field(min_length=1, max_length=200)
    longest: Duration = Field(default=14_400.0, alias="max", description="how long answers are waited for")

    @model_validator(mode="after")
    def _once(self) -> Self:
        all_of = [one.name for one in self.questions]
        if twice := sorted({name for name in all_of if all_of.count(name) > 1}):
            raise ValueError(f"asked twice: {', '.join(twice)}")
        return self


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """All questions at once."""
    if answers:
        return []
    args = Args.model_validate(dict(context.args))
    asked = {"questions": [one.model_dump(mode="json") for one in args.questions], "stage": context.stage.stage}
    return [Order(RACK, "ask", asked, "person", args.longest)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """One measurement per question, named after it."""
    args = Args.model_validate(dict(context.args))
    answer = evidence.answers[0][0] if evidence.answers and evidence.answers[0] else None
    body = answer.body if answer is not None and answer.ok and isinstance(answer.body, dict) else {}
    silent = str(answer.body) if answer is not None and not answer.ok else "nobody has answered"
    return [_judged(one, body.get(one.name), silent) for one in args.questions]


def _judged(asked: Question, given: Any, silent: str) -> Measurement:
    quantity = Quantity(f"{ANSWER.name}.{asked.name}", asked.limit.unit if asked.limit else "1", asked.ask)
    limit = str(asked.limit) if asked.limit else "= yes"
    if not isinstance(given, Mapping) or given.get("value") in (None, ""):
        return quantity.unknown(asked.part, "missing", f"{asked.ask} {silent}", limit)
    who, value = str(given.get("who") or ""), given["value"]
    if not who:
        return quantity.unknown(asked.part, "missing", f"{asked.ask} Answered {value!r}, but it does not say by whom", limit)
    if asked.photo and not given.get("photo"):
        return quantity.unknown(asked.part, "missing", f"{asked.ask} Answered {value!r} by {who}, but without its picture", limit)
    said = f"{asked.ask} {value}, by {who}"
    if asked.limit is not None:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return quantity.unknown(asked.part, "missing", f"{said}: not a number", limit)
        one = quantity.judge(asked.part, number, {quantity.name: asked.limit})
        return Measurement(one.name, one.part, one.value, one.unit, one.limit, one.result, one.reason, said)
    word = str(value).strip().lower()
    if word not in (*_YES, *_NO):
        return quantity.unknown(asked.part, "missing", f"{said}: neither yes nor no", limit)
    good = word in _YES
    result = Result.PASS if good else Result.FAIL
    return Measurement(quantity.name, asked.part, "yes" if good else "no", "1", limit, result, None, said)


CHECK = Check(
    name="ask",
    about="what only a person can see or do",
    quantities=(ANSWER,),
    judge=judge,
    orders=orders,
    scope="rack",
    args=Args,
    equipment=("a person",),
)
