"""Did a copy between two GPUs go over NVLink, and did a link err meanwhile: both ends' counters, joined with the copy. Pure.

Bytes that do not follow a copy are held against its speed. Slow, and counted at neither end: it went another way, FAIL. Fast,
or counted at one end only: speed and counters contradict each other, UNKNOWN. A link whose errors grew is named, and which
pair copied then; which end of it is bad is not known from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from burnin.checks.base import Context, Quantity
from burnin.checks.links import COUNTED
from burnin.events import REASONS, Measurement, Result

SHARE = Quantity(
    "p2p.nvlink",
    "1",
    "bytes that the NVLinks counted / bytes copied between GPUs of the tray: the pair with the least, at its better end",
    action="look at the peer access, the fabric and the NVLink states of both GPUs, then run again",
)
ERRORS = Quantity(
    "p2p.link_errors",
    "1",
    "errors and recoveries that one NVLink counted at either end while a pair copied",
    action="run again on this tray; if the same link counts again, swap one end at a time",
)
_WAYS = {"from": "tx_bytes", "to": "rx_bytes"}


@dataclass(frozen=True, slots=True)
class Pair:
    """One ordered pair that was copied, and what its ends counted; `said` None where the message has nothing of it."""

    source: str
    target: str
    slow: bool
    said: Mapping[str, Any] | None


def judge(context: Context, pairs: list[Pair], missing: Mapping[str, tuple[str, str]]) -> Iterator[Measurement]:
    """Bytes for the tray, errors for each link that grew, else for each GPU. `missing`: GPU (g2) -> (reason, why) of a pair of
    its that was not copied."""
    if "nvlink.tx_bytes" not in context.profile.lacks:
        yield _share(context, pairs, next(iter(missing.values()), None))
    if not {*COUNTED} <= {*context.profile.lacks}:
        for gpu in context.gpus:
            yield from _errors(context, gpu, pairs, missing.get(gpu.partition(".")[2]))


def _number(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if good else None


def _end(pair: Pair, end: str) -> Mapping[str, Any]:
    side = pair.said.get(end) if pair.said is not None else None
    return side if isinstance(side, dict) else {}


def _unread(pair: Pair, end: str, metric: str) -> tuple[str, str]:
    unread = _end(pair, end).get("unread")
    reason = unread.get(metric) if isinstance(unread, dict) else None
    name = pair.source if end == "from" else pair.target
    return (reason if reason in REASONS else "missing"), f"{metric} of {name} was not read from {pair.source} to {pair.target}"


def _shares(pair: Pair) -> dict[str, float] | tuple[str, str]:
    """End -> share of the copied bytes that it counted; or (reason, why)."""
    copied = _number(pair.said.get("copied")) if pair.said is not None else None
    if not copied:
        return "missing", f"nothing is told of the NVLinks from {pair.source} to {pair.target}"
    out = {}
    for end, way in _WAYS.items():
        moved = _number(_end(pair, end).get(way))
        if moved is None:
            return _unread(pair, end, f"nvlink.{way}")
        out[end] = moved / copied
    return out


def _share(context: Context, pairs: list[Pair], gap: tuple[str, str] | None) -> Measurement:
    tray, best, absent = context.tray, float("inf"), gap
    other_way, contradicted = [], []
    for pair in pairs:
        shares = _shares(pair)
        if isinstance(shares, tuple):
            absent = absent or shares
            continue
        high, low = (SHARE.judge(tray, pick(shares.values()), context.limits) for pick in (max, min))
        best = min(best, max(shares.values()))
        words = f"{pair.source} > {pair.target}: {shares['from']:.3g} sent, {shares['to']:.3g} received"
        if high.result is Result.FAIL and pair.slow:
            other_way.append(words)
        elif low.result is Result.FAIL:
            contradicted.append(words)
    if other_way:
        judged = SHARE.judge(tray, best, context.limits)
        return replace(judged, why=f"slow, and not over NVLink at either end, as share of the bytes: {'; '.join(other_way)}")
    if contradicted:
        why = "what the NVLinks counted does not follow the copies, but the speed or the other end does: "
        return SHARE.unknown(tray, "missing", why + "; ".join(contradicted))
    if absent is not None or not pairs:
        return SHARE.unknown(tray, *(absent or ("missing", "no pair was measured")))
    return SHARE.judge(tray, best, context.limits)


def _errors(context: Context, gpu: str, pairs: list[Pair], gap: tuple[str, str] | None) -> Iterator[Measurement]:
    name = gpu.partition(".")[2]
    grew: dict[str, float] = {}
    words: dict[str, list[str]] = {}
    absent, looked = gap, 0
    for pair, end in ((one, end) for one in pairs for end, at in (("from", one.source), ("to", one.target)) if at == name):
        errors, unread = _end(pair, end).get("errors"), _end(pair, end).get("unread")
        if not isinstance(errors, dict) or not isinstance(unread, dict):
            absent = absent or ("missing", f"nothing is told of the NVLinks from {pair.source} to {pair.target}")
            continue
        looked += 1
        for metric in (one for one in COUNTED if one in unread and one not in context.profile.lacks):
            absent = absent or _unread(pair, end, metric)
        for link, counts in sorted(errors.items()):
            for metric, count in counts.items() if isinstance(counts, dict) else ():
                number = _number(count)
                if metric in COUNTED and number and link in _links(context):
                    grew[link] = grew.get(link, 0.0) + number
                    words.setdefault(link, []).append(f"{metric} by {number:g} from {pair.source} to {pair.target}")
                elif number is None or link not in _links(context):
                    absent = absent or ("missing", "its message cannot be read")
    for link, count in grew.items():
        yield replace(ERRORS.judge(f"{gpu}.{link}", count, context.limits), why="; ".join(words[link][:8]))
    if absent is not None or not looked:
        yield ERRORS.unknown(gpu, *(absent or ("missing", "no pair was measured")))
    elif not grew:
        yield ERRORS.judge(gpu, 0.0, context.limits)


def _links(context: Context) -> set[str]:
    return {f"l{i}" for i in range(context.profile.topology.links_per_gpu or 0)}
