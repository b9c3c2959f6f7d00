"""How load may rise, fall and pulse within what rack and coolant loop bear. Pure: powers and limits in, times out.

A staircase rises by at most `kw_per_s` x (window + 1 s) in any window, or by one GPU, the least that can be loaded: power
meters average over about a second. Power that is counted is the highest that a part may draw, so that the rack stays below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from burnin.rack.parts import tray_of
from burnin.rack.schema import Limit, Profile, Rack

METER_S = 1.0
"""What power meters average over (NVML's average power, shelf readings)."""
_SUPPLIES = (("rack.power", "rack.power_rate", "rack.power_base"), ("loop.heat", "loop.heat_rate", "loop.heat_base"))
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Allowed:
    """What GPUs may draw together in kW, and how fast that may change in kW/s: the tighter of rack and loop."""

    kw: float
    kw_per_s: float

    @property
    def at_once(self) -> float:
        """kW that may come or go in one step."""
        return self.kw_per_s * METER_S


@dataclass(frozen=True, slots=True)
class Unit:
    """One GPU: what it draws now, and at most under load, in kW."""

    part: str
    idle_kw: float
    full_kw: float

    @property
    def adds_kw(self) -> float:
        """What loading it adds at most."""
        return max(self.full_kw - self.idle_kw, 0.0)


@dataclass(frozen=True, slots=True)
class Step:
    """At `at_s` these parts change; `kw` is what all GPUs may then draw."""

    at_s: float
    parts: tuple[str, ...]
    kw: float


@dataclass(frozen=True, slots=True)
class Rise:
    """A way up. `left_out`: parts for which there is no power."""

    steps: tuple[Step, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """Pulses of one part: its first rising edge after the plan's begin, and the group it pulses with."""

    first_s: float
    group: int


def limits(profile: Profile, rack: Rack) -> Mapping[str, Limit]:
    """The profile's limits, with what is said of this rack's own place on top. A suite has no say."""
    return {**profile.limits, **rack.power}


def allowed(known: Mapping[str, Limit]) -> Allowed | str:
    """What may be drawn, or why nothing may: a limit that is not stated is not kept by chance."""
    kw, rate = math.inf, math.inf
    for names in _SUPPLIES:
        values = [limit.max if (limit := known.get(name)) is not None else None for name in names]
        unknown = [name for name, value in zip(names, values, strict=True) if value is None]
        if unknown:
            return f"no limit is known for {', '.join(unknown)}: set it in the profile, or under `power` in the rack file"
        most, per_s, base = (float(value) for value in values if value is not None)
        kw, rate = min(kw, most - base), min(rate, per_s)
    return Allowed(kw, rate) if kw > 0 and rate > 0 else f"rack and loop leave {kw:g} kW and {rate:g} kW/s for GPUs"


def _groups(units: Sequence[Unit], at_once: float) -> list[list[Unit]]:
    """Trays, where there are several and one may come at once; else GPUs."""
    trays: dict[str, list[Unit]] = {}
    for unit in units:
        trays.setdefault(tray_of(unit.part), []).append(unit)
    whole = len(trays) > 1 and all(_adds(tray) <= at_once for tray in trays.values())
    return list(trays.values()) if whole else [[unit] for unit in units]


def _adds(units: Iterable[Unit]) -> float:
    return sum(unit.adds_kw for unit in units)


def rise(units: Sequence[Unit], drawn_kw: float, allow: Allowed, over_s: float = 0.0) -> Rise:
    """The way up for these GPUs, beside the `drawn_kw` of all GPUs now (these at idle included).

    `over_s`: spread over so long, where that is longer than it must take.
    """
    steps: list[Step] = []
    left: list[str] = []
    at, total = 0.0, drawn_kw
    for group in _groups(units, allow.at_once):
        adds = _adds(group)
        if total + adds > allow.kw + _ROUNDING:
            left += [unit.part for unit in group]
            continue
        total += adds
        steps.append(Step(at, tuple(unit.part for unit in group), total))
        at += adds / allow.kw_per_s
    if steps and over_s > at > 0:
        steps = [Step(step.at_s * over_s / at, step.parts, step.kw) for step in steps]
    return Rise(tuple(steps), tuple(left))


def fall(units: Sequence[Unit], drawn_kw: float, allow: Allowed) -> tuple[Step, ...]:
    """The way down, the last part first."""
    steps: list[Step] = []
    at, total = 0.0, drawn_kw
    for group in reversed(_groups(units, allow.at_once)):
        total -= _adds(group)
        steps.append(Step(at, tuple(unit.part for unit in group), total))
        at += _adds(group) / allow.kw_per_s
    return tuple(steps)


# ---------------------------------------------------------------- pulses


def pulses(units: Sequence[Unit], drawn_kw: float, period_s: float, duty: float, allow: Allowed) -> dict[str, Beat]:
    """When each GPU pulses: all at once where rack and loop bear that swing, else in as few groups as they bear, spread
    evenly over the period. GPUs join one by one, in all groups alike. Raises ValueError where there is no way.
    """
    if drawn_kw + _adds(units) > allow.kw + _ROUNDING:
        raise ValueError(f"{drawn_kw + _adds(units):.1f} kW of GPUs do not fit into {allow.kw:.1f} kW")
    most = max([allow.at_once, *(unit.adds_kw for unit in units)])
    swing = {unit.part: unit.adds_kw for unit in units}
    for count in range(max(1, math.ceil(_adds(units) / most - _ROUNDING)), len(units) + 1):
        beats = _beats(units, count, period_s, allow)
        if _swings(beats, swing, period_s, duty, allow.kw_per_s) <= most + _ROUNDING:
            return beats
    raise ValueError(f"pulses of {period_s:g} s swing faster than {allow.kw_per_s:g} kW/s, however they are spread")


def _beats(units: Sequence[Unit], count: int, period_s: float, allow: Allowed) -> dict[str, Beat]:
    group_of = {unit.part: n * count // len(units) for n, unit in enumerate(units)}
    place: dict[str, int] = {}
    seen = [0] * count
    for unit in units:
        place[unit.part] = seen[group_of[unit.part]]
        seen[group_of[unit.part]] += 1
    out: dict[str, Beat] = {}
    join = 0.0
    together = count == 1  # one group swings as a whole anyway: there is nothing to bring up before it
    for unit in sorted(units, key=lambda unit: (place[unit.part], group_of[unit.part])):
        group = group_of[unit.part]
        offset = group * period_s / count
        turns = 0 if together else max(0, math.ceil((join - offset) / period_s - _ROUNDING))
        out[unit.part] = Beat(offset + turns * period_s, group)
        join += unit.adds_kw / allow.kw_per_s
    return out


def _swings(beats: Mapping[str, Beat], swing: Mapping[str, float], period_s: float, duty: float, kw_per_s: float) -> float:
    """By how much power changes more than `kw_per_s` allows for the time it takes, at most, up or down, in kW."""
    end = max(beat.first_s for beat in beats.values()) + 2 * period_s
    edges: dict[int, float] = {}
    for part, beat in beats.items():
        for turn in range(int((end - beat.first_s) / period_s) + 1):
            for at, kw in ((0.0, swing[part]), (duty * period_s, -swing[part])):
                tick = round((beat.first_s + turn * period_s + at) * 1e6)  # microseconds: edges that meet are one
                edges[tick] = edges.get(tick, 0.0) + kw
    worst, total, low, high = 0.0, 0.0, 0.0, 0.0
    for tick, kw in sorted(edges.items()):
        allowance = kw_per_s * tick / 1e6
        low, high = min(low, total - allowance), max(high, total + allowance)  # as it was until this edge
        total += kw
        worst = max(worst, total - allowance - low, high - (total + allowance))
        low, high = min(low, total - allowance), max(high, total + allowance)
    return worst
