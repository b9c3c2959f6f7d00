"""The steps of one stage: asks what each check wants to know, round after round, and keeps what comes back.

A check of a tray is asked of all trays at once, and ends with the first question that is not answered. A check of the rack
is asked once and hears every answer. Only an attempt that brought nothing at all is made again. Checks that load GPUs come
one after the other, when all others are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from burnin.checks import CHECKS
from burnin.checks.base import RACK, Answer, Check, Context, Order
from burnin.errors import TrayError
from burnin.events import Status
from burnin.rack.parts import tray_of
from burnin.run import alone
from burnin.run.job import Job, Kept
from burnin.run.plan import Leg, Plan
from burnin.suites.schema import Step

if TYPE_CHECKING:
    from burnin.run.undo import Undo

STOPPED = "the run was stopped"
MOST_ROUNDS = 200
"""More rounds than any check needs: one that never ends is ended, as an ERROR."""


def heats(leg: Leg) -> bool:
    """True when a step of this stage loads GPUs by itself."""
    return any(CHECKS[step.check].heats for step in leg.steps)


def parts(leg: Leg, step: Step, plan: Plan) -> list[str]:
    """What a step is done on: each compute tray, each switch tray, or once the rack; of these, what the leg owes."""
    return leg.on(step.check, CHECKS[step.check].parts((*plan.trays, *plan.switches)))


class Steps:
    """Asks, and hands every attempt to the job's keeper."""

    def __init__(
        self, job: Job, delays: Callable[[Sequence[str]], Mapping[str, float]] = lambda parts: {}, undo: Undo | None = None
    ) -> None:
        self._job, self._delays, self._undo = job, delays, undo

    def _now(self) -> float:
        return self._job.clock.now() - self._job.start_s

    async def run(self, leg: Leg, loadable: Collection[str]) -> None:
        """All steps of one stage. `loadable`: the GPUs (t07.g2) that interlocks let load."""
        calm = [step for step in leg.steps if not CHECKS[step.check].heats]
        await asyncio.gather(*(self._step(leg, step, loadable) for step in calm))
        for step in leg.steps:
            if step not in calm and not self._job.stop.is_set():
                await self._step(leg, step, loadable)

    async def _step(self, leg: Leg, step: Step, loadable: Collection[str]) -> None:
        delays = self._delays(sorted(loadable)) if CHECKS[step.check].heats else {}
        await asyncio.gather(*(self._on(leg, step, part, loadable, delays) for part in parts(leg, step, self._job.plan)))

    async def _on(self, leg: Leg, step: Step, part: str, loadable: Collection[str], delays: Mapping[str, float]) -> None:
        job, check = self._job, CHECKS[step.check]
        trays = tuple(job.sessions) if part == RACK else ()
        context = Context(part, job.rack, job.profile, job.suite, leg.stage, job.catalogue, step.args, trays)
        before = job.attempts(leg.stage.stage, check.name, part)
        for attempt in range(before + 1, before + job.suite.retries + 2):
            begin = self._now()
            why, answers = await self._rounds(check, context, loadable, delays)
            status = Status.ABORTED if why == STOPPED else Status.ERROR if why else Status.COMPLETE
            job.keeper.attempt(Kept(leg.stage.stage, check.name, part, attempt, status, begin, self._now(), why, tuple(answers)))
            measured = any(answer.ok for given in answers for answer in given)
            if status is Status.COMPLETE or measured or not answers or job.stop.is_set():
                return  # what was measured stands; a tray that is not there is LOST, and that is said once

    async def _rounds(
        self, check: Check, context: Context, loadable: Collection[str], delays: Mapping[str, float]
    ) -> tuple[str, list[tuple[Answer, ...]]]:
        """Why it could not be measured (empty when it was), and every round's answers."""
        answers: list[tuple[Answer, ...]] = []
        orders = check.orders(context, answers)
        asks_agents = check.scope != "switch" and all(order.via == "agent" for order in orders)
        if why := STOPPED if self._job.stop.is_set() else self._away(context) if asks_agents else "":
            return why, answers
        while orders:
            if len(answers) == MOST_ROUNDS:
                return f"{check.name} did not end within {MOST_ROUNDS} rounds", answers
            if why := forbidden(check, context, orders):
                return why, answers
            orders = [eased(order, delays, follows=bool(answers) and check.scope != "rack") for order in orders]
            if self._undo is not None:
                await self._undo.before(orders)  # how to put back what they change is kept, or they are not given
                if self._job.stop.is_set():
                    return STOPPED, answers
            answers.append(tuple(await asyncio.gather(*(self._ask(order, loadable) for order in orders))))
            if self._undo is not None:
                self._undo.after(answers[-1])
            if self._job.stop.is_set():
                return STOPPED, answers
            failed = [str(answer.body) for answer in answers[-1] if not answer.ok]
            if failed and (check.scope != "rack" or not any(answer.ok for given in answers for answer in given)):
                return failed[0], answers
            orders = check.orders(context, answers)
        return "", answers

    def _away(self, context: Context) -> str:
        """Why nobody can be asked; empty when somebody can."""
        sessions = [self._job.sessions[tray] for tray in context.trays or (context.tray,)]
        if any(session.ready for session in sessions):
            return ""
        return sessions[0].why or f"{context.tray} is not connected"

    async def _ask(self, order: Order, loadable: Collection[str]) -> Answer:
        """One question. GPUs that may not be loaded are taken out of work, and answered for; a program then does not begin."""
        begins, others = order.verb in ("work", "program"), list(order.args.get("others", ()))
        kept = [gpu for gpu in order.args.get("gpus", ()) if f"{order.to}.{gpu}" not in loadable] if begins else []
        if kept and order.verb == "program":
            return Answer(order, False, f"an interlock keeps {', '.join(kept)} of {order.to} from being loaded")
        if held := [gpu for gpu in others if gpu not in loadable]:
            return Answer(order, False, f"an interlock keeps {', '.join(held)} from being loaded")
        refused: Mapping[str, Any] = {gpu: {"failed": "an interlock keeps it from being loaded"} for gpu in kept}
        if kept:
            rest = [gpu for gpu in order.args["gpus"] if gpu not in kept]
            if not rest:
                return Answer(order, True, dict(refused))
            order = replace(order, args={**order.args, "gpus": rest})
        how = self._alone if order.args.get("exclusive") else self._across if others else ask
        answer = await _unless_stopped(self._job, order, how)
        return replace(answer, body={**answer.body, **refused}) if answer.ok and kept else answer

    async def _across(self, job: Job, order: Order) -> Answer:
        """A program that loads other trays too: ended when one of their GPUs gets too hot, or is not read any more."""
        own, gpus = {k: v for k, v in order.args.items() if k != "others"}, tuple(order.args["others"])

        def latest(gpu: str) -> tuple[float, float | None]:
            t_s, value = job.sessions[tray_of(gpu)].latest.get((gpu, "gpu.tlimit"), (-1e9, None))
            return t_s + job.start_s, value

        margins = alone.Margins(latest, gpus, float(order.args["cutoff_margin_c"]), job.clock)
        answer = await alone.watched(
            margins, ask(job, replace(order, args=own)), lambda: job.sessions[order.to].order("unload", timeout_s=10.0)
        )
        return replace(answer, order=order)

    async def _alone(self, job: Job, order: Order) -> Answer:
        """A program that has the GPUs for itself: not begun where nobody could see them get hot, ended when they do."""
        if not alone.wanted(job.profile, job.rack, job.today):
            return await ask(job, order)
        try:
            heat = alone.Heat(job.doors["redfish"], order.to, job.profile.topology.gpus_per_tray, job.clock)
            await heat.find()
        except (KeyError, TrayError) as error:
            why = f"not begun: while NVML is let go nobody would see its GPUs get hot ({error}); gpu_margin can be waived by name"
            return Answer(order, False, why)
        return await alone.watched(heat, ask(job, order), lambda: job.sessions[order.to].order("unload", timeout_s=10.0))


