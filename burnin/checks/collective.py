"""Do all GPUs of the rack work together: one NCCL operation over all trays, or over groups of them, without MPI.

The bandwidth is that of nccl-tests, of the slowest rank. A group that fails is bisected to the tray, or to the pair of trays,
and who is named is confirmed against good trays before it is blamed; what was not confirmed is UNKNOWN.
See burnin.checks.collective_story for the rounds, burnin.agent.nccl for what a rank does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.collective_story import SLOWER as SLOWER_NAME
from burnin.checks.collective_story import Named, Story, limit_name, tell
from burnin.checks.groups import Group, Plan
from burnin.events import Measurement, Result
from burnin.rack.parts import fold
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage

COMPLETED = Quantity(
    "collective.completed",
    "1",
    "1 where every rank of the group came to its end",
    action="look at fabric state, IMEX and links of this tray, then repeat; if it fails again, replace it",
)
BUSBW = Quantity(
    "collective.busbw",
    "GB/s",
    "bus bandwidth of the slowest rank, against the limit of this operation and number of GPUs",
    action="see which tray is named beside it; if none is, the cause is common to all",
)
SLOWER = Quantity(
    SLOWER_NAME,
    "1",
    "share of bandwidth that a group with this tray lacks beside one without it",
    action="look for a slow GPU or link in this tray, and repeat",
)
WRONG = Quantity(
    "collective.wrong",
    "1",
    "words that arrived wrong, of those that were looked at",
    action="repeat with this tray left out; if it is then right, replace the tray and keep it as silent corruption",
)
PAIRS = Quantity(
    "collective.pairs",
    "1",
    "ordered pairs of GPUs between which nothing, something wrong or too little arrives",
    action="look at the links of both ends and the switches between them: neither end is blamed alone",
)
_JOIN_S, _SLOW_GBPS = 20.0, 50.0
"""What starting and joining takes (assumption), and a speed to reckon with where no limit is known."""
_AGAIN = "repeat when that is mended"


def about(profile: Profile, args: Mapping[str, Any]) -> float:
    """Processes, joining, and each size so often; a group that fails takes up to its time-outs more."""
    plan = Plan.model_validate(dict(args))
    whole = profile.topology.compute_trays * profile.topology.gpus_per_tray
    gpus = whole if plan.gpus == "all" else plan.gpus
    known = profile.limits.get(limit_name(plan, plan.op, gpus))
    gbps = known.min if known is not None and known.min else _SLOW_GBPS
    steps = 2 * gpus if plan.op == "pairs" else 1
    return _JOIN_S + steps * (plan.warmup + plan.repeats + 1) * sum(plan.sizes) * 2 / gbps / 1e9


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """The next round of the story."""
    return tell(context, answers)[1]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """The whole as rows of the rack; then the trays, pairs and GPUs that it was traced to."""
    story, _ = tell(context, evidence.answers)
    out = [*_rack(context, story), *(m for named in story.named for m in _named(context, story, named))]
    out += _pairs(context, story)
    spoken = {m.part for m in out}
    out += [COMPLETED.unknown(tray, "lost", why) for tray, why in story.lost.items() if tray not in spoken]
    return out + list(_suspects(story))


def _why(story: Story) -> str:
    """What is said beside the whole: who did not take part, what stood out, whom it was traced to."""
    failed = [group for group in story.whole if group.failed]
    apart = [f"{part}: {said}" for group in failed for part, said in group.dissent.items()]
    usual = sorted({one.failed for group in failed for one in group.told if one.failed})[:1]
    words = [*([story.why] if story.why else []), *(["other than the rest: " + "; ".join(apart[:8])] if apart else usual)]
    words += [f"{' and '.join(n.trays)}: {n.why}" for n in story.named]
    words += [f"{' and '.join(trays)} went bad together too, and were not searched" for trays in story.unsearched]
    if story.bisection is not None:
        words += [f"{len(g)} trays went bad, and no part of them did again" for g in story.bisection.unexplained]
        words.append(f"{story.bisection.rounds} rounds of bisection")
    return "; ".join(words)


def _rack(context: Context, story: Story) -> Iterator[Measurement]:
    why = _why(story)
    if not story.whole or story.plan is None:
        reason = why or "the run ended before it"
        yield from (quantity.unknown(RACK, "missing", reason) for quantity in (COMPLETED, BUSBW, WRONG))
        return
    if any(group.failed for group in story.whole):
        yield COMPLETED.unknown(RACK, "hung", f"not every rank came to its end: {why}; {_AGAIN}", "= 1")
        yield BUSBW.unknown(RACK, "missing", "not every rank came to its end")
    else:
        yield replace(COMPLETED.judge(RACK, 1.0, context.limits), why=why)
        yield _busbw(context, story.plan, RACK, min(story.whole, key=lambda g: g.slowest.busbw_gbps), why)
    yield from _wrong(context, story, why)


def _busbw(context: Context, plan: Plan, part: str, group: Group, why: str = "") -> Measurement:
    limit = limit_name(plan, group.op, len(group.told))
    one = replace(BUSBW, name=limit).judge(part, group.slowest.busbw_gbps, context.limits)
    whose = "" if set(group.trays) == set(context.trays) else f" of {fold(group.trays)}"
    took = [rank.ms for rank in group.told]
    slow = f", slowest {group.slowest.part}" if max(took) > 1.005 * min(took) else ""  # ranks wait for each other: mostly none is
    ranks = f", {min(took):.4g} to {max(took):.4g} ms by rank{slow}" if max(took) > 0 else ""
    said = (
        f"{group.op} of {group.slowest.bytes} bytes over {len(took)} GPUs{whose}, NCCL {group.version}{ranks}; {why or one.why}"
    )
    return replace(one, name=BUSBW.name, why=said.strip("; "))


def _pairs(context: Context, story: Story) -> Iterator[Measurement]:
    """Pairs that were confirmed, and those of the whole rack's matrix that are slow at both ends; one row for all."""
    named = [n for n in story.named if len(n.trays) == 2 and n.confirmed]
    slow = {f"{source} > {target}": "" for n in named for source, target in n.pairs}
    matrix = story.plan is not None and story.plan.op == "pairs" and not any(group.failed for group in story.whole)
    for group in story.whole if matrix else ():
        parts, speeds = [one.part for one in group.told], dict[tuple[int, int], float]()
        for one in group.told:
            for source, target, gbps, _ in one.pairs:
                speeds[source, target] = max(gbps, speeds.get((source, target), 0.0))
        want, limit = len(parts) * (len(parts) - 1), context.limits.get(limit_name(story.plan or Plan(), group.op, len(parts)))
        if len(speeds) != want or limit is None or limit.min is None:
            why = f"{len(speeds)} of {want} pairs were measured" if len(speeds) != want else "no limit is known for a pair"
            yield PAIRS.unknown(RACK, "missing", why)
            return
        slow |= {f"{parts[s]} > {parts[t]}": f" {gbps:g} GB/s" for (s, t), gbps in sorted(speeds.items()) if gbps < limit.min}
    if named or (matrix and story.whole):
        said = [*(n.why for n in named), "; ".join(f"{way}{speed}" for way, speed in list(slow.items())[:20])]
        yield replace(PAIRS.judge(RACK, float(len(slow)), context.limits), why="; ".join(filter(None, said)))


