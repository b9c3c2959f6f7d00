"""Versions and settings of trays, GPUs and switch trays: as the baseline says, or the same everywhere, or exactly what differs.

What BMCs list is the check `firmware`'s; here are driver, kernel and BIOS of the trays, VBIOS and settings of the GPUs as NVML
says them, and the firmware of the switch trays as NVOS does. The baseline is the rack file's `firmware_baseline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from burnin.checks import asked, nvos
from burnin.checks.alike import Found, differing, joined
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement

SHOW = "nv show platform firmware"
_OF_HOST = ("kernel", "machine", "bios")
_OF_TRAY = ("driver", "cuda")
_OF_GPU = ("vbios", "inforom")
_SET = ("power_limit_w", "persistence", "compute_mode", "ecc", "mig", "max_clock_sm")
_UPDATE = "bring this part to what the baseline (or the other parts) have, then run again"
VALUE = Quantity(
    "configuration.value", "1", "a version or setting that is not the baseline's, or not the others'", action=_UPDATE
)
AUDIT = Quantity("configuration.audit", "1", "versions and settings that were compared", action=_UPDATE)


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Every tray's identity and settings, every switch tray's firmware."""
    if answers:
        return []
    agents = [Order(tray, verb) for tray in context.trays for verb in ("identify", "state")]
    return [*agents, *(nvos.order(tray, [SHOW]) for tray in context.rack.switches())]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """What differs, named; UNKNOWN where a part was not read."""
    found, out = read(context, evidence)
    stated = context.rack.firmware_stated
    for kind, values in found.items():
        wanted = stated.of(kind) if stated is not None else {}
        parts = {part for said in values.values() for part in said}
        for name in sorted({*values, *wanted} if parts else values):
            silent = dict[str, str | None].fromkeys(sorted(parts))
            out += differing(VALUE, name, values.get(name, silent), wanted.get(name))
    count = sum(map(len, found.values()))
    if not count:
        out.append(AUDIT.unknown(RACK, "missing", "no tray says its versions"))
    return out or [asked.good(AUDIT, RACK, float(count))]


def read(context: Context, evidence: Evidence) -> tuple[Mapping[str, Found], list[Measurement]]:
    """tray, gpu, switch -> what -> part -> what it says; and the parts that were not read."""
    trays, gpus, switches, out = dict[str, Any](), dict[str, Any](), dict[str, Any](), list[Measurement]()
    for tray in context.trays:
        who, state = _said(evidence, tray, "identify"), _said(evidence, tray, "state")
        if why := next((one for one in (who, state) if isinstance(one, str)), ""):
            out.append(AUDIT.unknown(tray, "lost" if evidence.lost else "missing", why))
            continue
        assert isinstance(who, Mapping) and isinstance(state, Mapping)
        host = who.get("host") or {}
        trays[tray] = {**{name: _text(host.get(name)) for name in _OF_HOST}, **{name: _text(who.get(name)) for name in _OF_TRAY}}
        known = {f"{tray}.{gpu['gpu']}": gpu for gpu in who.get("gpus", [])}
        for gpu in context.profile.topology.gpus(tray):
            own, its = known.get(gpu), state.get(gpu.partition(".")[2])
            if own is None or its is None:
                out.append(AUDIT.unknown(gpu, "missing", "it does not say its versions and settings"))
                continue
            gpus[gpu] = {name: _text(own.get(name)) for name in _OF_GPU} | {name: _text(its.get(name)) for name in _SET}
    for tray in context.rack.switches():
        said = nvos.readings(evidence, tray, (SHOW,))
        if isinstance(said, str) or not nvos.sound(said[0]):
            out.append(AUDIT.unknown(tray, "missing", said if isinstance(said, str) else nvos.why(said[0])))
        else:
            switches[tray] = {row.part: _text(row.value) for row in nvos.rows(said[0], "actual-firmware")}
    return {"tray": joined(trays), "gpu": joined(gpus), "switch": joined(switches)}, out


def _said(evidence: Evidence, tray: str, verb: str) -> Mapping[str, Any] | str:
    answers = [a for given in evidence.answers for a in given if (a.order.to, a.order.verb) == (tray, verb)]
    if not answers:
        return f"{tray} was not asked"
    body = answers[-1].body
    return body if answers[-1].ok and isinstance(body, Mapping) else str(body)


def _text(value: Any) -> str | None:
    """One spelling for what NVML and NVOS say: numbers without a trailing zero, lists with commas."""
    if isinstance(value, list):
        return ", ".join(str(_text(one)) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return None if value in (None, "", "N/A") else str(value)


CHECK = Check(
    name="configuration",
    about="versions and settings of trays, GPUs and switch trays, against a baseline and between parts",
    quantities=(VALUE, AUDIT),
    judge=judge,
    orders=orders,
    scope="rack",
    equipment=("switch trays",),
)
