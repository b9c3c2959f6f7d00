"""Does the rack go on when one supply, feed or pump is off? One is switched off under load through Redfish, and on again.

Only with `allow: [redundancy]` in the rack file, in a loaded stage, and where everything of its kind works before. A supply
(`part: p4.u2`) is switched by its own Redfish action; for a feed or a pump the site says which request does it (`at`, `off`,
`on`). What was switched must be seen to be off, else nothing was shown; whatever was seen, it is switched on again. It is the
rack's N+1 that is judged: the others go on working, no GPU brakes, the coolant flows. Its stage is a ramp
(`phase: ramp-redundancy`): no statistic of steady load must see what was switched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from burnin.checks import asked
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity, not_allowed
from burnin.events import Measurement
from burnin.rack.data import Data
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage
from burnin.telemetry import facility
from burnin.telemetry.bmc import CHASSIS, kind, last, reset, state

_LOOK = "look at what is left of this kind: it does not carry the rack alone"
_BRAKE = "throttle.hw_brake"
OFF = Quantity(
    "redundancy.off", "1", "one was seen to be off, and was at work before", action="see whether it can be switched at all"
)
HELD = Quantity("redundancy.held", "1", "the others worked on", action=_LOOK)
BRAKED = Quantity("redundancy.braked", "s", "time in hardware power brake while it was off", action=_LOOK)
FLOW = Quantity("redundancy.flow", "L/min", "coolant through the rack while it was off", action=_LOOK)
BACK = Quantity("redundancy.back", "1", "it is at work again", action="switch it on by hand, now; replace it if it stays off")


class Act(Data):
    """One Redfish POST."""

    path: str = Field(pattern=r"^/redfish/v1/\S{1,300}$")
    body: dict[str, str | int | float | bool] = Field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """As an order's args."""
        return {"path": self.path, "body": dict(self.body)}


class Args(Data):
    """`with: {part: p4.u2}`, or `with: {at: cdu, off: {path: ..., body: {...}}, on: {path: ..., body: {...}}}`"""

    part: str = Field(default="", pattern=r"^(p\d\.u\d)?$", description="a supply, by shelf and bay")
    at: str = Field(default="", pattern=r"^(p\d|cdu)?$", description="whose service switches and shows it")
    off: Act | None = None
    on: Act | None = None
    seconds: float = Field(default=20.0, ge=5, le=40, description="how long it is off, and how long it may take to come back")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.part) == bool(self.at) or (bool(self.at) != (self.off is not None and self.on is not None)):
            raise ValueError("say which supply (part: p4.u2), or at, off and on")
        return self

    @property
    def service(self) -> str:
        """Whose Redfish service it is."""
        return self.at or self.part.partition(".")[0]


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Look; off; wait; look; on; wait; look. What was switched off is switched on whatever was seen."""
    args = Args.model_validate(dict(context.args))
    if refused(context) or len(answers) > 6 or (answers and _unfit(args, answers[0])):
        return []
    to, number = args.service, len(answers)
    if number in (2, 5):
        return [_clock(args.seconds)]
    if number in (0, 3, 6):
        return [_clock(0.0), _look(to)]
    off, on = _acts(args, answers[0])
    act, undo = (off, on.request()) if number == 1 else (on, None)
    return [_clock(0.0), Order(to, "post", act.request(), "redfish", 30.0, undo)]


def _clock(wait_s: float) -> Order:
    return Order(RACK, "wait", {"wait_s": wait_s}, "clock", wait_s + 30.0)


def _look(to: str) -> Order:
    if to == "cdu":
        return asked.walk(to, (facility.EQUIPMENT,), 4, ("CDUs", "SecondaryCoolantConnectors", "Pumps"))
    return asked.walk(to, (CHASSIS,), 4, ("PowerSubsystem", "PowerSupplies"))


def refused(context: Context) -> str:
    """Why nothing may be switched here; empty when it may."""
    if "redundancy" not in context.rack.allow:
        return not_allowed("redundancy")
    return fits(context.stage, context.args, context.profile)


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """Only under a load that nobody judges as steady."""
    if stage.load is None:
        return "the stage is not loaded: at rest it would show nothing"
    own = (stage.phase or "").startswith("ramp")
    return "" if own else "its stage is judged as steady load: give it one of its own, phase ramp-redundancy"


def _bodies(given: Sequence[Answer]) -> Mapping[str, Any] | str:
    walks = [answer for answer in given if answer.order.via == "redfish"]
    if not walks or not walks[-1].ok:
        return str(walks[-1].body) if walks else "its service was not asked"
    body: Mapping[str, Any] = walks[-1].body
    return body


def _works(args: Args, bodies: Mapping[str, Any]) -> dict[str, bool | None]:
    """What there is of its kind -> does it work."""
    if args.service != "cdu":
        return {one.name: one.works for one in facility.shelf(bodies).supplies}
    out = dict[str, bool | None]()
    for path, body in bodies.items():
        if (kind(body) == "Pump" or "/Pumps/" in path) and state(body) != "Absent":
            rpm = facility.pump_rpm(body)
            out[last(path)] = None if rpm is None else rpm > 0 and state(body) in ("Enabled", "")
    return out


def _unfit(args: Args, given: Sequence[Answer]) -> str:
    """Why nothing is switched off now; empty when it may be."""
    bodies = _bodies(given)
    if isinstance(bodies, str):
        return bodies
    works = _works(args, bodies)
    if bad := [name for name, one in works.items() if not one]:
        return f"not all work before: {', '.join(bad)}"
    if len(works) < 2:
        return f"{args.service} shows {len(works)} of its kind: there is none to spare"
    return "" if args.at or _supply(args, bodies) is not None else f"{args.part} offers no way to be switched off"


def _supply(args: Args, bodies: Mapping[str, Any]) -> str | None:
    """The action of the supply in this bay that can be switched off and on."""
    name = _mine(args, bodies)
    for path, body in bodies.items():
        if "/PowerSupplies/" in path and last(path) == name:
            target, kinds = reset(body, "PowerSupply.Reset")
            if target and {"ForceOff", "On"} <= set(kinds):
                return target
    return None


def _mine(args: Args, bodies: Mapping[str, Any]) -> str:
    """The name of the supply in the step's bay."""
    bay = int(args.part.partition(".u")[2] or -1)
    return next((one.name for one in facility.shelf(bodies).supplies if one.number == bay), "")


