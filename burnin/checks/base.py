"""What a check is: a declaration, a pure function that says what to ask next, and a pure function that judges.

    declaration   name, what it measures (name, unit, doc) and needs, before anything runs
    orders        (context, answers so far) -> what to ask next; nothing more to ask ends the check
    judge         (context, evidence) -> measurements

The run executes orders and keeps the answers; `burnin judge` gives the same answers to the same `judge` years later.
A check has no I/O, no clock and no state. Silence is UNKNOWN with a reason, never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from burnin.events import LogLine, Measurement, Result
from burnin.rack.data import Data
from burnin.rack.schema import Catalogue, Limit, Profile, Rack
from burnin.suites.schema import Stage, Suite
from burnin.telemetry.series import EMPTY, Series, Stretch, Telemetry

TO_DO = "; to do: "
"""Between why something is not known and what helps, where doing the same again does not. It stands last in a sentence."""


def not_allowed(leave: str) -> str:
    """Why a check that acts did nothing."""
    return f"the rack file does not allow it{TO_DO}write allow: [{leave}] into the rack file, or take the step out of the suite"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing a check measures. Its limit is looked up by `name` in the suite, then in the profile.

    `advisory`: UNKNOWN holds the rack only when the suite ships it (the build record may be absent on a bench).
    """

    name: str
    unit: str
    about: str
    advisory: bool = False
    action: str = ""

    def judge(self, part: str, value: float | str, limits: Mapping[str, Limit]) -> Measurement:
        """Hold a value against its limit. No limit, or one that nobody has published, is UNKNOWN."""
        limit = limits.get(self.name)
        shown = float(f"{value:.9g}") if isinstance(value, float) else value
        if limit is None or not limit.known:
            do = "set the limits that are missing in the profile or the suite, then run again"
            why = f"no limit is known for {self.name}{TO_DO}{do}"
            return Measurement(self.name, part, shown, self.unit, "none", Result.UNKNOWN, "missing", why)
        result = Result.PASS if _within(value, limit) else Result.FAIL
        return Measurement(self.name, part, shown, self.unit, str(limit), result)

    def equal(self, part: str, value: str | None, expected: str | None, source: str) -> Measurement:
        """Hold an identity against the build record: not read or not expected is UNKNOWN, another one is FAIL."""
        if expected is None:
            why = f"nothing is expected here: {source} does not say{TO_DO}state it in {source}, then run again"
            return self.unknown(part, "missing", why)
        if value is None:
            return self.unknown(part, "missing", "it was not read", limit=f"= {expected}")
        result = Result.PASS if value == expected else Result.FAIL
        return Measurement(self.name, part, value, self.unit, f"= {expected}", result)

    def unknown(self, part: str, reason: str, why: str, limit: str = "none") -> Measurement:
        """Not measured. `reason` is one of events.REASONS."""
        return Measurement(self.name, part, None, self.unit, limit, Result.UNKNOWN, reason, why)


def _within(value: float | str, limit: Limit) -> bool:
    if limit.equals is not None:
        if isinstance(value, str) or isinstance(limit.equals, str):
            return str(value) == str(limit.equals)
        return math.isclose(value, limit.equals, rel_tol=1e-9)
    if isinstance(value, str) or math.isnan(value):
        return False
    return (limit.min is None or value >= limit.min) and (limit.max is None or value <= limit.max)


@dataclass(frozen=True, slots=True)
class Order:
    """One question to one part, through one door.

    agent    an order of the agent's on a compute tray
    shell    verb `script`, a POSIX script in args["script"] (args["become"]: as root) on a compute tray or a switch tray ->
             {"exit": int, None where a signal ended it; "stdout", "stderr": text; "cut": True where output was dropped}
    redfish  verb `get`, args["paths"] -> {path: resource, or {"failed": why, "status": HTTP status}}; `walk`; and, of a check
             that `acts`, `post` and `patch` with args["path"], args["body"]
    clock    verb `wait`: args["wait_s"] pass -> {"t_s": seconds since the run began}
    """

    to: str
    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)
    via: Literal["agent", "shell", "redfish", "clock", "person", "pytest"] = "agent"
    timeout_s: float = 20.0
    undo: Mapping[str, Any] | None = None
    """Of an order that changes something which does not come back by itself: the `args` of the one that puts it back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `ok` False is an ERROR of measuring, and `body` then a sentence."""

    order: Order
    ok: bool
    body: Any


