"""A firmware baseline from a run that was good: what all parts said alike. Pure."""

from __future__ import annotations

from burnin.assess.case import Case
from burnin.assess.steps import given
from burnin.assess.went import last
from burnin.checks import configuration, firmware
from burnin.checks.alike import Found
from burnin.checks.base import RACK, Check, Context, Evidence
from burnin.errors import InputError
from burnin.events import Measurement
from burnin.rack.schema import FirmwareBaseline


def baseline(case: Case) -> FirmwareBaseline:
    """Raises InputError where a part was not read, or parts differ: what is not the same everywhere is no baseline."""
    found: dict[str, Found] = {}
    unread: list[Measurement] = []
    if (asked := _given(case, firmware.CHECK)) is not None:
        found["bmc"], missed = firmware.read(*asked)
        unread += missed
    if (asked := _given(case, configuration.CHECK)) is not None:
        others, missed = configuration.read(*asked)
        found |= others
        unread += missed
    if not any(found.values()) and not unread:
        raise InputError(f"run {case.run.id} did neither `firmware` nor `configuration`: it says nothing of versions")
    if unread:
        raise InputError(f"run {case.run.id} has not read everything: {unread[0].part}: {unread[0].why}")
    differ = [
        f"{name} of {kind}s ({len(said)} different)"
        for kind, values in found.items()
        for name, parts in values.items()
        if len(said := set(parts.values())) > 1
    ]
    if differ:
        raise InputError(f"run {case.run.id}: not the same everywhere: {', '.join(differ[:12])}; `burnin show` names the parts")
    alike = {kind: {name: next(iter(parts.values())) for name, parts in values.items()} for kind, values in found.items()}
    stated = {kind: {name: says for name, says in values.items() if says is not None} for kind, values in alike.items()}
    made = f"rack {case.run.rack}, run {case.run.id}"
    return FirmwareBaseline(
        baseline=f"{case.profile.profile}-{case.run.id}", profile=case.profile.profile, made_from=made, **stated
    )


def _given(case: Case, check: Check) -> tuple[Context, Evidence] | None:
    """What the last step of this check was given; None where the run has none."""
    for stage in reversed(case.suite.stages):
        for step in stage.steps:
            tries = [one.attempt for one in case.attempts if (one.stage, one.name) == (stage.stage, check.name)]
            if step.check == check.name and tries:
                return given(case, stage, last(case.stages, stage.stage), step, RACK, tries[-1])
    return None
