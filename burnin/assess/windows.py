"""What a finding was seen in: the readings of its part and of its peers, in few numbers, kept with the finding. Pure.

The readings themselves stay in the database (or the judge directory) for as long as a site keeps them: `t0_s` and `t1_s` say
where. These lines outlast them, and are what a report draws: twelve equal pieces of each window, the part's mean in each, and
the lowest, middle and highest of its peers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.parts import kind, within
from burnin.rack.schema import Catalogue, SignatureRow
from burnin.signatures.zones import short
from burnin.telemetry.series import Floats, Stretch, Telemetry

PIECES = 12
MOST_WINDOWS = 9
"""Of one finding: three signals in three stages. A counter that grew in twenty stages is told by its last ones."""
WHOLE = "all"
"""The stage of a finding that was not seen in one: counts and policies look at the whole recording."""

Line = list[float | None]


class Windows:
    """One recording's windows; what several findings ask for is computed once."""

    def __init__(self, telemetry: Telemetry, catalogue: Catalogue) -> None:
        self._telemetry, self._catalogue = telemetry, catalogue
        self._stretches = {one.stage: one for one in telemetry.stretches}
        self._lines: dict[tuple[str, str, str], dict[str, Floats]] = {}

    def attached(self, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """The same findings; those that hold or fail a part by a signature with `windows` and `limits` as evidence."""
        return tuple(one if one.severity is Severity.WATCH else self._attach(one) for one in findings)

    def _attach(self, one: Finding) -> Finding:
        row = self._catalogue.signatures.get(one.signature)
        if row is None:
            return one
        windows = list(self._windows(one, row))[:MOST_WINDOWS]
        limits = {name: str(limit) for name, limit in row.limits.items()}
        return replace(one, evidence={**one.evidence, "limits": limits, **({"windows": windows} if windows else {})})

    def _windows(self, one: Finding, row: SignatureRow) -> Iterator[dict[str, Any]]:
        seen = [self._stretches[stage] for stage in one.evidence if stage in self._stretches] or [self._everything()]
        for stretch in seen[-(MOST_WINDOWS // 3) :]:
            for metric in filter(self._catalogue.metrics.__contains__, row.signals):
                lines = self._of_kind(one.part, metric, stretch)
                own = lines.get(one.part)
                if own is None or np.isnan(own).all():
                    continue
                peers = np.array([line for part, line in lines.items() if part != one.part]).reshape(-1, PIECES)
                some = ~np.isnan(peers).all(axis=1)
                t0_s, t1_s = stretch.at(one.part)
                window: dict[str, Any] = {"stage": stretch.stage, "metric": metric, "unit": self._catalogue.metrics[metric].unit}
                window |= {"t0_s": short(t0_s + stretch.settle_s), "t1_s": short(t1_s), "part": _told(own)}
                yield window | {"peers": int(some.sum())} | _spread(peers[some])

    def _everything(self) -> Stretch:
        ends = [(float(one.t_s[0]), float(one.t_s[-1])) for one in self._telemetry.series.values() if one.t_s.size]
        return Stretch(WHOLE, WHOLE, min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0) + 1.0)

    def _of_kind(self, part: str, metric: str, stretch: Stretch) -> Mapping[str, Floats]:
        """Part -> its line, of all parts of the kind of `part`: of a tray, the mean of what is in it."""
        name = kind(part)
        if (name, metric, stretch.stage) not in self._lines:
            groups: dict[str, list[Floats]] = {}
            for source in self._telemetry.parts(metric):
                if (owner := _owner(source, name)) is not None:
                    groups.setdefault(owner, []).append(self._line(source, metric, stretch))
            self._lines[name, metric, stretch.stage] = {owner: _mean(np.array(many)) for owner, many in groups.items()}
        return self._lines[name, metric, stretch.stage]

    def _line(self, part: str, metric: str, stretch: Stretch) -> Floats:
        """Mean of each piece; of a counter, what it grew by since the window began."""
        one = self._telemetry.window(part, metric, stretch)
        v = one.v
        if self._catalogue.metrics[metric].counter and one.present:
            v = v - one.known()[0]
        t0_s, t1_s = stretch.judged
        piece = np.clip(((one.t_s - t0_s) / max(t1_s - t0_s, 1e-9) * PIECES).astype(np.int64), 0, PIECES - 1)
        known = ~np.isnan(v)
        n = np.bincount(piece[known], minlength=PIECES)
        total = np.bincount(piece[known], weights=v[known], minlength=PIECES)
        out: Floats = np.divide(total, n, out=np.full(PIECES, np.nan), where=n > 0)
        return out


def _owner(source: str, name: str) -> str | None:
    """The part of that kind which `source` is, or sits in."""
    words = source.split(".")
    up = [".".join(words[:n]) for n in range(len(words), 0, -1)] + ["rack"]
    return next((part for part in up if kind(part) == name and within(source, part)), None)


def _mean(many: Floats) -> Floats:
    """Mean over rows, of those that are known."""
    n = (~np.isnan(many)).sum(axis=0)
    out: Floats = np.divide(np.nansum(many, axis=0), n, out=np.full(many.shape[1], np.nan), where=n > 0)
    return out


def _spread(peers: Floats) -> dict[str, Line]:
    """Lowest, middle and highest of the peers in each piece; nothing where there are none."""
    if not len(peers):
        return {}
    empty = np.isnan(peers).all(axis=0)
    full = np.where(empty, 0.0, peers)
    told = {"low": np.nanmin(full, axis=0), "middle": np.nanmedian(full, axis=0), "high": np.nanmax(full, axis=0)}
    return {name: _told(np.where(empty, np.nan, line)) for name, line in told.items()}


def _told(line: Floats) -> Line:
    return [None if x != x else short(float(x)) for x in line]
