"""Firmware of all trays, component by component: as the baseline says, or the same everywhere, or exactly what differs.

The baseline is the rack file's `firmware_baseline`, with its `firmware_audit` and the step's own
`with: {baseline: {NAME: VERSION}}` on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from burnin.checks import asked
from burnin.checks.alike import Found, differing, joined
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement
from burnin.rack.data import Data
from burnin.telemetry.bmc import firmware

INVENTORY = "/redfish/v1/UpdateService/FirmwareInventory"
_UPDATE = "bring this component to the version of the baseline (or of the other trays), then run again"
VERSION = Quantity("firmware.version", "1", "a component whose version is not the baseline's, or not the others'", action=_UPDATE)
AUDIT = Quantity("firmware.audit", "1", "components that were compared on every tray", action=_UPDATE)


class Baseline(Data):
    """`with: {baseline: {HGX_FW_BMC_0: GB300-25.10}}`"""

    baseline: dict[str, str] = Field(default_factory=dict, description="component -> version that every tray must have")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Every tray's inventory."""
    if answers:
        return []
    return [asked.walk(f"{tray}.bmc", (INVENTORY,), 1, (), ("Version", "Manufacturer", "Members")) for tray in context.trays]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """What differs, named; UNKNOWN where a tray's inventory was not read."""
    found, out = read(context, evidence)
    baseline = _baseline(context)
    trays = dict[str, str | None].fromkeys(part for said in found.values() for part in said)
    names = sorted({*found, *baseline})
    for name in names:
        out += differing(VERSION, name, found.get(name, trays), baseline.get(name))
    if not names:
        out.append(AUDIT.unknown(RACK, "missing", "no tray shows a firmware inventory"))
    return out or [asked.good(AUDIT, RACK, float(len(names)))]


def read(context: Context, evidence: Evidence) -> tuple[Found, list[Measurement]]:
    """Component -> tray -> version; and the trays whose inventory was not read."""
    versions, out = dict[str, Mapping[str, str | None]](), list[Measurement]()
    for tray in context.trays:
        bodies = asked.bodies(evidence, f"{tray}.bmc")
        if why := asked.refused(evidence, f"{tray}.bmc"):
            out.append(AUDIT.unknown(tray, "missing", why))
        else:
            out += asked.unread(AUDIT, tray, bodies)
            versions[tray] = firmware(bodies)
    return joined(versions), out


def _baseline(context: Context) -> Mapping[str, str]:
    own = context.args.get("baseline")
    stated = {str(name): str(version) for name, version in own.items()} if isinstance(own, Mapping) else {}
    file = context.rack.firmware_stated
    return {**(file.bmc if file is not None else {}), **context.rack.firmware_audit, **stated}


CHECK = Check(
    name="firmware",
    about="firmware of every component, against a baseline and between trays",
    quantities=(VERSION, AUDIT),
    judge=judge,
    orders=orders,
    scope="rack",
    args=Baseline,
    equipment=("BMC",),
)
