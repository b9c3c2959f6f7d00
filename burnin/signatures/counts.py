"""Counts, exactly: rare events have no Gaussian. Pure.

A healthy fleet is over-dispersed (a few parts make most of the errors), so a count is judged by the gamma-Poisson, that is
negative binomial, predictive of the fleet: rate ~ Gamma(shape, mean), count ~ Poisson(rate x hours).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from burnin.signatures.tails import normal_quantile


def poisson_at_least(count: int, mean: float) -> float:
    """P(X >= count) for a Poisson variable."""
    if count <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if count > 1_000_000:
        return poisson_normal(count, mean)
    if count > mean:  # the upper tail by itself: 1 - cdf would cancel
        term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
        total, k = 0.0, count
        while term > total * 1e-17:
            total += term
            k += 1
            term *= mean / k
        return min(1.0, total)
    if mean >= 700:
        return poisson_normal(count, mean)
    term = below = math.exp(-mean)
    for k in range(1, count):
        term *= mean / k
        below += term
    return max(0.0, 1.0 - below)


def poisson_normal(count: int, mean: float) -> float:
    """P(X >= count) for a large mean, by the cube-root transformation (Wilson-Hilferty)."""
    third = (mean / count) ** (1 / 3)
    z = (1 - 1 / (9 * count) - third) * 3 * math.sqrt(count)
    return 0.5 * math.erfc(z / math.sqrt(2))


def poisson_bounds(count: int, above: float = 0.05) -> tuple[float, float]:
    """Garwood's exact bounds of a Poisson mean: each is passed by the truth with at most probability `above`."""
    low = 0.0 if count == 0 else _solve(lambda m: poisson_at_least(count, m) - above, 0.0, float(count))
    z = normal_quantile(min(above, 0.5))
    top = count + z * z + 10 * z * math.sqrt(count + 1) + 20
    return low, _solve(lambda m: poisson_at_least(count + 1, m) - (1 - above), low, top)


def binomial_bounds(count: int, n: int, above: float = 0.025) -> tuple[float, float]:
    """Clopper and Pearson's exact bounds of a share: each is passed by the truth with at most probability `above`."""
    if n <= 0:
        return 0.0, 1.0

    def at_least(k: int, p: float) -> float:  # P(X >= k)
        if k <= 0 or p >= 1:
            return 1.0
        if p <= 0:
            return 0.0
        logs = [
            math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
            for i in range(k, n + 1)
        ]
        return min(1.0, math.fsum(math.exp(x) for x in logs))

    low = 0.0 if count == 0 else _solve(lambda p: at_least(count, p) - above, 0.0, count / n)
    high = 1.0 if count == n else _solve(lambda p: at_least(count + 1, p) - (1 - above), count / n, 1.0)
    return low, high


def fleet_at_least(count: int, hours: float, mean_per_h: float, shape: float) -> float:
    """P(X >= count) in so many hours for a part of a fleet whose rates are gamma distributed (negative binomial)."""
    if count <= 0:
        return 1.0
    x = mean_per_h * hours / shape
    if x <= 0:
        return 0.0
    if count <= 1.0 + shape * x and count > 100_000:
        return 1.0  # below the mean: no small chance, and not worth adding up
    if count <= 1.0 + shape * x:  # the lower tail leaves enough of 1 for the upper one to be exact
        return max(0.0, 1.0 - math.fsum(math.exp(_log_nb(k, shape, x)) for k in range(count)))
    terms = min(100_000, 50 + math.ceil(37.0 / math.log1p(1 / x)))  # its ratio is x / (1 + x): complete to 1e-16 of its first
    return math.fsum(math.exp(_log_nb(k, shape, x)) for k in range(count, count + terms))


def compare(count: int, hours: float, others: int, other_hours: float, mean_per_h: float, shape: float) -> float:
    """P(first >= count | both together): is one part worse than others, when fleet rates are gamma distributed?

    Exact conditional test of two negative binomials; with `shape` -> infinity it is the binomial test of two Poisson rates.
    """
    total = count + others
    if count <= 0 or total == 0:
        return 1.0
    x, y = (mean_per_h * max(t, 1e-12) / shape for t in (hours, other_hours))
    logs = [_log_nb(k, shape, x) + _log_nb(total - k, shape, y) for k in range(total + 1)]
    top = max(logs)
    weights = [math.exp(x - top) for x in logs]
    return math.fsum(weights[count:]) / math.fsum(weights)


def growth_shape(times: list[float], until: float, above: float = 0.05) -> tuple[float, float]:
    """Crow-AMSAA: (estimate, lower bound) of the exponent b of a rate ~ t^(b-1) watched from 0 until `until`; b > 1 gets worse.

    b = n / sum(log(until / t)); b0 sum(...) is gamma distributed with n degrees, whose quantile is the lower Poisson bound of n.
    """
    known = [t for t in times if 0 < t < until]
    total = math.fsum(math.log(until / t) for t in known)
    if len(known) < 2 or total <= 0:
        return math.nan, 0.0
    low, _ = poisson_bounds(len(known), above)
    return len(known) / total, low / total


def _log_nb(k: int, shape: float, x: float) -> float:
    """log P(X = k) for a gamma rate of this shape; x is the mean count / shape."""
    if x <= 0:
        return 0.0 if k == 0 else -math.inf
    ways = math.lgamma(k + shape) - math.lgamma(shape) - math.lgamma(k + 1)
    return ways + k * math.log(x) - (k + shape) * math.log1p(x)


def _solve(f: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(100):
        mid = 0.5 * (low + high)
        low, high = (mid, high) if f(mid) < 0 else (low, mid)
    return 0.5 * (low + high)
