"""Three zones. WATCH: out of a Gaussian family once in `watch` racks. HOLD: once in `hold` racks, where sigma is known as well
as it is. FAIL: beyond what a heavy-tailed (t5) healthy family holds once in `fail` racks, twice, and only where the catalogue
gives a `fail` rate.

Two gates, always: z (against the rack's own robust spread, or the fleet's) and `floor` (practically large, in physical units).
Limits are dynamic: they grow with the number of parts compared and with doubt about sigma (burnin.signatures.tails). Where the
spread of healthy parts is known beforehand, `sure` is a size that they do not reach even with heavy tails: from there on a part
is judged as if tails were normal, and no tail that the rack has, or may have, excuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures.readings import Family, Readings
from burnin.signatures.robust import median
from burnin.signatures.tails import GAUSS, UNKNOWN, leaning, unless_heavy, worst
from burnin.signatures.tails import limit as worst_of
from burnin.telemetry.series import Floats


class Zone(IntEnum):
    """How far out, in one stretch."""

    FAMILY = 0
    WATCH = 1
    HOLD = 2
    FAIL = 3


class Seen(NamedTuple):
    """One part in one stretch: what was measured, by how much it exceeds its peers (unit of the floor), z, the zone, and the
    `edge`: what would have to be measured of it to be at the floor."""

    stage: str
    value: float
    excess: float
    z: float
    zone: Zone
    edge: float


def number(row: SignatureRow, name: str, otherwise: float | None = None) -> float:
    """One limit of a signature, whichever bound it has. Raises ValueError where it has none.

    `otherwise`: for limits that catalogues which are kept with older runs do not have.
    """
    if otherwise is not None and name not in row.limits:
        return otherwise
    one = row.limits[name]
    for bound in (one.min, one.max, one.equals):
        if isinstance(bound, float | int):
            return float(bound)
    raise ValueError(f"signature limit {name} has no number")


def zone(row: SignatureRow, n: int, excess: float, z: float, dof: float, tail: float = GAUSS, skew: float = 0.0) -> Zone:
    """The zone of one of `n` parts. NaN is in no zone but FAMILY: what was not measured is not judged here. `skew`: how much
    further out than the other side healthy parts are on the side that is judged."""
    tail = excused(row, excess, tail)
    if not (excess >= number(row, "floor") and z >= leaning(worst(n, number(row, "watch"), dof, tail), skew)):
        return Zone.FAMILY
    if "fail" in row.limits and z >= worst_of(n, number(row, "fail")) and excess >= number(row, "far"):
        return Zone.FAIL
    return Zone.HOLD if z >= held_from(row, n, dof, tail, skew) else Zone.WATCH


def excused(row: SignatureRow, excess: float, tail: float) -> float:
    """The tail that may explain an excess: none, from `sure` on."""
    return GAUSS if "sure" in row.limits and excess >= number(row, "sure") else tail


def held_from(row: SignatureRow, n: int, dof: float, tail: float, skew: float = 0.0) -> float:
    """Robust sigmas from which the worst of `n` parts is HOLD; where the tail is not known, t5 parts are spared, too."""
    least = leaning(worst(n, number(row, "hold"), dof, tail), skew)
    return max(least, unless_heavy(n)) if tail == UNKNOWN else least


def among(
    readings: Readings,
    row: SignatureRow,
    stage: str,
    value: Floats,
    family: Family,
    where: NDArray[np.bool_] | None = None,
    per: float = 1.0,
    sign: float = 1.0,
) -> dict[str, Seen]:
    """Every measured GPU among its peers: `sign` times what it has for itself, so that bad is positive.

    `where`: GPUs that may be out at all (a second condition of the signature); all others stay in the family and in n.
    `per`: by how much `value` changes where the excess changes by 1.
    """
    if not readings.enough(family.own):
        return {}
    names = [gpu for gpus in readings.gpus for gpu in gpus]
    return parts(row, stage, names, value.ravel(), family, None if where is None else where.ravel(), per, sign)


def parts(
    row: SignatureRow,
    stage: str,
    names: Sequence[str],
    value: Floats,
    family: Family,
    where: NDArray[np.bool_] | None = None,
    per: float = 1.0,
    sign: float = 1.0,
    only: NDArray[np.int64] | None = None,
) -> dict[str, Seen]:
    """The same for any parts, by name. `only`: places of those that anybody asks for, where most are known to be in family."""
    apart = sign * family.own.ravel()
    n = int(np.count_nonzero(~np.isnan(apart)))
    if only is not None:
        names, value, apart = [names[i] for i in only], value[only], apart[only]
        where = None if where is None else where[only]
    out = {}
    floor, family_zone = number(row, "floor"), Zone.FAMILY
    allowed = apart >= floor if where is None else (apart >= floor) & where  # False for NaN
    columns = (value, apart, apart / family.sigma, value - per * (apart - floor), allowed)
    for name, seen, excess, z, edge, far in zip(names, *(column.tolist() for column in columns), strict=True):
        if excess == excess:
            at = zone(row, n, excess, z, family.dof, family.tail, sign * family.skew) if far else family_zone
            out[name] = Seen(stage, seen, excess, z, at, edge)
    return out


def collect(many: Sequence[Mapping[str, Seen]]) -> dict[str, list[Seen]]:
    """Per part, what was seen of it in each stretch, in order."""
    out: dict[str, list[Seen]] = {}
    for one in many:
        for part, seen in one.items():
            out.setdefault(part, []).append(seen)
    return out


def severity(seen: Sequence[Seen]) -> Severity | None:
    """One re-test decides: the zone that a part reached twice is its own; once, it is HOLD at most, and of many times WATCH."""
    if not any(one.zone for one in seen):
        return None
    zones = sorted((one.zone for one in seen), reverse=True)
    if len(zones) > 1 and zones[1] > Zone.FAMILY:
        return {Zone.FAIL: Severity.FAIL, Zone.HOLD: Severity.HOLD, Zone.WATCH: Severity.WATCH}[zones[1]]
    return Severity.HOLD if zones[0] >= Zone.HOLD and len(zones) < 3 else Severity.WATCH


def findings(name: str, row: SignatureRow, seen: Mapping[str, Sequence[Seen]], why: Callable[[Seen], str]) -> list[Finding]:
    """One finding for each part that was out of family, with every stretch as evidence. `why` says the worst one in words."""
    out = []
    for part, all_of in sorted(seen.items()):
        grade = severity(all_of)
        if grade is None:
            continue
        far = [one for one in all_of if one.zone > Zone.FAMILY]
        worst = max(far, key=lambda one: one.z)
        again = len(far) > 1 or grade is Severity.WATCH
        out.append(
            Finding(
                part=part,
                signature=name,
                severity=grade,
                value=short(float(np.mean([one.value for one in far]))),
                limit=short(float(np.mean([one.edge for one in far]))),
                unit=row.unit,
                why=f"{why(worst)} (z {worst.z:.1f}), in {len(far)} of {len(all_of)} phases",
                action=row.action if again else f"repeat the stage on the whole rack once; {row.action}",
                fru=row.fru,
                statistic=short(worst.z),
                evidence={
                    s.stage: {"value": short(s.value), "excess": short(s.excess), "z": short(s.z), "zone": s.zone.name}
                    for s in all_of
                },
            )
        )
    return out


def policy(name: str, row: SignatureRow, part: str, grade: Severity, value: float, why: str, **evidence: object) -> Finding:
    """A finding of a rule that needs no statistics; its limit is the catalogue's `floor` where it counts the same as `value`."""
    floor = row.limits.get("floor")
    bound = short(number(row, "floor")) if floor is not None and floor.unit == row.unit else None
    return Finding(part, name, grade, short(value), bound, row.unit, why, row.action, row.fru, evidence=dict(evidence))


def relative(values: Floats) -> Floats:
    """Values as shares above the middle of the rack."""
    middle = median(values.ravel())
    out: Floats = values / middle - 1.0 if middle else np.full_like(values, np.nan)
    return out


def short(value: float) -> float:
    """Six significant digits: what a verdict keeps."""
    return float(f"{value:.6g}")


def doing(one: Finding, action: str) -> Finding:
    """The same finding with an action that fits the part it names."""
    return replace(one, action=action)


def on(one: Finding, part: str, what: str) -> Finding:
    """The same finding on another part, its sentence beginning with what it is about."""
    return replace(one, part=part, why=what + one.why)
