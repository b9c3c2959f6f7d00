"""Evidence -> verdict. The one way: at a run's end, in `burnin judge`, behind the gate and under every report."""

from __future__ import annotations

import math
from typing import Any

from burnin.assess import exchanges, link_view, soak
from burnin.assess import findings as found
from burnin.assess.baseline import key_of_case, said
from burnin.assess.case import Case, gather
from burnin.assess.coverage import coverage
from burnin.assess.steps import steps, unloaded
from burnin.assess.windows import Windows
from burnin.events import Finding, Severity, Verdict
from burnin.signatures import RETESTED, find
from burnin.signatures.readings import Readings
from burnin.store import Store
from burnin.verdict import fold


def judge(case: Case) -> Verdict:
    """The verdict of one run, from its evidence alone."""
    judged = steps(case)
    covered = coverage(case)
    trouble = list(found.of_trays(case))
    weak = signatures(case)
    folded = fold.findings(found.attributed([*found.of_steps(case, judged), *weak, *trouble]))
    findings = Windows(case.telemetry, case.catalogue).attached(folded)
    holds = fold.holds(
        found.holds(case, judged, covered, trouble), found.causes(case, trouble), case.profile.topology, case.compute
    )
    run = case.run
    return Verdict(
        run=run.id,
        rack=run.rack,
        profile=run.profile,
        suite=run.suite,
        ships=run.ships,
        whole=run.whole,
        word=fold.word(findings, holds, judged, covered),
        started=run.started,
        ended=run.ended or run.started,
        coverage=covered,
        findings=findings,
        holds=holds,
        steps=tuple(judged),
        waivers=run.waivers,
        versions={
            **case.versions,
            "baseline": said(case.baseline, key_of_case(case))[1],
            **soak.said(case.telemetry, case.catalogue, findings),
            **soak.felt(Readings(case.telemetry, case.profile.topology, unloaded(case)), case.catalogue),
        },
        sessions=_sessions(case),
    )


def _sessions(case: Case) -> tuple[dict[str, Any], ...]:
    """When a controller lived, what nobody looked at between, and what was replaced; of a run in one piece, nothing."""
    if len(case.sessions) < 2 and not case.voided:
        return ()
    out: list[dict[str, Any]] = []
    for before, one in zip((None, *case.sessions), case.sessions, strict=False):
        gap = one.t0_s - before.t1_s if before is not None and before.t1_s is not None else 0.0
        until = next((later.t0_s for later in case.sessions if later.t0_s > one.t0_s), math.inf)
        new = {v.part: v.why for v in case.voided if one.t0_s <= v.t_s < until}
        body = {"host": one.host, "started": one.started, "from_s": one.t0_s, "to_s": one.t1_s, "gap_s": gap, "replaced": new}
        alone = [float(line.code) for line in case.log if line.kind == "unguarded" and one.t0_s <= line.t_s < until]
        out.append({**body, "unguarded_s": sum(alone)} if alone else body)  # load went on, detached
    return tuple(out)


def signatures(case: Case) -> list[Finding]:
    """What the early-failure signatures find, with serials and slots."""
    rows = case.catalogue.signatures
    same, _ = said(case.baseline, key_of_case(case))
    ends = link_view.ports(case)
    weak = find(case.telemetry, case.profile.topology, rows, unloaded(case), case.log, case.baseline, same, ends)
    return [found.named(case, one) for one in [*weak, *exchanges.find(case, same)]]


def suspects(store: Store, run_id: str) -> list[str]:
    """Parts that a signature holds at this moment of a run and that a re-test would confirm or clear."""
    found = signatures(gather(store, run_id))
    return sorted({one.part for one in found if one.signature in RETESTED and one.severity is not Severity.WATCH})
