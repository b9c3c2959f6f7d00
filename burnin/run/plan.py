"""What is owed: suite x rack -> the stages to run, on which parts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from burnin.checks.base import Check
from burnin.errors import InputError
from burnin.rack.parts import unfold
from burnin.rack.schema import Profile, Rack
from burnin.suites.schema import Stage, Step, Suite


@dataclass(frozen=True, slots=True)
class Leg:
    """One stage with what is left of its steps, and its number in the suite."""

    index: int
    stage: Stage
    steps: tuple[Step, ...]
    trays: tuple[str, ...] | None = None
    """Compute trays that it is done on; None: on all of the run."""
    parts: Mapping[str, tuple[str, ...]] | None = None
    """Check -> what it is done on; None: on all that it is for."""
    own_s: float = 0.0
    """About how long its checks work by themselves, after the stage's own time."""

    def on(self, check: str, all_of: Sequence[str]) -> list[str]:
        """What a check of this leg is done on, of all that it is for."""
        return [part for part in all_of if self.parts is None or part in self.parts.get(check, ())]


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole of a run. `whole` False: parts or checks were left out, so a PASS ships nothing."""

    legs: tuple[Leg, ...]
    trays: tuple[str, ...]
    switches: tuple[str, ...]
    whole: bool

    def seconds(self, when: Literal["always", "suspect"] = "always") -> float:
        """Planned duration of the stages that always run, or of those that only a suspicion calls for."""
        return sum(leg.stage.duration + leg.own_s for leg in self.legs if leg.stage.when == when)

    def load_seconds(self, index: int) -> float:
        """From stage `index` to the end of the stretch of loaded stages it stands in."""
        total = 0.0
        for leg in self.legs:
            if leg.index >= index:
                if leg.stage.load is None:
                    break
                total += leg.stage.duration
        return total


def make(
    suite: Suite,
    rack: Rack,
    profile: Profile,
    checks: Mapping[str, Check],
    only: Collection[str] = (),
    parts: Collection[str] = (),
) -> Plan:
    """The plan of one run. Raises InputError for a check or part that is not there."""
    in_suite = {step.check for stage in suite.stages for step in stage.steps}
    for name in only:
        if name not in checks:
            raise InputError(f"--only {name}: there is no such check; `burnin checks` lists them")
        if name not in in_suite:
            raise InputError(f"--only {name}: suite {suite.suite} does not use it; it uses {', '.join(sorted(in_suite))}")
    chosen = _parts(parts, rack)
    legs: list[Leg] = []
    for index, stage in reversed(list(enumerate(suite.stages))):
        steps = tuple(step for step in stage.steps if not only or step.check in only)
        if steps or _leads_up(stage, index, legs):
            own_s = sum(checks[step.check].seconds(profile, step.args) for step in steps)
            legs.insert(0, Leg(index, stage, steps, own_s=own_s))
    trays = tuple(part for part in rack.compute() if not chosen or part in chosen)
    switches = tuple(part for part in rack.switches() if not chosen or part in chosen)
    wanted = [*profile.topology.trays(), *profile.topology.switches()]
    missing = [part for part in wanted if part not in rack.trays]
    return Plan(tuple(legs), trays, switches, whole=not only and not chosen and not missing)


def goes_on(plan: Plan, index: int, planned_s: float) -> Plan | None:
    """The same, beginning with a stage that is under way, without the ramps to it; None where it is not owed."""
    at = next((i for i, leg in enumerate(plan.legs) if leg.index == index), None)
    if at is None:
        return None
    under_way = replace(plan.legs[at], stage=plan.legs[at].stage.model_copy(update={"duration": planned_s}))
    before = [leg for leg in plan.legs[:at] if leg.parts is not None]
    return replace(plan, legs=(under_way, *before, *plan.legs[at + 1 :]))


def _leads_up(stage: Stage, index: int, later: Sequence[Leg]) -> bool:
    """A ramp stays even when its own checks are left out: without it the load behind it would come in one step."""
    return stage.load is not None and bool(later) and later[0].index == index + 1 and later[0].stage.load is not None


def _parts(parts: Collection[str], rack: Rack) -> set[str]:
    out: set[str] = set()
    for word in parts:
        try:
            names = unfold(word)
        except ValueError as error:
            raise InputError(f"--parts {word}: {error}") from None
        for name in names:
            if name not in rack.trays:
                raise InputError(f"--parts {word}: {name} is no tray of rack {rack.rack}")
            out.add(name)
    return out
