"""Statistics that a few bad parts cannot spoil. Pure; NaN stands for a part that was not measured."""

from __future__ import annotations

import numpy as np

from burnin.telemetry.series import Floats

_MAD_TO_SIGMA = 1.4826  # of a normal distribution


def median(values: Floats) -> float:
    """Median of the known values; NaN when there are none."""
    known = np.sort(values[~np.isnan(values)], axis=None)
    return 0.5 * float(known[(known.size - 1) // 2] + known[known.size // 2]) if known.size else float("nan")


def medians(values: Floats) -> Floats:
    """Median of the known values of each row (last axis); NaN for a row that has none."""
    ordered = np.sort(values, axis=-1)  # NaN last
    count = values.shape[-1]
    if count and not np.isnan(ordered[..., -1]).any():
        middle: Floats = 0.5 * (ordered[..., (count - 1) // 2] + ordered[..., count // 2])
        return middle
    known = np.count_nonzero(~np.isnan(values), axis=-1)[..., None]
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    high = np.minimum(high, values.shape[-1] - 1)
    two = np.take_along_axis(ordered, np.concatenate([low, high], axis=-1), axis=-1)
    out: Floats = two.mean(axis=-1)
    return out


def sigma(values: Floats, least: float) -> float:
    """Robust standard deviation about the median, never below `least`: identical values are not infinitely sure."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return least
    return max(least, _MAD_TO_SIGMA * median(np.abs(known - median(known))))


_QUANTILES = ((0.5, 0.674490), (0.86, 1.475791), (0.95, 1.959964))
"""Share of parts, and how many sigmas a Gaussian's nearest share of them reaches."""


def spread(values: Floats) -> float:
    """Standard deviation of Gaussian values by how far out half, 86 % and 95 % of them are: two thirds of the error of a MAD
    (0.78 / sqrt(n) instead of 1.18), and larger than it where tails are a little heavy. One in twenty may be bad, not half."""
    known = np.abs(values[~np.isnan(values)] - median(values))
    return float(np.mean([np.quantile(known, share) / reached for share, reached in _QUANTILES])) if known.size else 0.0


def reach(values: Floats, scale: float, share: float = 0.02) -> tuple[float, int]:
    """(how many `scale`s from their median this share of values is further out, on either side; how many values are known)."""
    known = np.abs(values[~np.isnan(values)] - median(values)) / scale
    return (float(np.quantile(known, 1 - share)) if known.size else 0.0), int(known.size)


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
    columns = [medians(np.delete(values, column, axis=1)) for column in range(values.shape[1])] if values.shape[1] > 1 else []
    return np.stack(columns, axis=1) if columns else np.full_like(values, np.nan)


_OF_MEDIANS = {2: (0.707, 0.709), 3: (0.670, 0.465), 4: (0.546, 0.719), 5: (0.536, 0.727), 6: (0.463, 0.782), 7: (0.460, 0.817)}
"""Of so many normal values of spread 1: standard deviation of their median; robust sigma of what they leave about it (simulated,
300,000 draws each)."""


def shrinkage(within: float, between: float, n: int) -> float:
    """How far to believe the median of the `n` - 1 others of a group of n as what the group shares: b^2 / (b^2 + noise^2).

    `within`: robust sigma of values about their group's median, `between`: of those medians; both hold less, or more, than what
    they are named for, and are corrected for it: medians of groups that share nothing differ, too.
    """
    if n < 2 or not between > 0:
        return 0.0
    within, between = within / max(within, between), between / max(within, between)  # a ratio: readings of 1e300 have no square
    of_median, left = _OF_MEDIANS.get(n, (1.2533 / n**0.5, 1 - 1.3 / n))
    spread = within / left
    shared = max(0.0, between**2 - (of_median * spread) ** 2)
    noise = (_OF_MEDIANS[n - 1][0] if n - 1 in _OF_MEDIANS else 1.2533 / (n - 1) ** 0.5 if n > 2 else 1.0) * spread
    return shared / (shared + noise**2) if shared > 0 else 0.0


def theil_sen(x: Floats, y: Floats) -> float:
    """Median of the slopes of all pairs of points known in both; 0 where there are fewer than three."""
    known = ~(np.isnan(x) | np.isnan(y))
    a, b = x[known], y[known]
    i, j = np.triu_indices(a.size, 1)
    apart = a[i] != a[j]
    return float(np.median((b[j] - b[i])[apart] / (a[j] - a[i])[apart])) if a.size >= 3 and apart.any() else 0.0


def without_slots(values: Floats) -> Floats:
    """A grid (rows: trays, columns: slots) less what each slot adds: the column's median of what rows leave over."""
    inside = values - medians(values)[:, None]
    out: Floats = values - medians(inside.T)[None, :]
    return out


def own(values: Floats, least: float) -> Floats:
    """What each part of a grid (rows: trays, columns: slots) has for itself, about 0: less its slot's and its tray's share.

    The tray's share is its leave-one-out median, shrunk by how much trays differ at all (`shrinkage`), s never below `least`.
    Not a median polish: with four values a row its residuals collapse and everybody is an outlier.
    """
    rest = without_slots(values)
    tray = medians(rest)
    within = sigma((rest - tray[:, None]).ravel(), least)
    rest = rest - median(tray)
    weight = shrinkage(within, sigma(tray, 0.0), rest.shape[1])
    left = rest - weight * np.nan_to_num(others(rest), nan=0.0)
    out: Floats = left - median(left.ravel())
    return out
