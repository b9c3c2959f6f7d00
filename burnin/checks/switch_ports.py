"""Are all ports of an NVLink switch tray to GPUs up, at speed, and without new errors? The switch's end of every NVLink.

Counters are read twice, `seconds` apart (30; a step of a loaded stage reads them under load), and judged by their growth. A port
to a compute tray that the rack file does not name may be down; then only the number of ports that are up can be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from burnin.checks import asked, nvos
from burnin.checks.base import TO_DO, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tools import Outcome, Reading
from burnin.checks.tools.nvos import ACCESS
from burnin.events import Measurement, Result
from burnin.rack.data import Data
from burnin.rack.parts import is_part
from burnin.rack.schema import Profile

TOOL = "nv show interface"
_LOOK = "compare the GPU's end of this link; reseat or swap one end at a time, then run again"
COUNT = Quantity("port.count", "1", "ports to GPUs that are up, against the profile", action=_LOOK)
STATE = Quantity("port.state", "1", "a port that is not up", action=_LOOK)
SPEED = Quantity("port.speed", "1", "a port slower than it can be, or than the others", action=_LOOK)
DIAGNOSTICS = Quantity("port.diagnostics", "1", "code of the link's diagnostics, 0 is nothing", action=_LOOK)
COUNTED = {
    name: Quantity(f"port.{name}.growth", "1", f"{about}, in the window", action=_LOOK)
    for name, about in (
        ("symbol_errors", "symbols wrong after error correction"),
        ("in_errors", "packets received with an error"),
        ("recoveries", "times the link lost its lanes and came back"),
        ("downed", "times the link went down"),
        ("integrity_errors", "errors of the link's own integrity"),
    )
}


class Window(Data):
    """`with: {seconds: 60}`"""

    seconds: float = Field(default=30.0, ge=0, le=600, description="between the two readings of the counters")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """The table of all ports, twice."""
    return [] if answers else [nvos.order(context.tray, [TOOL], float(context.args.get("seconds", 30.0)), [TOOL])]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Ports by the second reading, counters by what was added between both."""
    tray, said = context.tray, nvos.readings(evidence, context.tray, (TOOL, TOOL))
    if isinstance(said, str):
        return [one.unknown(tray, "lost", said) for one in (COUNT, STATE, SPEED, *COUNTED.values())]
    before, now = said
    if not nvos.sound(now):
        return [one.unknown(tray, "missing", nvos.why(now)) for one in (COUNT, STATE, SPEED, *COUNTED.values())]
    named, spare = names(tray, now), spare_ports(context)
    return [
        *_states(context, now, named, spare),
        *_speeds(tray, now, named),
        *(m for name, one in COUNTED.items() for m in _growth(context, one, name, before, now, named)),
    ]


def names(tray: str, reading: Reading) -> dict[str, str]:
    """acp44 -> s3.a1.p44 where NVOS says both chip and port; else the switch tray."""
    asic = {row.part: "".join(c for c in str(row.value) if c.isdigit()) for row in nvos.rows(reading, "asic")}
    port = {row.part: str(row.value) for row in nvos.rows(reading, "local-port")}
    out = {}
    for row in nvos.rows(reading, "port"):
        if ACCESS.fullmatch(row.part):
            chip = asic.get(row.part, "")
            part = f"{tray}.a{int(chip) - 1}.p{port.get(row.part, '')}" if chip and chip != "0" else tray
            out[row.part] = part if is_part(part) else tray
    return out


def ports(context: Context) -> int | None:
    """Ports to GPUs of one switch tray when every compute tray is there: every GPU's links, shared by all switch trays."""
    topology = context.profile.topology
    if not topology.links_per_gpu or not topology.switch_trays:
        return None
    return topology.compute_trays * topology.gpus_per_tray * topology.links_per_gpu // topology.switch_trays


def spare_ports(context: Context) -> int:
    """Ports of one switch tray whose compute trays the rack file does not name."""
    whole, topology = ports(context) or 0, context.profile.topology
    return whole * (topology.compute_trays - len(context.rack.compute())) // topology.compute_trays


