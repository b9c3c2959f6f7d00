"""Many reasons -> one word. FAIL beats HOLD beats PASS; all reasons are listed whatever the word. Pure.

Reasons are folded to the part that explains them: what sits in a lost tray is not listed again one by one, and what all
GPUs of a tray have in common is the tray's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from burnin.events import Coverage, Finding, Hold, Result, Severity, Status, Step, Word
from burnin.rack.parts import within
from burnin.rack.schema import Topology

_MOST_REASONS = 3
REPEAT = "run this stage again on {part}"
"""What to do where nothing better is known."""


def word(findings: Sequence[Finding], holds: Sequence[Hold], steps: Sequence[Step], coverage: Coverage) -> Word:
    """The verdict. PASS needs everything: no finding that weighs, nothing on hold, every step passed, every slot measured."""
    if any(f.severity is Severity.FAIL for f in findings) or any(s.result is Result.FAIL for s in steps):
        return Word.FAIL
    if holds or coverage.measured < coverage.required or any(f.severity is Severity.HOLD for f in findings):
        return Word.HOLD
    if not steps or any(s.status is not Status.COMPLETE or s.result is not Result.PASS for s in steps):
        return Word.HOLD
    return Word.PASS


def findings(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per (part, signature): the gravest, which tells how often it was seen; gravest and highest parts first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for one in found:
        groups.setdefault((one.part, one.signature), []).append(one)
    rank = [Severity.FAIL, Severity.HOLD, Severity.WATCH]
    out = []
    for group in groups.values():
        gravest = min(group, key=lambda f: rank.index(f.severity))
        stages: dict[str, list[str]] = {gravest.why: []}
        for one in group:
            stages.setdefault(one.why, []).extend([stage] if (stage := one.evidence.get("stage")) else [])
        texts = [f"{why} ({', '.join(dict.fromkeys(where))})" if where else why for why, where in stages.items()]
        out.append(replace(gravest, why=_joined(texts)))
    return tuple(sorted(out, key=lambda f: (rank.index(f.severity), f.part.count("."), f.part, f.signature)))


def holds(raw: Iterable[Hold], causes: Mapping[str, str], topology: Topology, trays: Sequence[str]) -> tuple[Hold, ...]:
    """Holds that remain: without those that a cause (part -> why) higher up explains, one per part and kind, folded up.

    A cause stands for itself: whoever names it also gives its hold.
    """
    kept: dict[tuple[str, str], list[Hold]] = {}
    for hold in raw:
        explained = any(within(hold.part, part) and (hold.part != part or hold.why != why) for part, why in causes.items())
        if not (explained and hold.kind == "unmeasured"):
            kept.setdefault((hold.part, hold.kind), []).append(hold)
    merged = {
        key: replace(group[0], why=_joined(dict.fromkeys(h.why for h in group)), next=_next(group)) for key, group in kept.items()
    }
    for tray in trays:
        merged = _fold(merged, topology.gpus(tray), tray)
    merged = _fold(merged, list(trays), "rack")
    return tuple(sorted(merged.values(), key=lambda h: (h.kind != "aborted", h.part.count("."), h.part, h.kind)))


def _fold(merged: dict[tuple[str, str], Hold], children: Sequence[str], above: str) -> dict[tuple[str, str], Hold]:
    """When all children hold for the same reason, it is the parent's (a lone child keeps its own)."""
    out = dict(merged)
    for kind in {key[1] for key in merged}:
        here = [merged.get((child, kind)) for child in children]
        texts = {h.why.replace(h.part, "{}") if h else None for h in here}
        if len(children) > 1 and None not in here and len(texts) == 1:
            for child in children:
                del out[child, kind]
            first = here[0]
            assert first is not None
            why = first.why.replace(first.part, "each")
            first = replace(first, part=above, why=why, next=first.next.replace(first.part, above))
            own = out.get((above, kind))
            out[above, kind] = replace(own, why=f"{own.why}; {why}", next=_next([own, first])) if own else first
    return out


def _next(group: Sequence[Hold]) -> str:
    """What to do of all of them, each once; to do the same again only where nothing helps more."""
    said = list(dict.fromkeys(hold.next for hold in group))
    return _joined([one for one in said if not one.startswith(REPEAT.format(part=""))] or said[:1])


def _joined(reasons: Iterable[str]) -> str:
    many = list(reasons)
    more = f"; and {len(many) - _MOST_REASONS} more" if len(many) > _MOST_REASONS else ""
    return "; ".join(many[:_MOST_REASONS]) + more
