"""Is the NVLink switch tray the right one, well, dry, and its firmware the agreed one? Asked of NVOS on the tray.

What NVOS calls ok is ok, what it calls a fault fails, and any other word, an empty cell or a cut table holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from burnin.checks import asked, nvos
from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tools import Outcome, Reading
from burnin.events import Measurement
from burnin.rack.data import Data

_SHOWS = (
    "nv show platform",
    "nv show platform chassis-location",
    "nv show platform inventory",
    "nv show platform firmware",
    "nv show platform environment",
    "nv show platform environment leakage",
)
_PLACE = "this switch tray belongs to another rack or slot: correct its address in the rack file"
_LOOK = "look at this part of the switch tray and its supply; swap the tray if it stays"
_STOP = "stop load, isolate power and liquid of this switch tray, find the water; a wrong detector is replaced and tested wet"
SERIAL = Quantity("switch.serial", "1", "the serial that the switch tray reports; it must report one", action=_PLACE)
CHASSIS = Quantity("switch.chassis", "1", "chassis serial that NVOS reports, against the rack file", advisory=True, action=_PLACE)
PARTS = Quantity("switch.parts", "1", "components that NVOS says are ok", action=_LOOK)
PART = Quantity("switch.part", "1", "a component that is not ok", action=_LOOK)
ENVIRONMENT = Quantity("switch.environment", "1", "sensors, supplies and fans that NVOS says are ok", action=_LOOK)
SENSOR = Quantity("switch.sensor", "1", "a sensor, supply or fan that is not ok", action=_LOOK)
COUNT = Quantity("switch.leak.detectors", "1", "leak detectors that say something", action="look at the detectors' cables")
LEAK = Quantity("switch.leak", "1", "detectors that are wet", action=_STOP)
FIRMWARE = Quantity(
    "switch.firmware", "1", "firmware, against the step's baseline", action="bring it to the version of the baseline"
)


class Baseline(Data):
    """`with: {firmware: {ASIC: 35.2014.1482}}`"""

    firmware: dict[str, str] = Field(default_factory=dict, description="component -> version that every switch tray must have")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """All of it in one script."""
    return [] if answers else [nvos.order(context.tray, _SHOWS)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Identity, components, environment, leaks, firmware."""
    tray, said = context.tray, nvos.readings(evidence, context.tray, _SHOWS)
    if isinstance(said, str):
        return [one.unknown(tray, "lost", said) for one in (SERIAL, CHASSIS, PARTS, ENVIRONMENT, LEAK, FIRMWARE)]
    platform, place, inventory, firmware, environment, leakage = said
    return [
        *_identity(context, platform, place),
        *_states(tray, inventory, PARTS, PART),
        *_states(tray, environment, ENVIRONMENT, SENSOR),
        *_leaks(context, leakage),
        *_firmware(context, firmware),
    ]


def _identity(context: Context, platform: Reading, place: Reading) -> list[Measurement]:
    serial = nvos.value(platform, "serial-number") if nvos.sound(platform) else None
    chassis = nvos.value(place, "chassis-sn") if nvos.sound(place) else None
    return [
        asked.good(SERIAL, context.tray, serial) if serial else SERIAL.unknown(context.tray, "missing", nvos.why(platform)),
        CHASSIS.equal(context.tray, chassis, context.rack.chassis, "the rack file (chassis:)"),
    ]


def _states(tray: str, reading: Reading, all_: Quantity, one: Quantity) -> list[Measurement]:
    """One row where all are ok, else one for each that is not."""
    out = [] if nvos.sound(reading) else [all_.unknown(tray, "missing", nvos.why(reading))]
    states = nvos.rows(reading, "state")
    for row in states:
        text = f"{row.part}: {row.why or 'it does not say how it is'}"
        if row.result is Outcome.FAIL:
            out.append(asked.bad(one, tray, str(row.value), text))
        elif row.result is not Outcome.PASS:
            out.append(asked.hold(one, tray, row.value, text))
    return out or [asked.good(all_, tray, float(len(states)))]


def _leaks(context: Context, reading: Reading) -> list[Measurement]:
    tray, found = context.tray, nvos.rows(reading, "leak")
    told = [row for row in found if row.result in (Outcome.PASS, Outcome.FAIL)]
    out = [asked.bad(LEAK, tray, 1.0, f"{row.part}: {row.why}", "= 0") for row in found if row.result is Outcome.FAIL]
    out += [asked.hold(LEAK, tray, None, f"{row.part}: {row.why}", "= 0") for row in found if row.result is Outcome.UNKNOWN]
    if not nvos.sound(reading):
        return [*out, LEAK.unknown(tray, "missing", nvos.why(reading), "= 0")]
    return [COUNT.judge(tray, float(len(told)), context.limits), *(out or [asked.good(LEAK, tray, 0.0, "= 0")])]


def _firmware(context: Context, reading: Reading) -> list[Measurement]:
    tray, own = context.tray, context.args.get("firmware")
    wanted = {str(k): str(v) for k, v in own.items()} if isinstance(own, Mapping) else {}
    if not nvos.sound(reading):
        return [FIRMWARE.unknown(tray, "missing", nvos.why(reading))]
    found = {row.part: row for row in nvos.rows(reading, "actual-firmware")}
    out = [asked.hold(FIRMWARE, tray, None, f"{name}: {row.why}") for name, row in found.items() if row.why]
    for name, version in wanted.items():
        row = found.get(name)
        if row is None or row.value is None:
            out.append(FIRMWARE.unknown(tray, "missing", f"{name} does not say its version", f"= {version}"))
        elif row.value != version:
            out.append(asked.bad(FIRMWARE, tray, str(row.value), f"{name} is {row.value}, not {version}", f"= {version}"))
    return out or [asked.good(FIRMWARE, tray, float(len(found)))]


CHECK = Check(
    name="switch",
    about="an NVLink switch tray's identity, components, environment, leak detectors and firmware, as NVOS says",
    quantities=(SERIAL, CHASSIS, PARTS, PART, ENVIRONMENT, SENSOR, COUNT, LEAK, FIRMWARE),
    judge=judge,
    orders=orders,
    scope="switch",
    args=Baseline,
    equipment=("NVOS",),
)
