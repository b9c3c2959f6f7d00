"""Weak signals of one part, added up: across independent mechanisms only, and never to more than HOLD.

Signatures that share a cause do not confirm each other: clock and idle power both move with leakage, core and memory with the
plate. So each signature has a `cause` in the catalogue, and it is causes that are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones

FUSION = "fusion"


def find(found: Sequence[Finding], rows: Mapping[str, SignatureRow]) -> list[Finding]:
    """Parts that only WATCH, from several causes. What is held or condemned already needs no confirmation."""
    row = rows[FUSION]
    parts: dict[str, list[Finding]] = {}
    for one in found:
        parts.setdefault(one.part, []).append(one)
    out = []
    for part, many in sorted(parts.items()):
        weights: dict[str, float] = {}
        for one in many:
            if cause := _cause(rows, one.signature):
                weights[cause] = max(weights.get(cause, -math.inf), weight(row, one.statistic))
        at = risk(row, weights.values())
        enough = len(weights) >= zones.number(row, "floor") and at >= zones.number(row, "risk")
        if enough and all(one.severity is Severity.WATCH for one in many):
            names, causes = ", ".join(sorted(one.signature for one in many)), sorted(weights)
            why = f"{len(causes)} independent mechanisms ({', '.join(causes)}) are out of family on this part: {names}"
            why += f"; together {100 * at:.0f} % that it is weak, by the catalogue's prior"
            out.append(
                zones.policy(FUSION, row, part, Severity.HOLD, float(len(causes)), why, causes=causes, risk=zones.short(at))
            )
    return out


def weight(row: SignatureRow, z: float | None) -> float:
    """Log likelihood ratio of one mechanism: a weak part is out by `shift` sigmas, a sound one is not; at most `cap`, at least
    -1. A rule without a z has a weight of its own."""
    if z is None:
        return zones.number(row, "rule")
    shift = zones.number(row, "shift")
    return max(-1.0, min(zones.number(row, "cap"), shift * abs(z) - shift * shift / 2))


def risk(row: SignatureRow, weights: Iterable[float]) -> float:
    """Probability that a part with these weights is weak, one weight per cause."""
    prior = zones.number(row, "prior")
    odds = prior / (1 - prior) * math.exp(math.fsum(weights))
    return odds / (1 + odds)


def _cause(rows: Mapping[str, SignatureRow], name: str) -> str:
    return rows[name].cause if name in rows else ""
