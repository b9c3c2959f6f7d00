"""How a collective is tried, and whom a failure is traced to: one story, told forward to ask and again to judge. Pure.

    fit        a process on every GPU, its NCCL; a tray that has none is left out and said
    reach      every tray tries every other over every interface they share; one that reaches all is chosen
    whole      the groups as asked for; when all is well this is the end
    bisection  by halves of trays (burnin.checks.bisection), until a tray is alone, or two that are bad only together
    confirm    the tray beside a good one is bad again, and two good ones without it are good; of a pair both ends are good
               with others, and the matrix of the two says which ordered pair of GPUs it is

What is bad is what the whole showed: a group that did not come to its end, wrong words, or too little bandwidth (below the
limit of its size, or below an equal group tried beside it by more than `collective.slower`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pydantic import ValidationError

from burnin.checks.base import Answer, Context, Order
from burnin.checks.bisection import Bisection, Trays
from burnin.checks.groups import Group, Op, Plan, ask, attempt, names, unfit, work

SLOWER = "collective.slower"
_NEAR = 2
"""Trays by which two groups may differ and still be compared."""


_FAMILY = 3
"""Equal groups of which one can be told to be slower than the rest."""
_OUT = 4
"""Median deviations from the median: 2.7 sigma where spread is normal, and who is suspected is tried again."""


class Void(Exception):
    """A group could not be asked: nothing was measured, and nothing more can be said."""


Telling = Generator[list[Order], Sequence[Answer], None]
Trying = Generator[list[Order], Sequence[Answer], list[Group]]


@dataclass(frozen=True, slots=True)
class Named:
    """A tray, or a pair, that bisection left over. `pairs`: ordered pairs of GPUs (source, target). `slower`: a share."""

    trays: Trays
    confirmed: bool
    why: str
    group: Group | None = None
    slower: float | None = None
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Story:
    """What is known so far. `why`: what ended it before its time. `finished`: nothing more is to be asked."""

    plan: Plan | None = None
    why: str = ""
    lost: dict[str, str] = field(default_factory=dict)
    ifname: str = ""
    whole: list[Group] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    bad: list[Trays] = field(default_factory=list)
    bisection: Bisection | None = None
    unsearched: list[Trays] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    attempts: int = 0
    jobs: dict[str, str] = field(default_factory=dict)
    """The last job of each tray."""
    finished: bool = False


def tell(context: Context, answers: Sequence[Sequence[Answer]]) -> tuple[Story, list[Order]]:
    """The story as far as these answers go, and what is to be asked next."""
    story = Story()
    telling = _tell(context, story)
    try:
        orders = next(telling)
        for given in answers:
            orders = telling.send(given)
        return story, orders
    except StopIteration:
        story.finished = True
        return story, []


def _tell(context: Context, story: Story) -> Telling:
    try:
        plan = story.plan = Plan.model_validate(dict(context.args))
    except ValidationError as error:
        story.why = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return
    trays = yield from _fit(context, plan, story)
    if not story.why:
        teller = _Teller(context, plan, story)
        try:
            yield from teller.whole(trays)
            if story.bad:
                yield from teller.bisect()
        except Void as void:
            story.why = str(void)
    yield from ask([_leave(tray, job, names(context)) for tray, job in sorted(story.jobs.items())])


def _leave(tray: str, job: str, gpus: list[str]) -> Order:
    """The last word to the processes that still wait: the GPUs are to be found as they were."""
    return Order(tray, "tell", {"job": job, "bodies": {gpu: {"leave": True} for gpu in gpus}}, timeout_s=30)


def _fit(context: Context, plan: Plan, story: Story) -> Generator[list[Order], Sequence[Answer], list[str]]:
    """Trays that can take part, with an interface by which all of them reach each other."""
    ready = yield from ask([work(context, plan, "nccl-0", tray, plan.op, plan.socket_ifname, False) for tray in context.trays])
    story.jobs = {tray: "nccl-0" for tray in context.trays if not isinstance(ready[tray], str)}
    story.lost = {tray: f"it took no part: {why}" for tray in context.trays if (why := unfit(context, ready[tray]))}
    trays = [tray for tray in context.trays if tray not in story.lost]
    first = names(context)[0]
    doors = {tray: _doors(ready[tray][first]) for tray in trays}
    shared = set.intersection(*map(set, doors.values())) if doors else set()
    shared &= {plan.socket_ifname} if plan.socket_ifname else shared
    if not trays:
        story.why = "NCCL can be started on no tray"
    elif not shared:
        story.why = "the trays share no interface" + (f" {plan.socket_ifname}" if plan.socket_ifname else "")
    else:
        ways = {tray: [doors[other][name] for other in trays if other != tray for name in sorted(shared)] for tray in trays}
        reached = yield from ask([_reach(tray, first, ways[tray]) for tray in trays])
        missing = {name: _missing(trays, doors, reached, first, name) for name in sorted(shared)}
        story.ifname = next((name for name in sorted(shared) if not missing[name]), "")
        if not story.ifname:
            story.why = "no interface by which all trays reach each other: " + "; ".join(next(iter(missing.values()))[:5])
    return trays


def _doors(body: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Where a process listens, by interface; what cannot be read is left out."""
    doors = body.get("interfaces")
    return {
        str(name): (str(door[0]), door[1])
        for name, door in (doors.items() if isinstance(doors, dict) else ())
        if isinstance(door, list) and len(door) == 2 and isinstance(door[1], int)
    }


