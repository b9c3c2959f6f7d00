"""Does the memory hold what is written, all of it?

The agent fills what the driver gives with patterns and reads them back. How much of the frame buffer that was is judged
too: memory that was not touched was not tested. A mismatch that no ECC counter saw is the worst kind, and is named so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from burnin.checks.base import START_S, Answer, Check, Context, Evidence, Order, Quantity, cut_short
from burnin.events import Measurement
from burnin.rack.data import Data
from burnin.rack.schema import Profile

COVERED = Quantity(
    "hbm.covered_fraction",
    "1",
    "share of the frame buffer that was filled and read back",
    action="find out what holds the memory (processes, MIG, a stack that is gone), then run again",
)
MISMATCHES = Quantity(
    "hbm.mismatches",
    "1",
    "words that were not read as they were written",
    action="run again on this tray; when it comes back, replace the board and keep it as silent corruption",
)
COUNTERS = ("ecc.dram_ue", "ecc.dram_ce", "remap.uncorrectable", "remap.correctable")
_PATTERNS = 47
"""Of the agent's programme (burnin.agent.hbm)."""
_LONGEST_S = 120.0
"""What one programme may take beside the time that is asked for: it takes about 5 s at 6 TB/s."""


class Args(Data):
    """`seconds`: how long the patterns go on, at least once through all memory."""

    seconds: float = Field(default=0.0, ge=0, le=86400)


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """All GPUs of the tray at once."""
    if answers:
        return []
    seconds = Args.model_validate(dict(context.args)).seconds
    limit = context.limits.get("gpu.tlimit.cutoff")
    work = {
        "job": "hbm",
        "kind": "hbm",
        "gpus": [part.partition(".")[2] for part in context.gpus],
        "args": {"seconds": seconds},
        "cutoff_margin_c": limit.min if limit is not None and limit.min is not None else 0.0,
        "max_s": 2 * seconds + _LONGEST_S,
    }
    return [Order(context.tray, "work", work, timeout_s=2 * seconds + _LONGEST_S + 15)]


def about(profile: Profile, args: Mapping[str, Any]) -> float:
    """The programme once, or as long as it is to go on: each pattern is read and its successor written, as a copy is."""
    copy = profile.limits.get("copy.d2d")
    speed, size = copy.min if copy is not None else None, profile.gpu.memory_mib
    once = _PATTERNS * size * 2**20 / speed / 1e9 if speed and size else _LONGEST_S
    return START_S + max(once, Args.model_validate(dict(args)).seconds)


def parse(message: Any) -> dict[str, Any] | str:
    """One GPU's message with its numbers, or why there are none."""
    if not isinstance(message, dict):
        return "it answered nothing that can be read"
    if "failed" in message:
        return str(message["failed"])
    numbers = [message.get(name) for name in ("bytes", "total_bytes", "passes", "mismatches")]
    whole = isinstance(message.get("complete"), bool) and isinstance(message.get("first"), list)
    if not whole or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        return "its message cannot be read"
    if message["bytes"] > message["total_bytes"]:
        return f"its message cannot be: {message['bytes']} bytes filled of {message['total_bytes']}"
    return message


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Coverage and mismatches of every GPU."""
    answers = evidence.answers[0] if evidence.answers else ()
    body = next((answer.body for answer in answers if answer.ok and isinstance(answer.body, dict)), {})
    silent = next((str(answer.body) for answer in answers if not answer.ok), "it did not answer")
    out: list[Measurement] = []
    for part in context.gpus:
        gpu = part.partition(".")[2]
        said = parse(body[gpu]) if gpu in body else silent
        if isinstance(said, str):
            reason = "lost" if evidence.lost and gpu not in body else "missing"
            out += [quantity.unknown(part, reason, said) for quantity in (COVERED, MISMATCHES)]
        else:
            out += [_covered(context, part, said), _mismatches(context, evidence, part, said)]
    return out


def _covered(context: Context, part: str, said: dict[str, Any]) -> Measurement:
    """Of what the profile says is there, or of more, if the driver has more."""
    built = context.profile.gpu.memory_mib
    if built is None:
        return COVERED.unknown(part, "missing", "nobody has published how much memory this GPU has")
    if not said["passes"]:
        return COVERED.unknown(part, "not_attained", "no pattern was read back from all of it")
    whole = max(built << 20, said["total_bytes"])
    one = COVERED.judge(part, said["bytes"] / whole, context.limits)
    return replace(one, why=one.why or f"{said['bytes'] >> 20} MiB of {whole >> 20}")


def _mismatches(context: Context, evidence: Evidence, part: str, said: dict[str, Any]) -> Measurement:
    """A mismatch counts whenever it was seen; none counts only after the whole programme."""
    if said["mismatches"]:
        one = MISMATCHES.judge(part, float(said["mismatches"]), context.limits)
        return replace(one, why=f"{_first(said)}; {seen_by_ecc(evidence, part)}")
    if not said["complete"]:
        why = f"the time was over after {said['passes']} patterns, before the whole programme"
        return MISMATCHES.unknown(part, "not_attained", why)
    if short := cut_short(said.get("seconds"), Args.model_validate(dict(context.args)).seconds):
        return MISMATCHES.unknown(part, "not_attained", f"nothing wrong so far, but {short}")
    return MISMATCHES.judge(part, 0.0, context.limits)


def _first(said: dict[str, Any]) -> str:
    one = next((one for one in said["first"] if isinstance(one, dict)), {})
    where = f", first at {one.get('address')}: {one.get('actual')} instead of {one.get('expected')}" if one else ""
    return f"{said['mismatches']} words wrong in {said['passes']} patterns{where}"


def seen_by_ecc(evidence: Evidence, part: str) -> str:
    """Whether the memory's own counters moved meanwhile."""
    grown = dict(_growth(evidence, part))
    moved = [f"{metric} grew by {value:g}" for metric, value in grown.items() if value > 0]
    unread = [metric for metric, value in grown.items() if value != value]
    if moved:
        when = "" if evidence.stretch is not None else " (at some time in the run: this stage has no phase)"
        return ", ".join(moved) + when
    if unread:
        return f"whether ECC saw it is not known, not read: {', '.join(unread)}"
    return "silent corruption: no ECC counter grew and no row was remapped"


def _growth(evidence: Evidence, part: str) -> Iterator[tuple[str, float]]:
    for metric in COUNTERS:
        series = evidence.whole(part, metric) if evidence.stretch is not None else evidence.telemetry.of(part, metric)
        yield metric, series.growth() if series.present else float("nan")


CHECK = Check(
    name="hbm",
    about="patterns through all memory that the driver gives",
    quantities=(COVERED, MISMATCHES),
    judge=judge,
    orders=orders,
    explains=COUNTERS,
    heats=True,
    args=Args,
    seconds=about,
)
