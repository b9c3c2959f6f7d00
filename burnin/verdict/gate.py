"""May this rack ship, now, with the parts that are in it now? Pure: facts in, word and reasons out.

Only one thing ships a rack: a whole run of the suite that site policy names, that says PASS, that can be derived again
from its own evidence to the letter, that is not too old, and whose serials are the ones that answer today.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnin.events import Word
from burnin.rack.schema import Site


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate says, and every reason that keeps it from PASS."""

    word: Word
    reasons: tuple[str, ...]


def decide(
    document: Mapping[str, Any] | None,
    rejudged: Mapping[str, Any] | None,
    policy: Site,
    suite: str,
    now: dt.datetime,
    live: Sequence[str] | None,
    replaced: Sequence[str] = (),
) -> Gate:
    """The gate.

    `document`: the stored verdict of the rack's last run of `suite` (None: there is none); `rejudged`: the verdict derived
    again from that run's evidence; `live`: differences between the serials of the run and those that answer now (None: nobody
    was asked); `replaced`: why parts are not those that were tested, as a person said. A FAIL stays FAIL; anything else that
    is not beyond doubt is HOLD.
    """
    if document is None or rejudged is None:
        return Gate(Word.HOLD, (f"the rack has no ended run of suite {suite}",))
    reasons = []
    if document != rejudged:
        reasons.append(f"the verdict of run {document['run']} cannot be derived again from its evidence")
    said = {document["verdict"], rejudged["verdict"]}
    if said != {"PASS"}:
        reasons.append(f"run {document['run']} says {rejudged['verdict']}")
        reasons += [f"{f['part']}: {f['why']}" for f in rejudged["findings"] if f["severity"] != "WATCH"]
        reasons += [f"{h['part']}: {h['why']}" for h in rejudged["holds"]]
    if not document["ships"]:
        reasons.append(f"suite {document['suite']} is not one that ships a rack")
    if not document["whole"]:
        reasons.append(f"run {document['run']} was not whole: parts, checks or trays were left out")
    reasons += _age(document, policy, now)
    reasons += [f"{why}: `burnin run --resume {document['run']}` tests what depends on it" for why in replaced]
    if live is None:
        reasons.append("nobody asked the rack which parts are in it now")
    else:
        reasons += live
    if "FAIL" in said:
        return Gate(Word.FAIL, tuple(reasons))
    return Gate(Word.HOLD if reasons else Word.PASS, tuple(reasons))


def _age(document: Mapping[str, Any], policy: Site, now: dt.datetime) -> list[str]:
    out = []
    age = now - dt.datetime.fromisoformat(document["ended"])
    if policy.max_age_days is not None and age > dt.timedelta(days=policy.max_age_days):
        out.append(f"run {document['run']} ended {age.days} days ago, accepted are {policy.max_age_days:g}")
    if age < dt.timedelta(minutes=-5):
        out.append(f"run {document['run']} ended in the future: a clock is wrong")
    over = [w for w in document["waivers"] if dt.date.fromisoformat(w["until"]) < now.date()]
    return out + [f"the waiver of {w['interlock']} by {w['by']} ended on {w['until']}" for w in over]


def serials(identity: Mapping[str, Any]) -> dict[str, str | None]:
    """What identifies a tray's parts, of an agent's `identify`: the tray's serial, and each GPU's UUID, by part suffix."""
    out: dict[str, str | None] = {"": identity.get("host", {}).get("serial")}
    for gpu in identity.get("gpus", []):
        out[gpu["gpu"]] = gpu.get("uuid")
    return out


def differences(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any] | str]) -> list[str]:
    """What is not as it was: `then` and `now` are tray -> identity; a string in `now` says why that tray did not answer."""
    out = []
    for tray in sorted({*then, *now}):
        found = now.get(tray, "it is not in the rack file")
        if isinstance(found, str):
            out.append(f"{tray} does not say what is in it: {found}")
            continue
        was, is_now = serials(then.get(tray, {})), serials(found)
        for part in sorted({*was, *is_now}):
            name = f"{tray}.{part}" if part else tray
            if was.get(part) != is_now.get(part):
                out.append(f"{name} is {is_now.get(part) or 'gone'}, the run tested {was.get(part) or 'nothing there'}")
            elif part and was.get(part) is None:
                out.append(f"{name} does not say who it is")
    return out
