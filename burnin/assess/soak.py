"""What a run and a judged directory say beside their verdict: were the hours under load enough, what do GPUs feel of the
coolant. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import burnin
from burnin.events import Finding
from burnin.rack.schema import Catalogue
from burnin.signatures import coolant, enough
from burnin.signatures.readings import Readings
from burnin.telemetry.series import Telemetry

_MINOR = ("ecc.dram_ce", "ecc.sram_ce", "nvlink.recovery_ok", "remap.correctable")
"""Counters whose growth is minor events: what a sound rack has few of."""


def said(telemetry: Telemetry, catalogue: Catalogue, findings: Sequence[Finding]) -> dict[str, str]:
    """`soak`: enough, extend or weak, what is open, and what may be undetected; nothing where the catalogue does not say what
    enough is, or nothing was loaded."""
    row = catalogue.signatures.get(enough.ENOUGH)
    loads = telemetry.phase("load")
    if row is None or not loads:
        return {}
    hours = sum(load.t1_s - load.t0_s for load in loads) / 3600
    grown = [telemetry.of(part, metric).growth() for metric in _MINOR for part in telemetry.parts(metric)]
    events = int(sum(x for x in grown if x > 0))  # False for NaN
    return {"soak": enough.sentence(enough.decide(row, hours, events, bool(findings)), burnin.__version__)}


def felt(readings: Readings, catalogue: Catalogue) -> dict[str, str]:
    """`coolant`: the virtual sensors of the rack in a sentence; nothing where too few GPUs were loaded."""
    row = catalogue.signatures.get(coolant.VIRTUAL)
    one = coolant.read(readings, row) if row is not None else None
    return {} if one is None else {"coolant": coolant.sentence(one)}