def _reach(tray: str, gpu: str, ways: list[tuple[str, int]]) -> Order:
    return Order(tray, "tell", {"job": "nccl-0", "bodies": {gpu: {"reach": [list(way) for way in ways]}}}, timeout_s=120)


def _missing(
    trays: list[str], doors: dict[str, dict[str, tuple[str, int]]], reached: dict[str, Any], gpu: str, name: str
) -> list[str]:
    """Who does not reach whom on an interface."""
    out = []
    for tray in trays:
        body = reached[tray]
        said = body.get(gpu) if isinstance(body, dict) else None
        got = said.get("reached") if isinstance(said, dict) else None
        there = {(way[0], way[1]) for way in got if isinstance(way, list) and len(way) == 2} if isinstance(got, list) else set()
        out += [
            f"{tray} does not reach {other} on {name}" for other in trays if other != tray and doors[other][name] not in there
        ]
    return out


class _Teller:
    """The story from the whole on."""

    def __init__(self, context: Context, plan: Plan, story: Story) -> None:
        self._context, self._plan, self._story = context, plan, story
        limit = context.limits.get(SLOWER)
        self._slower = limit.max if limit is not None else None
        self._tried: list[Group] = []
        self._shared: list[Trays] = []
        """Bad groups of the second wave with a tray of another bad one: searched only through that one."""

    def _try(self, groups: Sequence[tuple[Trays, Op]]) -> Trying:
        self._story.attempts += 1
        self._story.jobs |= {tray: f"nccl-{self._story.attempts}" for trays, _ in groups for tray in trays}
        done = yield from attempt(self._context, self._plan, groups, self._story.attempts, self._story.ifname)
        void = {tray: why for group in done for tray, why in group.void.items()}
        if void:
            self._story.lost |= {tray: f"it was not measured: {why}" for tray, why in void.items()}
            raise Void("not measured: " + "; ".join(f"{tray}: {why}" for tray, why in sorted(void.items())))
        return done

    def whole(self, trays: list[str]) -> Telling:
        """The groups that were asked for; trays that are left over meet some that had their turn, in a second wave."""
        per_tray = len(names(self._context))
        size = len(trays) if self._plan.gpus == "all" else max(1, self._plan.gpus // per_tray)
        if size > len(trays):
            raise Void(f"a group of {self._plan.gpus} GPUs needs {size} trays; {len(trays)} can take part")
        waves = [[tuple(trays[i : i + size]) for i in range(0, len(trays) - size + 1, size)]]
        waves += [[tuple(trays[-size:])]] if len(trays) % size else []
        done: list[Group] = []
        for wave in waves:
            done += yield from self._try([(group, self._plan.op) for group in wave])
        self._story.whole = done
        family = self._family(done)
        for group in self._story.whole:
            kinds = {kind for kind, bad in _kinds(self._context, self._plan, group).items() if bad}
            kinds |= {"slow"} if family is not None and not group.failed and group.slowest.busbw_gbps < family else set()
            self._story.kinds |= kinds
            apart = not {tray for bad in self._story.bad for tray in bad} & set(group.trays)
            self._story.bad += [group.trays] if kinds and apart else []
            self._shared += [group.trays] if kinds and not apart else []

    def _bad(self, groups: Sequence[Group]) -> list[bool]:
        """Which of these, tried beside each other, are bad in the way that the whole was."""
        self._tried += groups
        out = []
        for group in groups:
            kinds = _kinds(self._context, self._plan, group)
            usual = self._usual(group)
            if not group.failed and self._slower is not None and usual is not None:
                kinds["slow"] = kinds["slow"] or group.slowest.busbw_gbps < usual * (1 - self._slower)
            out.append(any(bad for kind, bad in kinds.items() if kind in self._story.kinds or kind == "failed"))
        return out

    def _family(self, groups: Sequence[Group]) -> float | None:
        """Below it, one of equal groups is slow beside the rest: by what they may differ by, and out of their spread. None
        where they are too few; nor of matrices, whose least transfer is one of many."""
        speeds = [group.slowest.busbw_gbps for group in groups if not group.failed]
        if self._slower is None or len(speeds) < _FAMILY or self._plan.op == "pairs":
            return None
        usual = median(speeds)
        return usual - max(usual * self._slower, _OUT * median(abs(speed - usual) for speed in speeds))

    def _usual(self, group: Group) -> float | None:
        """The best of equally large groups that were tried, else of those nearest in size; None where there is none."""
        beside = [g for g in self._tried if g is not group and g.op == group.op and not g.failed]
        apart = [abs(len(g.trays) - len(group.trays)) for g in beside]
        least = min(apart, default=_NEAR + 1)
        return None if least > _NEAR else max(g.slowest.busbw_gbps for g, d in zip(beside, apart, strict=True) if d == least)

    def bisect(self) -> Telling:
        """From bad groups to what makes them bad, and whether that holds."""
        story = self._story
        good = [group.trays for group in story.whole if group.trays not in (*story.bad, *self._shared)]
        found = story.bisection = Bisection.of(story.bad, good)
        by_itself: Op = "alltoall" if self._plan.op == "pairs" else self._plan.op
        while trials := found.trials():
            groups: list[tuple[Trays, Op]] = [(t.trays, "alltoall" if t.way[1] else by_itself) for t in trials]
            done = yield from self._try([*groups, *self._control(groups, found.good)])
            found.learn(trials, self._bad(done)[: len(trials)])
        story.unsearched = [group for group in self._shared if not any(set(group) & set(c) for c in found.culprits)]
        for culprit in found.culprits:
            good_ones = sorted(found.good, reverse=True)
            yield from self._one(culprit, good_ones, by_itself) if len(culprit) == 1 else self._pair(culprit, good_ones)

    def _control(self, groups: list[tuple[Trays, Op]], good: set[str]) -> list[tuple[Trays, Op]]:
        """A group of good trays beside a lone one, so that slow has something to be slower than."""
        spare = sorted(good - {tray for trays, _ in groups for tray in trays})
        (trays, op) = groups[0]
        lone = "slow" in self._story.kinds and len(groups) == 1
        return [(tuple(spare[: len(trays)]), op)] if lone and len(spare) >= len(trays) else []

    def _one(self, culprit: Trays, good: list[str], op: Op) -> Telling:
        """A tray beside a good one, against two good ones."""
        if len(good) < 2:
            why = f"{culprit[0]} was bad alone, but there are no two good trays to hold it against"
            self._story.named.append(Named(culprit, False, why))
            return
        suspected, control = (culprit[0], good[0]), (good[1], good[2]) if len(good) > 2 else (good[0], good[1])
        if len(good) > 2:
            done = yield from self._try([(suspected, op), (control, op)])
        else:  # the same good tray is in both: one after the other
            done = yield from self._try([(suspected, op)])
            done += yield from self._try([(control, op)])
        bad, beside = self._bad(done)
        slower = None if done[0].failed or done[1].failed else 1 - done[0].slowest.busbw_gbps / done[1].slowest.busbw_gbps
        words = f"with {suspected[1]} it is {'bad' if bad else 'good'} again, {' with '.join(control)} without it"
        why = f"{words} {'bad too' if beside else 'good'}"
        self._story.named.append(Named(culprit, bad and not beside, why, done[0], slower))

    def _pair(self, culprit: Trays, good: list[str]) -> Telling:
        """Both ends with others, and then with each other, pair of GPUs by pair."""
        one, other = culprit
        if len(good) < 2:
            why = f"{one} and {other} are bad together, but there are no two good trays to hold them against"
            self._story.named.append(Named(culprit, False, why))
            return
        done = yield from self._try([((one, good[0]), "alltoall"), ((other, good[1]), "alltoall")])
        apart = self._bad(done)
        (matrix,) = yield from self._try([(culprit, "pairs")])
        pairs = broken_pairs(self._context, matrix, self._slower)
        words = ", ".join(f"{source} > {target}" for source, target in pairs) or "no ordered pair of GPUs shows it"
        why = f"each is {'bad' if any(apart) else 'good'} with others, together they are not: {words}"
        self._story.named.append(Named(culprit, bool(pairs) and not any(apart), why, matrix, None, pairs))


def limit_name(plan: Plan, op: str, gpus: int) -> str:
    """The profile's limit of a group's bandwidth: NVLink and the bare network have their own."""
    return f"collective.{op}.{gpus}gpu.{'' if plan.nvlink else 'net.'}busbw"


def _kinds(context: Context, plan: Plan, group: Group) -> dict[str, bool]:
    """In which ways a group is bad by itself."""
    limit = context.limits.get(limit_name(plan, group.op, len(group.told)))
    least = limit.min if limit is not None else None
    slow = not group.failed and least is not None and group.slowest.busbw_gbps < least
    return {"failed": group.failed, "wrong": bool(group.wrong), "slow": slow}


def broken_pairs(context: Context, group: Group, slower: float | None) -> tuple[tuple[str, str], ...]:
    """Ordered pairs of GPUs that a group's matrix shows broken: where it stood still first, else what is wrong or slow at
    both ends. A transfer has two ends and one time; it is never one end's alone."""
    parts = [one.part for one in group.told]

    def named(source: int, target: int) -> tuple[str, str] | None:
        return (parts[source], parts[target]) if 0 <= source < len(parts) and 0 <= target < len(parts) else None

    stood = sorted(one.at for one in group.told if one.failed and one.at is not None)
    if group.failed:
        found = {named(source, target) for step, source, target in stood if step == stood[0][0]}
    else:
        speeds: dict[tuple[int, int], list[float]] = {}
        found = {named(row[0], row[1]) for one in group.told for row in one.pairs if row[3]}
        for one in group.told:
            for source, target, gbps, _ in one.pairs:
                speeds.setdefault((source, target), []).append(gbps)
        usual = median(max(both) for both in speeds.values()) if speeds else 0.0
        if slower is not None:
            found |= {named(*way) for way, both in speeds.items() if max(both) < usual * (1 - slower)}
    return tuple(sorted(pair for pair in found if pair is not None))
