"""What the guard reads of BMCs, power shelves and the CDU, by clients of its own and nothing else beside it.

Leak detectors alone are polled four times a second and more; where a service offers its event stream, an event brings the
next look at once, and polls once a second make sure of it. A source counts as watched from its first good reading on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

from burnin.errors import TrayError
from burnin.rack.load import RackFile
from burnin.rack.schema import Guarded
from burnin.run.guard_rules import Seen
from burnin.run.guard_stale import Follows
from burnin.telemetry import bmc, facility
from burnin.transport.bmcs import CDU, services
from burnin.transport.redfish import Endpoint, Redfish, Resource, failed

ASK_S, WALK_S = 2.0, 20.0
LEAK_S, SURE_S, COOLANT_S, SHELF_S = 0.22, 1.0, 0.5, 1.0
VOLTS_S, NO_SENSOR_S = 2.0, 60.0
"""A detector that says OK is not believed alone: beside it, and more seldom, the voltage that it reads is asked for; where no
sensor is (404), once a minute: a BMC that starts has none for a while."""
POWER_S = 5.0
"""How often a BMC is asked for its tray's power, to see that what it reads moves (burnin.run.guard_stale)."""
AGAIN_S = 1.0
EVENTS_SILENT_S = 3600.0

See = Callable[[Seen], None]
Drawn = Callable[[str], float | None]


def _nobody(part: str) -> float | None:
    return None


class Source:
    """One service that is asked for one kind of thing. `first_s`: when it was first read well; `why`: why it is not now."""

    period_s = LEAK_S
    names: tuple[str, ...] = ()
    begin = bmc.CHASSIS
    links: tuple[str, ...] = ()

    def __init__(self, at: Endpoint, see: See, changed: Callable[[], None]) -> None:
        self.part = at.part
        self._client = Redfish(at, ASK_S)
        self._see, self._changed = see, changed
        self.first_s: float | None = None
        self.why = f"{at.part}: not read yet"
        self._paths: list[str] = []
        self._read_s = time.monotonic()
        self._wake = asyncio.Event()

    async def live(self) -> None:
        """For ever."""
        while True:
            try:
                if not self._paths:
                    await self._find()
                await self._look()
                await self._pause(self.period_s)
            except TrayError as error:
                self._fail(str(error))
                await asyncio.sleep(min(AGAIN_S, 4 * self.period_s))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _find(self) -> None:
        """Where the things are that will be asked for. Raises TrayError."""
        bodies = await self._client.walk(self.begin, 4, self.links, WALK_S)
        self._paths = sorted(self.choose(bodies))
        if not self._paths:
            unread = next(iter(bmc.failures(bodies).values()), "its service has none")
            raise TrayError(f"{self.part}: {self.names[0]} cannot be found: {unread}")

    async def _look(self) -> None:
        begun = time.monotonic()
        bodies: dict[str, Resource] = {}
        for path, rows in zip(self._paths, await asyncio.gather(*map(self._members, self._paths)), strict=True):
            bodies |= {str(row.get("@odata.id") or f"{path}#/{i}"): row for i, row in enumerate(rows)}
        seen = list(self.read(bodies, time.monotonic(), self._read_s))
        self._read_s = begun
        good = all(one.value is not None for one in seen)
        self.why = "" if good else next(one.why for one in seen if one.value is None)
        if good and self.first_s is None:
            self.first_s = begun
            self._changed()
        for one in seen:
            self._see(one)

    async def _members(self, path: str) -> list[Resource]:
        try:
            return await self._client.members(path, ASK_S)
        except TrayError as error:
            return [failed(str(error), getattr(error, "status", None), path)]

    def _fail(self, why: str) -> None:
        self.why = why
        now = time.monotonic()
        for name in self.names:
            self._see(Seen(name, self.part, None, now, self._read_s, why))

    def choose(self, bodies: Mapping[str, Resource]) -> Iterable[str]:
        """The collections to ask for, of those that a walk found."""
        raise TypeError(type(self).__name__)

    def read(self, bodies: Mapping[str, Resource], at_s: float, before_s: float) -> Iterable[Seen]:
        """What they say."""
        raise TypeError(type(self).__name__)

    async def close(self) -> None:
        """Log out."""
        await self._client.close()


