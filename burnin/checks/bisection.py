"""Which trays, or which pair of trays, make a group go bad: what to try next, and what the outcomes say. Pure.

A group that went bad is halved, and both halves are tried at once. A bad half goes on alone. Where both halves are good, no
tray is bad by itself but something between the two is: then parts of both sides meet crosswise, every way that is left at
once, so that each round halves both sides again. Of 18 trays a bad one is alone after 5 rounds, a bad pair after 6 at most.

Groups that are tried together are disjoint, and as large as the largest of them as far as good trays can fill them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Trays = tuple[str, ...]
Way = tuple[Trays, Trays]
"""(group, ()): this group is bad by itself. (one, other): trays of both are needed, for each side alone is good."""


@dataclass(frozen=True, slots=True)
class Case:
    """A group that was seen going bad, and the ways that may explain it. `seen`: the only way is the group itself."""

    group: Trays
    ways: tuple[Way, ...]
    seen: bool

    @property
    def suspects(self) -> set[str]:
        """Trays that no trial has cleared yet."""
        return {tray for way in self.ways for side in way for tray in side}


@dataclass(frozen=True, slots=True)
class Trial:
    """One group to try: `core` is what is asked about, `trays` is it and those that fill it up."""

    core: Trays
    trays: Trays
    way: Way


@dataclass(slots=True)
class Bisection:
    """`culprits`: one tray, or two that are bad only together. `unexplained`: nothing of it went bad any more."""

    cases: list[Case] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    culprits: list[Trays] = field(default_factory=list)
    unexplained: list[Trays] = field(default_factory=list)
    rounds: int = 0

    @classmethod
    def of(cls, bad: Sequence[Trays], good: Sequence[Trays]) -> Bisection:
        """These groups went bad, those went well."""
        found = cls(good={tray for group in good for tray in group})
        found._settle([Case(group, ((group, ()),), seen=True) for group in bad])
        return found

    def trials(self) -> list[Trial]:
        """What to try next, all at once; nothing when all is explained or cannot be."""
        cores = [part for case in self.cases for way in case.ways for part in _split(way)]
        spare = sorted(self.good - {tray for core, _ in cores for tray in core})
        size = max([2, *(len(core) for core, _ in cores)])
        out = []
        for core, way in cores:
            missing = size - len(core)
            out.append(Trial(core, (*core, *spare[:missing]), way))
            spare = spare[missing:]
        return out

    def learn(self, trials: Sequence[Trial], bad: Sequence[bool]) -> None:
        """Take the outcomes of all of `trials()`, in their order."""
        self.rounds += 1
        outcome = {trial.way: was_bad for trial, was_bad in zip(trials, bad, strict=True)}
        self.good.update(tray for trial in trials if not outcome[trial.way] for tray in trial.trays)
        cases: list[Case] = []
        for case in self.cases:
            worse = [part for way in case.ways for _, part in _split(way) if outcome[part]]
            left = tuple(rest for way in case.ways for rest in _left(way))
            if worse:
                cases += [Case((*way[0], *way[1]), (way,), seen=True) for way in worse]
            elif left:
                cases.append(Case(case.group, left, seen=False))
            else:
                self.unexplained.append(case.group)
        self._settle(cases)

    def _settle(self, cases: Sequence[Case]) -> None:
        """Set aside what is explained; who is still suspected is not good."""
        alone = [case for case in cases if case.seen and len(case.ways[0][0]) == 1 and len(case.ways[0][1]) <= 1]
        self.culprits += [case.group for case in alone]
        self.cases = [case for case in cases if case not in alone]
        self.good -= {tray for case in cases for tray in case.suspects}
        self.good -= {tray for culprit in self.culprits for tray in culprit}


def _halves(group: Trays) -> tuple[Trays, Trays]:
    middle = (len(group) + 1) // 2
    return group[:middle], group[middle:]


def _quarters(one: Trays, other: Trays) -> tuple[Trays, Trays]:
    """Halves of the other side, the larger one where one side's is the smaller: groups of one round stay equally large."""
    larger, smaller = _halves(other)
    even = len(one) % 2 == 0 or len(other) % 2 == 0 or len(other) < 2 or len(one) < 2
    return (larger, smaller) if even else (other[: len(smaller)], other[len(smaller) :])


def _split(way: Way) -> list[tuple[Trays, Way]]:
    """The smaller groups that are tried of a way, and what each would mean if it went bad."""
    one, other = way
    if not other:
        return [(half, (half, ())) for half in _halves(one)]
    if len(one) == len(other) == 1:
        return [((*one, *other), way)]
    return [((*a, *b), (a, b)) for a, b in zip(_halves(one), _quarters(one, other), strict=True) if a and b]


def _left(way: Way) -> list[Way]:
    """What still may explain it, when none of `_split` went bad."""
    one, other = way
    if not other:
        return [_halves(one)]
    if len(one) == len(other) == 1:
        return []
    (a1, a2), (b1, b2) = _halves(one), _quarters(one, other)
    return [(a, b) for a, b in ((a1, b2), (a2, b1)) if a and b]
