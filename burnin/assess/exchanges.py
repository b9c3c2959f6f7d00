"""What burnin's own copies and pair matrices say of bandwidth: matrices for the signatures, and every GPU's level. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from burnin.assess.case import Case
from burnin.checks import collective, copies
from burnin.checks.base import RACK, Context, Evidence
from burnin.checks.collective_story import tell
from burnin.checks.groups import Told
from burnin.events import Finding, Status
from burnin.signatures import look, matrix, work
from burnin.signatures.matrix import Matrix
from burnin.signatures.readings import Readings
from burnin.telemetry.series import Series, Stretch, Telemetry


def find(case: Case, same: bool) -> list[Finding]:
    """What `bandwidth.matrix` and `bandwidth.gpu` find in them; nothing where nothing was measured."""
    rows = {
        name: case.catalogue.signatures[name] for name in (matrix.MATRIX, work.BANDWIDTH) if name in case.catalogue.signatures
    }
    many = [one for one in measured(case) if not np.isnan(one.gbps).all()]
    out: list[Finding] = []
    if matrix.MATRIX in rows:
        out += matrix.find(many, rows[matrix.MATRIX])
    if work.BANDWIDTH in rows and many:
        readings = Readings(telemetry(many), case.profile.topology, {}, case.baseline, same)
        said = {one.part for one in out}
        out += [one for one in look(readings, {work.BANDWIDTH: rows[work.BANDWIDTH]}) if one.part not in said]
    return out


def telemetry(matrices: list[Matrix]) -> Telemetry:
    """`gpu.bandwidth` as if it had been read: one reading per matrix, each a stretch of its own."""
    readings: dict[str, list[tuple[float, float]]] = {}
    for i, one in enumerate(matrices):
        for part, value in zip(one.parts, matrix.levels(one).tolist(), strict=True):
            readings.setdefault(part, []).append((i + 0.5, value))
    series = {
        (part, "gpu.bandwidth"): Series(np.array([t for t, _ in pairs]), np.array([v for _, v in pairs]))
        for part, pairs in readings.items()
    }
    return Telemetry(series, tuple(Stretch(one.stage, "exchange", i, i + 1.0) for i, one in enumerate(matrices)))


def measured(case: Case) -> list[Matrix]:
    """In the order of the suite: of copies, the GPUs of every tray among each other; of pairs, all that took part."""
    out = []
    for stage in case.suite.stages:
        for asked in stage.steps:
            if asked.check == copies.CHECK.name:
                speeds = {ends: value for tray in case.compute for ends, value in _copied(case, stage.stage, tray)}
                out.append(_matrix(case, stage.stage, speeds))
            elif asked.check == collective.CHECK.name and asked.args.get("op") == "pairs":
                context = Context(RACK, case.rack, case.profile, case.suite, stage, case.catalogue, asked.args, case.compute)
                story, _ = tell(context, _answers(case, stage.stage, collective.CHECK.name, RACK).answers)
                whole = [group for group in story.whole if not group.failed]
                out.append(_matrix(case, stage.stage, dict(pair for group in whole for pair in _told(group.told))))
    return [one for one in out if one.parts]


def _matrix(case: Case, stage: str, speeds: dict[tuple[str, str], float]) -> Matrix:
    there = {end for ends in speeds for end in ends}
    parts = tuple(gpu for gpu in case.gpus() if gpu in there)
    place = {part: i for i, part in enumerate(parts)}
    gbps = np.full((len(parts), len(parts)), math.nan)
    for (one, other), value in speeds.items():
        if one in place and other in place:
            gbps[place[one], place[other]] = value
    return Matrix(stage, parts, gbps)


def _answers(case: Case, stage: str, check: str, part: str) -> Evidence:
    """Of the last attempt that went through."""
    tries = [a.attempt for a in case.attempts if (a.stage, a.name, a.part, a.status) == (stage, check, part, Status.COMPLETE)]
    return Evidence(answers=case.answers.get((stage, check, part, tries[-1]), ()) if tries else ())


def _copied(case: Case, stage: str, tray: str) -> Iterator[tuple[tuple[str, str], float]]:
    for answers in _answers(case, stage, copies.CHECK.name, tray).answers:
        for answer in answers:
            said = answer.body if answer.ok and isinstance(answer.body, dict) else {}
            for one, message in said.items():
                peers = message.get("peers") if isinstance(message, dict) else None
                for other in peers if isinstance(peers, dict) else ():
                    speed = copies.gbps(message, "peers", other)
                    if isinstance(speed, float):
                        yield (f"{tray}.{one}", f"{tray}.{other}"), speed


def _told(told: tuple[Told, ...]) -> Iterator[tuple[tuple[str, str], float]]:
    parts = [one.part for one in told]
    for one in told:
        for source, target, gbps, _ in one.pairs:
            if 0 <= source < len(parts) and 0 <= target < len(parts) and 0 < gbps < math.inf:
                yield (parts[source], parts[target]), gbps
