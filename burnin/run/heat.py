"""Load comes and goes as `burnin.run.ramp` plans it: the orders, their moments, and what is written down of them.

Log lines of kind `ramp` (up, down: which GPUs, and what all GPUs may then draw) and `pulse` (the begin, the group, and how well
a tray's clock is known, in ms).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from burnin.errors import TrayError
from burnin.events import LogLine
from burnin.rack.parts import fold, tray_of
from burnin.run import ramp
from burnin.run.job import Job
from burnin.run.placing import Tie
from burnin.run.sync import tie
from burnin.suites.schema import Load, Pulse

UNLOAD_S = 5.0
LOOK_S = 0.1
"""How often a fall looks whether it may go on."""
LEAD_S = 3.0
"""Between the orders and the first pulse: what a process takes to open its GPU. Who takes longer joins at a later edge."""


class Heat:
    """`latest(tray, part, metric)`: the last reading, None where there is none; `wait_until(run second)`: or until the stop."""

    def __init__(
        self, job: Job, latest: Callable[[str, str, str], float | None], wait_until: Callable[[float], Awaitable[None]]
    ) -> None:
        self._job, self._latest, self._wait_until = job, latest, wait_until
        self._wanted: Load | None = None
        """What the GPUs that are loaded do."""
        self._ties: dict[str, Tie] = {}
        self.own: Mapping[str, Mapping[str, Any]] = {}
        """What load orders say beside all that is said to all, by tray."""

    def _now(self) -> float:
        return self._job.clock.now() - self._job.start_s

    def _say(self, tray: str, kind: str, code: str, text: str) -> None:
        self._job.keeper.event(LogLine(tray, self._now(), kind, code, text, "controller"))

    # ---- powers

    def allowed(self) -> ramp.Allowed | str:
        """What rack and loop bear, or why nothing may be loaded."""
        return ramp.allowed(ramp.limits(self._job.profile, self._job.rack))

    def _unit(self, part: str) -> ramp.Unit | None:
        """What a GPU draws, and may draw by the limit that its driver enforces; None where nobody knows the limit."""
        tray, stated = tray_of(part), self._job.profile.gpu.power_limit_w
        full = self._latest(tray, part, "gpu.power_limit") or stated
        if full is None:
            return None
        full = max(full, stated or 0.0)
        return ramp.Unit(part, min(self._latest(tray, part, "gpu.power") or 0.0, full) / 1000, full / 1000)

    def _units(self, parts: Iterable[str]) -> list[ramp.Unit]:
        return [unit for part in parts if (unit := self._unit(part)) is not None]

    def _loaded(self) -> set[str]:
        return set().union(*(session.loaded for session in self._job.sessions.values()))

    def _drawn(self) -> float:
        """kW that all GPUs may draw now: those that are loaded, or cannot be asked, at their limit."""
        loaded, total = self._loaded(), 0.0
        for tray, session in self._job.sessions.items():
            units = self._units(self._job.profile.topology.gpus(tray))
            total += sum(unit.full_kw if unit.part in loaded or not session.ready else unit.idle_kw for unit in units)
        return total

    def delays(self, parts: Sequence[str]) -> dict[str, float]:
        """After how many seconds each of these GPUs may begin to work, so that together they rise as they may."""
        allow, idle = self.allowed(), [unit for unit in self._units(parts) if unit.part not in self._loaded()]
        if isinstance(allow, str):
            return {}
        return {part: step.at_s for step in ramp.rise(idle, self._drawn(), allow).steps for part in step.parts}

    # ---- up

    def goes_on(self, load: Load) -> None:
        """This is what burns already: an earlier session brought it up."""
        self._wanted = load

    def changes(self, load: Load | None) -> bool:
        """True where what burns now is not what is wanted next."""
        return self._wanted is not None and (load is None or not _alike(self._wanted, load))

    async def up(self, load: Load, parts: Sequence[str], begin_s: float, over_s: float, args: Mapping[str, Any]) -> None:
        """Bring these GPUs up from `begin_s` on; those that are loaded already stay so."""
        self._wanted = load
        allow, loaded = self.allowed(), self._loaded()
        if isinstance(allow, str):
            self._say("rack", "ramp", "refused", allow)
            return
        units = self._units(part for part in parts if part not in loaded)
        for part in set(parts) - loaded - {unit.part for unit in units}:
            self._say(part, "ramp", "refused", f"{part} is not loaded: what it may draw is not known")
        if load.pulse is not None:
            await self._pulse(load.pulse, units, allow, args)
            return
        rise = ramp.rise(units, self._drawn(), allow, over_s)
        for part in rise.left_out:
            self._say(part, "ramp", "refused", f"{part} is not loaded: {allow.kw:.1f} kW are all that GPUs may draw here")
        tasks = []
        for step in rise.steps:
            await self._wait_until(begin_s + step.at_s)
            if self._job.stop.is_set():
                break
            tasks += [asyncio.ensure_future(self._load(tray, gpus, step.kw, args)) for tray, gpus in _by_tray(step.parts)]
            begin_s = await self._given(begin_s, step)
        await asyncio.gather(*tasks)

    async def _given(self, begin_s: float, step: ramp.Step) -> float:
        """Since when the steps count, once the orders of this one are out: what is late keeps its distance to what comes next."""
        await asyncio.sleep(0)
        return max(begin_s, self._now() - step.at_s)

    async def _load(self, tray: str, gpus: list[str], kw: float, args: Mapping[str, Any]) -> None:
        self._say(tray, "ramp", "up", f"{fold(f'{tray}.{gpu}' for gpu in gpus)}; all GPUs may now draw {kw:.1f} kW")
        await self._order(tray, "load", gpus=gpus, **args, **self.own.get(tray, {}))

    async def _order(self, tray: str, verb: str, timeout_s: float = 20.0, **args: Any) -> None:
        try:
            await self._job.sessions[tray].order(verb, timeout_s=timeout_s, **args)
        except TrayError as error:
            self._say(tray, "load", "refused", str(error))

    async def _pulse(self, pulse: Pulse, units: list[ramp.Unit], allow: ramp.Allowed, args: Mapping[str, Any]) -> None:
        """Every tray is told its first edges in its own clock's time."""
        try:
            beats = ramp.pulses(units, self._drawn(), pulse.period, pulse.duty, allow) if units else {}
        except ValueError as error:
            self._say("rack", "ramp", "refused", str(error))
            return
        trays = dict(_by_tray(beats))
        ties = dict(zip(trays, await asyncio.gather(*(self._tie(tray) for tray in trays)), strict=True))
        begin = self._job.clock.now() + LEAD_S
        wave = {"period_ns": round(pulse.period * 1e9), "on_ns": round(pulse.period * pulse.duty * 1e9)}
        groups = len({beat.group for beat in beats.values()})

        async def one(tray: str, known: Tie) -> None:
            first = {gpu: known.mono_ns(begin + beats[f"{tray}.{gpu}"].first_s) for gpu in trays[tray]}
            pulses = {gpu: {**wave, "first_ns": first_ns} for gpu, first_ns in first.items()}
            mine = sorted({beats[f"{tray}.{gpu}"].group for gpu in trays[tray]})
            self._say(tray, "pulse", "begin", f"group {', '.join(map(str, mine))} of {groups}, GPUs swing {pulse.period:g} s")
            self._say(tray, "pulse", "sync_ms", f"{1000 * known.within_s:.3f}")
            self._ties[tray] = known
            await self._order(tray, "load", gpus=trays[tray], pulse=pulses, **args, **self.own.get(tray, {}))

        await asyncio.gather(*(one(tray, known) for tray, known in ties.items() if known is not None))

    async def drift(self) -> None:
        """After pulses: how far each tray's clock went from where it was taken to stand."""

        async def one(tray: str, then: Tie) -> None:
            now = await self._tie(tray)
            if now is not None:
                apart = abs(now.offset_s - then.offset_s) + now.within_s
                self._say(tray, "pulse", "sync_ms", f"{1000 * apart:.3f}")

        ties, self._ties = self._ties, {}
        await asyncio.gather(*(one(tray, then) for tray, then in ties.items()))

    async def _tie(self, tray: str) -> Tie | None:
        try:
            return await tie(self._job.sessions[tray], self._job.clock)
        except TrayError as error:
            self._say(tray, "load", "refused", f"its clock is not known: {error}")
            return None

    # ---- down

    async def down(self, trays: Sequence[str], at_once: bool = False) -> None:
        """Unload these trays and wait until their agents say that they are: as slowly as load may change, or at once."""
        allow = self.allowed()
        loaded = [part for tray in trays for part in sorted(self._job.sessions[tray].loaded)]
        orders: list[asyncio.Future[None]] = []
        if not at_once and not isinstance(allow, str) and loaded:
            begin, units = self._now(), [self._falls(part) for part in loaded]
            for step in ramp.fall(units, sum(unit.full_kw for unit in units), allow):
                if not await self._falling(begin + step.at_s):
                    break
                for tray, gpus in _by_tray(step.parts):
                    mine = fold(f"{tray}.{gpu}" for gpu in gpus)
                    self._say(tray, "ramp", "down", f"{mine}; {abs(step.kw):.1f} kW of load are left")
                    orders.append(asyncio.ensure_future(self._order(tray, "unload", timeout_s=UNLOAD_S, gpus=gpus)))
                begin = await self._given(begin, step)
        await asyncio.gather(*orders, *(self._off(tray) for tray in trays))
        if not self._loaded():
            self._wanted = None

    async def _falling(self, until_s: float) -> bool:
        """Until this run second, also of a run that is being stopped as planned; False at once when it is to end faster."""
        while not self._job.stop.is_set() or self._job.gently():
            if (left_s := until_s - self._now()) <= 0:
                return True
            await self._job.clock.sleep(min(left_s, LOOK_S))
        return False

    def _falls(self, part: str) -> ramp.Unit:
        unit = self._unit(part)
        return ramp.Unit(part, 0.0, unit.full_kw if unit is not None else 0.0)

    async def _off(self, tray: str) -> None:
        """Everything of a tray; what does not answer is left to its lease."""
        session = self._job.sessions[tray]
        with contextlib.suppress(TrayError):
            await session.order("unload", timeout_s=UNLOAD_S)
            end = self._now() + UNLOAD_S
            while session.loaded and session.ready and self._now() < end:
                await self._job.clock.sleep(0.1)


def _alike(one: Load, other: Load) -> bool:
    """The same but for how it is brought up."""
    return one.model_copy(update={"stagger": False}) == other.model_copy(update={"stagger": False})


def _by_tray(parts: Iterable[str]) -> list[tuple[str, list[str]]]:
    """t07.g2 ... -> (t07, [g2 ...])."""
    out: dict[str, list[str]] = {}
    for part in parts:
        tray, _, gpu = part.partition(".")
        out.setdefault(tray, []).append(gpu)
    return list(out.items())