def _wrong(context: Context, story: Story, why: str) -> Iterator[Measurement]:
    """Wrong words of the whole; the GPUs where they arrived are named only where they are one tray's."""
    wrong = {part: count for group in story.whole for part, count in group.wrong.items()}
    trays = {part.split(".")[0] for part in wrong}
    if not wrong and any(group.failed for group in story.whole):
        yield WRONG.unknown(RACK, "missing", "not every rank came to its end")
    elif len(trays) == 1:
        yield from (WRONG.judge(part, float(count), context.limits) for part, count in wrong.items())
    else:
        said = f"at {len(wrong)} GPUs; {why}" if wrong else ""
        yield replace(WRONG.judge(RACK, float(sum(wrong.values())), context.limits), why=said)


def _named(context: Context, story: Story, named: Named) -> Iterator[Measurement]:
    if not named.confirmed or named.group is None or story.plan is None:
        yield from (COMPLETED.unknown(tray, "missing", f"suspected, not confirmed: {named.why}") for tray in named.trays)
        return
    if len(named.trays) == 2:
        return
    (tray,), rows = named.trays, []
    if named.group.failed:
        rows.append(COMPLETED.judge(tray, 0.0, context.limits))
    if named.group.wrong:
        rows.append(WRONG.judge(tray, float(sum(named.group.wrong.values())), context.limits))
    if named.slower is not None and "slow" in story.kinds:
        rows += [SLOWER.judge(tray, named.slower, context.limits), _busbw(context, story.plan, tray, named.group)]
        rows = [row for row in rows if row.result is not Result.UNKNOWN] or rows
    for row in rows:
        said = f"{row.name} is {row.value:g}, limit {row.limit}: {named.why}" if isinstance(row.value, float) else row.why
        yield replace(row, why=said if row.result is Result.FAIL else row.why)


def _suspects(story: Story) -> Iterator[Measurement]:
    """Trays that a search which broke off left under suspicion."""
    if story.bisection is None or (story.finished and not story.why):
        return
    held = {tray for named in story.named for tray in named.trays} | set(story.lost)
    left = {tray for case in story.bisection.cases for tray in case.suspects}
    left |= {tray for culprit in story.bisection.culprits for tray in culprit}
    yield from (COMPLETED.unknown(tray, "missing", "under suspicion when the search broke off") for tray in sorted(left - held))


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """A group cannot be larger than the rack."""
    gpus, whole = Plan.model_validate(dict(args)).gpus, profile.topology.compute_trays * profile.topology.gpus_per_tray
    return f"a group of {gpus} GPUs, and a {profile.profile} has {whole}" if gpus != "all" and gpus > whole else ""


CHECK = Check(
    name="collective",
    about="all GPUs of the rack work together: one NCCL operation, right, fast enough, and ended",
    quantities=(COMPLETED, BUSBW, SLOWER, WRONG, PAIRS),
    judge=judge,
    orders=orders,
    scope="rack",
    heats=True,
    args=Plan,
    seconds=about,
    equipment=("libnccl.so.2",),
    fits=fits,
)
