"""How fast does each GPU copy: host, itself, and every other GPU of the tray?

One GPU of a tray is asked at a time, because they share what they copy through. A pair of GPUs that is slow says nothing of
which end is: a GPU is judged by the median of all its pairs, in both directions, and a slow pair between two GPUs that are
otherwise fast is the tray's. When most GPUs of a tray are slow, none of them is the reason.
What the NVLinks counted meanwhile: burnin.checks.copies_nvlink.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from burnin.checks import copies_nvlink
from burnin.checks.base import START_S, Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import REASONS, Measurement, Result
from burnin.rack.data import Data
from burnin.rack.schema import Profile

_LINK = "run again on this tray; if it stays slow, compare link width and errors, then replace the board"
H2D = Quantity("copy.h2d", "GB/s", "from page-locked host memory to the GPU, median", action=_LINK)
D2H = Quantity("copy.d2h", "GB/s", "from the GPU to page-locked host memory, median", action=_LINK)
D2D = Quantity("copy.d2d", "GB/s", "from the GPU's memory to the GPU's memory, counted one way, median", action=_LINK)
P2P = Quantity(
    "p2p.bandwidth",
    "GB/s",
    "between GPUs of the tray: a GPU's median pair, and the tray's slowest pair of GPUs that are not slow themselves",
    action="run again on this tray; if it stays slow, compare the NVLinks of the GPUs that are named",
)
_WAYS = {"h2d": H2D, "d2h": D2H, "d2d": D2D}
_LONGEST_S = 60.0
_WAY_S = 0.3
"""Eleven timings of about 20 ms (burnin.agent.copies)."""
_LEAST = 3
"""GPUs that it takes to say which end of a slow pair is slow."""


class Args(Data):
    """Bytes of one copy and how often; the agent's own where not said."""

    bytes: int | None = Field(default=None, ge=1 << 20, le=1 << 36)
    repeats: int | None = Field(default=None, ge=1, le=10_000)


Pairs = Mapping[tuple[str, str], float]