def forbidden(check: Check, context: Context, orders: Sequence[Order]) -> str:
    """Why a check may not ask this: to change something takes a check that `acts`, and the rack file's leave. Else empty."""
    changes = any(order.via == "redfish" and order.verb in ("post", "patch") for order in orders)
    if changes and not check.acts:
        return f"{check.name} may only read, and wants to change something"
    if not check.acts or check.leave in context.rack.allow or not orders:
        return ""
    return f"the rack file does not allow what {check.name} changes (allow: [{check.leave}])"


def eased(order: Order, delays: Mapping[str, float], follows: bool) -> Order:
    """The same work, begun GPU by GPU after these seconds; the ranks of a collective, which begin as one, ease in and out.

    `follows`: a later round of one tray, which keeps the distance to other trays that its first round gave it.
    """
    gpus = order.args.get("gpus", ()) if order.verb == "work" else ()
    if order.verb == "program":
        later = min((delays.get(f"{order.to}.{gpu}", 0.0) for gpu in order.args.get("gpus", ())), default=0.0)
        return replace(order, args={**order.args, "after_s": later}, timeout_s=order.timeout_s + later) if later > 0 else order
    own = {gpu: delays.get(f"{order.to}.{gpu}", 0.0) for gpu in gpus}
    if order.args.get("kind") == "nccl":
        longest = max(delays.values(), default=0.0) if own else 0.0
        change: dict[str, Any] = {"args": {**order.args.get("args", {}), "ease_s": longest}}
    else:
        first = min(own.values(), default=0.0) if follows else 0.0
        longest = max(own.values(), default=0.0) - first
        given = order.args.get("args_of", {})
        change = {"args_of": {gpu: {**given.get(gpu, {}), "after_s": own[gpu] - first} for gpu in gpus}}
    if longest <= 0:
        return order
    args = {**order.args, **change, "max_s": float(order.args["max_s"]) + 2 * longest}
    return replace(order, args=args, timeout_s=order.timeout_s + 2 * longest)


async def ask(job: Job, order: Order) -> Answer:
    """One question to one part; what goes wrong is the answer."""
    try:
        if order.via == "clock":
            await job.clock.sleep(float(order.args["wait_s"]))
            body: Any = {"t_s": job.clock.now() - job.start_s}
        elif order.via == "agent":
            body = await job.sessions[order.to].order(order.verb, timeout_s=order.timeout_s, **order.args)
        else:
            body = await job.doors[order.via](order.to, order.verb, order.args, order.timeout_s)
        return Answer(order, True, body)
    except TrayError as error:
        return Answer(order, False, str(error))


async def _unless_stopped(job: Job, order: Order, asking: Callable[[Job, Order], Awaitable[Answer]] = ask) -> Answer:
    """The same, given up as soon as the run is stopped."""
    asked, stopped = asyncio.ensure_future(asking(job, order)), asyncio.ensure_future(job.stop.wait())
    await asyncio.wait((asked, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if asked.done():
        return asked.result()
    asked.cancel()
    return Answer(order, False, STOPPED)
