"""When the guard trips. Pure: readings and the time go in, trips come out.

    gpu_margin      Cel, T.Limit of each GPU under load                     its agent's channel
    tray_lost       s, since a tray's agent was last heard                  the same
    leak            OK, or what the detectors of a tray say                 BMC
    leaking_trays   1, trays with a detector that is not OK                 BMCs
    coolant_flow coolant_supply coolant_rise    L/min, Cel, Cel (return minus supply)      CDU
    power_shelves   1, supplies of each power shelf that do not work        its Redfish service
    bmc_stale       s, in which a BMC's power of its tray repeats what it said before a step of the load      BMC, agent

A trip happens once for each name and part: what it ended stays ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from burnin.rack.parts import tray_of
from burnin.rack.schema import Guarded, Limit

ISOLATE = "isolate power and liquid of this rack now"
"""What a person has to do about a leak: no program closes a valve here."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One reading. Seconds are monotonic: `at_s` when the guard had it, `before_s` when it may first have been so."""

    name: str
    part: str
    value: float | str | None
    at_s: float
    before_s: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Trip:
    """Load has to end on `targets` (gpu or tray ids; empty: the whole rack), and why."""

    name: str
    part: str
    ends: Literal["gpu", "tray", "rack"]
    why: str
    action: str
    seen_s: float
    latency_s: float
    """At most so long it was so before it was seen."""
    unread: bool = False
    """It is not known to be bad; it is not known to be good."""

    @property
    def target(self) -> str:
        """The part that load ends on."""
        return self.part if self.ends == "gpu" else tray_of(self.part) if self.ends == "tray" else "rack"


@dataclass(slots=True)
class _Known:
    good_s: float
    why: str = ""


@dataclass
class Watch:
    """The rules of one run. `rules`: name -> rule, without what is waived."""

    rules: Mapping[str, Guarded]
    tripped: dict[tuple[str, str], Trip] = field(default_factory=dict)
    _known: dict[tuple[str, str], _Known] = field(default_factory=dict)
    _wet: set[str] = field(default_factory=set)

    def expect(self, name: str, parts: Sequence[str], now_s: float) -> None:
        """From now on these parts must be read; others of this name need not be any more."""
        for key in [key for key in self._known if key[0] == name and key[1] not in parts]:
            del self._known[key]
        for part in parts:
            self._known.setdefault((name, part), _Known(now_s))

    def see(self, one: Seen) -> list[Trip]:
        """A reading came in."""
        rule = self.rules.get(one.name)
        if rule is None:
            return []
        known = self._known.get((one.name, one.part))
        if one.value is None:
            if known is not None:
                known.why = one.why or known.why
            return []
        if known is not None:
            known.good_s, known.why = one.at_s, ""
        trips = []
        if beyond(rule.limit, one.value):
            shown = f"{one.value:g}{_unit(rule.limit)}" if isinstance(one.value, float) else one.value
            why = f"{one.name} of {one.part} is {shown}, limit {rule.limit}" + (f" ({one.why})" if one.why else "")
            trips = self._trip(one.name, one.part, rule, why, one.at_s, one.before_s)
            if one.name == "leak":
                trips += self._leaks(one)
        return trips

    def _leaks(self, one: Seen) -> list[Trip]:
        self._wet.add(tray_of(one.part))
        rule, count = self.rules.get("leaking_trays"), float(len(self._wet))
        if rule is None or not beyond(rule.limit, count):
            return []
        why = f"{count:g} trays leak ({', '.join(sorted(self._wet))}): this is the rack's"
        return self._trip("leaking_trays", "rack", rule, why, one.at_s, one.before_s)

    def tick(self, now_s: float) -> list[Trip]:
        """Time went on: what has not been read for too long."""
        trips: list[Trip] = []
        for (name, part), known in list(self._known.items()):
            rule = self.rules.get(name)
            if rule is None or rule.blind_s is None or now_s - known.good_s < rule.blind_s:
                continue
            silent = f"{name} of {part} was not read for {now_s - known.good_s:.1f} s"
            why = f"{silent} ({known.why})" if known.why else silent
            trips += self._trip(name, part, rule, why, now_s, now_s, unread=True)
        return trips

    def _trip(
        self, name: str, part: str, rule: Guarded, why: str, seen_s: float, before_s: float, unread: bool = False
    ) -> list[Trip]:
        if (name, part) in self.tripped:
            return []
        action = "find out why it is not read; unread is not good" if unread else ACTIONS[name]
        trip = Trip(name, part, rule.ends, why, action, seen_s, max(0.0, seen_s - before_s), unread)
        self.tripped[name, part] = trip
        return [trip]


ACTIONS = {
    "gpu_margin": "look at coolant and cold plate of this GPU; its agent's own cut-off should have come first",
    "tray_lost": "look at power, console and management network of this tray",
    "leak": f"{ISOLATE}, then find the wet part by its detector",
    "leaking_trays": f"{ISOLATE}: more than one tray is wet",
    "coolant_flow": "look at the CDU, its pumps and valves before any load",
    "coolant_supply": "look at the CDU and the facility's water before any load",
    "coolant_rise": "the loop carries more heat than its flow takes: look at flow, filter and heat balance",
    "power_shelves": "look at this power shelf and its feed before any load",
    "bmc_stale": "whether this tray leaks is not known: reset its BMC and see that its readings follow the load, then run again",
    "controller": "look at the controller machine: it did not run for so long; then resume the run",
    "guard": "send this report to burnin's makers; then resume the run",
    "emergency": "find out with who stopped it what was wrong; then run again",
}
"""What to do about a trip, by its name."""


def beyond(limit: Limit, value: float | str) -> bool:
    """True when this value is not within the limit."""
    if limit.equals is not None:
        return value != limit.equals
    if isinstance(value, str):
        return True
    return (limit.min is not None and value < limit.min) or (limit.max is not None and value > limit.max)


def _unit(limit: Limit) -> str:
    return "" if limit.unit == "1" else f" {limit.unit}"
