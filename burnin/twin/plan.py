"""A suite laid out on a rack's time, once for all racks of a profile: which GPU is in which condition at which reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from burnin.suites.schema import Suite
from burnin.telemetry.series import Floats, Stretch
from burnin.twin import schedule
from burnin.twin.model import Model
from burnin.twin.schedule import Condition, Span

Ints = NDArray[np.int64]
_LONG_AGO_S = 1e9


@dataclass(frozen=True)
class Plan:
    """Arrays of shape (GPUs, readings): `now` and `before` (index into `conditions`), `since` the last change in seconds.

    Of shape (readings,): `t` their times, `cells` the seconds each stands for, `span` the one it lies in; `minutes` and their
    cells and spans are those of links and of what stands around.
    """

    spans: list[Span]
    conditions: list[Condition]
    t: Floats
    minutes: Floats
    knots: Floats
    span: Ints
    minute_span: Ints
    cells: Floats
    minute_cells: Floats
    now: Ints
    before: Ints
    since: Floats
    busy: NDArray[np.bool_]
    regular: Floats
    """Knots of every rack of this plan; a rack whose faults begin at their own time has more."""
    _columns: dict[int, tuple[Ints, NDArray[np.bool_]]] = field(default_factory=dict)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """As the suite has them."""
        return tuple(span.stretch for span in self.spans)

    @property
    def first_load_s(self) -> float:
        """When the first load begins; infinity without one."""
        return next((s.t0_s for s in self.spans if s.condition.activity > 0), float("inf"))

    @property
    def loaded_s(self) -> Floats:
        """Seconds of load that lie behind each knot."""
        return np.asarray(sum(np.clip(self.knots, s.t0_s, s.t1_s) - s.t0_s for s in self.spans if s.condition.activity > 0))

    @property
    def heatings(self) -> Floats:
        """How often the rack has been heated up by each knot."""
        begins = [
            s.t0_s
            for b, s in zip([None, *self.spans], self.spans, strict=False)
            if s.condition.activity > 0 and (b is None or b.condition.activity <= 0)
        ]
        return np.searchsorted(begins, self.knots, side="right").astype(float)

    def columns(self, condition: int) -> tuple[Ints, NDArray[np.bool_]]:
        """Readings at which any GPU is in a condition, and which ones are."""
        if condition not in self._columns:
            mine = self.now == condition
            at = np.flatnonzero(mine.any(axis=0))
            self._columns[condition] = at, mine[:, at]
        return self._columns[condition]

    def between_knots(self, values: Floats, columns: Ints | slice) -> Floats:
        """Values at knots, (GPUs, knots or 1), brought to readings along straight lines."""
        return values if values.shape[1] == 1 else _between(self.knots, values, self.t[columns])

    def from_regular(self, values: Floats) -> Floats:
        """Values at the regular knots, brought to this rack's."""
        return values if self.knots.size == self.regular.size else _between(self.regular, values, self.knots)

    def with_knots(self, times: Iterable[float]) -> Plan:
        """The same with a knot just before and at each of these times, so that what begins there does so at once."""
        more = [x for t in times if self.knots[0] < t < self.knots[-1] for x in (t - 1e-3, t)]
        return replace(self, knots=np.unique(np.concatenate([self.regular, more]))) if more else self


def plan(model: Model, suite: Suite, hours: float | None = None) -> Plan:
    """The layout of a suite on this model's rack."""
    spans = schedule.spans(suite, model.kernels, hours)
    (t, cells), (minutes, minute_cells) = schedule.moments(spans), schedule.minutes(spans)
    conditions = list(dict.fromkeys([Condition(0.0), *(span.condition for span in spans)]))
    now, before, since = _conditions(model, spans, conditions, t)
    busy = np.array([c.activity > 0 for c in conditions])[now]
    where = schedule.which(spans, t), schedule.which(spans, minutes)
    knots = schedule.knots(spans)
    return Plan(spans, conditions, t, minutes, knots, *where, cells, minute_cells, now, before, since, busy, knots)


def _between(knots: Floats, values: Floats, t: Floats) -> Floats:
    after = np.searchsorted(knots, t).clip(1, knots.size - 1)
    low = knots[after - 1]
    left = values[:, after - 1]
    out: Floats = left + (t - low) / (knots[after] - low) * (values[:, after] - left)
    return out


def _conditions(model: Model, spans: list[Span], conditions: list[Condition], t: Floats) -> tuple[Ints, Ints, Floats]:
    trays = model.topology.compute_trays
    now, before = np.zeros((trays, t.size), np.int64), np.zeros((trays, t.size), np.int64)
    since = np.full((trays, t.size), _LONG_AGO_S)
    for tray in range(trays):
        current, last, changed = 0, 0, -_LONG_AGO_S
        for span in spans:
            wanted, begin = conditions.index(span.condition), span.t0_s
            if wanted != current:
                begin += (span.t1_s - span.t0_s) * tray / trays * span.stagger
                waiting = (t >= span.t0_s) & (t < begin)
                now[tray, waiting], before[tray, waiting], since[tray, waiting] = current, last, t[waiting] - changed
                last, current, changed = current, wanted, begin
            here = (t >= begin) & (t < span.t1_s)
            now[tray, here], before[tray, here], since[tray, here] = current, last, t[here] - changed
    per_tray = model.topology.gpus_per_tray
    return np.repeat(now, per_tray, 0), np.repeat(before, per_tray, 0), np.repeat(since, per_tray, 0)
