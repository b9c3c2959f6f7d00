"""A suite as data: ordered stages, what each loads, which checks judge it, and what must have been measured.

Values only: files are read by `burnin.suites.load`, which is given the names of the checks that exist.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from burnin.rack.schema import Data, Limit

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
PHASES = "idle, load, load@MHZ, ramp, cool; a suffix after - tells windows apart (load-2)"


def seconds(value: Any) -> float:
    """`90 s`, `5 min`, `48 h` -> seconds. A bare number is refused: 48 what?"""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)", str(value).strip())
    if found is None:
        raise ValueError(f"{value!r} is not a duration (90 s, 5 min, 48 h)")
    return float(found[1]) * _UNITS[found[2]]


Duration = Annotated[float, BeforeValidator(seconds), PlainSerializer(lambda s: f"{s:.3f} s", return_type=str)]


class Load(Data):
    """What the GPUs do during a stage."""

    kernel: Literal["tensor", "fma"] = "tensor"
    stagger: bool = Field(default=False, description="bring the trays up one after the other over the stage")


class Step(Data):
    """One check in a stage."""

    check: str
    args: dict[str, Any] = Field(default_factory=dict, alias="with")


def _step(value: Any) -> Any:
    return {"check": value} if isinstance(value, str) else value


class Stage(Data):
    """A stretch of the run in one condition, and the checks that judge it."""

    stage: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    about: str = ""
    phase: Annotated[str, Field(pattern=r"^(idle|load|ramp|cool)(@\d+)?(-[a-z0-9]+)*$")] | None = Field(
        default=None, description=PHASES
    )
    duration: Duration = Field(default=0.0, alias="for")
    settle: Duration = Field(default=0.0, description="left out of every statistic at the start of the stage")
    load: Load | None = None
    when: Literal["always", "suspect"] = Field(
        default="always", description="suspect: only if an earlier stage raised a suspicion"
    )
    steps: list[Annotated[Step, BeforeValidator(_step)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.phase is not None and self.duration <= 0:
            raise ValueError(f"stage {self.stage}: a phase needs a duration (for: 30 s)")
        if self.phase is None and self.load is not None:
            raise ValueError(f"stage {self.stage}: a load needs a phase (load, ramp)")
        if self.phase is not None and self.phase.startswith(("load", "ramp")) and self.load is None:
            raise ValueError(f"stage {self.stage}: phase {self.phase} needs a load")
        if self.phase is not None and self.phase.startswith(("idle", "cool")) and self.load is not None:
            raise ValueError(f"stage {self.stage}: phase {self.phase} is unloaded, but a load is given")
        if self.settle and self.settle >= self.duration:
            raise ValueError(
                f"stage {self.stage}: nothing is left to judge after settling {self.settle:g} of {self.duration:g} s"
            )
        return self


class Coverage(Data):
    """What must have been read, on every part, in every phase."""

    metrics: list[str] = Field(default_factory=list)
    floor: float = Field(default=0.9, gt=0, le=1, description="fraction of the due samples that each slot must have")
    phases: list[Literal["idle", "load", "ramp", "cool"]] = Field(default=["idle", "load"])


class Suite(Data):
    """What to prove about a rack, in which order."""

    suite: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    about: str
    ships: bool = Field(default=False, description="true: a PASS of the whole suite lets a rack ship")
    lease: Duration = Field(default=5.0, description="load ends when the controller was not heard for so long")
    sample: Duration = Field(default=1.0, description="one reading of the fast metrics")
    sample_slow: Duration = Field(default=5.0, description="one reading of the slow metrics")
    load_fraction: float = Field(
        default=0.95, gt=0, le=1, description="mean power / enforced limit below which a load proves nothing"
    )
    retries: int = Field(default=1, ge=0, le=5, description="how often a step that could not measure (ERROR) is tried again")
    coverage: Coverage = Field(default_factory=Coverage)
    limits: dict[str, Limit] = Field(default_factory=dict, description="override the profile's")
    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [stage.stage for stage in self.stages]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"stage names are used twice: {', '.join(twice)}")
        if not 1 <= self.lease <= 14400:
            raise ValueError("a lease is 1 s to 4 h")
        for stage in self.stages:
            judged = stage.duration - stage.settle
            if stage.phase is not None and judged < 3 * self.sample:
                raise ValueError(f"stage {stage.stage}: {judged:g} s are judged, fewer than 3 samples of {self.sample:g} s")
        return self

    def duration_s(self) -> float:
        """Planned seconds, without the stages that only a suspicion calls for."""
        return sum(s.duration for s in self.stages if s.when == "always")
