"""What a run and a judged directory say beside their verdict: were the hours under load enough, what do GPUs feel of the
coolant. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import burnin
from burnin.events import Finding
from burnin.rack.schema import Catalogue
from burnin.signatures import coolant, enough
from burnin.signatures.readings import Readings
from burnin.telemetry.series import Stretch, Telemetry

_MINOR = ("ecc.sram_ce", "nvlink.recovery_ok", "remap.correctable", "nic.link_flaps")
"""Counters whose growth is minor events: what a sound rack has one of in two days. Not corrected errors of HBM: a sound rack has
seven of them in that time (0.002 an hour and GPU), and `memory.rate` judges them."""


HOLE = 10.0
"""Readings that are so many times their usual distance apart have a hole between them, which is no time under load."""


def said(telemetry: Telemetry, catalogue: Catalogue, findings: Sequence[Finding]) -> dict[str, str]:
    """`soak`: enough, extend or weak, what is open, and what may be undetected; nothing where the catalogue does not say what
    enough is, or nothing was loaded."""
    row = catalogue.signatures.get(enough.ENOUGH)
    loads = telemetry.phase("load")
    if row is None or not loads:
        return {}
    hours = sum(observed(telemetry, load) for load in loads) / 3600
    grown = [telemetry.of(part, metric).growth() for metric in _MINOR for part in telemetry.parts(metric)]
    events = int(sum(x for x in grown if x > 0))  # False for NaN
    return {"soak": enough.sentence(enough.decide(row, hours, events, bool(findings)), burnin.__version__)}


def observed(telemetry: Telemetry, stretch: Stretch) -> float:
    """Seconds of a stretch in which somebody looked: a hole in the readings of every GPU proves nothing."""
    times = {id(one.t_s): one.t_s for part in telemetry.parts("gpu.temp") for one in [telemetry.of(part, "gpu.temp")]}
    best = max(
        (t[slice(*np.searchsorted(t, (stretch.t0_s, stretch.t1_s)))] for t in times.values()), key=len, default=np.empty(0)
    )
    if best.size < 2:
        return 0.0
    steps = np.diff(best)
    return float(np.minimum(steps, HOLE * np.median(steps)).sum() + stretch.t1_s - best[-1])


def felt(readings: Readings, catalogue: Catalogue) -> dict[str, str]:
    """`coolant`: the virtual sensors of the rack in a sentence; nothing where too few GPUs were loaded."""
    row = catalogue.signatures.get(coolant.VIRTUAL)
    one = coolant.read(readings, row) if row is not None else None
    return {} if one is None else {"coolant": coolant.sentence(one)}
