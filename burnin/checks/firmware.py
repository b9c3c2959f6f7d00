"""Firmware of all trays, component by component: as the baseline says, or the same everywhere, or exactly what differs.

The baseline is `firmware_audit` of the rack file, with the step's own `with: {baseline: {NAME: VERSION}}` on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import Field

from burnin.checks import asked
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.rack.parts import fold
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
    versions, out = dict[str, Mapping[str, str | None]](), list[Measurement]()
    for tray in context.trays:
        found = asked.bodies(evidence, f"{tray}.bmc")
        if why := asked.refused(evidence, f"{tray}.bmc"):
            out.append(AUDIT.unknown(tray, "missing", why))
        else:
            out += asked.unread(AUDIT, tray, found)
            versions[tray] = firmware(found)
    baseline = _baseline(context)
    names = sorted({name for known in versions.values() for name in known} | set(baseline))
    for name in names:
        out += _component(name, {tray: known.get(name) for tray, known in versions.items()}, baseline.get(name))
    if not names:
        out.append(AUDIT.unknown(RACK, "missing", "no tray shows a firmware inventory"))
    return out or [Measurement(AUDIT.name, RACK, float(len(names)), "1", "none", Result.PASS)]


def _baseline(context: Context) -> Mapping[str, str]:
    own = context.args.get("baseline")
    stated = {str(name): str(version) for name, version in own.items()} if isinstance(own, Mapping) else {}
    return {**context.rack.firmware_audit, **stated}


def _component(name: str, found: Mapping[str, str | None], stated: str | None) -> list[Measurement]:
    """Against the baseline a difference is bad; among themselves it only says that somebody must look."""
    limit = f"= {stated}" if stated else "the same everywhere"
    said = Counter(version for version in found.values() if version is not None)
    wanted = stated or (said.most_common(1)[0][0] if said else None)
    out = []
    for tray, version in found.items():
        if version is None and (wanted is not None or stated):
            out.append(VERSION.unknown(tray, "missing", f"{name}: {tray} does not say a version, others {wanted}", limit))
        elif version != wanted and stated:
            out.append(asked.bad(VERSION, tray, version or "", f"{name} is {version}, the baseline says {stated}", limit))
        elif version != wanted:
            others = fold(other for other, its in found.items() if its == wanted)
            out.append(asked.hold(VERSION, tray, version, f"{name} is {version}, on {others} it is {wanted}", limit))
    return out


CHECK = Check(
    name="firmware",
    about="firmware of every component, against a baseline and between trays",
    quantities=(VERSION, AUDIT),
    judge=judge,
    orders=orders,
    scope="rack",
    args=Baseline,
)
