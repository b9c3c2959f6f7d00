"""The guard's own way to every tray: a connection opened before it is needed, a channel to the agent, orders that end load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from burnin import wire
from burnin.errors import TrayError
from burnin.run.guard_rules import Seen
from burnin.transport.agent import GuardLink

HALT_S = 5.0
RETRY_S = 0.5
OLD_S = 3.0
"""An agent that was silent for so long is asked over a fresh connection."""
HEAT = 0.05
"""A die that was under load leaks more than at rest until it has cooled, whatever runs on it: estimated, twice the twin's."""


class GuardedTray:
    """One tray. `make()` gives a fresh link, told `heard(records)`; `saw` gets every reading; `changed` is called when the
    channel comes or goes."""

    def __init__(
        self,
        tray: str,
        make: Callable[[Callable[[list[wire.Record]], None]], GuardLink],
        saw: Callable[[Seen], None],
        changed: Callable[[], None],
    ) -> None:
        self.tray, self._make, self._saw, self._changed = tray, make, saw, changed
        self.there = asyncio.Event()
        """Set while the run says that its agent is on the tray."""
        self.watching = False
        self.why = "not reached yet"
        self.heard_s = time.monotonic()
        self.loaded: set[str] = set()
        """GPUs (t07.g2) under load."""
        self.power_w: dict[str, float | None] = {}
        self.idle_w: dict[str, float] = {}
        """The last power of each GPU before its first load: what it draws after a halt is what is to be proved."""
        self.most_w: dict[str, float] = {}
        """The highest power of each GPU since then."""
        self.gone_s: float | None = None
        """When load was last seen to have ended."""
        self._link: GuardLink | None = None
        self._halts: dict[str, list[str] | None] = {}

    def expect(self, there: bool) -> None:
        """The run says whether its agent is on the tray."""
        if there and not self.there.is_set():
            self.heard_s = time.monotonic()
            self.there.set()
        elif not there:
            self.there.clear()

    # ---- the channel

    async def live(self) -> None:
        """For ever: connected, attached whenever the run's agent is there, attached again when it is lost."""
        while True:
            link = self._make(self._take)
            try:
                await link.connect()
                self.why = "its agent is not there yet"
                await self.there.wait()
                hello = await link.watch()
                self._link, self.watching, self.heard_s = link, True, time.monotonic()
                self._load({f"{self.tray}.{gpu}" for gpu in hello.body["loaded"]})
                self._changed()
                await self._again(link)
                while not link.gone.done() and time.monotonic() - self.heard_s < OLD_S:
                    await asyncio.wait((link.gone,), timeout=OLD_S / 4)
                self.why = "the channel is lost" if link.gone.done() else "its agent is silent"
            except TrayError as error:
                self.why = str(error)
            finally:
                self._link = None
                if self.watching:
                    self.watching = False
                    self._changed()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await link.close()
            await asyncio.sleep(RETRY_S)

    def _take(self, records: list[wire.Record]) -> None:
        now = self.heard_s = time.monotonic()
        for record in records:
            if record.kind == "beat":
                self._beat({f"{self.tray}.{gpu}" for gpu in record.body["load"]}, now)
            elif record.kind == "watch":
                self._watch(record, now)

    def _beat(self, loaded: set[str], now: float) -> None:
        if self.loaded and not loaded:
            self.gone_s = now
        self._load(loaded)

    def _load(self, loaded: set[str]) -> None:
        self.loaded = loaded
        for part in loaded:
            self.most_w.setdefault(part, 0.0)

    def _watch(self, record: wire.Record, now: float) -> None:
        age_s = max(0.0, (record.mono_ns - record.body["n"]) / 1e9)
        for gpu, value in record.body["power"].items():
            part = f"{self.tray}.{gpu}"
            self.power_w[part] = value
            if value is not None and part in self.most_w:
                self.most_w[part] = max(value, self.most_w[part])
            elif value is not None:
                self.idle_w[part] = value
        for gpu, value in record.body["margin"].items():
            part = f"{self.tray}.{gpu}"
            if part in self.loaded or value is not None:
                self._saw(Seen("gpu_margin", part, value, now, now - age_s))

    def drawn(self, gpus: Collection[str]) -> float | None:
        """Mean power of these, W; None where one of them is not known, or the agent is silent."""
        watts = [self.power_w.get(gpu) for gpu in gpus]
        known = [one for one in watts if one is not None]
        there = self.watching and time.monotonic() - self.heard_s < OLD_S
        return sum(known) / len(known) if there and known and len(known) == len(watts) else None

    # ---- orders

    async def halt(self, why: str, gpus: Collection[str] | None) -> float:
        """End load on these GPUs (t07.g2; None: all): the monotonic second of the agent's answer. Raises TrayError when it did
        not answer; then it is told as soon as it is there again."""
        names = None if gpus is None else sorted(gpu.split(".")[1] for gpu in gpus)
        self._halts[why] = names
        if self._link is None:
            raise TrayError(f"{self.tray}: {self.why}; its lease ends its load")
        await self._link.order("halt", timeout_s=HALT_S, why=why, gpus=names)
        self._halts.pop(why, None)
        return time.monotonic()

    async def _again(self, link: GuardLink) -> None:
        for why, gpus in list(self._halts.items()):
            await link.order("halt", timeout_s=HALT_S, why=why, gpus=gpus)
            self._halts.pop(why, None)

    def cold(self, gpus: Collection[str], idle_w: float | None) -> bool:
        """True when none of these is loaded, and each draws no more than its idle power (`idle_w` where that was not read, or is
        less) and a tenth, and HEAT of what load added to it."""
        for gpu in gpus:
            known = [watts for watts in (self.idle_w.get(gpu), idle_w) if watts is not None]
            base, now = min(known, default=None), self.power_w.get(gpu)
            if gpu in self.loaded or base is None or now is None:
                return False
            if now > 1.1 * base + HEAT * max(self.most_w.get(gpu, 0.0) - base, 0.0):
                return False
        return True


async def halt_all(trays: Mapping[str, GuardedTray], why: str, gpus: Collection[str] | None = None) -> dict[str, float | str]:
    """Order every one of these trays at once: tray -> second of its answer, or why there was none."""

    async def one(tray: GuardedTray) -> float | str:
        try:
            return await tray.halt(why, gpus)
        except TrayError as error:
            return str(error)

    return dict(zip(trays, await asyncio.gather(*map(one, trays.values())), strict=True))


def outcome(trays: Mapping[str, GuardedTray], answers: Mapping[str, float | str], seen_s: float) -> dict[str, Any]:
    """What became of a halt, in seconds after the reading that asked for it was there."""
    heard = [answer - seen_s for answer in answers.values() if isinstance(answer, float)]
    gone = [tray.gone_s - seen_s for tray in trays.values() if tray.gone_s is not None and tray.gone_s >= seen_s]
    return {
        "answered": len(heard),
        "last_answer_s": max(heard, default=None),
        "last_gone_s": max(gone, default=None),
        "still": sorted(gpu for tray in trays.values() for gpu in tray.loaded),
        "unanswered": {tray: answer for tray, answer in answers.items() if isinstance(answer, str)},
    }
