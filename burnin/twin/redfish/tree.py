"""Resources by path: bodies that never change, and functions that make one when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Body = dict[str, Any]
ROOT = "/redfish/v1"
OK: Body = {"Health": "OK", "HealthRollup": "OK", "State": "Enabled"}
ABSENT: Body = {"Conditions": [], "Health": "Critical", "HealthRollup": "OK", "State": "Absent"}
"""What a real tray says of an empty bay: Critical, and not there."""
UNITS = {
    "Temperature": "Cel", "Power": "W", "Voltage": "V", "Current": "A", "Rotational": "RPM", "PressurekPa": "kPa",
    "LiquidFlowLPM": "L/min", "Percent": "%", "EnergyJoules": "J",
}  # fmt: skip
_BELOW = ("LowerFatal", "LowerCritical", "LowerCaution")
_ABOVE = ("UpperFatal", "UpperCritical", "UpperCaution")
_HEALTH = {"Fatal": "Critical", "Critical": "Critical", "Caution": "Warning"}


class Tree:
    """Every resource of one service."""

    def __init__(self) -> None:
        self._at: dict[str, Body | Callable[[], Body]] = {}
        self.collections: dict[str, list[str]] = {}
        self.whole: set[str] = set()
        """Collections whose members stand in them whole without being asked to, as services give log entries."""
        self.acts: dict[str, Callable[[Body], None]] = {}
        """POST: what an action does with the body it is given. Raises ValueError for one that cannot be."""
        self.settable: dict[str, Callable[[Body], None]] = {}
        """PATCH, likewise."""

    def put(self, path: str, type_: str, body: Mapping[str, Any], name: str | None = None) -> str:
        """A resource that never changes; `type_` as `Chassis.v1_22_0.Chassis`. Returns its path."""
        self._at[path] = {**head(path, type_), "Name": name or path.rsplit("/", 1)[1], **body}
        return path

    def live(self, path: str, type_: str, make: Callable[[], Mapping[str, Any]], name: str | None = None) -> str:
        """A resource whose members `make` gives anew at every look. Returns its path."""
        fixed = {**head(path, type_), "Name": name or path.rsplit("/", 1)[1].replace("_", " ")}
        self._at[path] = lambda: {**fixed, **make()}
        return path

    def collect(self, path: str, kind: str, members: Iterable[str], name: str | None = None) -> str:
        """A collection of resources, by their paths; `kind` as `Sensor`. Returns its path."""
        self.collections[path] = list(members)
        self._at[path] = {
            "@odata.id": path,
            "@odata.type": f"#{kind}Collection.{kind}Collection",
            "Name": name or f"{kind} Collection",
        }
        return path

    def get(self, path: str) -> Body | None:
        """A fresh copy of what stands at a path; a collection without its members. None: nothing does."""
        found = self._at.get(path)
        if found is None:
            return None
        return found() if callable(found) else dict(found)

    def drop(self, path: str) -> None:
        """Take a resource away."""
        self._at.pop(path, None)

    def paths(self) -> list[str]:
        """Every path."""
        return list(self._at)


def head(path: str, type_: str) -> Body:
    """What every resource begins with."""
    return {"@odata.id": path, "@odata.type": f"#{type_}", "Id": path.rsplit("/", 1)[1]}


def ref(path: str) -> Body:
    """A link."""
    return {"@odata.id": path}


def refs(paths: Iterable[str]) -> list[Body]:
    """Links."""
    return [{"@odata.id": path} for path in paths]


def health(reading: float | None, thresholds: Mapping[str, float]) -> str:
    """What crossing one's own thresholds makes of a sensor: OK, Warning or Critical."""
    if reading is None:
        return "OK"
    for name in _BELOW:
        if name in thresholds and reading <= thresholds[name]:
            return _HEALTH[name.removeprefix("Lower")]
    for name in _ABOVE:
        if name in thresholds and reading >= thresholds[name]:
            return _HEALTH[name.removeprefix("Upper")]
    return "OK"


def sensor(
    tree: Tree,
    chassis: str,
    name: str,
    kind: str,
    read: Callable[[], float | None],
    *,
    thresholds: Mapping[str, float] | None = None,
    span: tuple[float, float] | None = None,
    context: str | None = None,
    related: str | None = None,
    digits: int = 3,
) -> str:
    """A Sensor of this chassis; a reading of None is one that cannot be had now. Returns its path."""
    limits = dict(thresholds or {})
    fixed: Body = {"ReadingType": kind, "ReadingUnits": UNITS[kind]}
    if span is not None:
        fixed |= {"ReadingRangeMin": span[0], "ReadingRangeMax": span[1]}
    if context is not None:
        fixed["PhysicalContext"] = context
    if related is not None:
        fixed["RelatedItem"] = [ref(related)]
    if limits:
        fixed["Thresholds"] = {key: {"Reading": value} for key, value in limits.items()}

    def make() -> Body:
        value = read()
        state = {"Conditions": [], "Health": health(value, limits), "HealthRollup": "OK", "State": "Enabled"}
        if value is None:
            state |= {"State": "UnavailableOffline"}
        return {**fixed, "Reading": None if value is None else round(value, digits), "Status": state}

    return tree.live(f"{chassis}/Sensors/{name}", "Sensor.v1_7_0.Sensor", make)


def empty_bay(tree: Tree, chassis: str, name: str, kind: str, related: str) -> str:
    """The sensor of a bay with nothing in it."""
    fixed = {"ReadingType": kind, "ReadingUnits": UNITS[kind], "Reading": None, "Status": ABSENT, "RelatedItem": [ref(related)]}
    return tree.put(f"{chassis}/Sensors/{name}", "Sensor.v1_7_0.Sensor", fixed, name.replace("_", " "))
