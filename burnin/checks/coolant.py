"""The loop that feeds the rack: flow, temperatures, pressures against the profile.

A unit that feeds a row has no flow of this rack, and none is made up: what only the rack's own loop can say stays UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Sequence

from burnin.checks import asked
from burnin.checks.base import RACK, TO_DO, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.bmc import health
from burnin.telemetry.facility import EQUIPMENT, Loop, RackLoop, loop

CDU = "cdu"
_LOOP = "look at the CDU (pump, valve, filter, level), then at the manifold's valves and quick disconnects"
FLOW = Quantity("coolant.flow", "L/min", "coolant through the rack, at its least", advisory=True, action=_LOOP)
SUPPLY = Quantity("coolant.supply_temp", "Cel", "coolant coming in, at its lowest and highest", action=_LOOP)
RETURN = Quantity("coolant.return_temp", "Cel", "coolant leaving, at its highest", advisory=True, action=_LOOP)
DP = Quantity("coolant.dp", "kPa", "pressure difference over the rack, at its highest", advisory=True, action=_LOOP)
PRESSURE = Quantity("coolant.pressure", "kPa", "pressure of the supply, at its lowest and highest", action=_LOOP)
HEALTH = Quantity("cdu.health", "1", "what the CDU says of itself, its pumps and its detectors", action="read the CDU's own log")
NAMES = (
    "CDUs",
    "SecondaryCoolantConnectors",
    "Pumps",
    "EnvironmentMetrics",
    "LeakDetection",
    "LeakDetectors",
    "Reservoirs",
    "Filters",
)
_ROW = "the CDU feeds a row: what it says here is not this rack's"


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """One walk through the unit."""
    return [] if answers or context.rack.coolant is None else [asked.walk(CDU, (EQUIPMENT,), 4, NAMES)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Each quantity at its extremes in the stage, and as it is now."""
    where = context.rack.coolant
    if where is None:
        return [
            FLOW.unknown(
                RACK,
                "missing",
                f"the rack file does not say where the coolant is read{TO_DO}state it there (coolant:)",
            )
        ]
    if why := asked.refused(evidence, CDU):
        return [q.unknown(RACK, "missing", why) for q in (FLOW, SUPPLY, RETURN, DP, PRESSURE)]
    found = asked.bodies(evidence, CDU)
    now = loop(found, where.scope, context.rack.rack, tuple(where.serves or ()))
    part = RACK if isinstance(now, RackLoop) else CDU
    out = [
        *_extremes(context, evidence, SUPPLY, part, now.supply_temp),
        *_extremes(context, evidence, PRESSURE, part, now.pressure),
        *_of_rack(context, evidence, now),
        *(asked.hold(HEALTH, CDU, "not OK", why) for why in now.unhealthy),
        *asked.unread(HEALTH, CDU, found),
    ]
    if any(one.name == HEALTH.name for one in out):
        return out
    if not any(health(body) == "OK" for body in found.values()):
        return [*out, HEALTH.unknown(CDU, "not_supported", "the CDU does not say how it is (over Modbus: no alarm register)")]
    return [*out, asked.good(HEALTH, CDU, "OK")]


def _of_rack(context: Context, evidence: Evidence, now: Loop) -> list[Measurement]:
    if not isinstance(now, RackLoop):
        return [quantity.unknown(RACK, "not_supported", _ROW) for quantity in (FLOW, RETURN, DP)]
    pairs = ((FLOW, now.flow), (RETURN, now.return_temp), (DP, now.dp))
    return [one for quantity, value in pairs for one in _extremes(context, evidence, quantity, RACK, value)]


def _extremes(context: Context, evidence: Evidence, quantity: Quantity, part: str, now: float | None) -> list[Measurement]:
    """The value that the limit likes least, of now and of the stage; not read now is UNKNOWN, unless it was bad before."""
    past = evidence.window(part, quantity.name)
    values = [v for v in (now, past.lowest(), past.highest()) if v is not None and v == v]
    judged = [quantity.judge(part, value, context.limits) for value in values]
    bad = [one for one in judged if one.result is Result.FAIL]
    if bad:
        return bad[:1]
    if now is None:
        return [quantity.unknown(part, "missing", f"the CDU does not say {quantity.name}")]
    return judged[:1]


CHECK = Check(
    name="coolant",
    about="flow, temperatures and pressures of the loop that feeds the rack",
    quantities=(FLOW, SUPPLY, RETURN, DP, PRESSURE, HEALTH),
    judge=judge,
    orders=orders,
    metrics=("coolant.flow", "coolant.supply_temp", "coolant.return_temp", "coolant.dp", "coolant.pressure"),
    scope="rack",
    equipment=("CDU",),
)
