"""What a run is given, and what it gives: the job, its keeper, and what is kept of each step."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from burnin.checks.base import Answer, Order
from burnin.events import Attached, LogLine, StageBegan, StageEnded, Status, Tick, TrayState
from burnin.rack.schema import Catalogue, Profile, Rack
from burnin.run.facility import Facility
from burnin.run.guard import Guardian
from burnin.run.leases import Leases
from burnin.run.plan import Plan
from burnin.run.tray import Clock, TraySession
from burnin.suites.schema import Suite

Door = Callable[[str, str, Mapping[str, Any], float], Awaitable[Any]]
"""Executes (part, verb, args, timeout_s) that does not go to an agent. Raises TrayError with one sentence."""
Event = Attached | Tick | LogLine | TrayState | StageBegan | StageEnded


@dataclass(frozen=True, slots=True)
class Kept:
    """One attempt at one step, and what each of its rounds brought back."""

    stage: str
    check: str
    part: str
    attempt: int
    status: Status
    t0_s: float
    t1_s: float
    why: str
    answers: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True, slots=True)
class Left:
    """The stage that a run was left in, its load detached. Run seconds; `last_s`: the last of which anything was kept."""

    index: int
    stage: str
    t0_s: float
    planned_s: float
    trays: tuple[str, ...] | None
    last_s: float

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.t0_s + self.planned_s


class Keeper(Protocol):
    """Where everything goes: the store's writer, and whoever watches."""

    def event(self, event: Event) -> None:
        """An event, in order."""
        ...

    def attempt(self, kept: Kept) -> None:
        """An attempt that ended."""
        ...

    def identity(self, tray: str, identity: Mapping[str, Any]) -> bool:
        """Who answered; True where that is another one than before."""
        ...

    def found(self, tray: str, answer: Answer) -> None:
        """How a tray was set before anything was changed on it."""
        ...

    async def flush(self) -> None:
        """Everything so far is on the disk."""
        ...

    async def suspects(self) -> list[str]:
        """Parts under suspicion, judged from what was kept so far."""
        ...


@dataclass
class Job:
    """One run: what to do, with whom, and where it is kept. Times are seconds of `clock` since `start_s`."""

    plan: Plan
    rack: Rack
    profile: Profile
    suite: Suite
    catalogue: Catalogue
    sessions: Mapping[str, TraySession]
    knock: Callable[[str], Awaitable[None]]
    """Reaches a switch tray once, or raises TrayError."""
    keeper: Keeper
    clock: Clock
    start_s: float
    today: dt.date
    doors: Mapping[str, Door] = field(default_factory=dict)
    """Order.via -> door, for all but the agents."""
    facility: Facility | None = None
    """Who reads BMCs, shelves and the CDU beside the tests; None where the rack file names none."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    gently: Callable[[], bool] = lambda: False
    """True when a planned stop is all that was asked for: load comes down as it may."""
    guard: Guardian | None = None
    """None only where nothing heats."""
    undo: Mapping[str, Order] = field(default_factory=dict)
    """What earlier sessions changed and did not put back (burnin.run.undo)."""
    leases: Leases | None = None
    """How long agents keep load without a controller; None where nothing may be detached."""
    left: Left | None = None
    """Of a run that goes on: the detached stage that it was left in."""
    tried: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(stage, check, part) -> attempts that an earlier session of this run made."""
    as_found: Mapping[str, Answer] = field(default_factory=dict)
    """How an earlier session found each tray."""
    replan: Callable[[], Plan] | None = None
    """Of a run that goes on: what is owed, once trays have said who they are. It reads the database."""
    commands: Callable[[], None] = lambda: None
    """Called before the first load, when no tray has said that another controller holds it."""

    def attempts(self, stage: str, check: str, part: str) -> int:
        """How many were made before this session."""
        return self.tried.get((stage, check, part), 0)