def about(profile: Profile, args: Mapping[str, Any]) -> float:
    """One GPU of a tray after the other; each way of copying is timed some ten times."""
    gpus = profile.topology.gpus_per_tray
    return gpus * (START_S + _WAY_S * (2 + gpus))


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """One GPU after the other."""
    if len(answers) >= len(context.gpus):
        return []
    limit = context.limits.get("gpu.tlimit.cutoff")
    gpu = context.gpus[len(answers)].partition(".")[2]
    work = {
        "job": f"copies-{gpu}",
        "kind": "copies",
        "gpus": [gpu],
        "args": Args.model_validate(dict(context.args)).model_dump(exclude_none=True),
        "cutoff_margin_c": limit.min if limit is not None and limit.min is not None else 0.0,
        "max_s": _LONGEST_S,
    }
    return [Order(context.tray, "work", work, timeout_s=_LONGEST_S + 15)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Each GPU's own copies, then its pairs, then the tray's, then what the links between them counted."""
    said, _ = _told(evidence)
    return [*speeds(context, evidence), *_nvlink(context, said)]


def _told(evidence: Evidence) -> tuple[dict[str, Any], str]:
    """GPU -> its message, and why there is none where there is none."""
    said: dict[str, Any] = {}
    silent = "it was not asked"
    for answer in (answer for answers in evidence.answers for answer in answers):
        if answer.ok and isinstance(answer.body, dict):
            said.update(answer.body)
        else:
            silent = str(answer.body)
    return said, silent


def speeds(context: Context, evidence: Evidence) -> list[Measurement]:
    """Each GPU's own copies, then its pairs, then the tray's."""
    said, silent = _told(evidence)
    out: list[Measurement] = []
    for part in context.gpus:
        own = said.get(part.partition(".")[2], silent)
        for way, quantity in _WAYS.items():
            speed = gbps(own, way)
            one = quantity.unknown(part, *speed) if isinstance(speed, tuple) else quantity.judge(part, speed, context.limits)
            lost = evidence.lost and one.reason == "missing" and one.value is None and isinstance(own, str)
            out.append(replace(one, reason="lost") if lost else one)
    return out + list(_peers(context, said))


def gbps(message: Any, *way: str) -> float | tuple[str, str]:
    """A number of a message by its path, or (reason, why) for none."""
    if isinstance(message, str):
        return "missing", message
    if isinstance(message, dict) and "failed" in message:
        return "missing", str(message["failed"])
    for key in way:
        message = message.get(key) if isinstance(message, dict) else None
    if not isinstance(message, dict):
        return "missing", "its message cannot be read"
    value, reason = message.get("gbps"), message.get("reason")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf"):
        return float(value)
    return (reason if reason in REASONS else "missing"), str(message.get("why", "its message cannot be read"))


def _peers(context: Context, said: Mapping[str, Any]) -> Iterator[Measurement]:
    names = [part.partition(".")[2] for part in context.gpus]
    pairs: dict[tuple[str, str], float] = {}
    absent: dict[tuple[str, str], tuple[str, str]] = {}
    for one, other in ((a, b) for a in names for b in names if a != b):
        speed = gbps(said.get(one, "it did not answer"), "peers", other)
        if isinstance(speed, tuple):
            absent[one, other] = speed
        else:
            pairs[one, other] = speed
    slow = {name for name in names if _judged(context, _median(pairs, name)) is Result.FAIL}
    tray_wide = len(names) < _LEAST or 2 * len(slow) > len(names)
    for name in names if len(names) >= _LEAST else ():
        yield _of_gpu(context, name, pairs, absent, tray_wide)
    if len(names) > 1:
        yield _of_tray(context, {ends: v for ends, v in pairs.items() if tray_wide or not slow & set(ends)}, absent)


def _nvlink(context: Context, said: Mapping[str, Any]) -> Iterator[Measurement]:
    """Every pair that was copied with what its ends counted, and the reason of those that were not."""
    names = [part.partition(".")[2] for part in context.gpus]
    done: list[copies_nvlink.Pair] = []
    missing: dict[str, tuple[str, str]] = {}
    for one, other in ((a, b) for a in names for b in names if a != b):
        speed = gbps(said.get(one, "it did not answer"), "peers", other)
        if isinstance(speed, tuple):
            missing = {one: speed, other: speed, **missing}
            continue
        counted = said[one]["peers"][other].get("nvlink")
        slow = _judged(context, speed) is Result.FAIL
        done.append(copies_nvlink.Pair(one, other, slow, counted if isinstance(counted, dict) else None))
    if len(names) > 1:
        yield from copies_nvlink.judge(context, done, missing)


def _median(pairs: Pairs, name: str) -> float:
    """The higher median: below a limit only if more than half of the pairs are."""
    own = [value for ends, value in pairs.items() if name in ends]
    return statistics.median_high(own) if own else float("inf")


def _judged(context: Context, value: float) -> Result:
    return P2P.judge("", value, context.limits).result


def _of_gpu(
    context: Context, name: str, pairs: Pairs, absent: Mapping[tuple[str, str], tuple[str, str]], tray_wide: bool
) -> Measurement:
    """A GPU by the median of its pairs; all of them must have been measured for it to be good."""
    part = f"{context.tray}.{name}"
    gaps = [why for ends, why in absent.items() if name in ends]
    own = {ends: value for ends, value in pairs.items() if name in ends}
    if not own:
        return P2P.unknown(part, *(gaps[0] if gaps else ("missing", "no pair was measured")))
    one = P2P.judge(part, _median(pairs, name), context.limits)
    if one.result is Result.FAIL and tray_wide:
        why = "most GPUs of this tray are as slow: see the tray"
        return replace(one, result=Result.UNKNOWN, reason="missing", why=why)
    if one.result is Result.FAIL:
        return replace(one, why=f"its pairs run at {min(own.values()):g} to {max(own.values()):g} GB/s, the tray's others faster")
    if gaps:
        return P2P.unknown(part, *gaps[0])
    return one


def _of_tray(context: Context, pairs: Pairs, absent: Mapping[tuple[str, str], tuple[str, str]]) -> Measurement:
    """The slowest pair that no slow GPU explains."""
    if not pairs:
        return P2P.unknown(context.tray, *next(iter(absent.values()), ("missing", "every pair has an end that is slow")))
    (one, other), lowest = min(pairs.items(), key=lambda item: item[1])
    judged = P2P.judge(context.tray, lowest, context.limits)
    if judged.result is Result.FAIL:
        return replace(judged, why=f"from {one} to {other}: {lowest:g} GB/s; either end or what lies between them")
    return P2P.unknown(context.tray, *next(iter(absent.values()))) if absent else judged


CHECK = Check(
    name="copies",
    about="copies to and from the host, within a GPU, and between the GPUs of a tray are as fast as they should be",
    quantities=(H2D, D2H, D2D, P2P, copies_nvlink.SHARE, copies_nvlink.ERRORS),
    judge=judge,
    orders=orders,
    heats=True,
    args=Args,
    seconds=about,
)
