"""Do all GPUs come back when they are reset? The ladder's first rung, below a power cycle (boot-cycle) and a new board.

Only with `allow: [gpu_reset]` in the rack file, and only in a stage without load. The agents let NVML go (a reset wants the
driver for itself), `nvidia-smi --gpu-reset` resets all GPUs of a tray at once, as those that share NVLink must be, and NVML is
taken again, whatever came of it. nvidia-smi's line for each GPU is the proof, not its exit status. Not done is UNKNOWN: something
else holds the driver (DCGM, IMEX, persistence daemon), or root is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from burnin.checks import asked
from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity, not_allowed
from burnin.checks.tooling import names, part_of
from burnin.events import Measurement
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage

_SCRIPT = "LC_ALL=C nvidia-smi --gpu-reset"
_RESET_S, _ASK_S = 300.0, 60.0
_DONE = re.compile(r"GPU ([0-9A-Fa-f:.]{7,20}) was successfully reset")
_POWER = "power-cycle the tray (boot-cycle); replace the GPU's board if it stays away"
_LOADED = "the stage is loaded: GPUs are reset only at rest"
_FREE = "end what else holds the driver (DCGM, nvidia-imex, nvidia-persistenced), see that root may reset, then run again"
DONE = Quantity("reset.done", "1", "nvidia-smi says that this GPU was reset", action=_FREE)
BACK = Quantity("reset.back", "1", "after the reset the same GPU is at its position", action=_POWER)


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Who is there, let go, reset, take again, who is there."""
    if refused(context) or len(answers) == 5:
        return []
    trays = context.trays
    if len(answers) == 2:  # only where NVML was let go
        free = [a.order.to for a in answers[1] if a.ok]
        return [Order(to, "script", {"script": _SCRIPT, "become": True}, "shell", _RESET_S) for to in free] or [
            Order(tray, "take", timeout_s=_ASK_S) for tray in trays
        ]
    verb = ("identify", "release", "", "take", "identify")[len(answers)]
    return [Order(tray, verb, timeout_s=_ASK_S) for tray in trays]


def refused(context: Context) -> str:
    """Why nothing may be reset here; empty when it may."""
    if "gpu_reset" not in context.rack.allow:
        return not_allowed("gpu_reset")
    return _LOADED if context.stage.load is not None else ""


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Every GPU of every tray."""
    if why := refused(context):
        return [DONE.unknown("rack", "no_permission", why)]
    out = list[Measurement]()
    for tray in context.trays:
        before, after = _identified(evidence, tray, first=True), _identified(evidence, tray, first=False)
        if isinstance(before, str):
            out += [DONE.unknown(gpu, "missing", f"not reset: {before}") for gpu in context.profile.topology.gpus(tray)]
        else:
            out += _tray(context, evidence, tray, before, after)
    return out or [DONE.unknown("rack", "missing", "no tray was asked")]


def _tray(context: Context, evidence: Evidence, tray: str, before: Mapping[str, Any], after: Any) -> Iterator[Measurement]:
    said = _said(evidence, tray)
    lines = said if isinstance(said, str) else f"{said.get('stdout', '')}\n{said.get('stderr', '')}"
    parts = names(tray, before)
    done = {part_of(match[1] if "." in match[1] else f"{match[1]}.0", parts) for match in _DONE.finditer(lines)}
    was = {gpu["gpu"]: gpu.get("uuid") for gpu in before["gpus"]}
    is_ = after if isinstance(after, str) else {gpu["gpu"]: gpu.get("uuid") for gpu in after["gpus"]}
    why = " ".join(lines.split())[:200] or "nvidia-smi printed nothing"
    for gpu in context.profile.topology.gpus(tray):
        name = gpu.partition(".")[2]
        if name not in was:
            yield DONE.unknown(gpu, "missing", "it was not there before")
            continue
        yield asked.good(DONE, gpu, 1.0) if gpu in done else DONE.unknown(gpu, "missing", f"not reset: {why}")
        if isinstance(is_, str):
            yield BACK.unknown(gpu, "lost", f"nobody says what is there after the reset: {is_}")
        elif name not in is_:
            yield asked.bad(BACK, gpu, 0.0, "it did not come back after the reset", "= 1")
        elif is_[name] != was[name]:
            yield asked.bad(BACK, gpu, 0.0, f"after the reset another GPU is there: {is_[name]}, not {was[name]}", "= 1")
        elif gpu in done:
            yield asked.good(BACK, gpu, 1.0, "= 1")


def _identified(evidence: Evidence, tray: str, first: bool) -> Mapping[str, Any] | str:
    found = [a for given in evidence.answers for a in given if (a.order.to, a.order.verb) == (tray, "identify")]
    if not found or (not first and len(found) < 2):
        return f"{tray} was not asked"
    one = found[0 if first else -1]
    body = one.body
    if not one.ok or not isinstance(body, Mapping) or not isinstance(body.get("gpus"), list):
        return str(body)
    return f"NVML of {tray}: {body['nvml']}" if body.get("nvml") else body


def _said(evidence: Evidence, tray: str) -> Mapping[str, Any] | str:
    """What nvidia-smi answered; else why it was not run."""
    mine = [a for given in evidence.answers for a in given if a.order.to == tray]
    for one in mine:
        if one.order.verb == "script":
            return one.body if one.ok and isinstance(one.body, Mapping) else str(one.body)
    return next((str(a.body) for a in mine if a.order.verb == "release" and not a.ok), f"{tray} was not asked")


def seconds(profile: Profile, args: Mapping[str, Any]) -> float:
    """Some ten seconds a GPU, all trays at a time (assumption)."""
    return 15.0 * profile.topology.gpus_per_tray


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """Only at rest."""
    return _LOADED if stage.load is not None else ""


CHECK = Check(
    name="gpu-reset",
    about="every GPU can be reset, and comes back: the ladder's first rung",
    quantities=(DONE, BACK),
    judge=judge,
    orders=orders,
    scope="rack",
    acts=True,
    leave="gpu_reset",
    seconds=seconds,
    equipment=("root", "nvidia-smi"),
    fits=fits,
)
