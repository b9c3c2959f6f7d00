"""Stages whose load goes on without controller and guard, for a stated time: what the run does about it.

A suite asks for it (`detach: 10 min`). It is granted only where the BMC of each tray that is loaded was read to mind leaks by
itself; what lets load go on is the agents' lease (burnin.run.leases), what ends it are their local limits. A run that goes on in
time finds its trays loaded with the stage that it was left in, gets what they recorded, and waits for the stage's end as ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from burnin.events import LogLine, StageEnded, Status
from burnin.rack.parts import fold, tray_of
from burnin.run.job import Job
from burnin.run.leases import Detached
from burnin.run.plan import Leg, goes_on


class Detaching:
    """Of one session of a run."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._taken_up = job.left
        """The stage under way that an earlier session left; None from when it is taken up or given up."""
        left = job.left
        stage = next((s for s in job.suite.stages if left is not None and s.stage == left.stage), None)
        if left is not None and stage is not None and stage.detach is not None and job.leases is not None:
            job.leases.detached = Detached(left.stage, stage.detach, left.end_s, left.last_s + stage.detach)
            self._tell_guard(stage.detach)

    def _now(self) -> float:
        return self._job.clock.now() - self._job.start_s

    def _say(self, kind: str, code: str, text: str) -> None:
        self._job.keeper.event(LogLine("rack", self._now(), kind, code, text, "controller"))

    def _tell_guard(self, for_s: float) -> None:
        if self._job.guard is not None:
            self._job.guard.detach(for_s)

    # ---- a stage of this session

    def refusal(self, leg: Leg, gpus: Iterable[str]) -> str | None:
        """Why this stage may not be detached with these GPUs loaded; None where it may, or is not to be, or is already."""
        stage = leg.stage
        if stage.detach is None or self.under_way(leg):
            return None
        if self._job.leases is None:
            return f"stage {stage.stage} cannot be detached: nobody asks the BMCs"
        return self._job.leases.refusal(stage.stage, sorted({tray_of(gpu) for gpu in gpus}))

    def begin(self, leg: Leg, begin_s: float) -> None:
        """Its load is up."""
        stage = leg.stage
        if stage.detach is None or self._job.leases is None or self._job.stop.is_set():
            return
        self._job.leases.detached = Detached(stage.stage, stage.detach, begin_s + stage.duration)
        self._tell_guard(stage.detach)
        self._say("detached", "begins", f"stage {stage.stage} may go on for {stage.detach:g} s without controller and guard")

    def end(self) -> None:
        """Its time is over, or the run is to end: a lease is what it always is."""
        self._taken_up = None
        if self._job.leases is not None and self._job.leases.detached is not None:
            self._job.leases.detached = None
            self._tell_guard(0)

    # ---- the stage that an earlier session left

    def goes_on(self) -> bool:
        """Does the load of the stage that was left go on, on each tray of it that answers? Where not, it is over, and owed."""
        left, job = self._taken_up, self._job
        if left is None:
            return False
        there = [job.sessions[t] for t in left.trays or job.plan.trays if t in job.sessions and job.sessions[t].ready]
        over = [session for session in there if session.goes_on != left.stage]
        if there and not over:
            return True
        ends = [left.last_s if session.unloaded_s is None else session.unloaded_s for session in over]
        t1_s = max(left.t0_s, min(ends, default=left.last_s))
        on = fold(session.tray for session in over) if over else "every tray"
        why = f"its controller was gone, and the load of {on} had ended when it came back {self._now() - left.last_s:.0f} s later"
        job.keeper.event(StageEnded(left.index, left.stage, t1_s, Status.ABORTED, why))
        text = f"stage {left.stage} was detached and is over: {why}; what was recorded until then is kept, the stage is owed"
        self._say("detached", "over", text)
        self._unguarded(t1_s)
        self.end()
        return False

    def first(self) -> bool:
        """Put the stage that goes on at the head of the plan; False where it is not owed, and so has to end."""
        left = self._taken_up
        plan = goes_on(self._job.plan, left.index, left.planned_s) if left is not None else None
        if plan is None:
            self.end()
            return False
        self._job.plan = plan
        return True

    def under_way(self, leg: Leg) -> bool:
        """True for the stage that goes on, until it is taken up."""
        return self._taken_up is not None and self._taken_up.index == leg.index

    def taken_up(self, leg: Leg) -> float | None:
        """The run second at which this stage began, where it is the one that goes on; said so, with the time without a guard."""
        left = self._taken_up
        if left is None or not self.under_way(leg):
            return None
        self._taken_up = None
        self._say("detached", "goes on", f"stage {left.stage} went on detached from run second {left.last_s:.0f} and is taken up")
        self._unguarded(self._now())
        return left.t0_s

    def _unguarded(self, until_s: float) -> None:
        left, guard = self._job.left, self._job.guard
        if left is None:
            return
        alone_s = 0.0 if guard is not None and guard.relieved else max(0.0, until_s - left.last_s)
        said = f"{alone_s:.0f} s ({alone_s / 3600:.2f} h) without a guard" if alone_s else "its guard watched on"
        self._say("unguarded", f"{alone_s:.1f}", f"load of stage {left.stage} from {left.last_s:.0f} s on: {said}")
