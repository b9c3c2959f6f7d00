"""What was replaced since it was tested: by what the tray says now, by the build record, by who was enrolled. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from burnin.rack.schema import Expected
from burnin.store.records import Enrollment
from burnin.verdict.gate import serials


def exchanged(tray: str, tested: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, str]:
    """Part -> why, of one tray. What did not say who it was, then or now, is not known to be another one.

    A tray with another serial is another tray, whatever sits in it.
    """
    if tested is None:
        return {}
    was, found = serials(tested), serials(now)
    out = {
        f"{tray}.{part}" if part else tray: f"{tray}{f'.{part}' if part else ''} was {old}, is {found[part]}"
        for part, old in was.items()
        if old and found.get(part) and found[part] != old
    }
    return {tray: out[tray]} if tray in out else out


def announced(
    tested: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, Expected],
    expects: Mapping[str, Expected],
    enrollments: Iterable[Enrollment],
) -> dict[str, str]:
    """Part -> why, before anybody is asked.

    `expected`: the build record as it was at the last session, `expects`: as it is now (a serial that was changed there is a
    part that was changed); `enrollments`: of the time since.
    """
    out: dict[str, str] = {}
    for tray, one in expects.items():
        was = serials(tested.get(tray, {}))
        before = expected.get(tray)
        if one.serial and one.serial != (before.serial if before else None) and was.get("") and one.serial != was[""]:
            out[tray] = f"{tray} was {was['']}, the build record now says {one.serial}"
        olds, news = (before.gpus if before else None) or [], one.gpus or []
        for position, new in enumerate(news if tray not in out else ()):
            old = olds[position] if position < len(olds) else None
            if old and new != old:
                out[f"{tray}.g{position}"] = f"{tray}.g{position} was {old} in the build record, which now says {new}"
    for enrolled in enrollments:
        if enrolled.replaced_serial:
            out[enrolled.part] = f"{enrolled.part} was {enrolled.replaced_serial}, which was replaced on {enrolled.time}"
    return out
