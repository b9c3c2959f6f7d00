"""Does every NVLink run, at its speed and without errors, and is the GPU's place in the fabric healthy?

Each link of each GPU is judged; where all are good the GPU has one row with the worst of them, else every bad or unread link
has its own. Counters are judged by their growth since the run began. The link is what is bad: which end, cable or board it
is cannot be known from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from burnin.checks.base import TO_DO, Check, Context, Evidence, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.series import Series

_LOOK = "compare the switch port's counters; reseat or swap one end at a time, then run again on this tray"
_FABRIC = "look at the fabric manager (NMX-C) and this GPU's NVLinks, reset the GPU, then run again"

NONE = Quantity("nvlink.links", "1", "NVLinks that answer on a GPU that has none by its profile", action=_LOOK)
UP = Quantity("nvlink.state", "1", "1 while the link is up", action=_LOOK)
SPEED = Quantity("nvlink.speed", "GB/s", "speed in one direction", action=_LOOK)
RATE = Quantity("nvlink.effective_ber", "1", "highest share of bits wrong after error correction", action=_LOOK)
COUNTED: dict[str, Quantity] = {
    metric: Quantity(f"{metric}.growth", "1", about, action=_LOOK)
    for metric, about in (
        ("nvlink.effective_errors", "code words that error correction could not mend, during the run"),
        ("nvlink.symbol_errors", "symbols wrong after error correction, during the run"),
        ("nvlink.rx_errors", "packets received with an error, during the run"),
        ("nvlink.integrity_errors", "buffer overruns, local to the GPU, during the run"),
        ("nvlink.recovery_ok", "times the link lost its lanes and came back, during the run"),
        ("nvlink.recovery_failed", "times the link tried to recover and did not, during the run"),
    )
}
FABRIC: dict[str, Quantity] = {
    "fabric.state": Quantity("fabric.state", "1", "3 when the GPU is registered with the fabric", action=_FABRIC),
    "fabric.status": Quantity("fabric.status", "1", "0 when that registration succeeded", action=_FABRIC),
    "fabric.health": Quantity("fabric.health", "1", "1 when the fabric is healthy for this GPU", action=_FABRIC),
}
_Value = Callable[[Context, Evidence, str], float]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """NVLink by link, then the fabric, per GPU."""
    return [m for gpu in context.gpus for m in (*_links(context, evidence, gpu), *_fabric(context, evidence, gpu))]


def _links(context: Context, evidence: Evidence, gpu: str) -> Iterator[Measurement]:
    asked: dict[str, tuple[Quantity, Callable[[str], float]]] = {
        "nvlink.state": (UP, lambda link: evidence.whole(link, "nvlink.state").lowest()),
        "nvlink.speed": (SPEED, lambda link: evidence.whole(link, "nvlink.speed").lowest()),
        "nvlink.effective_ber": (RATE, lambda link: evidence.whole(link, "nvlink.effective_ber").highest()),
        **{metric: (one, _growth(evidence, metric)) for metric, one in COUNTED.items()},
    }
    count = context.profile.topology.links_per_gpu
    if count == 0:
        yield _none(context, evidence, gpu)
        return
    for metric, (quantity, value) in asked.items():
        if metric in context.profile.lacks:
            continue
        if count is None:
            yield quantity.unknown(
                gpu,
                "missing",
                f"profile {context.profile.profile} does not say how many NVLinks a GPU has{TO_DO}state it there",
            )
        else:
            yield from _fold(
                context, evidence, gpu, metric, quantity, {f"{gpu}.l{i}": value(f"{gpu}.l{i}") for i in range(count)}
            )


def _none(context: Context, evidence: Evidence, gpu: str) -> Measurement:
    """No links are expected; that none answers says something only of a GPU that was read."""
    if not evidence.whole(gpu, "gpu.power").present:
        reason = evidence.why_absent(gpu, "gpu.power")
        return NONE.unknown(gpu, reason, f"this GPU was not read in {context.stage.stage}", limit="= 0")
    seen = sum(part.startswith(f"{gpu}.l") for part in evidence.telemetry.parts("nvlink.state"))
    return NONE.equal(gpu, str(seen), "0", f"profile {context.profile.profile}")


def _growth(evidence: Evidence, metric: str) -> Callable[[str], float]:
    end = evidence.stretch.t1_s if evidence.stretch else 0.0
    return lambda link: evidence.telemetry.of(link, metric).between(0.0, end).growth()


def _fold(
    context: Context, evidence: Evidence, gpu: str, metric: str, quantity: Quantity, values: Mapping[str, float]
) -> Iterator[Measurement]:
    """The links that are bad or were not read in this stage, one by one; the worst of them as the GPU's where there are none."""
    read = {link: value for link, value in values.items() if evidence.whole(link, metric).present and not math.isnan(value)}
    judged = [quantity.judge(link, value, context.limits) for link, value in read.items()]
    bad = [one for one in judged if one.result is Result.FAIL]
    silent = [link for link in values if link not in read]
    yield from bad
    if len(silent) == len(values):
        yield quantity.unknown(
            gpu, evidence.why_absent(silent[0], metric), f"{metric} of none of its {len(values)} links was read"
        )
    else:
        for link in silent:
            yield quantity.unknown(link, evidence.why_absent(link, metric), f"{metric} was not read in {context.stage.stage}")
    if not bad and not silent:
        worst = min(read.values()) if quantity in (UP, SPEED) else max(read.values())
        yield quantity.judge(gpu, worst, context.limits)


def _fabric(context: Context, evidence: Evidence, gpu: str) -> Iterator[Measurement]:
    for metric, quantity in FABRIC.items():
        if metric in context.profile.lacks:
            continue
        window = evidence.whole(gpu, metric)
        if not window.present:
            yield quantity.unknown(gpu, evidence.why_absent(gpu, metric), f"{metric} was not read in {context.stage.stage}")
        else:
            yield quantity.judge(gpu, _farthest(window, context, quantity), context.limits)


def _farthest(window: Series, context: Context, quantity: Quantity) -> float:
    """The reading farthest from what is wanted: one bad moment is a bad moment."""
    limit = context.limits.get(quantity.name)
    wanted = limit.equals if limit is not None and isinstance(limit.equals, (int, float)) else None
    readings = (window.lowest(), window.highest())
    return max(readings, key=lambda value: abs(value - wanted)) if wanted is not None else readings[1]


CHECK = Check(
    name="links",
    about="every NVLink is up, at speed and without errors, and the fabric is healthy",
    quantities=(NONE, UP, SPEED, RATE, *COUNTED.values(), *FABRIC.values()),
    judge=judge,
    metrics=("nvlink.state", "nvlink.speed", "nvlink.effective_ber", *COUNTED, *FABRIC),
    explains=("gpu.power",),
)
