"""Does every GPU compute the same? One piece of arithmetic on all of them, and the one that disagrees is named.

Digests are compared among GPUs of one compute capability (docs/consensus.md says why they must be equal, bit by bit). The
strict majority is right; whoever is not with it, or not with itself, is asked again, beside two that agree. Reproduced is
FAIL. Not reproduced is UNKNOWN, never PASS: silent corruption comes and goes (design rule 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from burnin.checks.base import START_S, Answer, Check, Context, Evidence, Order, Quantity, cut_short
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.rack.parts import tray_of
from burnin.rack.schema import Profile

WRONG = Quantity(
    "consensus.wrong",
    "1",
    "runs of the same arithmetic in which this GPU disagreed with the majority of its kind, or with itself",
    action="replace the board and keep it as silent corruption: it computes wrong and no counter says so",
)
QUORUM = 3
"""GPUs of one kind that it takes to say who is the odd one out."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one GPU answered. `kind`: what must be equal for digests to be comparable."""

    digest: str
    unstable: int
    kind: tuple[str, ...]
    first: tuple[str, ...]
    seconds: Any = None
    """Of the GPU's time, as it said."""


@dataclass(frozen=True, slots=True)
class Majority:
    """What the strict majority of one kind says; `of` all that voted. `shared`: how many said each other digest, where
    several said the same: corruption is never alike, so that is another driver or another silicon, not a weak part."""

    digest: str
    count: int
    of: int
    shared: Mapping[str, int]


def parse(message: Any) -> Vote | str:
    """One GPU's message, or why it is no vote."""
    if not isinstance(message, dict):
        return "it answered nothing that can be read"
    if "failed" in message:
        return str(message["failed"])
    digest, unstable, digests = message.get("digest"), message.get("unstable"), message.get("digests")
    if digest is None and "digest" in message:
        return "its time was over before one set was computed"
    if not isinstance(digest, str) or not isinstance(unstable, int) or not isinstance(digests, dict) or not digests:
        return "its message has no digest that can be read"
    try:
        int(digest, 16)
        kind = (str(message["arch"]), str(message["seed"]), str(message["rounds"]), *sorted(digests))
    except (ValueError, KeyError):
        return "its message has no digest that can be read"
    seen = [one for one in message.get("first", ()) if isinstance(one, dict)]
    return Vote(
        digest, unstable, kind, tuple(f"{one.get('kernel')} on SM {one.get('sm')}" for one in seen), message.get("seconds")
    )


def votes(context: Context, answers: Sequence[Answer]) -> dict[str, Vote | str]:
    """Part -> vote, or why there is none; only GPUs that answered for themselves."""
    cast = {
        f"{answer.order.to}.{gpu}": parse(message)
        for answer in answers
        if answer.ok and isinstance(answer.body, dict)
        for gpu, message in answer.body.items()
    }
    args = Args.model_validate(dict(context.args))
    order = (str(args.seed), str(args.rounds))
    for part, vote in cast.items():
        if isinstance(vote, Vote) and vote.kind[1:3] != order:
            cast[part] = f"it answers for seed {vote.kind[1]} and {vote.kind[2]} rounds, asked for {order[0]} and {order[1]}"
    return {part: cast[part] for part in context.gpus if part in cast}


def majorities(cast: Mapping[str, Vote | str]) -> dict[tuple[str, ...], Majority | str]:
    """Kind -> its strict majority, or why there is none."""
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for vote in cast.values():
        if isinstance(vote, Vote):
            counts.setdefault(vote.kind, Counter())[vote.digest] += 1
    out: dict[tuple[str, ...], Majority | str] = {}
    for kind, counter in counts.items():
        (digest, count), total = counter.most_common(1)[0], counter.total()
        if total < QUORUM:
            out[kind] = f"{total} of compute capability {kind[0]} voted; it takes {QUORUM} GPUs to say who is wrong"
        elif 2 * count <= total:
            out[kind] = f"no strict majority: {len(counter)} digests from {total} GPUs, the most frequent from {count}"
        else:
            out[kind] = Majority(digest, count, total, {d: n for d, n in counter.items() if n > 1 and d != digest})
    return out


def agrees(vote: Vote, with_: Majority) -> bool:
    """The majority's digest, every time."""
    return vote.digest == with_.digest and vote.unstable == 0


def again(cast: Mapping[str, Vote | str]) -> tuple[list[str], list[str]]:
    """(suspects, referees): who must be asked again, and two GPUs of each of their kinds that agreed."""
    found = majorities(cast)
    suspects, referees = [], []
    for kind, most in found.items():
        own = {part: vote for part, vote in cast.items() if isinstance(vote, Vote) and vote.kind == kind}
        if isinstance(most, Majority):
            odd = [part for part, vote in own.items() if not agrees(vote, most)]
            even = [part for part in own if part not in odd]
            suspects += odd
            referees += [even[0], even[-1]] if odd and len(even) > 1 else []
    return suspects, referees


