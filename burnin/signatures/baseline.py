"""What healthy racks look like: slots, tray positions, spreads and levels of everything that parts are compared by. Pure.

Learned from racks by looking at them with the same signatures (`Readings.learned`). A baseline makes limits narrower, because
sigma and the effects of place are known beforehand, and it sees what no comparison within a rack can: a whole rack that is off.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from burnin.rack.data import Data
from burnin.signatures.robust import median, medians, others, shrinkage, sigma, spread, without_slots
from burnin.signatures.tails import GAUSS, TAIL_PARTS, learned_tail, skewness
from burnin.telemetry.series import Floats

FORMAT = 1
RACK_WORTH, MOST_WORTH = 25.0, 500.0
"""Degrees of freedom that one rack of a baseline adds to the knowledge of a spread, and at most (reference signatures, 3)."""
OTHER_WORTH = 0.1
"""A baseline of another SKU, revision or firmware counts so much: its spreads are a hint, its places and levels not taken."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Learned(Data):
    """One comparison in one kind of phase. `slots` and `positions` are what a place adds; spreads are robust sigmas of parts
    (`own`), of what trays share (`trays`), of GPUs within trays (`within`); `level`, `levels`: the racks' median and its spread;
    `tail`: degrees of freedom of the parts' distribution, null where it is Gaussian, 0 where they are too few to tell; `skew`:
    its skewness, so that each side has its own limit, 0 where it is not known."""

    racks: int = Field(ge=1)
    parts: int = Field(ge=1)
    level: Finite
    levels: Finite = Field(ge=0)
    slots: list[Finite] = Field(max_length=64)
    positions: list[Finite] = Field(max_length=64)
    own: Finite = Field(ge=0)
    trays: Finite = Field(ge=0)
    within: Finite = Field(ge=0)
    tail: Finite | None = Field(default=None, ge=0)
    skew: Finite = Field(default=0.0, ge=-1, le=1)


class Key(Data):
    """Of what a baseline is. Null: not known."""

    profile: str
    parts: str | None = Field(default=None, description="SKU and part revision, as the boards say")
    firmware: str | None = None
    driver: str | None = None
    test: str | None = Field(default=None, description="suite and burnin version; null for foreign telemetry")

    def differs(self, other: Key) -> list[str]:
        """What is known of both and is not the same."""
        mine, yours = self.model_dump(), other.model_dump()
        return [f"{k} {yours[k]}, not {v}" for k, v in mine.items() if v is not None and yours[k] is not None and v != yours[k]]


