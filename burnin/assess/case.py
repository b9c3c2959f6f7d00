"""All the evidence of one run, out of the database: what judging is given, whoever asks and whenever.

The run's own copies of rack, profile, suite and catalogue are used, never today's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from burnin.assess import went
from burnin.assess.domain import counts, gone_until
from burnin.checks import CHECKS
from burnin.checks.base import Answer, Order
from burnin.events import LogLine, Status, TrayState
from burnin.rack.schema import Catalogue, Profile, Rack
from burnin.signatures.baseline import Baseline
from burnin.store import Store
from burnin.store.records import Attempt, Run, Session, Stage, Voided
from burnin.suites.schema import Suite
from burnin.telemetry.series import Series, Telemetry


@dataclass(frozen=True, slots=True)
class Case:
    """One run's evidence. `answers`: (stage, check, part, attempt) -> rounds of answers; `identities`: tray -> identify."""

    run: Run
    rack: Rack
    profile: Profile
    suite: Suite
    catalogue: Catalogue
    versions: Mapping[str, str]
    trays: tuple[str, ...]
    only: tuple[str, ...]
    identities: Mapping[str, Mapping[str, Any]]
    stages: tuple[Stage, ...]
    attempts: tuple[Attempt, ...]
    answers: Mapping[tuple[str, str, str, int], tuple[tuple[Answer, ...], ...]]
    telemetry: Telemetry
    log: tuple[LogLine, ...]
    states: tuple[TrayState, ...]
    sessions: tuple[Session, ...] = ()
    voided: tuple[Voided, ...] = ()
    baseline: Baseline | None = None

    def gpus(self) -> list[str]:
        """Every GPU that this run was about."""
        return [gpu for tray in self.compute for gpu in self.profile.topology.gpus(tray)]

    @property
    def compute(self) -> tuple[str, ...]:
        """The compute trays that this run was about."""
        return tuple(tray for tray in self.trays if tray.startswith("t"))


def gather(store: Store, run_id: str) -> Case:
    """Everything about one run. Raises InputError when there is no such run, StoreError when it cannot be read."""
    run = store.run(run_id)
    config = store.config(run.id)
    suite, catalogue = Suite.model_validate(config["suite"]), Catalogue.model_validate(config["catalogue"])
    answers: dict[tuple[str, str, str, int], dict[int, list[Answer]]] = {}
    for one in store.evidence(run.id):
        rounds = answers.setdefault((one.stage, one.step, one.part, one.attempt), {})
        asked = one.body
        order = Order(asked.get("to", one.part), one.kind, asked.get("args", {}), asked.get("via", "agent"))
        rounds.setdefault(one.round, []).append(Answer(order, one.body["ok"], one.body["body"]))
    voided, rows, trays = store.voided(run.id), tuple(store.stages(run.id)), tuple(config["plan"]["trays"])
    telemetry = store.telemetry(run.id, metrics=_needed(suite, catalogue))
    compute = [tray for tray in trays if tray.startswith("t")]
    return Case(
        run=run,
        rack=Rack.model_validate(config["rack"]),
        profile=Profile.model_validate(config["profile"]),
        suite=suite,
        catalogue=catalogue,
        versions=config["versions"],
        trays=trays,
        only=tuple(config["plan"]["only"]),
        identities={tray.part: tray.identity for tray in store.trays(run.id) if tray.identity},
        stages=rows,
        attempts=tuple(one for one in store.attempts(run.id) if counts(one, voided)),
        answers={key: tuple(tuple(rounds[i]) for i in sorted(rounds)) for key, rounds in answers.items()},
        telemetry=replace(telemetry, series=_present(telemetry, voided), stretches=went.stretches(suite, rows, compute, voided)),
        log=tuple(line for line in store.log(run.id) if line.t_s >= gone_until(line.part, voided)),
        states=tuple(one for one in store.states(run.id) if one.t_s >= gone_until(one.tray, voided)),
        sessions=tuple(store.sessions(run.id)),
        voided=tuple(voided),
        baseline=Baseline.model_validate(config["baseline"]) if config.get("baseline") else None,
    )


def _present(telemetry: Telemetry, voided: list[Voided]) -> dict[tuple[str, str], Series]:
    """Readings of the parts that are in the rack now."""
    out = dict(telemetry.series)
    for (part, metric), one in telemetry.series.items() if voided else ():
        if (since := gone_until(part, voided)) > 0:
            out[part, metric] = one.between(since, float("inf"))
    return out


def _needed(suite: Suite, catalogue: Catalogue) -> set[str]:
    """The metrics that judging looks at: what checks and signatures read, and what must be covered."""
    read = {metric for check in CHECKS.values() for metric in (*check.metrics, *check.explains)}
    return read | {s for row in catalogue.signatures.values() for s in row.signals} | set(suite.coverage.metrics)


def last_state(case: Case, tray: str, until_s: float = float("inf")) -> TrayState | None:
    """What the tray was at that time of the run; `done` at a run's end says nothing about it."""
    before = [s for s in case.states if s.tray == tray and s.t_s <= until_s and s.state != "done"]
    return before[-1] if before else None


def row_of(case: Case, stage: str, part: str) -> Stage | None:
    """How the stage went that this tray (or the rack) is judged on."""
    return went.judged(case.stages, stage, part, case.voided) if part in case.compute else went.last(case.stages, stage)


def ended(stage: Stage) -> bool:
    """True when the stage went through."""
    return stage.t1_s is not None and stage.status is Status.COMPLETE
