"""What the Redfish bodies of power shelves and of the coolant distribution unit say. Pure.

A rack's own loop and a loop that feeds a row are two types: only the first has a flow, a return temperature and a pressure
difference, so that nothing can take a row's flow for the rack's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnin.telemetry.bmc import Bodies, Body, failures, health, kind, last, number, sensors, state

EQUIPMENT = "/redfish/v1/ThermalEquipment"


# ---------------------------------------------------------------- power shelves


@dataclass(frozen=True, slots=True)
class Supply:
    """One power supply of a shelf: its number as the shelf counts (None where it cannot be told), output in W."""

    name: str
    number: int | None
    works: bool | None
    why: str
    watts: float | None
    capacity_w: float | None
    serial: str = ""
    firmware: str = ""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One shelf as read. `redundancy`: what its redundancy groups say that is not OK."""

    supplies: tuple[Supply, ...]
    unread: tuple[str, ...]
    redundancy: tuple[str, ...] = ()
    unhealthy: tuple[str, ...] = ()


_OUTPUT = re.compile(r"(?:^|_)p(?:s|su)?_?(\d+)_(?:pout|output_power)$")


def shelf(bodies: Bodies) -> Shelf:
    """Supplies in the order of their bays."""
    output = {int(m[1]): s.reading for s in sensors(bodies) if (m := _OUTPUT.search(last(s.path).lower()))}
    paths = [path for path in bodies if "/PowerSupplies/" in path and path.split("/PowerSupplies/")[1].count("/") == 0]
    idents = [int(last(path)) for path in paths if last(path).isdigit()]
    base = 0 if 0 in idents else 1
    found, spared = list[Supply](), set[str]()
    for path in paths:
        body = bodies[path]
        ident = int(found_[0]) if (found_ := re.findall(r"\d+", last(path))) else None
        own = bodies.get(f"{path}/Metrics", {})
        watts = number(own.get("OutputPowerWatts"))
        if watts is None and ident is not None:
            watts = output.get(ident)
            if watts is not None:  # its sensor says what its metrics, which some shelves name and do not have, would
                spared.add(f"{path}/Metrics")
        bay = ident - base if ident is not None and len(idents) in (0, len(paths)) else None
        found.append(_supply(last(path), body, bay, watts))
    return Shelf(
        tuple(sorted(found, key=lambda one: (one.number is None, one.number or 0, one.name))),
        tuple(why for path, why in failures(bodies).items() if path not in spared),
        tuple(_groups(bodies)),
        tuple(f"{last(path)} is {health(body)}" for path, body in sorted(bodies.items()) if _bad_shelf(path, body)),
    )


def _supply(name: str, body: Body, bay: int | None, watts: float | None) -> Supply:
    said, well = state(body), health(body)
    works, why = None, ""
    if "failed" in body:
        why = str(body["failed"])
    elif said in ("Absent", "Disabled", "UnavailableOffline", "StandbyOffline"):
        works, why = False, f"{name} is {said}"
    elif well in ("Critical", "Warning"):
        works, why = False, f"{name} says {well}"
    elif body.get("PowerState") is False or body.get("PowerState") == "Off":
        works, why = False, f"{name} is switched off"
    elif well == "OK":  # some shelves call a supply that delivers Standby
        works = True
    else:
        why = f"{name} does not say how it is"
    capacity = number(body.get("PowerCapacityWatts")) or number(body.get("CapacityWatts"))
    more = (str(body.get("SerialNumber") or ""), str(body.get("FirmwareVersion") or ""))
    return Supply(name, bay, works, why, watts, capacity, *more)


def _groups(bodies: Bodies) -> list[str]:
    listed = [body.get("PowerSupplyRedundancy") for body in bodies.values() if kind(body) == "PowerSubsystem"]
    groups = [group for one in listed if isinstance(one, list) for group in one if isinstance(group, Mapping)]
    bad = [group for group in groups if health(group) not in ("OK", "") and state(group) != "Disabled"]
    return [f"redundancy {group.get('RedundancyType') or 'of its supplies'} is {health(group)}" for group in bad]


def _bad_shelf(path: str, body: Body) -> bool:
    own = "/PowerSupplies/" not in path and "/Sensors/" not in path
    return own and kind(body) in ("Chassis", "PowerSubsystem", "Manager") and health(body) not in ("OK", "")


# ---------------------------------------------------------------- coolant


@dataclass(frozen=True, slots=True)
class Loop:
    """What any loop says of the water it supplies: Cel, kPa; detectors and pumps of its unit; None = not read."""

    supply_temp: float | None = None
    pressure: float | None = None
    pump_rpm: float | None = None
    unread: tuple[str, ...] = ()
    unhealthy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RackLoop(Loop):
    """The loop that feeds this rack and no other: L/min, Cel, kPa. None = not read."""

    flow: float | None = None
    return_temp: float | None = None
    dp: float | None = None


