"""What a suite does to a rack over its hours, without running it: spans of one condition, and when readings are taken.

Stages without a duration take no time here: what they cost depends on the machine. Times are seconds since the run began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from burnin.suites.schema import Stage, Suite
from burnin.telemetry.series import Floats, Stretch

PHASE_EVERY_S, SOAK_EVERY_S = 10.0, 60.0
"""Cadence of GPU readings in phases and in soak."""
SOAK_AFTER_S = 1800.0
"""A load that has lasted so long is a soak."""
KNOT_S = 600.0
"""How far apart slow things are computed; in between they go in straight lines."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What GPUs are asked for: activity (0 to 1; of pulses the mean) and the clock they are locked to, in MHz (None: free)."""

    activity: float
    lock_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One stage that takes time. `stagger`: the trays come up one after the other over it."""

    stage: str
    phase: str
    t0_s: float
    t1_s: float
    settle_s: float
    condition: Condition
    stagger: bool = False

    @property
    def stretch(self) -> Stretch:
        """As statistics see it."""
        return Stretch(self.stage, self.phase, self.t0_s, self.t1_s, self.settle_s)


def spans(suite: Suite, kernels: Mapping[str, float], hours: float | None = None) -> list[Span]:
    """The stages that take time, one after the other. `kernels`: activity by kernel; `hours`: shrink or stretch all to this."""
    stages = [stage for stage in suite.stages if stage.phase is not None and stage.when == "always"]
    total = sum(stage.duration for stage in stages)
    scale = hours * 3600 / total if hours is not None and total else 1.0
    out: list[Span] = []
    now = 0.0
    for stage in stages:
        end = now + stage.duration * scale
        staggered = stage.load is not None and stage.load.stagger
        out.append(Span(stage.stage, stage.phase or "", now, end, stage.settle * scale, _condition(stage, kernels), staggered))
        now = end
    return out


def _condition(stage: Stage, kernels: Mapping[str, float]) -> Condition:
    if stage.load is None:
        return Condition(0.0)
    activity = kernels[f"{stage.load.kernel}_burn"] * (stage.load.pulse.duty if stage.load.pulse is not None else 1.0)
    return Condition(activity, float(stage.locked_mhz) if stage.locked_mhz is not None else None)


def moments(all_of: Sequence[Span]) -> tuple[Floats, Floats]:
    """When GPUs are read, rising, and the seconds that each reading stands for.

    Every PHASE_EVERY_S, and every SOAK_EVERY_S in loads from SOAK_AFTER_S on; in short spans at least three times.
    """
    pieces = []
    for span in all_of:
        soak = span.t1_s
        if span.phase.startswith("load"):
            soak = min(span.t1_s, span.t0_s + SOAK_AFTER_S)
        pieces += [_grid(span.t0_s, soak, PHASE_EVERY_S), _grid(soak, span.t1_s, SOAK_EVERY_S)]
    return _joined(pieces)


def minutes(all_of: Sequence[Span]) -> tuple[Floats, Floats]:
    """The same for links and what stands around: every SOAK_EVERY_S, in short spans at least three times."""
    return _joined([_grid(span.t0_s, span.t1_s, SOAK_EVERY_S) for span in all_of])


def _joined(pieces: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    return np.concatenate([t for t, _ in pieces]), np.concatenate([cell for _, cell in pieces])


def _grid(t0_s: float, t1_s: float, every_s: float) -> tuple[Floats, Floats]:
    """Cells from t0 to t1, about `every_s` long, and a reading in the middle of each: none sits on a border."""
    count = max(3, round((t1_s - t0_s) / every_s)) if t1_s - t0_s > 1e-6 else 0
    edges = np.linspace(t0_s, t1_s, count + 1)
    return np.round((edges[1:] + edges[:-1]) / 2, 3), np.diff(edges)


def knots(all_of: Sequence[Span]) -> Floats:
    """Where slow things are computed: at the ends of every span, and no more than KNOT_S apart. Rising."""
    ends = [all_of[0].t0_s]
    for span in all_of:
        pieces = max(1, int(np.ceil((span.t1_s - span.t0_s) / KNOT_S)))
        ends += np.linspace(span.t0_s, span.t1_s, pieces + 1)[1:].tolist()
    return np.asarray(ends)


def which(all_of: Sequence[Span], t_s: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of the span that each time lies in."""
    return np.searchsorted([span.t1_s for span in all_of], t_s, side="right").clip(max=len(all_of) - 1)
