"""How a tray is left: the snapshot after a run, beside the one before it."""

from __future__ import annotations

from burnin.checks.base import Answer, Order
from burnin.run.job import Job
from burnin.run.steps import ask

FORGET_S = 5.0
"""How long a driver may go on to name a process that is gone."""


async def snapshot(job: Job, tray: str, before: Answer | None) -> Answer:
    """How each GPU is set. With `before`: looked at again for a while, where a GPU has processes that it had not."""
    end = job.clock.now() + FORGET_S
    answer = await ask(job, Order(tray, "state"))
    while before is not None and more_processes(before, answer) and job.clock.now() < end:
        await job.clock.sleep(0.5)
        answer = await ask(job, Order(tray, "state"))
    return answer


def more_processes(before: Answer, after: Answer) -> bool:
    """True where a GPU has more processes than it had; what was not read has none."""
    if not before.ok or not after.ok:
        return False
    now = {gpu: settings.get("processes") or 0 for gpu, settings in after.body.items()}
    return any(now.get(gpu, 0) > (settings.get("processes") or 0) for gpu, settings in before.body.items())
