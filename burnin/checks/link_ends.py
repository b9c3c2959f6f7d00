"""Both ends of every NVLink in one table: are they joined, do they agree, and at which end do errors arrive?

What `links` and `switch-ports` judge from one end each is set side by side here. A link is never pinned on one end without the
other: only where the port counts errors and the GPU's end, watched for longer, counts none, the port is named, not the link.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from burnin.checks import asked, nvos
from burnin.checks.base import RACK, TO_DO, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.link_table import End, Row, ends, port_ends, table
from burnin.checks.switch_ports import TOOL, Window, spare_ports, window_s
from burnin.checks.tools import Reading
from burnin.events import Measurement

FABRIC = 'nv action run ib cmd "iblinkinfo -l"'
_TOOLS = ("nv show system", "iblinkinfo", TOOL, TOOL)
_FEW = 24
_LOOK = "read the other end of this link by hand, or find out why it was not read"
_SWAP = "the other end is clean: swap this end first, then the cable cartridge, and run again"
JOINED = Quantity("link.joined", "1", "NVLinks whose both ends were read", action=_LOOK)
AGREE = Quantity("link.agree", "1", "a link whose ends say different things of being up", action=_LOOK)
ERRORS = Quantity("link.errors", "1", "symbols that arrived wrong, at which end", action=_SWAP)


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Every GPU's GUID; every switch tray's name, ports (twice) and fabric."""
    if answers:
        return []
    shows, pause_s = ["nv show system", FABRIC, TOOL], float(context.args.get("seconds", 30.0))
    trays = [nvos.order(tray, shows, pause_s, [TOOL]) for tray in context.rack.switches()]
    return [*(Order(tray, "identify") for tray in context.trays), *trays]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Joined, agreeing, and where errors arrive."""
    count = context.profile.topology.links_per_gpu
    if not count:
        return [
            JOINED.unknown(
                RACK,
                "missing",
                f"profile {context.profile.profile} does not say how many NVLinks a GPU has{TO_DO}state it there",
            )
        ]
    rows, whys = rows_of(context, evidence, count)
    wanted = [row for row in rows if row.link is not None]
    joined = [row for row in wanted if row.both]
    limit = f"= {len(wanted)}"
    out = [m for row in rows for m in _told(row)]
    if len(joined) == len(wanted):
        out.append(asked.good(JOINED, RACK, float(len(joined)), limit))
    else:
        why = whys[0] if whys else "a port that is down does not say where it is plugged"
        text = f"both ends of {len(joined)} of {len(wanted)} links were read: {why}"
        out.append(asked.hold(JOINED, RACK, float(len(joined)), text, limit))
        alone = [row.link for row in wanted if not row.both and row.link]
        ports = [row.port for row in rows if row.link is None and row.port] if not spare_ports(context) else []
        named = [*(alone if len(alone) <= _FEW else []), *(ports if len(ports) <= _FEW else [])]
        out += [JOINED.unknown(part, "missing", "the other end of this link is not known") for part in named]
    return out


def rows_of(context: Context, evidence: Evidence, count: int) -> tuple[list[Row], list[str]]:
    """The table, and why something is missing from it."""
    gpus, whys = dict[str, str](), list[str]()
    for answer in (answer for given in evidence.answers for answer in given if answer.order.verb == "identify"):
        for gpu in answer.body.get("gpus", []) if answer.ok else []:
            if gpu.get("guid"):
                gpus[str(gpu["guid"])] = f"{answer.order.to}.{gpu['gpu']}"
        whys += [] if answer.ok else [str(answer.body)]
    if len(gpus) < len(context.gpus):
        whys.append(f"{len(context.gpus) - len(gpus)} GPUs do not say their GUID")
    hosts, fabrics, ports = dict[str, str](), list[Reading](), dict[str, End]()
    for tray in context.rack.switches():
        said = nvos.readings(evidence, tray, _TOOLS)
        if isinstance(said, str):
            whys.append(f"{tray}: {said}")
            continue
        whys += [f"{tray}: {nvos.why(one)}" for one in said if not nvos.sound(one)]
        system, fabric, before, now = said
        if nvos.sound(system) and (host := nvos.value(system, "hostname")):
            if host in hosts:
                whys.append(f"{tray} and {hosts[host]} have one name, {host}")
                hosts[host] = ""  # nobody can tell their chips apart
            else:
                hosts[host] = tray
        fabrics += [fabric] if nvos.sound(fabric) else []
        ports |= port_ends(tray, before, now) if nvos.sound(now) else {}
    links = {f"{gpu}.l{i}": _end(evidence, f"{gpu}.l{i}") for gpu in context.gpus for i in range(count)}
    return table(gpus, links, ends({host: tray for host, tray in hosts.items() if tray}, fabrics), ports), whys


def _end(evidence: Evidence, link: str) -> End:
    state, grown = evidence.whole(link, "nvlink.state"), evidence.whole(link, "nvlink.symbol_errors").growth()
    up = None if not state.present else bool(state.known()[-1] >= 1)
    return End(up, None if math.isnan(grown) else grown)


def _told(row: Row) -> list[Measurement]:
    """What both ends together say of one link."""
    if not row.both or row.link is None or row.port is None or row.gpu is None or row.switch is None:
        return []
    out = []
    if row.agree is False:
        why = f"the GPU's end is {_up(row.gpu)}, port {row.port} is {_up(row.switch)}"
        out.append(asked.hold(AGREE, row.link, None, why))
    at_gpu, at_port = row.erring
    if at_port and row.gpu.errors == 0:
        why = f"errors arrive at {row.port} only; the other end, {row.link}, counts none in this stage"
        out.append(asked.bad(ERRORS, row.port, row.switch.errors or 0.0, why, "= 0"))
    elif at_gpu or at_port:
        where = f"both ends, and at {row.port}" if at_gpu and at_port else "this end" if at_gpu else f"{row.port}"
        rest = "" if at_gpu and at_port else "; the other end was not read" if None in (row.gpu.errors, row.switch.errors) else ""
        text = f"errors arrive at {where}{rest or ('' if at_port else f'; port {row.port} counts none')}"
        out.append(asked.bad(ERRORS, row.link, row.gpu.errors or row.switch.errors or 0.0, text, "= 0"))
    return out


def _up(end: End) -> str:
    return "up" if end.up else "down"


CHECK = Check(
    name="link-ends",
    about="both ends of every NVLink: joined by what NVML and NVOS say, agreeing, and where errors arrive",
    quantities=(JOINED, AGREE, ERRORS),
    judge=judge,
    orders=orders,
    metrics=("nvlink.state", "nvlink.symbol_errors"),
    scope="rack",
    args=Window,
    seconds=window_s,
    equipment=("switch trays",),
)
