"""What the Redfish bodies of one BMC say: sensors, leak detectors, leak policy, serials, logs, firmware. Pure.

`Bodies` maps a resource's path to its body, or to {"failed": why, "status": HTTP status} where it was not read. A body's
`Status.State` is looked at before its Health: an empty bay reads Critical on healthy trays. What is not there, not read or
not understood is never good.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Body = Mapping[str, Any]
Bodies = Mapping[str, Body]
Level = Literal["Caution", "Critical", "Fatal"]
LEVELS: tuple[Level, ...] = ("Fatal", "Critical", "Caution")

CHASSIS, SYSTEMS = "/redfish/v1/Chassis", "/redfish/v1/Systems"


def failures(bodies: Bodies) -> dict[str, str]:
    """Path -> why it was not read."""
    return {path: str(body["failed"]) for path, body in bodies.items() if "failed" in body}


def reset(body: Body, name: str) -> tuple[str, tuple[str, ...]]:
    """Path of a resource's reset ("ComputerSystem.Reset") and the types that it allows; "" and none where it offers none."""
    actions = body.get("Actions")
    action = actions.get(f"#{name}") if isinstance(actions, Mapping) else None
    target, kinds = (
        (action.get("target"), action.get("ResetType@Redfish.AllowableValues")) if isinstance(action, Mapping) else ("", ())
    )
    allowed = tuple(kind for kind in kinds if isinstance(kind, str)) if isinstance(kinds, list) else ()
    return (target, allowed) if isinstance(target, str) else ("", ())


def state(body: Body) -> str:
    """Status.State, empty where the body does not say."""
    status = body.get("Status")
    return str(status.get("State") or "") if isinstance(status, Mapping) else ""


def health(body: Body) -> str:
    """Status.Health of what is there, empty where it is not there or does not say."""
    status = body.get("Status")
    if state(body) == "Absent" or not isinstance(status, Mapping):
        return ""
    return str(status.get("Health") or "")


def number(value: Any) -> float | None:
    """A reading: a number, a number in text, or an excerpt {"Reading": number}. None for everything else, NaN and bool."""
    if isinstance(value, Mapping):
        value = value.get("Reading")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def kind(body: Body) -> str:
    """`LeakDetector` of `#LeakDetector.v1_1_0.LeakDetector`; empty where the body does not say."""
    return str(body.get("@odata.type") or "").removeprefix("#").split(".")[0]


def last(path: str) -> str:
    """The last word of a path: a resource's Id, as its service names it."""
    return path.rstrip("/").rsplit("/", 1)[-1]


# ---------------------------------------------------------------- sensors


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor, with the worst of its own thresholds that its reading crosses."""

    path: str
    name: str
    reading: float | None
    unit: str
    measures: str
    absent: bool
    says: str
    crossed: Level | None = None
    bound: float | None = None
    upper: bool = True

    @property
    def limit(self) -> str:
        """The threshold that is crossed, as `<= 87 Cel`."""
        return "none" if self.bound is None else f"{'<=' if self.upper else '>='} {self.bound:g} {self.unit}".rstrip()


def sensors(bodies: Bodies) -> list[Sensor]:
    """Every sensor resource, by path. Failed ones are in `failures`."""
    return [_sensor(path, body) for path, body in sorted(bodies.items()) if _is_sensor(path, body)]


def _is_sensor(path: str, body: Body) -> bool:
    return "failed" not in body and (kind(body) == "Sensor" or (not kind(body) and "/Sensors/" in path and "Reading" in body))


def _sensor(path: str, body: Body) -> Sensor:
    reading, absent = number(body.get("Reading")), state(body) == "Absent"
    common = (path, str(body.get("Name") or last(path)), reading, str(body.get("ReadingUnits") or ""))
    worst = None if absent or reading is None else crossed(reading, body.get("Thresholds"))
    more = (str(body.get("ReadingType") or ""), absent, health(body))
    return Sensor(*common, *more) if worst is None else Sensor(*common, *more, *worst)


def crossed(reading: float, thresholds: Any) -> tuple[Level, float, bool] | None:
    """The worst threshold that a reading lies beyond: (level, bound, upper); None when it lies within all of them."""
    known = thresholds if isinstance(thresholds, Mapping) else {}
    for level in LEVELS:
        low, high = number(known.get(f"Lower{level}")), number(known.get(f"Upper{level}"))
        if high is not None and reading > high:
            return level, high, True
        if low is not None and reading < low:
            return level, low, False
    return None


# ---------------------------------------------------------------- leaks


@dataclass(frozen=True, slots=True)
class Detector:
    """One leak detector. `wet` None: it cannot be said, and `why` says why not."""

    name: str
    wet: bool | None
    why: str
    volts: float | None = None
    low: float | None = None
    high: float | None = None


_WET = {"Critical", "Warning", "LeakDetected", "Leak", "Wet"}
_AWAY = ("Absent", "Disabled", "UnavailableOffline")


def volts(sensor: Body) -> float | None:
    """What a detector's sensor reads; None where it reads nothing, or says that it is not there to read."""
    return None if state(sensor) in _AWAY else number(sensor.get("Reading"))


