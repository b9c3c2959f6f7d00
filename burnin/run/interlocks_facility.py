"""Interlocks on what stands around the GPUs: coolant, leaks, power shelves, switch trays, and whose BMCs these are.

Each is read and good, or refuses load. Something wrong with one tray keeps that tray from being loaded; a leak, the loop, the
shelves and the switch trays concern the rack. What is the same on every tray is said once, of the rack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from burnin.rack.parts import fold
from burnin.rack.schema import Profile, Rack
from burnin.telemetry.bmc import detectors, leak_policy, leaking, system_serials
from burnin.telemetry.facility import Loop, RackLoop, dew_point, has_room_sensor, loop, shelf
from burnin.telemetry.watched import Said

Is = Literal["good", "bad", "unread", "waived"]
CDU = "cdu"


@dataclass(frozen=True, slots=True)
class Interlock:
    """One interlock on one part. A rack-wide one that is bad or unread refuses all load, a GPU's own only its own."""

    name: str
    part: str
    state: Is
    why: str

    @property
    def allows(self) -> bool:
        """True when load may go on as far as this interlock is concerned."""
        return self.state in ("good", "waived")


@dataclass(frozen=True, slots=True)
class Around:
    """The facts: trays that answer, what Redfish services say now, and why switch trays were not reached (empty: they were)."""

    profile: Profile
    rack: Rack
    trays: tuple[str, ...]
    said: Mapping[str, Said]
    switches: Mapping[str, str]

    def evaluate(self, name: str) -> list[Interlock]:
        """One interlock by its name; one that nobody knows is unread."""
        known: dict[str, Callable[[], list[Interlock]]] = {
            "coolant_flow": self._flow,
            "coolant_supply": lambda: [self._level("coolant_supply", "coolant.supply_temp", lambda one: one.supply_temp, "Cel")],
            "coolant_pressure": lambda: [self._level("coolant_pressure", "coolant.pressure", lambda one: one.pressure, "kPa")],
            "dew_point": lambda: [self._dew()],
            "leak": self._leak,
            "leak_policy": self._policy,
            "power_shelves": self._shelves,
            "switch_trays": lambda: [self._switches()],
        }
        if name not in known:
            return [Interlock(name, "rack", "unread", f"this version of burnin cannot read {name}")]
        return _once(known[name]())

    def offered(self) -> list[str]:
        """Interlocks that nobody has to ask for: their sensor is there."""
        cdu = self.said.get(CDU)
        return ["dew_point"] if cdu is not None and has_room_sensor(cdu.bodies) else []

    # ---- coolant

    def _loop(self, name: str) -> Loop | Interlock:
        where, said = self.rack.coolant, self.said.get(CDU)
        if where is None:
            return Interlock(name, "rack", "unread", "the rack file does not say where the coolant is read (coolant:)")
        if said is None or said.why:
            return Interlock(name, "rack", "unread", said.why if said else "the CDU was not asked")
        return loop(said.bodies, where.scope, self.rack.rack, tuple(where.serves or ()))

    def _flow(self) -> list[Interlock]:
        now = self._loop("coolant_flow")
        if isinstance(now, Interlock):
            return [now]
        if not isinstance(now, RackLoop):
            why = "the CDU feeds a row: nobody reads the flow of this rack"
            return [Interlock("coolant_flow", "rack", "unread", why)]
        return [self._within("coolant_flow", "coolant.flow", now.flow, "L/min")]

    def _dew(self) -> Interlock:
        """Coolant colder than the room's dew point makes it rain in the rack."""
        now, said = self._loop("dew_point"), self.said.get(CDU)
        if isinstance(now, Interlock):
            return now
        dew = dew_point(said.bodies) if said is not None else None
        if dew is None:
            return Interlock("dew_point", "rack", "unread", "the CDU does not say what the air of the room holds")
        if now.supply_temp is None:
            return Interlock("dew_point", "rack", "unread", "the CDU does not say coolant.supply_temp")
        return self._within("dew_point", "coolant.dew_margin", round(now.supply_temp - dew, 2), "K")

    def _level(self, name: str, limit: str, pick: Callable[[Loop], float | None], unit: str) -> Interlock:
        now = self._loop(name)
        return now if isinstance(now, Interlock) else self._within(name, limit, pick(now), unit)

    def _within(self, name: str, key: str, value: float | None, unit: str) -> Interlock:
        limit = self.profile.limits.get(key)
        if value is None:
            return Interlock(name, "rack", "unread", f"the CDU does not say {key}")
        if limit is None or not limit.known:
            return Interlock(name, "rack", "unread", f"profile {self.profile.profile} knows no limit for {key}")
        low = limit.min is not None and value < limit.min
        if low or (limit.max is not None and value > limit.max):
            return Interlock(name, "rack", "bad", f"{key} is {value:g} {unit}, needed is {limit}")
        return Interlock(name, "rack", "good", f"{value:g} {unit}")

    # ---- leaks

    def _leak(self) -> list[Interlock]:
        """Wet anywhere refuses the rack, trays that are not in this run too; a tray whose detectors are unread only itself."""
        out = []
        for part, said in sorted(self.said.items()):
            wet = [one for one in detectors(said.bodies) if one.wet]
            if wet:
                out.append(Interlock("leak", "rack", "bad", f"{part} leaks: {wet[0].why}"))
                out.append(Interlock("leak", part, "bad", wet[0].why))
        limit = self.profile.limits.get("leak.detectors")
        for tray in self.trays:
            said = self._of(tray)
            found = detectors(said.bodies)
            told = sum(one.wet is not None for one in found)
            if any(one.wet for one in found):
                continue  # said above
            if said.why or leaking(found) is None:
                why = said.why or next((one.why for one in found if one.wet is None), f"the BMC of {tray} shows no leak detector")
                out.append(Interlock("leak", tray, "unread", why))
            elif limit is not None and limit.min is not None and told < limit.min:
                out.append(Interlock("leak", tray, "unread", f"{told} of {limit.min:g} leak detectors of {tray} say something"))
            else:
                out.append(Interlock("leak", tray, "good", f"{told} detectors are dry"))
        return out or [Interlock("leak", "rack", "unread", "no tray answers")]

    def _policy(self) -> list[Interlock]:
        out = []
        for tray in self.trays:
            said = self._of(tray)
            policy = leak_policy(said.bodies)
            state: Is = "good" if policy.enabled else "unread" if policy.enabled is None or said.why else "bad"
            out.append(Interlock("leak_policy", tray, state, said.why or policy.why))
        return out or [Interlock("leak_policy", "rack", "unread", "no tray answers")]

    def _of(self, tray: str) -> Said:
        return self.said.get(tray, Said(0.0, {}, "the rack file names no BMC (bmc:)"))

    # ---- shelves and switch trays

    def _shelves(self) -> list[Interlock]:
        name, topology = "power_shelves", self.profile.topology
        if topology.power_shelves is None or topology.psus_per_shelf is None:
            return [Interlock(name, "rack", "unread", f"profile {self.profile.profile} does not say how many there are")]
        bad, unread, shelves = [], [], list[Interlock]()
        for part in (f"p{i}" for i in range(topology.power_shelves)):
            said = self.said.get(part)
            if said is None or said.why:
                unread.append(said.why if said else f"the rack file names no BMC of {part}")
                continue
            supplies = shelf(said.bodies).supplies
            works = sum(one.works is True for one in supplies)
            if any(one.works is False for one in supplies):
                bad.append(f"{part}: {next(one.why for one in supplies if one.works is False)}")
                shelves.append(Interlock(name, part, "bad", bad[-1]))
            elif works < topology.psus_per_shelf:
                unread.append(f"{part}: {works} of {topology.psus_per_shelf} supplies say that they work")
        if bad or unread:
            return [Interlock(name, "rack", "bad" if bad else "unread", _few(bad or unread)), *shelves]
        return [Interlock(name, "rack", "good", f"{topology.power_shelves} shelves, all supplies work")]

    def _switches(self) -> Interlock:
        name = "switch_trays"
        away = [f"{part}: {why}" for part, why in sorted(self.switches.items()) if why]
        missing = [part for part in self.profile.topology.switches() if part not in self.switches]
        if not self.profile.topology.switch_trays:
            return Interlock(name, "rack", "unread", f"profile {self.profile.profile} has no switch trays to look at")
        if away:
            return Interlock(name, "rack", "bad", _few(away))
        if missing:
            return Interlock(name, "rack", "unread", f"{fold(missing)} was not asked, or is not in the rack file")
        return Interlock(name, "rack", "good", f"{len(self.switches)} switch trays answer")

    # ---- whose BMCs

    def whose_bmcs(self, trays: Sequence[Interlock], identities: Mapping[str, Mapping[str, Any]]) -> list[Interlock]:
        """The rack's identity, tray by tray, with the half that BMCs must agree to: each BMC's system is this tray's host."""
        return [self._whose(one, identities.get(one.part, {})) for one in trays]

    def _whose(self, one: Interlock, identity: Mapping[str, Any]) -> Interlock:
        if one.state != "good" or one.part not in self.rack.bmc:
            return one
        said, host = self._of(one.part), str((identity.get("host") or {}).get("serial") or "")
        serials = system_serials(said.bodies)
        if said.why or not serials:
            return Interlock(one.name, one.part, "unread", said.why or f"the BMC of {one.part} does not say whose it is")
        if not host:
            return Interlock(one.name, one.part, "unread", f"{one.part} does not say its serial, so its BMC cannot be told")
        if host not in serials:
            why = f"the BMC of {one.part} belongs to {', '.join(sorted(serials))}, the host is {host}"
            return Interlock(one.name, one.part, "bad", why)
        return Interlock(one.name, one.part, "good", f"{one.why}; its BMC is its own")


def _once(found: list[Interlock]) -> list[Interlock]:
    """The same trouble on every tray is one trouble of the rack."""
    trays = [one for one in found if one.part.startswith("t")]
    if not trays or any(one.allows for one in trays):
        return found
    states = sorted({one.state for one in trays})
    whys = list(dict.fromkeys(one.why for one in trays))
    said = Interlock(trays[0].name, "rack", states[0], whys[0] + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else ""))
    return [*(one for one in found if one not in trays), said]


def _few(whys: list[str]) -> str:
    return whys[0] + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else "")
