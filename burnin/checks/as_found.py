"""Is the tray left as it was found: clocks, power limits, modes, and nobody's process left behind?

Every run asks before it loads and after it unloaded; a difference holds the rack. It needs no place in a suite.
"""

from __future__ import annotations

from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import Measurement, Result

SETTINGS = Quantity("left.as_found", "1", "power limit, clocks, persistence, compute, ECC and MIG mode, and processes on the GPU")


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Compare the first and the last snapshot, per GPU."""
    states = [answer.body for answers in evidence.answers for answer in answers if answer.ok]
    if len(states) < 2:
        return [
            SETTINGS.unknown(
                context.tray, "lost" if evidence.lost else "missing", "it was not read both before and after", "as found"
            )
        ]
    before, after = states[0], states[-1]
    out = []
    for position, part in enumerate(context.gpus):
        was, now = before.get(f"g{position}"), after.get(f"g{position}")
        if was is None or now is None:
            out.append(SETTINGS.unknown(part, "missing", "it was not read both before and after", "as found"))
            continue
        if any(was[key] is not None and now.get(key) is None for key in was):
            out.append(SETTINGS.unknown(part, "missing", "it could not be read after the run"))
            continue
        changed = [f"{key} was {was[key]}, is {now.get(key)}" for key in sorted(was) if was[key] != now.get(key)]
        result = Result.UNKNOWN if changed else Result.PASS
        out.append(
            Measurement(
                SETTINGS.name,
                part,
                "; ".join(changed) or "as found",
                "1",
                "as found",
                result,
                "missing" if changed else None,
                "; ".join(changed),
            )
        )
    return out


CHECK = Check(
    name="as-found",
    about="settings and processes of every GPU, before and after the run",
    quantities=(SETTINGS,),
    judge=judge,
)