@dataclass(frozen=True, slots=True)
class Context:
    """What a check is told: where it is, and what is known of rack, profile and suite."""

    tray: str
    rack: Rack
    profile: Profile
    suite: Suite
    stage: Stage
    catalogue: Catalogue
    args: Mapping[str, Any] = field(default_factory=dict)
    trays: tuple[str, ...] = ()
    """The compute trays of this run, for a check of the whole rack; `tray` is then RACK."""

    @property
    def limits(self) -> Mapping[str, Limit]:
        """The profile's limits, with the suite's own on top."""
        return {**self.profile.limits, **self.suite.limits}

    @property
    def gpus(self) -> list[str]:
        """The GPUs that must be there: this tray's, or the rack's."""
        return [gpu for tray in self.trays or (self.tray,) for gpu in self.profile.topology.gpus(tray)]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to judge one check on one tray in one stage: answers, readings, what was logged meanwhile."""

    answers: Sequence[Sequence[Answer]] = ()
    telemetry: Telemetry = field(default_factory=lambda: Telemetry({}))
    stretch: Stretch | None = None
    log: Sequence[LogLine] = ()
    """What was logged of this tray since the run began, up to the stage's end."""
    sources: Mapping[str, str | None] = field(default_factory=dict)
    """Why a source of events (xid, kmsg) could not be watched; None where it was."""
    lost: bool = False
    """The link to this tray was gone at some time in the stage."""

    def window(self, part: str, metric: str) -> Series:
        """One series in this stage's judged window."""
        return EMPTY if self.stretch is None else self.telemetry.window(part, metric, self.stretch)

    def whole(self, part: str, metric: str) -> Series:
        """One series in all of this stage, its settling included."""
        return EMPTY if self.stretch is None else self.telemetry.of(part, metric).between(self.stretch.t0_s, self.stretch.t1_s)

    def logged(self, part: str, *kinds: str) -> list[LogLine]:
        """Lines about one part in this stage only."""
        begin = self.stretch.t0_s if self.stretch else 0.0
        return [line for line in self.log if line.part == part and line.kind in kinds and line.t_s >= begin]

    def why_absent(self, part: str, metric: str) -> str:
        """The reason for a series without readings."""
        return self.telemetry.absent.get((part, metric), "lost" if self.lost else "missing")


def no_orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """A check that only looks at what was recorded anyway."""
    return []


RACK = "rack"
"""The part of a check that is done once for the whole rack."""


class NoArgs(Data):
    """A step of this check says nothing more."""


START_S = 3.0
"""What starting a process and opening its GPU takes (assumption)."""


WHOLE = 0.99
"""Of the time that was asked for; kernels go on until it is over, so less was cut."""


def cut_short(seconds: Any, asked_s: float) -> str:
    """Why work that was to go on for so long shows less than was asked for; empty where it did."""
    told = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
    if told and seconds >= WHOLE * asked_s:
        return ""
    return f"it went on for {seconds:g} of {asked_s:g} s" if told else "it does not say for how long it went on"


def no_time(profile: Profile, args: Mapping[str, Any]) -> float:
    """A check whose answers come at once, or from what was recorded anyway."""
    return 0.0


def anywhere(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """A check that has something to look at in every stage."""
    return ""


@dataclass(frozen=True, slots=True)
class Check:
    """One test: see the module. `loaded`: it needs the stage's load, so a load that was not reached proves nothing.

    `scope` tray: once per compute tray, and a question that is not answered ends it; switch: the same per NVLink switch tray.
    `scope` rack: once, with questions to any part; what was not answered is part of what it judges. `heats`: its orders load
    GPUs, so interlocks come first. `acts`: it changes something (power), which the rack file must allow (`leave`).
    """

    name: str
    about: str
    quantities: tuple[Quantity, ...]
    judge: Callable[[Context, Evidence], list[Measurement]]
    orders: Callable[[Context, Sequence[Sequence[Answer]]], list[Order]] = no_orders
    metrics: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    """Metrics that only make the reason clearer."""
    loaded: bool = False
    scope: Literal["tray", "switch", "rack"] = "tray"
    heats: bool = False
    acts: bool = False
    leave: Literal["power_cycle", "gpu_reset", "other_trays", "redundancy"] = "power_cycle"
    """Of a check that `acts`: what the rack file's `allow` must say."""
    args: type[Data] = NoArgs
    """What a step may say of it (`with:`)."""
    seconds: Callable[[Profile, Mapping[str, Any]], float] = no_time
    """About how long its own work takes where all is well, of a profile and a step's `with`; parts work at the same time."""
    equipment: tuple[str, ...] = ()
    """What must be there that is neither agent nor GPU, in an operator's words: BMC, a program, root."""

    fits: Callable[[Stage, Mapping[str, Any], Profile], str] = anywhere
    """Why it can show nothing in such a stage, with such a `with`, on such a rack; empty where it can."""

    def misfit(self, stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
        """The same, with what follows from what it looks at: a suite that says so is refused, not run for two days."""
        if self.loaded and stage.load is None:
            return "it judges a load, and this stage has none"
        if self.orders is no_orders and self.metrics and stage.phase is None:
            return "it judges readings, and this stage has no phase to take them in"
        return self.fits(stage, args, profile)

    @property
    def needs(self) -> tuple[str, ...]:
        """All that it needs beside the agents."""
        loaded = ("its stage's load",) if self.loaded else ()
        alone = ("the GPUs to itself",) if self.heats else ()
        return (*loaded, *self.equipment, *alone, *((f"allow: [{self.leave}]",) if self.acts else ()))

    def parts(self, trays: Iterable[str]) -> list[str]:
        """What it is done on, of a run of these trays."""
        if self.scope == "rack":
            return [RACK]
        letter = "s" if self.scope == "switch" else "t"
        return [tray for tray in trays if tray.startswith(letter)]


def of_window(
    context: Context, evidence: Evidence, quantity: Quantity, metric: str, value: Callable[[Series], float], whole: bool = False
) -> Iterable[Measurement]:
    """For each GPU of the tray: `value` of its window of `metric`, judged; without readings, the reason.

    `whole`: what must not happen while the load settles either. Good readings before the judged window prove nothing alone.
    """
    for part in context.gpus:
        window = evidence.window(part, metric)
        number = value(evidence.whole(part, metric) if whole else window)
        one = quantity.judge(part, number, context.limits) if not math.isnan(number) else None
        if one is None or (not window.present and one.result is not Result.FAIL):
            reason = evidence.why_absent(part, metric)
            yield quantity.unknown(part, reason, f"{metric} has {window.present} readings in {context.stage.stage}")
        else:
            yield one
