"""Statistics that a few bad parts cannot spoil. Pure; NaN stands for a part that was not measured."""

from __future__ import annotations

import numpy as np

from burnin.telemetry.series import Floats

_MAD_TO_SIGMA = 1.4826  # of a normal distribution


def median(values: Floats) -> float:
    """Median of the known values; NaN when there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def sigma(values: Floats, least: float) -> float:
    """Robust standard deviation about the median, never below `least`: identical values are not infinitely sure."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return least
    return max(least, _MAD_TO_SIGMA * float(np.median(np.abs(known - np.median(known)))))


def without_trend(values: Floats, position: Floats) -> Floats:
    """`values` minus their Theil-Sen line over `position` (slope: median of pair slopes; level: median)."""
    known = ~np.isnan(values)
    if np.count_nonzero(known) < 3:
        return values - median(values)
    x, y = position[known], values[known]
    i, j = np.triu_indices(x.size, 1)
    apart = x[i] != x[j]
    slope = float(np.median((y[j] - y[i])[apart] / (x[j] - x[i])[apart])) if apart.any() else 0.0
    flat = values - slope * position
    rest: Floats = flat - median(flat)
    return rest


def others(values: Floats) -> Floats:
    """For each element of each row (axis 1): the median of the other known elements of its row; NaN when there are none."""
    out = np.full_like(values, np.nan)
    for column in range(values.shape[1]):
        rest = np.delete(values, column, axis=1)
        for row in range(values.shape[0]):
            out[row, column] = median(rest[row])
    return out


def shrinkage(within: float, between: float, n: int) -> float:
    """How far to believe a mean of `n` parts as the effect of what they share: between^2 / (between^2 + within^2 / n)."""
    return between**2 / (between**2 + within**2 / n) if between > 0 else 0.0
