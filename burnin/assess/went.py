"""Which of a stage's stretches is judged, tray by tray: a stage may have been cut and run again, or run again on one tray. Pure.

The last one that went through counts. One that was cut counts only while there is none that went through; what was measured
bad in it is not forgotten (`cut`). A suite may say that a stage which was cut owes only its rest (`cut: rest`): then
its time is that of all stretches, and its statistics are those of the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from burnin.assess.domain import tray_since
from burnin.events import LogLine, Status
from burnin.rack.parts import tray_of
from burnin.store.records import Session, Voided
from burnin.store.records import Stage as Went
from burnin.suites.schema import Stage, Suite
from burnin.telemetry.series import Stretch


def _of(rows: Iterable[Went], stage: str, tray: str, voided: Sequence[Voided]) -> list[Went]:
    """The stage's rows that are about this tray as it is now, in order."""
    since = tray_since(tray, voided)
    return [row for row in rows if row.name == stage and (row.trays is None or tray in row.trays) and row.t0_s >= since]


def judged(rows: Sequence[Went], stage: str, tray: str, voided: Sequence[Voided]) -> Went | None:
    """The stretch that a tray's checks are judged on: the last that went through, else the last there is."""
    mine = _of(rows, stage, tray, voided)
    through = [row for row in mine if row.status is Status.COMPLETE]
    return (through or mine)[-1] if mine else None


def last(rows: Sequence[Went], stage: str) -> Went | None:
    """What became of a stage in the end, whatever its trays: the last that went through, else the last there is."""
    mine = [row for row in rows if row.name == stage]
    through = [row for row in mine if row.status is Status.COMPLETE]
    return (through or mine)[-1] if mine else None


def cut(rows: Sequence[Went], stage: str, tray: str, voided: Sequence[Voided]) -> list[Went]:
    """Stretches that were cut before the one that is judged."""
    one = judged(rows, stage, tray, voided)
    return [row for row in _of(rows, stage, tray, voided) if row is not one and row.phase is not None and row.t1_s is not None]


def proven_s(rows: Sequence[Went], stage: Stage, tray: str, voided: Sequence[Voided]) -> float:
    """Seconds beyond settling that a tray has of this stage, over all its stretches."""
    mine = [row for row in _of(rows, stage.stage, tray, voided) if row.phase is not None and row.t1_s is not None]
    return sum(max(0.0, (row.t1_s or 0.0) - row.t0_s - stage.settle) for row in mine)


def kept_off(log: Iterable[LogLine], rows: Sequence[Went], sessions: Sequence[Session]) -> list[LogLine]:
    """Interlocks that kept something from load in a stage (the line's source), where no later session did that stage again.
    Lines of "controller" are of what burned already, or of an older burnin: of those, what was bad counts."""
    out = []
    for line in log:
        if line.kind == "interlock" and line.code in ("bad", "unread") and (line.code, line.source) != ("unread", "controller"):
            later = min((session.t0_s for session in sessions if session.t0_s > line.t_s), default=math.inf)
            tray = tray_of(line.part)
            again = (row for row in rows if row.name == line.source and row.t0_s >= later and row.status is Status.COMPLETE)
            if not any(row.trays is None or tray in row.trays or tray == line.part == "rack" for row in again):
                out.append(line)
    return out


def cut_off(log: Iterable[LogLine], rows: Sequence[Went], voided: Sequence[Voided]) -> dict[tuple[str, str], LogLine]:
    """(stage, GPU) -> the line of an agent that ended its load in the stretch which is judged, as nobody was heard or no margin
    was read: it says nothing of the GPU. What got hot, or failed, does."""
    found: dict[tuple[str, str], LogLine] = {}
    for line in log:
        if line.kind == "cut" and line.code in ("lease", "sensor"):
            for row in rows:
                within = row.t1_s is not None and row.t0_s <= line.t_s < min(row.t1_s, row.t0_s + row.planned_s) - 1.0
                if within and row is judged(rows, row.name, tray_of(line.part), voided):
                    found.setdefault((row.name, line.part), line)
    return found


def stretch(stage: Stage, row: Went | None) -> Stretch | None:
    """One row as statistics see it."""
    if row is None or row.t1_s is None or row.phase is None:
        return None
    return Stretch(stage.stage, row.phase, row.t0_s, row.t1_s, stage.settle)


def stretches(suite: Suite, rows: Sequence[Went], trays: Sequence[str], voided: Sequence[Voided]) -> tuple[Stretch, ...]:
    """One stretch per stage that had a phase: when most trays went through it, and when the others did."""
    out = []
    for stage in suite.stages:
        found = {tray: judged(rows, stage.stage, tray, voided) for tray in trays}
        by_tray = {tray: one for tray, row in found.items() if (one := stretch(stage, row)) is not None}
        if by_tray:
            spans = list(by_tray.values())
            usual = max(spans, key=spans.count)
            own = tuple((tray, one.t0_s, one.t1_s) for tray, one in by_tray.items() if one != usual)
            absent = tuple((tray, usual.t0_s, usual.t0_s) for tray in trays if tray not in by_tray)
            out.append(Stretch(usual.stage, usual.phase, usual.t0_s, usual.t1_s, usual.settle_s, own + absent))
    return tuple(sorted(out, key=lambda one: one.t0_s))
