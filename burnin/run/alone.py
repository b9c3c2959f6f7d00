"""Who watches heat while a program has the GPUs for itself: NVML is let go, so each tray's BMC is asked how hot its GPUs are.

The temperature sensors of the GPUs (Redfish) and their own thresholds are read before the program begins, and every few seconds
while it runs. One beyond a threshold of its own, or a GPU of which none is read any more, ends the program. Water, shelves and
lost trays are the guard's, as always.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from burnin.checks.base import Answer
from burnin.errors import TrayError
from burnin.rack.schema import Profile, Rack
from burnin.run.tray import Clock
from burnin.telemetry import bmc

LOOK_S = 5.0
BLIND_S = 20.0
"""So long a GPU's sensors may be unread while a program has it."""
ASK_S = 15.0
_GPU = re.compile(r"(?:HGX_)?GPU_(?:SXM_)?\d{1,2}")
Ask = Callable[[str, str, Mapping[str, Any], float], Awaitable[Any]]


def wanted(profile: Profile, rack: Rack, today: dt.date) -> bool:
    """False where the profile does not ask for margins, or a person has waived `gpu_margin` by name."""
    waived = any(one.interlock == "gpu_margin" and one.until >= today for one in rack.waive)
    return "gpu_margin" in profile.interlocks and not waived


class Heat:
    """The temperatures of one tray's GPUs, as its BMC says. `ask`: the door `redfish`."""

    def __init__(self, ask: Ask, tray: str, gpus: int, clock: Clock) -> None:
        self._ask, self._to, self._gpus, self._clock = ask, f"{tray}.bmc", gpus, clock
        self._sensors: dict[str, list[str]] = {}

    async def find(self) -> None:
        """Where the sensors are, and that all of them are good now. Raises TrayError."""
        roots = (await self._ask(self._to, "get", {"paths": [bmc.CHASSIS]}, ASK_S))[bmc.CHASSIS]
        rows = roots.get("Members")
        paths = [str(row.get("@odata.id")) for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        homes = [path for path in paths if _GPU.fullmatch(bmc.last(path))]
        if len(homes) < self._gpus:
            raise TrayError(f"{self._to} shows {len(homes)} GPUs of {self._gpus}")
        for home in homes:
            found = await self._ask(self._to, "whole", {"paths": [f"{home}/Sensors"]}, 4 * ASK_S)
            known = [
                one.path for one in bmc.sensors(found) if one.measures == "Temperature" and found[one.path].get("Thresholds")
            ]
            if not known:
                raise TrayError(f"{self._to} shows no temperature of {bmc.last(home)} that has a threshold")
            self._sensors[home] = known
        if why := "; ".join(filter(None, await self._look())):
            raise TrayError(f"{self._to}: {why}")

    async def until_bad(self) -> str:
        """Returns why the program must end."""
        good_s = self._clock.now()
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                hot, unread = await self._look()
            except TrayError as error:
                hot, unread = "", str(error)
            if hot:
                return hot
            if not unread:
                good_s = self._clock.now()
            elif self._clock.now() - good_s >= BLIND_S:
                return f"its GPUs' temperatures were not read for {self._clock.now() - good_s:.0f} s: {unread}"

    async def _look(self) -> tuple[str, str]:
        """(what is too hot, what was not read), each empty where there is nothing."""
        paths = [path for known in self._sensors.values() for path in known]
        found = {one.path: one for one in bmc.sensors(await self._ask(self._to, "get", {"paths": paths}, ASK_S))}
        hot = [f"{one.name} reads {one.reading:g} {one.unit}, beyond {one.limit}" for one in found.values() if one.crossed]
        read = {path for path, one in found.items() if one.reading is not None and not one.absent}
        blind = [bmc.last(home) for home, known in self._sensors.items() if not read & set(known)]
        return "; ".join(hot), f"{', '.join(blind)}: no temperature is read" if blind else ""


class Margins:
    """The T.Limit margins of GPUs that a program loads from another tray. `latest`: time and margin of a GPU's last reading."""

    def __init__(
        self, latest: Callable[[str], tuple[float, float | None]], gpus: Sequence[str], least_c: float, clock: Clock
    ) -> None:
        self._latest, self._gpus, self._least_c, self._clock = latest, gpus, least_c, clock

    async def until_bad(self) -> str:
        """Returns why the program must end."""
        begun_s = self._clock.now()
        while True:
            await self._clock.sleep(1.0)
            now_s = self._clock.now()
            for gpu in self._gpus:
                t_s, margin = self._latest(gpu)
                if margin is not None and margin <= self._least_c:
                    return f"{gpu} has a margin of {margin:g} Cel left"
                if now_s - max(begun_s, t_s if margin is not None else 0.0) >= BLIND_S:
                    return f"the margin of {gpu} was not read for {BLIND_S:g} s"


class Watcher(Protocol):
    """Says when a program must end."""

    async def until_bad(self) -> str:
        """Returns why."""
        ...


async def watched(heat: Watcher, asking: Coroutine[Any, Any, Answer], end: Callable[[], Awaitable[Any]]) -> Answer:
    """The program's answer; `end` ends it where its GPUs get too hot, or nobody can see whether they do."""
    asked, bad = asyncio.ensure_future(asking), asyncio.ensure_future(heat.until_bad())
    try:
        await asyncio.wait((asked, bad), return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return asked.result()
        why = bad.result()
        try:
            await end()
        except TrayError as error:
            why = f"{why} (it was not told to end: {error})"
        answer = await asked
        return replace(answer, body={**answer.body, "ended": why}) if answer.ok else answer
    finally:
        asked.cancel()
        bad.cancel()
