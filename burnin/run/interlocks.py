"""What must be true before anything heats. Unread is not good.

A profile lists its interlocks: what agents say of GPUs stands here, what BMCs, shelves, switch trays and the CDU say in
`burnin.run.interlocks_facility`. What is unread or bad refuses load until a named person waives it in the rack file, with a
reason and a date. Pure: facts in, states out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from burnin.rack.schema import Profile, Rack
from burnin.run.interlocks_facility import Around
from burnin.run.interlocks_facility import Interlock as Interlock
from burnin.telemetry.watched import Said

FABRIC = ("fabric.state", "fabric.status", "fabric.health")
METRICS = ("gpu.tlimit", *FABRIC)
"""What is read of each GPU before load."""


def evaluate(
    profile: Profile,
    rack: Rack,
    today: dt.date,
    identities: Mapping[str, Mapping[str, Any]],
    readings: Mapping[str, Mapping[str, float | None]],
    said: Mapping[str, Said] | None = None,
    switches: Mapping[str, str] | None = None,
    loaded: Collection[str] = (),
) -> list[Interlock]:
    """Every interlock of the profile, and those that hold wherever they can be read.

    `identities`: tray -> what its agent's `identify` gave, for the trays that answer; `readings`: every GPU of these trays ->
    the last value of each of METRICS, None where it could not be read; `said`: what each Redfish service says now; `switches`:
    switch tray -> why it was not reached (empty where it was); `loaded`: GPUs that burn already.
    """
    around = Around(profile, rack, tuple(sorted(identities)), said or {}, switches or {})
    out: list[Interlock] = []
    for name in (*profile.interlocks, *(name for name in around.offered() if name not in profile.interlocks)):
        if name == "rack_identity":
            found = around.whose_bmcs(rack_identity(rack, identities), identities)
        elif name == "gpu_margin":
            found = gpu_margins(profile, {gpu: known.get("gpu.tlimit") for gpu, known in readings.items()}, loaded)
        elif name == "fabric":
            found = fabric(profile, readings)
        else:
            found = around.evaluate(name)
        out += [_waive(one, rack, today) for one in found]
    return out


def _waive(one: Interlock, rack: Rack, today: dt.date) -> Interlock:
    if one.state == "good":
        return one
    for waiver in rack.waive:
        if waiver.interlock == one.name:
            if waiver.until >= today:
                return Interlock(one.name, one.part, "waived", f"waived by {waiver.by} until {waiver.until}: {waiver.why}")
            return Interlock(one.name, one.part, one.state, f"{one.why}; the waiver of {waiver.by} ended on {waiver.until}")
    return one


def rack_identity(rack: Rack, identities: Mapping[str, Mapping[str, Any]]) -> list[Interlock]:
    """Do all trays that answer say the same chassis serial and the tray index that the rack file gives them?

    A mistyped address must not heat the neighbour. A tray that cannot say is only kept from being loaded itself.
    """
    said = {tray: _chassis(identity) for tray, identity in identities.items()}
    known = [chassis for chassis, _ in said.values() if chassis]
    home = rack.chassis or (max(sorted(set(known)), key=known.count) if known else None)
    out = []
    for tray, (chassis, index) in sorted(said.items()):
        if not chassis or index is None:
            out.append(Interlock("rack_identity", tray, "unread", f"{tray} does not say in which rack it is"))
        elif chassis != home:
            out.append(Interlock("rack_identity", tray, "bad", f"{tray} says chassis {chassis}, the rack is {home}"))
        elif index != int(tray[1:]):
            out.append(Interlock("rack_identity", tray, "bad", f"{tray} says it is tray {index}"))
        else:
            out.append(Interlock("rack_identity", tray, "good", f"chassis {chassis}, tray {index}"))
    return out


def _chassis(identity: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Chassis and tray index on which all GPUs of a tray agree; two answers are as good as none."""
    gpus = identity.get("gpus", [])
    chassis = {gpu.get("chassis") for gpu in gpus}
    index = {gpu.get("tray_index") for gpu in gpus}
    return (chassis.pop() if len(chassis) == 1 else None), (index.pop() if len(index) == 1 else None)


def gpu_margins(profile: Profile, margins: Mapping[str, float | None], loaded: Collection[str] = ()) -> list[Interlock]:
    """Is every GPU's T.Limit margin read, and above what the profile wants before load? One that burns already keeps what its
    agent keeps it at: the margin at which load is cut."""
    limits = {name: profile.limits.get(f"gpu.tlimit.{name}") for name in ("start", "cutoff")}
    leasts = {name: limit.min if limit is not None else None for name, limit in limits.items()}
    out = []
    for gpu, margin in sorted(margins.items()):
        least = leasts["cutoff" if gpu in loaded else "start"]
        if margin is None:
            out.append(Interlock("gpu_margin", gpu, "unread", f"the T.Limit margin of {gpu} is not read"))
        elif least is None:
            out.append(Interlock("gpu_margin", gpu, "unread", f"profile {profile.profile} knows no margin to start with"))
        elif margin < least:
            out.append(
                Interlock("gpu_margin", gpu, "bad", f"the T.Limit margin of {gpu} is {margin:g} Cel, needed are {least:g}")
            )
        else:
            out.append(Interlock("gpu_margin", gpu, "good", f"{margin:g} Cel"))
    return out


def fabric(profile: Profile, readings: Mapping[str, Mapping[str, float | None]]) -> list[Interlock]:
    """Is every GPU registered with a healthy fabric, as the profile's limits say?"""
    out = []
    for gpu, known in sorted(readings.items()):
        wanted = {name: profile.limits.get(name) for name in FABRIC}
        unread = [name for name in FABRIC if known.get(name) is None or (limit := wanted[name]) is None or limit.equals is None]
        off = [name for name, limit in wanted.items() if name not in unread and limit is not None and known[name] != limit.equals]
        if off:
            why = ", ".join(f"{name} of {gpu} is {known[name]:g}" for name in off)
            out.append(Interlock("fabric", gpu, "bad", why))
        elif unread:
            out.append(Interlock("fabric", gpu, "unread", f"{', '.join(unread)} of {gpu} is not read"))
        else:
            out.append(Interlock("fabric", gpu, "good", "registered and healthy"))
    return out


def refusal(interlocks: Sequence[Interlock]) -> str | None:
    """Why nothing at all may be loaded, in one sentence; None when the rack as a whole may.

    Any rack-wide interlock that does not allow it refuses, and so does any tray that says it belongs elsewhere.
    """
    no = [
        one
        for one in interlocks
        if not one.allows and (one.part == "rack" or (one.name == "rack_identity" and one.state == "bad"))
    ]
    if not no:
        return None
    reasons: dict[str, list[str]] = {}
    for one in no:
        why = one.why if one.name in one.why or one.name == "rack_identity" else f"{one.name}: {one.why}"
        reasons.setdefault(why.replace(one.name, "\0"), []).append(one.name)
    return "; ".join(why.replace("\0", ", ".join(names)) for why, names in reasons.items())


def loadable(interlocks: Sequence[Interlock], gpus: Sequence[str]) -> list[str]:
    """Of these GPUs, those that no interlock of their own or of their tray keeps from being loaded."""
    kept = {one.part for one in interlocks if not one.allows}
    return [gpu for gpu in gpus if gpu not in kept and gpu.split(".")[0] not in kept]