def detectors(bodies: Bodies) -> list[Detector]:
    """Every leak detector with the voltage of the sensor of its name, of its own chassis before others'; a voltage beyond its own
    thresholds is never dry.

    A detector that says Absent is left out of judging only by who knows that none belongs there: `wet` is None.
    """
    read = {path: (volts(body), body) for path, body in bodies.items() if _is_sensor(path, body)}
    named = {last(path): one for path, one in read.items()}
    out = []
    for path, body in sorted(bodies.items()):
        if "/LeakDetectors/" in path or kind(body) == "LeakDetector":
            out.append(_detector(last(path), body, read.get(sensor_of(path)) or named.get(last(path))))
    for path, why in failures(bodies).items():
        if path.endswith(("/LeakDetectors", "/LeakDetection")):
            out.append(Detector(last(path), None, why))
    return out


def sensor_of(detector: str) -> str:
    """Where the voltage of a leak detector is, by its name and chassis; empty for what is none."""
    chassis, inside, name = detector.partition("/ThermalSubsystem/LeakDetection/LeakDetectors/")
    return f"{chassis}/Sensors/{name}" if inside and name else ""


def _detector(name: str, body: Body, sensor: tuple[float | None, Body] | None) -> Detector:
    if "failed" in body:
        return Detector(name, None, str(body["failed"]))
    said, wet, why = str(body.get("DetectorState") or ""), None, ""
    if state(body) in _AWAY:
        why = f"{name} is {state(body)}"
    elif said in _WET or health(body) in ("Critical", "Warning"):
        wet, why = True, f"{name} says {said or 'nothing'}, health {health(body) or 'unknown'}"
    elif said == "OK":
        wet = False
    else:
        why = f"{name} says {said or 'nothing'}"
    if sensor is None:
        return Detector(name, wet, why)
    reading, its = sensor
    known = its.get("Thresholds")
    known = known if isinstance(known, Mapping) else {}
    low, high = number(known.get("LowerCritical")), number(known.get("UpperCritical"))
    if reading is None:
        return Detector(name, wet if wet else None, why or f"the voltage of {name} is not read", None, low, high)
    if beyond := crossed(reading, known):
        wet, why = (
            True,
            f"{name} reads {reading:g} V, beyond its {beyond[0]} threshold of {beyond[1]:g} V, and says {said or 'nothing'}",
        )
    return Detector(name, wet, why, reading, low, high)


def leaking(found: list[Detector]) -> bool | None:
    """True when any is wet, False when there are some and all are dry, None otherwise."""
    if any(one.wet for one in found):
        return True
    return False if found and all(one.wet is False for one in found) else None


def lowest_volts(found: list[Detector]) -> float | None:
    """The voltage of the detector that has least left to its thresholds; the lowest where it knows none."""
    known = [one for one in found if one.volts is not None]
    if not known:
        return None
    return min(known, key=_room).volts


def _room(one: Detector) -> float:
    assert one.volts is not None
    bounds = [abs(one.volts - bound) for bound in (one.low, one.high) if bound is not None]
    outside = (one.low is not None and one.volts < one.low) or (one.high is not None and one.volts > one.high)
    return -min(bounds) if outside and bounds else min(bounds) if bounds else one.volts


@dataclass(frozen=True, slots=True)
class LeakPolicy:
    """What the BMC does by itself about a leak. `enabled` None: it was not read."""

    enabled: bool | None
    why: str


