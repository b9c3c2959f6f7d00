"""Is the tray dry, can it be seen, and does the BMC act by itself?

A detector is dry when it says so and its voltage lies where a dry one's does. One that is absent, silent or broken is not dry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from burnin.checks import asked
from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.bmc import CHASSIS, Bodies, Detector, detectors, leak_policy

_STOP = "stop load, isolate power and liquid of this tray, find the water; a detector that is wrong is replaced and tested wet"
COUNT = Quantity("leak.detectors", "1", "leak detectors that say something", action="look at the detectors' cables in this tray")
WET = Quantity("leak.state", "1", "detectors that are wet, or whose voltage is not a dry one's", action=_STOP)
VOLTS = Quantity("leak.voltage", "V", "voltage of every detector, at its worst", action=_STOP)
POLICY = Quantity(
    "leak.policy",
    "1",
    "does the BMC power the tray off by itself when it leaks",
    advisory=True,
    action="enable the leak detection policy of this BMC, or have somebody decide that it stays off",
)
NAMES = ("ThermalSubsystem", "LeakDetection", "LeakDetectors", "Policies")
_KEEP = ("DetectorState", "LeakDetectorType", "PolicyEnabled", "PolicyConditions", "PolicyReactions", "Members", "LeakDetectors")
_SENSOR = ("Reading", "ReadingType", "ReadingUnits", "Thresholds")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Detectors and policy first; then the sensors of the chassis that has detectors."""
    if not answers:
        return [asked.walk(asked.bmc(context), (CHASSIS,), 4, NAMES, _KEEP)]
    if len(answers) > 1 or not answers[0][0].ok:
        return []
    homes = {path.split("/ThermalSubsystem/")[0] for path in answers[0][0].body if "/LeakDetectors/" in path}
    begin = [f"{home}/Sensors" for home in sorted(homes)]
    return [asked.walk(asked.bmc(context), begin, 1, (), _SENSOR)] if begin else []


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Now, and at any time in the stage."""
    tray, found = context.tray, asked.bodies(evidence)
    seen = detectors(found)
    out = asked.unread(COUNT, tray, {path: body for path, body in found.items() if "/Sensors/" not in path})
    out += [COUNT.unknown(tray, "missing", one.why) for one in seen if one.wet is None]
    if not out:
        out.append(_count(context, len(seen)))
    out += _wet(context, evidence, seen)
    return [*out, *_volts(context, evidence, seen), _policy(tray, found)]


def _count(context: Context, seen: int) -> Measurement:
    """Fewer than the profile knows may be another maker's tray: somebody must look, nothing is condemned."""
    one = COUNT.judge(context.tray, float(seen), context.limits)
    if one.result is not Result.FAIL:
        return one
    why = f"the BMC shows {seen} leak detectors" if seen else "the BMC shows no leak detector"
    return asked.hold(COUNT, context.tray, float(seen), why, one.limit)


def _wet(context: Context, evidence: Evidence, seen: list[Detector]) -> list[Measurement]:
    wet = [one.why for one in seen if one.wet]
    if not wet and evidence.whole(context.tray, "leak.state").highest() > 0:
        wet = ["a detector was wet in this stage, and is not any more"]
    if wet:
        return [asked.bad(WET, context.tray, float(len(wet)), why, "= 0") for why in wet]
    if not any(one.wet is False for one in seen):
        return [WET.unknown(context.tray, "missing", "no detector says that it is dry", "= 0")]
    return [asked.good(WET, context.tray, 0.0, "= 0")]


def _volts(context: Context, evidence: Evidence, seen: list[Detector]) -> list[Measurement]:
    """The profile's limits hold even where the sensor states none."""
    past = evidence.whole(context.tray, "leak.voltage")
    volts = [v for v in (*(one.volts for one in seen), past.lowest(), past.highest()) if v is not None and not math.isnan(v)]
    if not volts:
        return [VOLTS.unknown(context.tray, "not_supported" if seen else "missing", "no detector has a voltage that can be read")]
    judged = [VOLTS.judge(context.tray, one, context.limits) for one in sorted(volts)]
    return [next((one for one in judged if one.result is Result.FAIL), judged[0])]


def _policy(tray: str, found: Bodies) -> Measurement:
    policy = leak_policy(found)
    if policy.enabled is None:
        return POLICY.unknown(tray, "missing", policy.why, "= enabled")
    if not policy.enabled:
        return asked.hold(POLICY, tray, "disabled", policy.why, "= enabled")
    return asked.good(POLICY, tray, "enabled", "= enabled")


CHECK = Check(
    name="leak",
    about="leak detectors with their voltages, and the BMC's own leak policy",
    quantities=(COUNT, WET, VOLTS, POLICY),
    judge=judge,
    orders=orders,
    metrics=("leak.state", "leak.voltage"),
    equipment=("BMC",),
)
