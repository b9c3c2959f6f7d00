"""Slowdowns, and whose they are: one GPU's, its tray's, or the rack's. Parents first.

How long a GPU may be slowed down is a limit of the profile and judged by the check `throttling`. Here it is asked how many
share it: a power brake on four GPUs of a tray is the tray's supply, and heat on half of all trays is the coolant's.
"""

from __future__ import annotations

from dataclasses import replace

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.readings import Readings
from burnin.signatures.zones import number
from burnin.telemetry.series import Series, Stretch

THROTTLE = "throttle.shared"
KINDS = {
    "throttle.hw_brake": ("the power brake", "rack", "power shelf, busbar contact and brake cable"),
    "throttle.hw_thermal": ("hardware thermal slowdown", "cdu", "coolant flow and temperature"),
    "throttle.sw_thermal": ("software thermal slowdown", "cdu", "coolant flow and temperature"),
}


def throttle(readings: Readings, row: SignatureRow) -> list[Finding]:
    """One finding per slowdown and highest part that shares it, over all load stretches."""
    out: dict[tuple[str, str], Finding] = {}
    for load in readings.telemetry.phase("load"):
        for metric, (what, top, see_to) in KINDS.items():
            for part, count, of, most in _whose(readings, row, metric, load, top):
                many = f"{count} of {of} measured GPUs" if count > 1 else "only this GPU of its tray"
                why = f"{what} held {many} for up to {100 * most:.1f} % of {load.stage}"
                old = out.get((part, metric))
                if old is None or (old.value or 0.0) < most:
                    one = zones.policy(THROTTLE, row, part, Severity.HOLD, most, why, metric=metric, stage=load.stage, gpus=count)
                    out[part, metric] = zones.doing(one, f"see to {see_to} of {part}, then run the stage again")
    return list(out.values())


def _whose(readings: Readings, row: SignatureRow, metric: str, load: Stretch, top: str) -> list[tuple[str, int, int, float]]:
    """(part, GPUs slowed, GPUs measured, largest share) of the highest parts that share a slowdown."""
    whole = replace(load, settle_s=0.0)
    slowed: dict[str, dict[str, float]] = {}
    measured: dict[str, int] = {}
    held = readings.of(metric, whole, Series.rate).tolist()
    for tray, gpus, row_of in zip(readings.trays, readings.gpus, held, strict=True):
        shares = dict(zip(gpus, row_of, strict=True))
        measured[tray] = sum(value == value for value in shares.values())
        slowed[tray] = {gpu: value for gpu, value in shares.items() if value >= number(row, "floor")}
    known = [tray for tray in readings.trays if measured[tray]]
    full = [tray for tray in known if _all(len(slowed[tray]), measured[tray])]
    if len(full) * 2 > len(known) and len(full) > 2:
        every = [value for tray in known for value in slowed[tray].values()]
        return [(top, len(every), sum(measured.values()), max(every))]
    out = [(tray, len(slowed[tray]), measured[tray], max(slowed[tray].values())) for tray in full]
    for tray in known:
        if tray not in full:
            out += [(gpu, 1, measured[tray], value) for gpu, value in slowed[tray].items()]
    return out


def _all(slowed: int, measured: int) -> bool:
    """Three of four at least: one may be spared by its place in the loop."""
    return slowed >= 2 and slowed * 4 >= measured * 3