class Args(Data):
    """The same for all GPUs: `seed` of the numbers, `rounds` of one digest, and for how long digests are repeated."""

    seed: int = Field(default=1, ge=0, lt=1 << 32)
    rounds: int = Field(default=32, ge=1, le=4096)
    seconds: float = Field(default=10.0, ge=0, le=86400)


def about(profile: Profile, args: Mapping[str, Any]) -> float:
    """As long as digests are repeated."""
    return START_S + Args.model_validate(dict(args)).seconds


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """All GPUs at once; then who disagreed, beside two who did not."""
    if not answers:
        return _orders(context, context.gpus, 1)
    if len(answers) > 1:
        return []
    suspects, referees = again(votes(context, answers[0]))
    return _orders(context, sorted({*suspects, *referees}), 2) if suspects and referees else []


def _orders(context: Context, parts: Sequence[str], turn: int) -> list[Order]:
    said = Args.model_validate(dict(context.args))
    limit = context.limits.get("gpu.tlimit.cutoff")
    work = {
        "job": f"consensus-{turn}",
        "kind": "digest",
        "args": said.model_dump(),
        "cutoff_margin_c": limit.min if limit is not None and limit.min is not None else 0.0,
        "max_s": 3 * said.seconds + 30,
    }
    by_tray: dict[str, list[str]] = {}
    for part in parts:
        by_tray.setdefault(tray_of(part), []).append(part.partition(".")[2])
    return [Order(tray, "work", {**work, "gpus": gpus}, timeout_s=3 * said.seconds + 45) for tray, gpus in by_tray.items()]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Every GPU: with the majority, reproducibly not with it, or not known."""
    rounds = evidence.answers
    first = votes(context, rounds[0]) if rounds else {}
    second = votes(context, rounds[1]) if len(rounds) > 1 else {}
    lost = {answer.order.to: str(answer.body) for answer in rounds[0] if not answer.ok} if rounds else {}
    found, (_, referees) = majorities(first), again(first)
    out = []
    for part in context.gpus:
        vote = first.get(part)
        if not isinstance(vote, Vote):
            reason = "lost" if tray_of(part) in lost else "missing"
            out.append(WRONG.unknown(part, reason, vote or lost.get(tray_of(part), "it did not answer")))
            continue
        most = found[vote.kind]
        if isinstance(most, str):
            out.append(WRONG.unknown(part, "missing", most))
        elif agrees(vote, most):
            later = second.get(part) if part in referees else vote
            out.append(_agreed(context, part, vote, most, later))
        else:
            own = [second.get(p) for p, v in first.items() if p in referees and isinstance(v, Vote) and v.kind == vote.kind]
            out.append(_odd(context, part, vote, most, second.get(part), own))
    return out


def _agreed(context: Context, part: str, vote: Vote, most: Majority, later: Vote | str | None) -> Measurement:
    """A GPU of the majority, for as long as was asked; as a referee it must agree a second time, if it answered."""
    if isinstance(later, Vote) and not agrees(later, most):
        return _held(context, part, "it agreed with the majority at first, and not when it was asked again")
    if short := cut_short(vote.seconds, Args.model_validate(dict(context.args)).seconds):
        return WRONG.unknown(part, "not_attained", f"it agreed as far as it came, but {short}")
    return WRONG.judge(part, 0.0, context.limits)


def _odd(
    context: Context, part: str, vote: Vote, most: Majority, later: Vote | str | None, referees: Sequence[Vote | str | None]
) -> Measurement:
    """A GPU that disagreed, by what it and its referees said the second time."""
    what = f"digest {vote.digest} where {most.count} of {most.of} GPUs of compute capability {vote.kind[0]} say {most.digest}"
    if vote.digest == most.digest:
        what = f"{vote.unstable} tiles differed from its own first result"
    if vote.digest in most.shared:
        alike = f"{most.shared[vote.digest]} GPUs say the same: compare driver, firmware and boards, nobody is condemned"
        return _held(context, part, f"{what}; {alike}")
    if not isinstance(later, Vote):
        return _held(context, part, f"{what}; it could not be asked again: {later or 'it did not answer'}")
    if len(referees) < 2 or not all(isinstance(one, Vote) and agrees(one, most) for one in referees):
        return _held(context, part, f"{what}; the GPUs beside it did not both agree again")
    if agrees(later, most):
        return _held(context, part, f"{what}; not again when repeated: silent corruption that comes and goes is not excluded")
    where = Counter(vote.first + later.first).most_common(1)
    why = f"{what}; wrong again when repeated" + (f"; most often {where[0][0]}" if where else "")
    return replace(WRONG.judge(part, 2.0, context.limits), why=why)


def _held(context: Context, part: str, why: str) -> Measurement:
    """Seen once: neither good nor proven bad."""
    return replace(WRONG.judge(part, 1.0, context.limits), result=Result.UNKNOWN, reason="missing", why=why)


CHECK = Check(
    name="consensus",
    about="the same arithmetic on every GPU gives the same digest, bit by bit",
    quantities=(WRONG,),
    judge=judge,
    orders=orders,
    scope="rack",
    heats=True,
    args=Args,
    seconds=about,
)
