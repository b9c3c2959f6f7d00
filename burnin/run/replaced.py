"""What was replaced since it was tested: by what the tray says now, by the build record, by who was enrolled. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        old_record = before.serial if before else None
        known = was.get("") or old_record  # a switch tray does not say its serial here: then the record's
        if one.serial and known and one.serial not in (old_record, known):
            out[tray] = f"{tray} was {known}, the build record now says {one.serial}"
        olds, news = (before.gpus if before else None) or [], one.gpus or []
        for position, new in enumerate(news if tray not in out else ()):
            old = olds[position] if position < len(olds) else None
            if old and new != old:
                out[f"{tray}.g{position}"] = f"{tray}.g{position} was {old} in the build record, which now says {new}"
    return out | dict(swapped(enrollments))


def swapped(enrollments: Iterable[Enrollment]) -> Iterator[tuple[str, str]]:
    """Part -> why, of those that a person enrolled in place of another."""
    for one in enrollments:
        if one.replaced_serial:
            yield one.part, f"{one.part} was {one.replaced_serial}, which was replaced on {one.time}"


def since(enrollments: Sequence[Enrollment], config: Mapping[str, Any], started: str) -> Sequence[Enrollment]:
    """Those after the run's last session began: by their number then, which no clock moves; by time where it was not kept."""
    known = config.get("enrolled")
    return enrollments[known:] if isinstance(known, int) else [one for one in enrollments if one.time > started]