def _acts(args: Args, first: Sequence[Answer]) -> tuple[Act, Act]:
    if args.off is not None and args.on is not None:
        return args.off, args.on
    bodies = _bodies(first)
    path = _supply(args, bodies) if not isinstance(bodies, str) else None
    return Act(path=path or "", body={"ResetType": "ForceOff"}), Act(path=path or "", body={"ResetType": "On"})


# ---------------------------------------------------------------- judging


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Off, held, back; each UNKNOWN where it was not seen."""
    args, answers = Args.model_validate(dict(context.args)), evidence.answers
    part = args.part or ("cdu" if args.at == "cdu" else args.at)
    if why := refused(context):
        return [OFF.unknown(part, "no_permission" if "allow" in why else "not_attained", why)]
    if not answers or (why := _unfit(args, answers[0])):
        return [OFF.unknown(part, "missing", f"not switched off: {why or 'it was not asked'}")]
    before = _works(args, _bodies(answers[0]))  # type: ignore[arg-type]
    during = _seen(args, answers, 3)
    after = _seen(args, answers, 6)
    out = list(_while_off(context, evidence, args, part, before, during))
    if isinstance(after, str):
        return [*out, BACK.unknown(part, "lost", f"nobody knows whether it is on again: {after}")]
    still = _named(args, answers[0], [name for name in before if not after.get(name)])
    back = [asked.bad(BACK, one, 0.0, f"not at work again: {', '.join(names)}") for one, names in still.items()]
    return [*out, *(back or [asked.good(BACK, part, 1.0)])]


def _named(args: Args, first: Sequence[Answer], names: Sequence[str]) -> dict[str, list[str]]:
    """Part -> which of these names are its own: each supply is its bay's, and pumps are the CDU's. Who was switched off is not to
    blame for another that went off as well."""
    bodies, out = _bodies(first), dict[str, list[str]]()
    supplies = facility.shelf(bodies).supplies if args.service != "cdu" and not isinstance(bodies, str) else ()
    bays = {one.name: f"{args.service}.u{one.number}" for one in supplies if one.number is not None}
    for name in names:
        out.setdefault(bays.get(name, args.service), []).append(name)
    return out


def _seen(args: Args, answers: Sequence[Sequence[Answer]], number: int) -> dict[str, bool | None] | str:
    if number >= len(answers):
        return "the step broke off before"
    bodies = _bodies(answers[number])
    return bodies if isinstance(bodies, str) else _works(args, bodies)


def _while_off(
    context: Context, evidence: Evidence, args: Args, part: str, before: Mapping[str, Any], during: dict[str, bool | None] | str
) -> Iterator[Measurement]:
    posted = _bodies(evidence.answers[1]) if len(evidence.answers) > 1 else "the step broke off before"
    if isinstance(posted, str) or isinstance(during, str):
        why = posted if isinstance(posted, str) else str(during)
        yield OFF.unknown(part, "missing", f"it is not known to have been off: {why}")
        return
    gone = [name for name in before if not during.get(name)]
    if not gone:
        yield OFF.unknown(part, "not_attained", "it was told to go off, and did not: nothing is shown")
        return
    first = _bodies(evidence.answers[0])
    mine = _mine(args, first) if args.part and not isinstance(first, str) else gone[0]
    if mine not in gone:
        yield OFF.unknown(part, "not_attained", f"it was told to go off, and did not; off is {', '.join(gone)}")
    else:
        yield asked.good(OFF, part, 1.0)
    others = _named(args, evidence.answers[0], [name for name in gone if name != mine])
    for one, names in others.items():
        why = f"with {part} off, it did not work either: {', '.join(names)}"
        yield asked.bad(HELD, one, float(len(gone)), why, "= 1 off")
    if not others:
        yield asked.good(HELD, part, 1.0, "= 1 off")
    begin, end = (float(answers[0].body["t_s"]) if answers[0].ok else 0.0 for answers in evidence.answers[1:5:3])
    yield from _braked(context, evidence, begin, end)
    if args.service == "cdu":
        yield _flow(context, evidence, begin, end)


def _braked(context: Context, evidence: Evidence, begin_s: float, end_s: float) -> Iterator[Measurement]:
    """Hardware power brake of every GPU from before it went off until it was told to come on."""
    slow_s, well = 2 * context.suite.sample_slow, True
    for gpu in context.gpus:
        series = evidence.telemetry.of(gpu, _BRAKE).between(begin_s - slow_s, end_s + slow_s)
        grown = series.growth()
        if series.present < 2 or grown != grown:
            well = False
            yield BRAKED.unknown(gpu, evidence.why_absent(gpu, _BRAKE), f"{_BRAKE} has {series.present} readings meanwhile")
        elif grown > 0:
            well = False
            yield asked.bad(BRAKED, gpu, grown, "it braked while one was off", "= 0 s")
    if well:
        yield asked.good(BRAKED, RACK, 0.0, "= 0 s")


def _flow(context: Context, evidence: Evidence, begin_s: float, end_s: float) -> Measurement:
    least = evidence.telemetry.of(RACK, "coolant.flow").between(begin_s, end_s).lowest()
    limit = context.limits.get("coolant.flow")
    if least != least or limit is None or limit.min is None:
        return FLOW.unknown(RACK, "missing", "the rack's flow was not read while the pump was off")
    if least < limit.min:
        return asked.bad(FLOW, RACK, least, "too little flow with one pump off", str(limit))
    return asked.good(FLOW, RACK, least, str(limit))


def seconds(profile: Profile, args: Mapping[str, Any]) -> float:
    """Twice its time, and what Redfish takes."""
    return 2 * float(args.get("seconds", 20.0)) + 20.0


CHECK = Check(
    name="redundancy",
    about="the rack goes on under load while one supply, feed or pump is off",
    quantities=(OFF, HELD, BRAKED, FLOW, BACK),
    judge=judge,
    orders=orders,
    metrics=(_BRAKE, "coolant.flow"),
    scope="rack",
    acts=True,
    leave="redundancy",
    args=Args,
    seconds=seconds,
    equipment=("power shelves or CDU",),
    fits=fits,
)
