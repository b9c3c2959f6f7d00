"""What goes into the database and comes out of it, beside the events: frozen records, no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from burnin.events import Result, Status

RUNNING, REFUSED = "RUNNING", "REFUSED"
"""Status of a run that has not ended (also of one whose controller died), and of one whose rack another controller held."""


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run at its beginning. `started` is ISO 8601 UTC; `config` is what judging needs: rack (no secrets), profile, suite ..."""

    id: str
    rack: str
    profile: str
    suite: str | None
    ships: bool
    whole: bool
    operator: str
    started: str
    config: Mapping[str, Any]
    waivers: tuple[Mapping[str, str], ...] = ()
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands. `status` is RUNNING until `ended`; `word` is the verdict's, if one was derived."""

    number: int
    id: str
    rack: str
    profile: str
    suite: str | None
    ships: bool
    whole: bool
    operator: str
    host: str
    pid: int
    started: str
    ended: str | None
    status: str
    waivers: tuple[Mapping[str, str], ...]
    word: str | None


@dataclass(frozen=True, slots=True)
class Tray:
    """Who answered as this tray: `host_key` is a fingerprint, `identity` what the agent read (serials, slots, firmware)."""

    part: str
    address: str
    host_key: str | None = None
    serial: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as it went. `t1_s` and `status` are None while it runs; `phase` is None where nothing is sampled for it."""

    position: int
    name: str
    phase: str | None
    planned_s: float
    settle_s: float
    t0_s: float
    t1_s: float | None
    status: Status | None
    why: str
    trays: tuple[str, ...] | None = None
    """On which it was done; None: on all of the run."""


@dataclass(frozen=True, slots=True)
class Session:
    """A stretch in which one controller kept a run, from run second `t0_s`; `mono_s` is its monotonic clock then.

    `boot` and `pid_started` tell a process from another one with its number; `rack` is the rack file as it was read then.
    `t1_s` is None while it goes on; of one whose controller died it is the last moment that was kept.
    """

    host: str
    boot: str
    pid: int
    pid_started: str
    operator: str
    started: str
    mono_s: float
    t0_s: float
    rack: Mapping[str, Any] = field(default_factory=dict)
    number: int = 1
    t1_s: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """How far a tray was heard: readings up to record `seq` of `holder`, its lines up to `logged_seq`, are on the disk."""

    holder: str
    seq: int = -1
    logged_seq: int = -1


@dataclass(frozen=True, slots=True)
class Voided:
    """A part that was replaced: what was kept of it before `t_s` is another part's."""

    part: str
    t_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one check on one part in one stage; attempts count from 1 and are all kept."""

    stage: str
    name: str
    part: str
    attempt: int
    status: Status
    result: Result
    t0_s: float
    t1_s: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one round of a check brought back: text as it was, or JSON values. `step` is the check's name."""

    stage: str
    step: str
    part: str
    attempt: int
    round: int
    kind: str
    body: Any


@dataclass(frozen=True, slots=True)
class Enrollment:
    """A host key that a person accepted: for a new tray, or in place of the one with `replaced_serial`."""

    time: str
    rack: str
    part: str
    address: str
    old_fingerprint: str | None
    new_fingerprint: str
    replaced_serial: str | None
    operator: str
    host: str