def leak_policy(bodies: Bodies) -> LeakPolicy:
    """The BMC's own leak policy: enabled only where it reacts to every detector that there is."""
    found = {path: body for path, body in bodies.items() if _is_policy(path, body)}
    if not found:
        missed = [why for path, why in failures(bodies).items() if "Policies" in path]
        return LeakPolicy(None, missed[0] if missed else "the BMC shows no leak policy")
    for path, body in sorted(found.items()):
        if "failed" in body or not isinstance(body.get("PolicyEnabled"), bool):
            return LeakPolicy(None, str(body.get("failed") or f"{last(path)} does not say whether it is enabled"))
        if not body["PolicyEnabled"]:
            return LeakPolicy(False, f"{last(path)} is disabled: the BMC does nothing about a leak")
        if not body.get("PolicyReactions"):
            return LeakPolicy(False, f"{last(path)} is enabled, and has no reaction")
        if left := _unwatched(body, bodies):
            return LeakPolicy(False, f"{last(path)} does not watch {', '.join(left)}")
    return LeakPolicy(True, "the BMC reacts to a leak by itself")


def _is_policy(path: str, body: Body) -> bool:
    return "/Policies/" in path and "leak" in last(path).lower()


def _unwatched(policy: Body, bodies: Bodies) -> list[str]:
    """Detectors that a policy with a list of conditions does not name."""
    conditions = policy.get("PolicyConditions")
    text = " ".join(str(c.get("Property")) for c in conditions if isinstance(c, Mapping)) if isinstance(conditions, list) else ""
    return [last(path) for path in sorted(bodies) if "/LeakDetectors/" in path and last(path) not in text]


# ---------------------------------------------------------------- who it is


def system_serials(bodies: Bodies) -> set[str]:
    """Serial numbers of the systems and of the chassis that hold them: which host this BMC belongs to."""
    out = set()
    for path, body in bodies.items():
        if kind(body) == "ComputerSystem" or (path.startswith(SYSTEMS + "/") and path.count("/") == 4):
            out.add(str(body.get("SerialNumber") or "").strip())
    return out - {"", "None", "N/A"}


# ---------------------------------------------------------------- power of a tray


def is_tray(chassis: Body) -> bool:
    """True for the chassis that is the whole tray, not a board in it."""
    return chassis.get("ChassisType") in ("Shelf", "RackMount", "Sled", "Blade", "StandAlone", "Enclosure")


def tray_power(bodies: Bodies) -> float | None:
    """Watts of the whole tray: its own chassis' EnvironmentMetrics, else the sensor of the hot-swap controllers' total."""
    for path, body in sorted(bodies.items()):
        if kind(body) == "EnvironmentMetrics" and (watts := number(body.get("PowerWatts"))) is not None:
            whose = bodies.get(path.rsplit("/", 1)[0], {})
            if is_tray(whose):
                return watts
    total = [s.reading for s in sensors(bodies) if "totalhsc" in last(s.path).lower() and s.measures == "Power"]
    return total[0] if total else None


# ---------------------------------------------------------------- logs and firmware


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a BMC's log. `log` is the path of its entries."""

    log: str
    ident: str
    severity: str
    created: str
    text: str


def entries(bodies: Bodies) -> dict[str, list[Entry]]:
    """Log (path of its entries) -> its lines, in the service's order. A log that was not read is in `failures`."""
    out: dict[str, list[Entry]] = {path: [] for path in bodies if path.endswith("/Entries") and "failed" not in bodies[path]}
    for path, body in bodies.items():
        log = path.rpartition("/")[0].removesuffix("#")
        if log.endswith("/Entries") and "failed" not in body and "#/" not in path:
            text = str(body.get("Message") or body.get("MessageId") or "")
            entry = Entry(log, last(path), str(body.get("Severity") or ""), str(body.get("Created") or ""), text[:400])
            out.setdefault(log, []).append(entry)
    return out


def firmware(bodies: Bodies) -> dict[str, str | None]:
    """Component -> version, None where it does not say; what is absent or disabled is left out."""
    out: dict[str, str | None] = {}
    for path, body in bodies.items():
        if "Inventory/" in path and "failed" not in body and state(body) not in ("Absent", "Disabled"):
            version = body.get("Version")
            out[last(path)] = str(version) if version not in (None, "", "N/A") else None
    return out


def unhealthy(bodies: Bodies) -> Iterator[tuple[str, str]]:
    """(path, Health) of everything that is there and not OK, sensors and leak detectors excepted."""
    for path, body in sorted(bodies.items()):
        if health(body) not in ("", "OK") and not _is_sensor(path, body) and "/LeakDetectors/" not in path:
            yield path, health(body)
