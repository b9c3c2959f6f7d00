"""What is read again and again of each Redfish service, and what it says as readings of parts. Pure.

A service is walked through once (`begin`), then asked only what `questions` picks from that walk. Readings carry the catalogue's
metrics: a tray's power, leak state and voltage, CPU temperatures; output of a shelf's supplies; the loop's values, which are
those of `rack` only where the loop is the rack's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnin.telemetry import bmc, facility
from burnin.telemetry.bmc import CHASSIS, SYSTEMS, Bodies, last, number

Scope = Literal["rack", "row"]
Columns = dict[tuple[str, str], float | None]

_CPU = re.compile(r"(?:HGX_)?CPU_(\d)$")
_NAMES = {
    "tray": ("ThermalSubsystem", "LeakDetection", "LeakDetectors", "Policies"),
    "shelf": ("PowerSubsystem", "PowerSupplies", "Sensors"),
    "cdu": ("CDUs", "SecondaryCoolantConnectors", "Pumps", "LeakDetection", "LeakDetectors"),
}


def sort(part: str) -> str:
    """`tray` (compute or switch), `shelf` or `cdu`."""
    return "cdu" if part == "cdu" else "shelf" if part.startswith("p") else "tray"


def begin(part: str) -> dict[str, Any]:
    """The walk that learns where things are."""
    roots = {"tray": [CHASSIS, SYSTEMS], "shelf": [CHASSIS], "cdu": [facility.EQUIPMENT]}
    return {"from": roots[sort(part)], "depth": 4, "names": list(_NAMES[sort(part)])}


def more(part: str, bodies: Bodies) -> list[str]:
    """What must be looked at once more before questions can be picked: which sensors a CPU has."""
    if sort(part) != "tray":
        return []
    return [f"{path}/Sensors" for path in sorted(bodies) if path.startswith(CHASSIS + "/") and _CPU.fullmatch(last(path))]


@dataclass(frozen=True, slots=True)
class Questions:
    """Single resources and whole collections to ask for each time."""

    single: tuple[tuple[str, tuple[str, str] | None], ...] = ()
    """(path, the one (part, metric) that it is asked for, None where it serves more)."""
    whole: tuple[str, ...] = ()


def questions(part: str, bodies: Bodies) -> Questions:
    """What to ask from now on, by what the walk found."""
    kind = sort(part)
    if kind == "shelf":
        whole = [path for path in bodies if path.endswith(("/PowerSupplies", "/Sensors"))]
        outputs = facility.shelf(bodies).supplies
        lacking = any(one.watts is None for one in outputs)
        metrics = [f"{p}/Metrics" for p, b in bodies.items() if "/PowerSupplies/" in p and "Metrics" in b]
        return Questions(tuple((path, None) for path in sorted(metrics)) if lacking else (), tuple(sorted(whole)))
    if kind == "cdu":
        ends = ("/SecondaryCoolantConnectors", "/Pumps", "/LeakDetectors", "/CDUs")
        links = [body.get("EnvironmentMetrics") for body in bodies.values()]
        air = sorted({str(link["@odata.id"]) for link in links if isinstance(link, Mapping) and "@odata.id" in link})
        return Questions(tuple((path, None) for path in air), tuple(sorted(path for path in bodies if path.endswith(ends))))
    homes = {path.split("/ThermalSubsystem/")[0] for path in bodies if path.endswith("/LeakDetectors")}
    homes |= {path for path, body in bodies.items() if body.get("ChassisType") in ("Shelf", "RackMount", "Sled", "Blade")}
    policies = [path for path in bodies if "/Policies/" in path and "leak" in last(path).lower()]
    detectors = [path for path in bodies if path.endswith("/LeakDetectors")]
    power = [f"{home}/EnvironmentMetrics" for home in homes if "EnvironmentMetrics" in bodies.get(home, {})]
    sensors = [f"{home}/Sensors" for home in homes if "Sensors" in bodies.get(home, {})]
    single = [(path, None) for path in (*sorted(policies), *sorted(power))]
    cpus = [(path, (f"{part}.c{cpu}", "cpu.temp")) for cpu, path in _cpus(bodies).items()]
    return Questions((*single, *cpus), (*sorted(detectors), *sorted(sensors)))


def _cpus(bodies: Bodies) -> dict[str, str]:
    """CPU number -> its temperature sensor: the one called an average where there is one."""
    out = {}
    for path, body in sorted(bodies.items()):
        owner = _CPU.fullmatch(last(path.rpartition("/")[0])) if path.endswith("/Sensors") else None
        rows = body.get("Members")
        links = [str(row.get("@odata.id")) for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        temps = [link for link in links if "temp" in last(link).lower() and "limit" not in last(link).lower()]
        if owner and temps:
            out[owner[1]] = next((link for link in temps if "avg" in last(link).lower()), temps[0])
    return out


@dataclass(frozen=True, slots=True)
class Said:
    """What one service said last: when (run second), its bodies, and why it cannot be asked (empty when it can)."""

    t_s: float
    bodies: Bodies = field(default_factory=dict)
    why: str = ""


def readings(part: str, bodies: Bodies, scope: Scope = "row", rack: str = "") -> dict[str, Columns]:
    """Tray (as ticks are kept by) -> (part, metric) -> value, None where it was not read."""
    kind = sort(part)
    if kind == "shelf":
        supplies = facility.shelf(bodies).supplies
        return {part: {(f"{part}.u{one.number}", "psu.power"): one.watts for one in supplies if one.number is not None}}
    if kind == "cdu":
        return _loop(bodies, scope, rack)
    out: Columns = {}
    found = bmc.detectors(bodies)
    if found:
        wet = bmc.leaking(found)
        out[part, "leak.state"] = None if wet is None else float(wet)
        out[part, "leak.voltage"] = bmc.lowest_volts(found)
    if part.startswith("t"):
        out[part, "tray.power"] = bmc.tray_power(bodies)
        for cpu, path in _cpus(bodies).items():
            out[f"{part}.c{cpu}", "cpu.temp"] = number(bodies.get(path, {}).get("Reading"))
    return {part: out}


def _loop(bodies: Bodies, scope: Scope, rack: str) -> dict[str, Columns]:
    now = facility.loop(bodies, scope, rack)
    own: Columns = {("cdu", "pump.speed"): now.pump_rpm}
    if not isinstance(now, facility.RackLoop):
        return {"cdu": {**own, ("cdu", "coolant.supply_temp"): now.supply_temp, ("cdu", "coolant.pressure"): now.pressure}}
    loop = {
        "supply_temp": now.supply_temp, "return_temp": now.return_temp, "flow": now.flow, "dp": now.dp, "pressure": now.pressure,
    }  # fmt: skip
    return {"cdu": own, "rack": {("rack", f"coolant.{name}"): value for name, value in loop.items()}}
