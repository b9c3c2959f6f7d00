"""All NVLinks of a run in one table, from both ends, as its last `link-ends` step read them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from burnin.assess.case import Case
from burnin.assess.steps import given
from burnin.assess.went import last
from burnin.checks import link_ends
from burnin.checks.base import RACK
from burnin.checks.link_table import End, Row
from burnin.errors import InputError
from burnin.events import Result
from burnin.suites.schema import Stage, Step

NAME = link_ends.CHECK.name


@dataclass(frozen=True, slots=True)
class Links:
    """The table; `stage` is whose readings they are, `whys` says what is missing from it and why."""

    stage: str
    rows: tuple[Row, ...]
    whys: tuple[str, ...]

    def count(self, result: Result) -> int:
        """Rows of one result."""
        return sum(row.result is result for row in self.rows)


def links(case: Case) -> Links:
    """Where no switch tray was asked, the GPUs' ends alone. Raises InputError where the profile knows no NVLinks."""
    count = case.profile.topology.links_per_gpu
    if not count:
        raise InputError(f"profile {case.profile.profile} does not say how many NVLinks a GPU has")
    stage, step, attempt = next(_tries(case), (None, Step.model_validate({"check": NAME}), 0))
    asked = stage is not None
    stage = stage or next((one for one in reversed(case.suite.stages) if _read(case, one)), None)
    if stage is None:
        raise InputError(f"run {case.run.id} has read no NVLink: no stage with a phase went through")
    rows, whys = link_ends.rows_of(*given(case, stage, last(case.stages, stage.stage), step, RACK, attempt), count)
    return Links(stage.stage, tuple(rows), tuple(whys if asked else [f"no stage of this run did {NAME}", *whys]))


def ports(case: Case) -> dict[str, str]:
    """Link -> the switch port at its other end, where the run read who is plugged where; empty where it did not."""
    count = case.profile.topology.links_per_gpu
    stage, step, attempt = next(_tries(case), (None, None, 0))
    if not count or stage is None or step is None:
        return {}
    rows, _ = link_ends.rows_of(*given(case, stage, last(case.stages, stage.stage), step, RACK, attempt), count)
    return {row.link: row.port for row in rows if row.link is not None and row.port is not None}


def _tries(case: Case) -> Iterator[tuple[Stage, Step, int]]:
    """Attempts at the check, the last one first."""
    for stage in reversed(case.suite.stages):
        for step in stage.steps:
            made = [one.attempt for one in case.attempts if (one.stage, one.name) == (stage.stage, NAME)]
            if step.check == NAME and made:
                yield stage, step, made[-1]


def _read(case: Case, stage: Stage) -> bool:
    went = last(case.stages, stage.stage)
    return stage.phase is not None and went is not None and bool(went.phase)


def document(case: Case, found: Links) -> dict[str, Any]:
    """The table for scripts: an end that was not read is null, and its row UNKNOWN."""
    return {
        "run": case.run.id, "rack": case.run.rack, "stage": found.stage,
        "links": len(found.rows), "results": {str(one): found.count(one) for one in Result}, "missing": list(found.whys),
        "rows": [
            {"link": row.link, "port": row.port, "gpu": _end(row.gpu), "switch": _end(row.switch), "result": str(row.result)}
            for row in found.rows
        ],
    }  # fmt: skip


def _end(end: End | None) -> dict[str, Any] | None:
    return None if end is None else {"up": end.up, "errors": end.errors}
