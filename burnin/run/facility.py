"""What runs beside the tests: BMCs, power shelves and the CDU, read again and again and kept as telemetry of their parts.

One task a service. It is walked through once, then asked what matters every `sample_slow`, but not more often than every
LEAST_S; a service that does not answer is
said to be lost, once, and tried again. What was said last stays here for interlocks, with its age.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from burnin.checks import sel
from burnin.errors import TrayError
from burnin.events import LogLine, Tick
from burnin.rack.schema import Rack
from burnin.run.tray import Clock
from burnin.telemetry import bmc, watched
from burnin.telemetry.watched import Said

LEAST_S = 5.0
"""Between two rounds: a BMC has its own work, and 40 services cost a tenth of a core at this pace."""
ASK_S = 60.0
WALK_S = 180.0
LATE_S = 300.0
"""A log first read so late cannot say what was added since the run began."""
KEPT_ROUNDS = 5
"""Rounds after which what was said is too old to stand for now."""

Ask = Callable[[str, str, Mapping[str, Any], float], Any]


class Facility:
    """See the module. `ask`: the door `redfish`; `spoken(part, metric)`: the agent reads it already, so it is not read twice."""

    def __init__(
        self,
        ask: Ask,
        parts: Collection[str],
        rack: Rack,
        emit: Callable[[Tick | LogLine], None],
        clock: Clock,
        start_s: float,
        period_s: float,
        spoken: Callable[[str, str], bool],
    ) -> None:
        self.parts = tuple(parts)
        self._ask, self._rack, self._emit, self._spoken = ask, rack, emit, spoken
        self._clock, self._start_s, self._period_s = clock, start_s, max(period_s, LEAST_S)
        self.last: dict[str, Said] = {}
        """Part (t07, p4, cdu) -> what it said last, or why it says nothing."""
        self._asked: dict[str, watched.Questions] = {}
        self._noted: set[str] = set()
        self._columns: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[tuple[str, str], ...]] = {}

    def _now(self) -> float:
        return self._clock.now() - self._start_s

    @property
    def settled(self) -> bool:
        """True when every service has said something, or that it says nothing."""
        return set(self.parts) <= set(self.last)

    def now(self, part: str) -> Said:
        """What a service says now: what it said last, unless that is too old."""
        said = self.last.get(part)
        if said is None:
            return Said(self._now(), {}, f"{part}: its Redfish service has not been read yet")
        if not said.why and self._now() - said.t_s > KEPT_ROUNDS * self._period_s + ASK_S:
            return Said(said.t_s, {}, f"{part}: its Redfish service was last read {self._now() - said.t_s:.0f} s ago")
        return said

    async def live(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(self._one(part) for part in self.parts))

    async def _one(self, part: str) -> None:
        while True:
            begun = self._now()
            try:
                self._said(part, await self._round(part))
            except TrayError as error:
                self._lost(part, str(error))
            await self._clock.sleep(max(0.05, self._period_s - (self._now() - begun)))

    async def _round(self, part: str) -> dict[str, Any]:
        if part not in self._asked:
            bodies: dict[str, Any] = await self._ask(part, "walk", watched.begin(part), WALK_S)
            if again := watched.more(part, bodies):
                bodies |= await self._ask(part, "get", {"paths": again}, ASK_S)
            self._asked[part] = watched.questions(part, bodies)
            await self._note_logs(part)
        else:
            bodies = dict(self.last[part].bodies)
        ahead = self._asked[part]
        if ahead.whole:
            bodies |= await self._ask(part, "whole", {"paths": ahead.whole}, ASK_S)
        if single := [path for path, key in ahead.single if key is None or not self._spoken(*key)]:
            bodies |= await self._ask(part, "get", {"paths": single}, ASK_S)
        return bodies

    def _said(self, part: str, bodies: dict[str, Any]) -> None:
        before, now_s = self.last.get(part), self._now()
        self.last[part] = Said(now_s, bodies)
        if before is not None and before.why:
            self._emit(LogLine(_service(part), now_s, "bmc", "back", f"{part}: its Redfish service answers again", "controller"))
        scope = self._rack.coolant.scope if self._rack.coolant is not None else "row"
        for tray, values in watched.readings(part, bodies, scope, self._rack.rack).items():
            self._tick(tray, now_s, values)

    def _tick(self, tray: str, now_s: float, values: watched.Columns) -> None:
        mine = {key: value for key, value in values.items() if not self._spoken(*key)}
        if mine:
            columns = self._columns.setdefault((tray, tuple(mine)), tuple(mine))  # one tuple a table: see burnin.store.hot
            absent = {i: "missing" for i, value in enumerate(mine.values()) if value is None}
            self._emit(Tick(tray, now_s, columns, tuple(mine.values()), absent))

    def _lost(self, part: str, why: str) -> None:
        before = self.last.get(part)
        self.last[part] = Said(self._now(), {}, why)
        self._asked.pop(part, None)
        if before is None or not before.why:
            self._emit(LogLine(_service(part), self._now(), "bmc", "lost", why, "controller"))

    async def _note_logs(self, part: str) -> None:
        """How long each log of a tray's BMC is now; once a run, for `burnin.checks.sel`."""
        if not part.startswith("t") or part in self._noted:
            return
        self._noted.add(part)
        args = {"from": list(sel.BEGIN), "depth": 3, "names": list(sel.NAMES), "keep": list(sel.KEEP)}
        try:
            logs = bmc.entries(await self._ask(part, "walk", args, WALK_S))
        except TrayError as error:
            self._emit(
                LogLine(_service(part), self._now(), "bmc", "logs", f"{part}: its logs cannot be read: {error}", "controller")
            )
            return
        late = f"it was first read {self._now():.0f} s after the run began" if self._now() > LATE_S else ""
        for log, lines in sorted(logs.items()):
            self._emit(LogLine(_service(part), self._now(), sel.KIND, log, sel.note(lines, late), "controller"))


def _service(part: str) -> str:
    return f"{part}.bmc" if part[0] in "ts" else part