class Baseline(Data):
    """A frozen set of healthy racks. `families`: comparison and kind of phase, as `thermal.rth load`."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    key: Key
    racks: int = Field(ge=1)
    sources: list[str] = Field(max_length=100_000)
    families: dict[str, Learned]

    @model_validator(mode="after")
    def _unchanged(self) -> Baseline:
        if self.id != _name(self.key, self.families):
            raise ValueError("its content is not what its id was made of: it was changed after it was built")
        return self

    def of(self, name: str, phase: str) -> Learned | None:
        """What is known of a comparison in phases of this kind."""
        return self.families.get(f"{name} {kind_of(phase)}")


def kind_of(phase: str) -> str:
    """load-2 and load-again are load; load@1500-2 is load@1500."""
    found = re.match(r"(idle|load(@\d+)?)", phase)
    return found[0] if found else phase


def build(key: Key, racks: Mapping[str, Mapping[tuple[str, str], Sequence[Floats]]]) -> Baseline:
    """From what was looked at in racks: source -> (comparison, kind of phase) -> grids, one per look."""
    looks: dict[str, list[Floats]] = {}
    for families in racks.values():
        for (name, phase), grids in families.items():
            looks.setdefault(f"{name} {phase}", []).append(_mean(grids))
    learned = {name: _learn(grids) for name, grids in sorted(looks.items())}
    families_known = {name: one for name, one in learned.items() if one is not None}
    return Baseline(
        format=FORMAT, id=_name(key, families_known), key=key, racks=len(racks), sources=sorted(racks), families=families_known
    )


def _name(key: Key, families: Mapping[str, Learned]) -> str:
    known = {name: one.model_dump(exclude=None if one.skew else {"skew"}) for name, one in families.items()}  # as it was before
    body = [key.model_dump(), known]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def _mean(grids: Sequence[Floats]) -> Floats:
    """One grid of a rack: the mean of its looks; NaN where a part was not measured in any."""
    stack = np.stack(grids)
    known = ~np.isnan(stack)
    many = known.sum(axis=0)
    out: Floats = np.where(many > 0, np.where(known, stack, 0.0).sum(axis=0) / np.maximum(many, 1), np.nan)
    return out


def _learn(grids: Sequence[Floats]) -> Learned | None:
    """None where racks are not of one shape, or nothing was measured."""
    if len({grid.shape for grid in grids}) != 1 or all(np.isnan(grid).all() for grid in grids):
        return None
    levels = np.array([median(grid) for grid in grids])
    rest = np.stack([grid - level for grid, level in zip(grids, levels, strict=True)])
    if rest.shape[1] == 1:  # residuals of any shape: they have no places
        return _spread(grids, levels, rest, [], [], 0.0, 0.0)
    within_trays = np.concatenate([grid - medians(grid)[:, None] for grid in rest])
    slots = medians(within_trays.T) if rest.shape[2] > 1 else np.zeros(1)
    slots = np.nan_to_num(slots - median(slots))
    level = medians((rest - slots).transpose(1, 0, 2).reshape(rest.shape[1], -1))
    positions = np.nan_to_num(level - median(level))
    rest = rest - slots - positions[None, :, None]
    trays = medians(rest)
    within = sigma((rest - trays[:, :, None]).ravel(), 0.0)
    between = sigma(trays.ravel(), 0.0)
    own = np.stack([alone(grid, within, between) for grid in rest])
    return _spread(grids, levels, own, [_short(x) for x in slots], [_short(x) for x in positions], between, within)


def _spread(
    grids: Sequence[Floats], levels: Floats, own: Floats, slots: list[float], positions: list[float], trays: float, within: float
) -> Learned:
    scale = sigma(own.ravel(), 0.0)
    tail = learned_tail(own.ravel(), scale) if scale > 0 else GAUSS
    parts = int(np.count_nonzero(~np.isnan(own)))
    gaussian = math.isinf(tail) and parts >= TAIL_PARTS
    return Learned(
        racks=len(grids),
        parts=parts,
        level=_short(median(levels)),
        levels=_short(sigma(levels, 0.0)),
        slots=slots,
        positions=positions,
        own=_short(max(scale, spread(own.ravel())) if gaussian else scale),
        trays=_short(trays),
        within=_short(within),
        tail=None if math.isinf(tail) else tail,
        skew=_short(skewness(own.ravel(), scale)) if gaussian else 0.0,
    )


def alone(rest: Floats, within: float, between: float, taken: Floats | None = None) -> Floats:
    """What each part of a grid has for itself once places are taken off: less its tray's share, about the rack's median.

    `taken`: trays (1.0) that are taken away as a whole, because they are out of family themselves.
    """
    weight = shrinkage(within, between, rest.shape[1])
    weights = np.full(rest.shape[0], weight) if taken is None else np.maximum(weight, taken)
    rest = rest - median(rest)
    left = rest - weights[:, None] * np.nan_to_num(others(rest), nan=0.0)
    out: Floats = left - median(left)
    return out


def worth(learned: Learned) -> float:
    """Degrees of freedom that a baseline is worth."""
    return min(MOST_WORTH, RACK_WORTH * learned.racks)


def placed(values: Floats, learned: Learned | None) -> Floats:
    """A grid less what slots and tray positions add: as learned, or as this rack shows of slots."""
    if learned is None or (len(learned.positions), len(learned.slots)) != values.shape:
        return without_slots(values)
    out: Floats = values - median(values) - np.asarray(learned.slots) - np.asarray(learned.positions)[:, None]
    return out


def _short(value: float) -> float:
    return float(f"{value:.6g}")
