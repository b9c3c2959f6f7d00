"""What the tray's BMC sees: every sensor against its own thresholds, and the health of what is there.

A BMC that says OK above a crossed threshold is not believed: the reading is. An empty bay is absent, whatever its health says.
Beyond a Critical or Fatal threshold is FAIL, beyond a Caution one is for somebody to look at.
"""

from __future__ import annotations

from collections.abc import Sequence

from burnin.checks import asked
from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement
from burnin.telemetry.bmc import CHASSIS, SYSTEMS, Bodies, Sensor, last, sensors, state, system_serials, unhealthy

_LOOK = "look at this sensor's surroundings (fan, coolant, supply), then at the part it sits on; replace the part if it stays"
SENSORS = Quantity("bmc.sensors", "1", "sensors that were read and lie within their own thresholds", action=_LOOK)
SENSOR = Quantity("bmc.sensor", "1", "a sensor beyond a threshold of its own", action=_LOOK)
HEALTH = Quantity("bmc.health", "1", "parts that say they are not well", action="read the event log of this BMC for the reason")
SERIAL = Quantity(
    "bmc.serial",
    "1",
    "serial number of the system that this BMC belongs to, against the build record",
    advisory=True,
    action="this BMC belongs to another tray: correct its address in the rack file",
)
_KEEP = ("Reading", "ReadingType", "ReadingUnits", "Thresholds", "SerialNumber", "Model", "PowerState", "Members")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """One walk: chassis with all their sensors, systems, managers."""
    begin = (CHASSIS, SYSTEMS, "/redfish/v1/Managers")
    return [] if answers else [asked.walk(asked.bmc(context), begin, 2, ("Sensors",), _KEEP)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Sensors, health, and whose BMC it is."""
    tray, found = context.tray, asked.bodies(evidence)
    there = [one for one in sensors(found) if not one.absent]
    out = [_beyond(tray, one) for one in there if one.crossed]
    silent = [one.name for one in there if one.reading is None]
    out += asked.unread(SENSORS, tray, found)
    if not there:
        out.append(SENSORS.unknown(tray, "missing", "the BMC shows no sensor"))
    if silent:
        out.append(SENSORS.unknown(tray, "missing", f"without a reading: {_few(silent)}"))
    if not out:
        out.append(asked.good(SENSORS, tray, float(len(there))))
    ill = [(f"{last(path)} is {said}", said) for path, said in unhealthy(found)]
    for why, said in ill:
        out.append(asked.bad(HEALTH, tray, said, why) if said == "Critical" else asked.hold(HEALTH, tray, said, why))
    if not ill and any(state(body) for body in found.values()):
        out.append(asked.good(HEALTH, tray, "OK"))
    elif not ill:
        out.append(HEALTH.unknown(tray, "missing", "nothing says how it is"))
    return [*out, _serial(context, found)]


def _beyond(tray: str, one: Sensor) -> Measurement:
    says = one.says or "nothing"
    why = f"{one.name} reads {one.reading:g} {one.unit}, beyond its own {one.crossed} threshold; the BMC says {says}"
    quantity = Quantity(SENSOR.name, one.unit or "1", SENSOR.about)
    assert one.reading is not None
    if one.crossed == "Caution":
        return asked.hold(quantity, tray, one.reading, why, one.limit)
    return asked.bad(quantity, tray, one.reading, why, one.limit)


def _serial(context: Context, found: Bodies) -> Measurement:
    expected = context.rack.expect.get(context.tray)
    wanted, said = expected.serial if expected else None, system_serials(found)
    own = wanted if wanted in said else ", ".join(sorted(said)) or None
    return SERIAL.equal(context.tray, own, wanted, "the build record")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


CHECK = Check(
    name="bmc",
    about="every sensor of the tray's BMC against its own thresholds, and the health of what is there",
    quantities=(SENSORS, SENSOR, HEALTH, SERIAL),
    judge=judge,
    orders=orders,
    equipment=("BMC",),
)
