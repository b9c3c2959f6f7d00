"""A suite as data: ordered stages, what each loads, which checks judge it, and what must have been measured.

Values only: files are read by `burnin.suites.load`, which is given the names of the checks that exist.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, PlainSerializer, model_validator

from burnin.rack.data import Data, Mistake, mistakes, together
from burnin.rack.schema import Limit, Metric

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_NAME = r"^[a-z0-9][a-z0-9-]*$"
_NAMED = "lower-case letters, digits and dashes"
PHASES = "idle, load, load@MHZ, ramp, cool; a suffix after - tells windows apart (load-2)"


def seconds(value: Any) -> float:
    """`90 s`, `5 min`, `48 h` -> seconds. A bare number is refused: 48 what?"""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|min|h)", str(value).strip(), re.ASCII)
    if found is None:
        raise ValueError(f"{value!r} is not a duration; expected a number and its unit (90 s, 5 min, 48 h)")
    return float(found[1]) * _UNITS[found[2]]


def _between(low: float, high: float, what: str) -> AfterValidator:
    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"{value:g} s is too {'short' if value < low else 'long'}; {what}")
        return value

    return AfterValidator(check)


Duration = Annotated[float, BeforeValidator(seconds), PlainSerializer(lambda s: f"{s:.3f} s", return_type=str)]
Lease = Annotated[Duration, _between(1, 14400, "a lease is 1 s to 4 h")]
Detach = Annotated[
    Duration,
    BeforeValidator(lambda value: "10 min" if value is True else value),
    _between(1, 14400, "a stage is detached for 1 s to 4 h"),
]
Cadence = Annotated[Duration, _between(0.05, 3600, "readings are 50 ms to 1 h apart")]


Period = Annotated[Duration, _between(0.2, 60, "pulses are 0.2 s to 60 s apart")]


class Pulse(Data):
    """A square wave of load: full for `duty` of the period, idle for the rest."""

    period: Period
    duty: float = Field(default=0.5, ge=0.1, le=0.9)

    @property
    def shorter_s(self) -> float:
        """The shorter of the two halves."""
        return self.period * min(self.duty, 1 - self.duty)


class Load(Data):
    """What the GPUs, and what is around them, do during a stage."""

    kernel: Literal["tensor", "mma", "fma", "cublaslt"] = Field(
        default="tensor",
        description="tensor: the GPU family's own instruction where it can be used; mma: the one of all; cublaslt: the tray's "
        "own library; where there is none it is loaded as by tensor, and that is a HOLD",
    )
    stagger: bool = Field(default=False, description="bring the trays up one after the other over the stage")
    pulse: Pulse | None = None
    nvlink: bool = Field(default=False, description="copies from GPU to GPU of each tray beside the kernel")
    cpu: bool = Field(default=False, description="all cores of each tray but one or two, beside the kernel")
    nic: bool | list[Annotated[str, Field(pattern=r"^n\d$")]] = Field(
        default=False, description="traffic from tray to tray over network cards beside the kernel: true is all, else [n0, n1]"
    )


class Step(Data):
    """One check in a stage."""

    check: str
    args: dict[str, Any] = Field(default_factory=dict, alias="with")


LISTS = {"pytest": "files", "ask": "questions"}
OWN = ("program", "ask", "pytest")
"""Checks whose steps are written by their own word: `{program: {...}}`, `{ask: [...]}`, `{pytest: test_x.py}`."""


def written(value: Any) -> tuple[Any, Any, str]:
    """A step as a file says it -> (its check, what it says of it, under which key)."""
    if not isinstance(value, dict):
        return value, {}, "with"
    own = next((word for word in OWN if word in value), None)
    if own is None or len(value) != 1:
        return value.get("check"), value.get("with", {}), "with"
    said = value[own]
    if own == "pytest" and not isinstance(said, dict | list):
        said = [said]
    return own, {LISTS[own]: said} if own in LISTS and isinstance(said, list) else said, own


def _step(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1 and set(value) & set(OWN):
        name, said, _ = written(value)
        return {"check": name, "with": said}
    return {"check": value} if isinstance(value, str) else value


class Stage(Data):
    """A stretch of the run in one condition, and the checks that judge it."""

    stage: str = Field(pattern=_NAME, description=_NAMED)
    about: str = ""
    phase: Annotated[str, Field(pattern=r"^(idle|load(@\d+)?|ramp|cool)(-[a-z0-9]+)*$")] | None = Field(
        default=None, description=PHASES
    )
    duration: Duration = Field(default=0.0, alias="for")
    settle: Duration = Field(default=0.0, description="left out of every statistic at the start of the stage")
    load: Load | None = None
    sample_power: Cadence | None = Field(
        default=None, description="one reading of power and clock in this stage, beside those of every `sample`"
    )
    cut: Literal["whole", "rest"] = Field(
        default="whole",
        description="what a stage owes that was cut off (a controller died): all of its time again, or the rest; after settling "
        "anew, and at least half of what is judged, so that statistics have one stretch",
    )
    detach: Detach | None = Field(
        default=None,
        description="how long the load may go on without controller and guard, while those are replaced; true is 10 min. "
        "Only where each tray's BMC was read to mind leaks by itself",
    )
    when: Literal["always", "suspect"] = Field(
        default="always", description="suspect: only if an earlier stage raised a suspicion"
    )
    steps: list[Annotated[Step, BeforeValidator(_step)]] = Field(
        min_length=1, description="at least one check: a stage without a step judges nothing"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        name, loaded = f"stage {self.stage}", self.phase is not None and self.phase.startswith(("load", "ramp"))
        found: list[Mistake] = []
        if self.phase is not None and self.duration <= 0:
            found.append((("phase",), f"{name}: a phase needs a duration (for: 30 s)"))
        if self.phase is None and self.load is not None:
            found.append((("load",), f"{name}: a load needs a phase (load, ramp)"))
        if self.phase is None and self.duration > 0:
            found.append((("for",), f"{name}: a duration needs a phase (idle, load, ramp, cool)"))
        if self.phase is None and self.settle:
            found.append((("settle",), f"{name}: settling needs a phase (idle, load, ramp, cool)"))
        if loaded and self.load is None:
            found.append((("phase",), f"{name}: phase {self.phase} needs a load (load: {{kernel: tensor}})"))
        if self.phase is not None and not loaded and self.load is not None:
            found.append((("load",), f"{name}: phase {self.phase} is unloaded, but a load is given"))
        if self.phase is None and self.sample_power is not None:
            found.append((("sample_power",), f"{name}: reading power needs a phase (idle, load, ramp, cool)"))
        if self.load is not None and self.load.pulse is not None and not (self.phase or "").startswith("ramp"):
            found.append((("phase",), f"{name}: pulses are no steady load; their phase is a ramp (ramp-pulse)"))
        if self.detach is not None and (self.load is None or not (self.phase or "").startswith("load")):
            found.append((("detach",), f"{name}: only a steady load goes on by itself (phase load, with a load)"))
        if self.detach is not None and self.load is not None and self.load.stagger:
            found.append((("detach",), f"{name}: a load that comes up over all of its stage (stagger) cannot be left meanwhile"))
        if self.settle and self.settle >= self.duration > 0:
            left = f"nothing is left to judge after settling {self.settle:g} of {self.duration:g} s"
            found.append((("settle",), f"{name}: {left}"))
        if found:
            raise mistakes(found)
        names = [step.check for step in self.steps]
        if twice := sorted({name for name in names if name in OWN and names.count(name) > 1}):
            raise ValueError(f"{name}: {' and '.join(twice)} stand twice in it: one of them belongs into a stage of its own")
        return self

    @property
    def locked_mhz(self) -> int | None:
        """The SM clock that this stage holds (phase load@1500), in MHz."""
        found = re.match(r"load@(\d+)", self.phase or "")
        return int(found[1]) if found else None


class Coverage(Data):
    """What must have been read, on every part, in every phase."""

    metrics: list[str] = Field(default_factory=list)
    floor: float = Field(default=0.9, gt=0, le=1, description="fraction of the due samples that each slot must have")
    phases: list[Literal["idle", "load", "ramp", "cool"]] = Field(
        default=["idle", "load"], min_length=1, description="at least one phase: what is asked for in none is never asked for"
    )


def _used_twice(suite: Any) -> list[Mistake]:
    stages = suite.get("stages") if isinstance(suite, dict) else None
    seen: set[str] = set()
    found: list[Mistake] = []
    for i, stage in enumerate(stages) if isinstance(stages, list) else ():
        name = stage.get("stage") if isinstance(stage, dict) else None
        if isinstance(name, str) and name in seen:
            found.append((("stages", i, "stage"), f"stage name {name!r} is used twice"))
        elif isinstance(name, str):
            seen.add(name)
    return found


class Suite(Data):
    """What to prove about a rack, in which order."""

    suite: str = Field(pattern=_NAME, description=_NAMED)
    about: str
    ships: bool = Field(default=False, description="true: a PASS of the whole suite lets a rack ship")
    lease: Lease = Field(
        default=60.0, description="load ends when the controller was not heard for so long; less where nobody minds leaks"
    )
    sample: Cadence = Field(default=1.0, description="one reading of the fast metrics")
    sample_slow: Cadence = Field(default=5.0, description="one reading of the slow metrics")
    sample_links: Cadence = Field(default=60.0, description="one reading of every NVLink")
    load_fraction: float = Field(
        default=0.95, gt=0, le=1, description="mean power / enforced limit below which a load proves nothing"
    )
    retries: int = Field(default=1, ge=0, le=5, description="how often a step that could not measure (ERROR) is tried again")
    coverage: Coverage = Field(default_factory=Coverage)
    limits: dict[str, Limit] = Field(default_factory=dict, description="override the profile's")
    stages: list[Stage] = Field(min_length=1, description="at least one stage")

    @model_validator(mode="wrap")
    @classmethod
    def _own_names(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        valid: Self = together(data, handler, _used_twice(data))
        return valid

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        found: list[Mistake] = []
        for i, stage in enumerate(self.stages):
            judged = stage.duration - stage.settle
            if stage.phase is not None and judged < 3 * self.sample:
                few = f"{judged:g} s are judged, fewer than 3 samples of {self.sample:g} s"
                found.append((("stages", i, "for"), f"stage {stage.stage}: {few}"))
            pulse = stage.load.pulse if stage.load is not None else None
            power_s = stage.sample_power or self.sample
            if pulse is not None and pulse.shorter_s < 2 * power_s:
                seen = f"its halves last {pulse.shorter_s:g} s at least, fewer than 2 readings of power, {power_s:g} s apart"
                found.append((("stages", i, "load"), f"stage {stage.stage}: a pulse that cannot be seen: {seen}"))
            if pulse is not None and judged < 5 * pulse.period:
                few = f"{judged:g} s are judged, fewer than 5 pulses of {pulse.period:g} s"
                found.append((("stages", i, "for"), f"stage {stage.stage}: {few}"))
        if found:
            raise mistakes(found)
        return self

    def period(self, metric: Metric | None, stage: Stage | None = None) -> float:
        """Seconds between two readings of a metric; of a transient one: in this stage."""
        if metric is not None and metric.transient and stage is not None and stage.sample_power is not None:
            return stage.sample_power
        if metric is not None and metric.per_link:
            return self.sample_links
        return self.sample_slow if metric is not None and metric.slow else self.sample

    def duration_s(self) -> float:
        """Planned seconds, without the stages that only a suspicion calls for."""
        return sum(s.duration for s in self.stages if s.when == "always")