class Leaks(Source):
    """The leak detectors of one tray, and beside them the voltages that they read."""

    names = ("leak",)
    links = ("ThermalSubsystem", "LeakDetection", "LeakDetectors")

    def __init__(
        self, at: Endpoint, see: See, changed: Callable[[], None], follows: Follows | None = None, drawn: Drawn = _nobody
    ) -> None:
        """`follows`: where it is watched whether this BMC repeats itself; `drawn(part)`: mean power of its GPUs, where known."""
        super().__init__(at, see, changed)
        self._follows, self._drawn = follows, drawn
        self._homes: dict[str, Resource] = {}
        self._power = ""
        self._sensors: set[str] = set()
        self._without: dict[str, float] = {}
        """Paths where no sensor was, and when: the detector has only its word."""
        self._volts: dict[str, Resource] = {}
        self._volts_s = time.monotonic()
        """When they were last asked for before those that are known."""

    async def live(self) -> None:
        """For ever, listening for events beside it."""
        beside = [asyncio.ensure_future(job) for job in (self._listen(), self._measure(), self._follow())]
        try:
            await super().live()
        finally:
            for task in beside:
                task.cancel()

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(TrayError):
                root = await self._client.root()
                if "EventService" in root:
                    await self._hear()
            self.period_s = LEAK_S
            await asyncio.sleep(AGAIN_S)

    async def _hear(self) -> None:
        """Until the stream ends: RedfishError. It is trusted once it has said something; until then polls go on as fast."""
        async for _ in self._client.events(EVENTS_SILENT_S):
            self.period_s = SURE_S
            self._wake.set()

    async def _measure(self) -> None:
        """Ask for the voltages. One that cannot be had, or that reads nothing, leaves the detector its word, as where it has no
        sensor: whether the check calls that unread is its own question; here it would end the rack's load."""
        begun = self._volts_s
        while True:
            await asyncio.sleep(VOLTS_S)
            before, begun, known = begun, time.monotonic(), dict[str, Resource]()
            for path in sorted(self._sensors):
                if begun < self._without.get(path, float("-inf")) + NO_SENSOR_S:
                    continue
                try:
                    body = await self._client.get(path, ASK_S)
                    if bmc.volts(body) is not None:
                        known[path] = body
                except TrayError as error:
                    if getattr(error, "status", None) == 404:
                        self._without[path] = begun
            self._volts, self._volts_s = known, before

    async def _follow(self) -> None:
        """Does the tray's power follow the load? A BMC that does not tell it is not found out this way, and nothing is said. What
        it tells at rest has to be known before the first load is up, so it is asked at once, and again until then."""
        known = False
        while self._follows is not None:
            unknown_s = NO_SENSOR_S if self._homes and not self._power else AGAIN_S
            await asyncio.sleep(POWER_S if known else unknown_s)
            value = None
            with contextlib.suppress(TrayError):
                self._power = self._power or await self._find_power()
                if self._power:
                    value = bmc.tray_power({**self._homes, self._power: await self._client.get(self._power, ASK_S)})
            now = time.monotonic()
            over_s = self._follows.read(value, self._drawn(self.part), now)
            known = known or self._follows.known
            said = f"it says {value:g} W of its tray as before" if value is not None else ""
            why = f"{said}, and its GPUs' power made a step" if over_s else ""
            self._see(Seen("bmc_stale", f"{self.part}.bmc", over_s, now, now - over_s, why))

    async def _find_power(self) -> str:
        """The resource that says the tray's power; none: it has none. Raises TrayError."""
        for home, body in sorted(self._homes.items()):
            paths = [f"{home}/EnvironmentMetrics"] if "EnvironmentMetrics" in body else []
            rows = (await self._had(f"{home}/Sensors")).get("Members") if "Sensors" in body else None
            paths += [str(row.get("@odata.id")) for row in rows or () if isinstance(row, Mapping)]
            for path in (path for path in paths if path.endswith("/EnvironmentMetrics") or "totalhsc" in path.lower()):
                if bmc.tray_power({home: body, path: await self._had(path)}) is not None:
                    return path
        return ""

    async def _had(self, path: str) -> Resource:
        """What is there; nothing where the service has none. Raises TrayError."""
        try:
            return await self._client.get(path, ASK_S)
        except TrayError as error:
            if getattr(error, "status", None) != 404:
                raise
            return {}

    def choose(self, bodies: Mapping[str, Resource]) -> Iterable[str]:
        self._homes = {path: body for path, body in bodies.items() if bmc.is_tray(body)}
        return (path for path in bodies if path.endswith("/LeakDetectors"))

    def read(self, bodies: Mapping[str, Resource], at_s: float, before_s: float) -> Iterable[Seen]:
        self._sensors = {sensor for path in bodies if (sensor := bmc.sensor_of(path))}
        found = bmc.detectors(bodies)
        if not any(one.wet for one in found):  # what says itself that it is wet was so for no longer than one look
            before_s = min(before_s, self._volts_s)
            found = bmc.detectors({**bodies, **self._volts})
        wet = [one for one in found if one.wet]
        unread = [one for one in found if one.wet is None]
        value = f"wet: {'; '.join(one.why for one in wet)}" if wet else None if unread or not found else "OK"
        why = "; ".join(one.why for one in unread) or ("" if found else f"{self.part}: no leak detector is there")
        yield Seen("leak", self.part, value, at_s, before_s, why)

    async def power_off(self) -> str:
        """Ask the BMC to switch its tray off at once: what was done. Raises TrayError."""
        for system in await self._client.members(bmc.SYSTEMS, ASK_S):
            target, _ = bmc.reset(system, "ComputerSystem.Reset")
            if target:
                await self._client.act("POST", target, {"ResetType": "ForceOff"}, ASK_S)
                return f"{self.part} was switched off by its BMC ({target})"
        raise TrayError(f"{self.part}: its BMC offers no way to switch it off")


