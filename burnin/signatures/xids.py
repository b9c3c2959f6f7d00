"""XIDs in their order: the first one is the cause, what follows is its cascade; and many at once are what they share. Pure.

What a single XID weighs is the catalogue's (`xids.yaml`) and the check's. A sequence is never more than HOLD: it explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from burnin.events import Finding, LogLine, Severity
from burnin.rack.parts import kind, tray_of
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.zones import number

SEQUENCE = "xid.sequence"
_TOGETHER = ("tray", "fabric")
"""Patterns that are about several parts at once, not about one part's sequence."""


def find(log: Iterable[LogLine], row: SignatureRow) -> list[Finding]:
    """One finding per part and pattern, and per tray or rack that several parts' XIDs point at."""
    first = _first(log)
    out = []
    for part, times in sorted(first.items()):
        for name, steps in row.patterns.items():
            if name not in _TOGETHER and (chain := _chain(times, steps)):
                why = f"XIDs in the order of {name} trouble: " + ", then ".join(f"{code} at {t:.1f} s" for t, code in chain)
                value = float(chain[0][1])
                out.append(
                    zones.policy(SEQUENCE, row, part, Severity.HOLD, value, why, pattern=name, chain=[c for _, c in chain])
                )
    return [*out, *_trays(first, row), *_fabric(first, row)]


def _first(log: Iterable[LogLine]) -> dict[str, dict[int, float]]:
    """Part -> XID -> when it was first seen, from whichever source."""
    out: dict[str, dict[int, float]] = {}
    for line in log:
        if line.kind == "xid" and line.code.isascii() and line.code.isdigit():
            times = out.setdefault(line.part, {})
            code = int(line.code)
            times[code] = min(line.t_s, times.get(code, line.t_s))
    return out


def _chain(times: Mapping[int, float], steps: list[list[int]]) -> list[tuple[float, int]]:
    """The XIDs of a pattern in their order: its first step, and at least one later step not before it. Else nothing."""
    chain: list[tuple[float, int]] = []
    for i, step in enumerate(steps):
        seen = sorted((times[code], code) for code in step if code in times)
        seen = [one for one in seen if not chain or one[0] >= chain[-1][0]]
        if seen:
            chain.append(seen[0])
        elif i == 0:
            return []
    return chain if len(chain) > 1 else []


def _trays(first: Mapping[str, Mapping[int, float]], row: SignatureRow) -> Iterator[Finding]:
    """Two GPUs or more of one tray that drop within seconds: what they share comes first (power, host, a switch of the bus)."""
    codes = {code for step in row.patterns.get("tray", []) for code in step}
    trays: dict[str, dict[str, float]] = {}
    for part, times in first.items():
        hits = [t for code, t in times.items() if code in codes]
        if hits and kind(part) == "GPU":
            trays.setdefault(tray_of(part), {})[part] = min(hits)
    for tray, parts in sorted(trays.items()):
        span = max(parts.values()) - min(parts.values())
        if len(parts) > 1 and span <= number(row, "window_s"):
            why = f"{', '.join(sorted(parts))} dropped within {span:.1f} s of each other: what they share failed first"
            one = zones.policy(SEQUENCE, row, tray, Severity.HOLD, float(len(parts)), why, pattern="tray", gpus=sorted(parts))
            yield zones.doing(one, f"look at power, host and bus of {tray} before any of its boards is replaced")


def _fabric(first: Mapping[str, Mapping[int, float]], row: SignatureRow) -> Iterator[Finding]:
    """Link errors on GPUs of several trays within seconds: one event, seen from many ends; the first is where to begin."""
    codes = {code for step in row.patterns.get("fabric", []) for code in step}
    times = {part: min(t for code, t in seen.items() if code in codes) for part, seen in first.items() if codes & set(seen)}
    if not times:
        return
    start = min(times.values())
    close = sorted((t, part) for part, t in times.items() if t - start <= number(row, "window_s"))
    if len({tray_of(part) for _, part in close}) >= number(row, "trays"):
        parts = [part for _, part in close]
        span = close[-1][0] - start
        why = f"link errors on {len(parts)} GPUs of several trays within {span:.1f} s, first on {parts[0]}: one event, many ends"
        one = zones.policy(SEQUENCE, row, "rack", Severity.HOLD, float(len(parts)), why, pattern="fabric", order=parts[:12])
        yield zones.doing(one, f"look at switch trays and fabric manager at that time, and at the links of {parts[0]} first")