@dataclass(frozen=True, slots=True)
class RowLoop(Loop):
    """A loop that feeds several racks. It has no flow of this rack, and none is made up."""

    serves: tuple[str, ...] = field(default=())


_FIELDS = {
    "supply_temp": ("SupplyTemperatureCelsius", "DeliveredCoolantTemperatureCelsius"),
    "pressure": ("SupplyPressurekPa", "DeliveredPressurekPa"),
    "return_temp": ("ReturnTemperatureCelsius", "ReturnCoolantTemperatureCelsius"),
    "flow": ("FlowLitersPerMinute", "CoolantFlowLitersPerMinute"),
    "dp": ("DeltaPressurekPa",),
}
_WHOLE = ("EnvironmentMetrics", "CoolingUnit", "CDU")


def loop(bodies: Bodies, scope: Literal["rack", "row"], rack: str = "", serves: tuple[str, ...] = ()) -> Loop:
    """The loop behind a CDU's secondary connectors: this rack's own where its name stands on one, else all together.

    Several connectors are one loop: flows add up; of temperatures and pressures the worst stands (highest supply, return and
    pressure; lowest difference). One of them unread leaves the sum unread.
    """
    sides = _connectors(bodies, rack)
    if not sides:  # some units say it only for the whole unit
        sides = [{k: v for body in bodies.values() if kind(body) in _WHOLE for k, v in body.items()}]
    values = {name: [_first(side, keys) for side in sides] for name, keys in _FIELDS.items()}
    supply, pressure = _worst(values["supply_temp"]), _worst(values["pressure"])
    unread = tuple(failures(bodies).values())
    ill = tuple(f"{last(path)} is {health(body)}" for path, body in sorted(bodies.items()) if health(body) not in ("OK", ""))
    pumps = _pumps(bodies)
    if scope == "row":
        return RowLoop(supply, pressure, pumps, unread, ill, serves)
    flows = values["flow"]
    flow = None if None in flows else sum(v for v in flows if v is not None)
    dp = None if None in values["dp"] else min(v for v in values["dp"] if v is not None)
    return RackLoop(supply, pressure, pumps, unread, ill, flow, _worst(values["return_temp"]), dp)


def has_room_sensor(bodies: Bodies) -> bool:
    """True where a CDU offers what the room's air holds, whether or not it can be read now."""
    return bool(_rooms(bodies))


def dew_point(bodies: Bodies) -> float | None:
    """Cel at which the room's air wets a pipe: as the CDU says it, else from temperature and humidity (Magnus over water,
    17.62 and 243.12 Cel: Sonntag 1990). The highest of several sensors; None where one of them is not read."""
    return _worst([_dew_point(body) for body in _rooms(bodies)] or [None])


def _rooms(bodies: Bodies) -> list[Body]:
    return [body for body in bodies.values() if "DewPointCelsius" in body or "HumidityPercent" in body]


def _dew_point(room: Body) -> float | None:
    said, air, wet = (number(room.get(key)) for key in ("DewPointCelsius", "TemperatureCelsius", "HumidityPercent"))
    if said is not None or air is None or wet is None or not 0 < wet <= 100:
        return said
    gamma = math.log(wet / 100) + 17.62 * air / (243.12 + air)
    return 243.12 * gamma / (17.62 - gamma)


def _connectors(bodies: Bodies, rack: str) -> list[Body]:
    """Secondary connectors that are there; those that name the rack, where any does."""
    found = {p: b for p, b in bodies.items() if "/SecondaryCoolantConnectors/" in p and state(b) != "Absent"}
    named = [b for p, b in found.items() if rack and rack.lower() in f"{last(p)} {b.get('Name')} {b.get('UserLabel')}".lower()]
    return named or list(found.values())


def _first(body: Body, keys: tuple[str, ...]) -> float | None:
    return next((v for key in keys if (v := number(body.get(key))) is not None), None)


def _worst(values: list[Any]) -> float | None:
    """The highest, unless one is missing."""
    return None if None in values else max(values)


def _pumps(bodies: Bodies) -> float | None:
    """Mean turns a minute of the pumps that run."""
    speeds = []
    for path, body in bodies.items():
        if kind(body) == "Pump" or "/Pumps/" in path:
            rpm = pump_rpm(body)
            if rpm is not None and state(body) not in ("Absent", "Disabled", "StandbySpare", "StandbyOffline"):
                speeds.append(rpm)
    return sum(speeds) / len(speeds) if speeds else None


def pump_rpm(body: Body) -> float | None:
    """Turns a minute of one pump, as its resource says."""
    said = body.get("PumpSpeedRPM") or (body.get("PumpSpeedPercent") or {})
    if not isinstance(said, Mapping):
        return number(said)
    rpm = number(said.get("SpeedRPM"))
    return rpm if rpm is not None else number(body.get("SpeedRPM"))