class Coolant(Source):
    """The rack's loop. A loop that feeds a row has no flow of this rack."""

    period_s = COOLANT_S
    names = ("coolant_flow", "coolant_supply", "coolant_rise")
    begin = facility.EQUIPMENT
    links = ("CDUs", "SecondaryCoolantConnectors")

    def __init__(self, at: Endpoint, see: See, changed: Callable[[], None], file: RackFile) -> None:
        super().__init__(at, see, changed)
        self._file = file

    def choose(self, bodies: Mapping[str, Resource]) -> Iterable[str]:
        return (path for path in bodies if path.endswith("/SecondaryCoolantConnectors"))

    def read(self, bodies: Mapping[str, Resource], at_s: float, before_s: float) -> Iterable[Seen]:
        rack = self._file.rack
        assert rack.coolant is not None
        loop = facility.loop(bodies, rack.coolant.scope, rack.rack, tuple(rack.coolant.serves or ()))
        own = isinstance(loop, facility.RackLoop)
        flow, back = (loop.flow, loop.return_temp) if isinstance(loop, facility.RackLoop) else (None, None)
        rise = None if back is None or loop.supply_temp is None else back - loop.supply_temp
        unread = "; ".join(loop.unread) or f"{self.part} does not say it"
        other = unread if own else "the row's CDU does not measure this rack's coolant"
        for name, value, why in (
            ("coolant_flow", flow, other),
            ("coolant_supply", loop.supply_temp, unread),
            ("coolant_rise", rise, other),
        ):
            yield Seen(name, self.part, value, at_s, before_s, why if value is None else "")


class Shelf(Source):
    """One power shelf: how many of its supplies do not work."""

    period_s = SHELF_S
    names = ("power_shelves",)
    links = ("PowerSubsystem", "PowerSupplies")

    def choose(self, bodies: Mapping[str, Resource]) -> Iterable[str]:
        return (path for path in bodies if path.endswith("/PowerSupplies"))

    def read(self, bodies: Mapping[str, Resource], at_s: float, before_s: float) -> Iterable[Seen]:
        supplies = facility.shelf(bodies).supplies
        unread = [one for one in supplies if one.works is None]
        out = sum(one.works is False for one in supplies)
        why = "; ".join(one.why for one in unread) or ("" if supplies else f"{self.part}: no supply is there")
        yield Seen("power_shelves", self.part, None if unread or not supplies else float(out), at_s, before_s, why)


def _follows(rules: Mapping[str, Guarded], part: str) -> Follows | None:
    step = rules["bmc_stale"].step if "bmc_stale" in rules else None
    return Follows(step.min) if step is not None and step.min is not None and part.startswith("t") else None


def sources(
    file: RackFile,
    rules: Mapping[str, Guarded],
    trays: Iterable[str],
    see: See,
    changed: Callable[[], None],
    drawn: Drawn = _nobody,
) -> tuple[list[Source], dict[str, str]]:
    """Who is asked for what these rules watch, and what nobody can be asked for: name -> why.

    Raises InputError for a secret that cannot be read.
    """
    coolant = [name for name in Coolant.names if name in rules]
    at = services(file) if coolant or {"leak", "power_shelves"} & set(rules) else {}
    found: list[Source] = []
    blind: dict[str, str] = {}
    if "leak" in rules:
        wet = [part for part in at if part[0] in "ts"]
        found += [Leaks(at[part], see, changed, _follows(rules, part), drawn) for part in wet]
        if missing := sorted(set(trays) - set(wet)):
            blind["leak"] = f"the rack file names no BMC of {', '.join(missing)}"
    if coolant:
        if CDU in at:
            found.append(Coolant(at[CDU], see, changed, file))
        else:
            blind |= dict.fromkeys(coolant, "the rack file names no CDU (coolant:)")
    if "power_shelves" in rules:
        shelves = [part for part in at if part.startswith("p")]
        found += [Shelf(at[part], see, changed) for part in shelves]
        if not shelves:
            blind["power_shelves"] = "the rack file names no power shelf (bmc:)"
    if coolant == ["coolant_rise"]:  # what it is made of is waived by name
        blind.pop("coolant_rise", None)
    return found, blind
