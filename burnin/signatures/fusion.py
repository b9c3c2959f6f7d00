"""Weak signals of one part, added up: across independent mechanisms only, and never to more than HOLD.

Signatures that share a cause do not confirm each other: clock and idle power both move with leakage, core and memory with the
plate. So each signature has a `cause` in the catalogue, and it is causes that are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        causes = sorted({cause for one in many if (cause := _cause(rows, one.signature))})
        if len(causes) >= zones.number(row, "floor") and all(one.severity is Severity.WATCH for one in many):
            names = ", ".join(sorted(one.signature for one in many))
            why = f"{len(causes)} independent mechanisms ({', '.join(causes)}) are out of family on this part: {names}"
            out.append(zones.policy(FUSION, row, part, Severity.HOLD, float(len(causes)), why, causes=causes))
    return out


def _cause(rows: Mapping[str, SignatureRow], name: str) -> str:
    return rows[name].cause if name in rows else ""
