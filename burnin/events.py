"""What flows through burnin: frozen records, nothing else.

Up the line, from trays:      Tick (readings of one moment), LogLine (XIDs, kernel log, what the agent noticed), TrayState
From judging:                 Measurement, Finding, Hold, Step, Coverage, Verdict
Around them, from the run:    StageBegan, StageEnded

Words are those of OCP Test & Validation: a step's *status* says whether it ran, its *result* what it showed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Did it run."""

    COMPLETE = "COMPLETE"
    ERROR = "ERROR"
    SKIPPED = "SKIPPED"
    ABORTED = "ABORTED"


class Result(StrEnum):
    """What it showed. UNKNOWN is never PASS."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class Severity(StrEnum):
    """How much a finding weighs: FAIL condemns the part, HOLD stops the rack, WATCH is written down."""

    FAIL = "FAIL"
    HOLD = "HOLD"
    WATCH = "WATCH"


class Word(StrEnum):
    """The three things that can be said about a rack."""

    PASS = "PASS"
    HOLD = "HOLD"
    FAIL = "FAIL"


REASONS = ("not_supported", "no_permission", "lost", "hung", "missing", "not_attained")
"""Why a value is null."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Readings of one tray at one moment.

    `t_s`: seconds since the run began (controller's monotonic time); `values[i]` belongs to `columns[i]`, a
    (part, metric); None = not read, and `absent[i]` says why when the agent knows.
    """

    tray: str
    t_s: float
    columns: tuple[tuple[str, str], ...]
    values: tuple[float | None, ...]
    absent: Mapping[int, str] = field(default_factory=dict)
    seq: int | None = None
    """Number of the agent's record."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something that happened at a moment: `kind` xid | kernel | cut | load | link | note; `code` its number or word.

    `seq`: number of the agent's record; None for what the controller itself noticed.
    """

    part: str
    t_s: float
    kind: str
    code: str
    text: str
    source: str
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """The agent that a tray's records come from from now on: `holder` numbers them from 0."""

    tray: str
    t_s: float
    holder: str


@dataclass(frozen=True, slots=True)
class TrayState:
    """What the run knows of a tray: state is connecting | ready | LOST | busy | refused | done."""

    tray: str
    t_s: float
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class StageBegan:
    """A stage started. `planned_s` is how long it should take; `trays` on which, None for all of the run."""

    index: int
    name: str
    phase: str
    planned_s: float
    t_s: float
    trays: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage is over; `status` COMPLETE, SKIPPED (not needed, not allowed) or ABORTED."""

    index: int
    name: str
    t_s: float
    status: Status
    why: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One judged value. `value` is None when UNKNOWN, and then `reason` says why; `limit` is readable: `>= 5 Cel`."""

    name: str
    part: str
    value: float | str | None
    unit: str
    limit: str
    result: Result
    reason: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A part that is weak or suspicious, how it showed, and what to do."""

    part: str
    signature: str
    severity: Severity
    value: float | None
    limit: float | None
    unit: str
    why: str
    action: str
    fru: str = ""
    serial: str = ""
    slot: str = ""
    statistic: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the rack cannot pass although no part is condemned. `kind`: unmeasured | suspect | aborted."""

    kind: str
    part: str
    why: str
    next: str


@dataclass(frozen=True, slots=True)
class Step:
    """One check on one tray (or the rack) in one stage."""

    name: str
    stage: str
    part: str
    status: Status
    result: Result
    attempts: int
    measurements: tuple[Measurement, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Slots (part, required metric, phase): how many were required, how many measured, and which are missing."""

    required: int
    measured: int
    missing: tuple[tuple[str, str, str], ...] = ()

    @property
    def fraction(self) -> float:
        """1.0 when nothing was required."""
        return self.measured / self.required if self.required else 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said about the rack, with every reason, whatever the word."""

    run: str
    rack: str
    profile: str
    suite: str | None
    ships: bool
    whole: bool
    word: Word
    started: str | None
    ended: str | None
    coverage: Coverage
    findings: tuple[Finding, ...]
    holds: tuple[Hold, ...]
    steps: tuple[Step, ...]
    waivers: tuple[Mapping[str, str], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    sessions: tuple[Mapping[str, Any], ...] = ()
    """Stretches in which a controller lived, and what was replaced between them; empty when there was but one."""