def _states(context: Context, reading: Reading, named: dict[str, str], spare: int) -> list[Measurement]:
    tray, wanted = context.tray, ports(context)
    if wanted is None:
        return [
            COUNT.unknown(
                tray,
                "missing",
                f"profile {context.profile.profile} does not say how many there are{TO_DO}state it there",
            )
        ]
    found = [row for row in nvos.rows(reading, "port") if row.part in named]
    up, limit = [row for row in found if row.result is Outcome.PASS], f">= {wanted - spare}"
    out = []
    if len(found) < wanted:
        out.append(COUNT.unknown(tray, "missing", f"NVOS shows {len(found)} ports to GPUs of {wanted}", limit))
    elif len(up) < wanted - spare:
        few = sum(row.result is Outcome.FAIL for row in found) > spare
        text = f"{len(up)} ports are up"
        out.append(
            asked.bad(COUNT, tray, float(len(up)), text, limit) if few else asked.hold(COUNT, tray, float(len(up)), text, limit)
        )
    else:
        out.append(asked.good(COUNT, tray, float(len(up)), limit))
    if not spare:
        out += [
            _of(STATE, named, row.part, str(row.value), row.result, row.why) for row in found if row.result is not Outcome.PASS
        ]
    ups = {row.part for row in up}
    codes = [row for row in nvos.rows(reading, "diagnostics") if row.part in named and (not spare or row.part in ups)]
    bad = [row for row in codes if row.result is not Outcome.PASS]
    return [*out, *(_of(DIAGNOSTICS, named, row.part, str(row.value), row.result, row.why) for row in bad)]


def _of(quantity: Quantity, named: dict[str, str], name: str, value: str, result: Outcome, why: str) -> Measurement:
    text = f"{name}: {why or value}"
    part = named[name]
    return asked.bad(quantity, part, value, text) if result is Outcome.FAIL else asked.hold(quantity, part, value, text)


def _speeds(tray: str, reading: Reading, named: dict[str, str]) -> list[Measurement]:
    up = {row.part for row in nvos.rows(reading, "port") if row.result is Outcome.PASS}
    speed = {row.part: str(row.value) for row in nvos.rows(reading, "speed") if row.part in named and row.part in up}
    can = {row.part: str(row.value).split(",")[-1].strip() for row in nvos.rows(reading, "supported-speed")}
    if not speed:
        return [SPEED.unknown(tray, "missing", "NVOS says the speed of no port")]
    usual = max(sorted(set(speed.values())), key=list(speed.values()).count)
    out = [
        asked.bad(SPEED, named[name], said, f"{name} runs at {said}, it can {can.get(name, usual)}")
        for name, said in speed.items()
        if said != can.get(name, usual)
    ]
    silent = [name for name in up if name in named and name not in speed]
    if silent:
        out.append(SPEED.unknown(tray, "missing", f"no speed of {len(silent)} ports, {sorted(silent)[0]} for one"))
    return out or [asked.good(SPEED, tray, usual)]


def _growth(
    context: Context, quantity: Quantity, name: str, before: Reading, now: Reading, named: dict[str, str]
) -> list[Measurement]:
    """Of each port that is bad or was not read twice; the worst of them as the tray's where there is none."""
    old = {row.part: row.value for row in nvos.rows(before, name)} if nvos.sound(before) else {}
    new = {row.part: row.value for row in nvos.rows(now, name)}
    up = [row.part for row in nvos.rows(now, "port") if row.part in named and row.result is not Outcome.FAIL]
    grown, silent = dict[str, float](), list[str]()
    for port in up:
        was, is_ = old.get(port), new.get(port)
        if not isinstance(was, float) or not isinstance(is_, float) or is_ < was:
            silent.append(port)  # not read twice, or set back between
        else:
            grown[port] = is_ - was
    judged = [(port, quantity.judge(named[port], value, context.limits)) for port, value in grown.items()]
    bad = [_told(m, port) for port, m in judged if m.result is Result.FAIL]
    if silent or not up:
        why = f"{quantity.name} of {len(silent)} ports was not read twice, {silent[0]} for one" if silent else "no port is up"
        return [*bad, quantity.unknown(context.tray, "missing", why)]
    return bad or [quantity.judge(context.tray, max(grown.values()), context.limits)]


def _told(one: Measurement, port: str) -> Measurement:
    return Measurement(one.name, one.part, one.value, one.unit, one.limit, one.result, one.reason, f"at port {port}")


def window_s(profile: Profile, args: Mapping[str, Any]) -> float:
    """Between the two readings; the readings themselves take a second or two."""
    return Window.model_validate(dict(args)).seconds


CHECK = Check(
    name="switch-ports",
    about="every port of a switch tray to a GPU is up, at speed, and counts no new errors",
    quantities=(COUNT, STATE, SPEED, DIAGNOSTICS, *COUNTED.values()),
    judge=judge,
    orders=orders,
    scope="switch",
    args=Window,
    seconds=window_s,
    equipment=("NVOS",),
)
