"""How far out a healthy part may be: limits for the worst of n parts at a family-wise rate. Pure.

Healthy parts are not Gaussian. On real racks the tails are those of a Student t with 5 degrees of freedom or so (reference
signatures, section 0), so a limit that shall be passed by one healthy rack in a hundred stands much further out:

    k(n, rate) = t5_quantile(1 - rate / n) / (1.4826 t5_quantile(0.75))

in units of the robust sigma (1.4826 MAD), which for t5 is 1.0774 times its scale. Bonferroni: the chance that any of n
healthy parts is beyond k is at most `rate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from burnin.signatures.robust import median, reach
from burnin.telemetry.series import Floats

_SQRT5 = math.sqrt(5.0)


def t5_above(t: float) -> float:
    """P(T > t) of Student's t with 5 degrees of freedom, in closed form; accurate relative to the tail itself.

    With a = atan(sqrt(5) / t), the angle from the far end: P = (a - sin a cos a (1 + 2/3 sin^2 a)) / pi; below a = 0.02 the
    terms cancel and the leading one, 8 a^5 / (15 pi), is exact to 0.03 %.
    """
    if t <= 0:
        return 1.0 - t5_above(-t) if t < 0 else 0.5
    a = math.atan2(_SQRT5, t)
    if a < 0.02:
        return 8 * a**5 * (1 - 10 * a * a / 21) / (15 * math.pi)
    return (a - math.sin(a) * math.cos(a) * (1 + 2 * math.sin(a) ** 2 / 3)) / math.pi


def normal_above(z: float) -> float:
    """P(Z > z) of the standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2))


@lru_cache(maxsize=256)
def t5_quantile(above: float) -> float:
    """The t that is exceeded with probability `above` (0 < above <= 0.5)."""
    return _invert(t5_above, above, 1e6)


@lru_cache(maxsize=256)
def normal_quantile(above: float) -> float:
    """The z that is exceeded with probability `above` (0 < above <= 0.5)."""
    return _invert(normal_above, above, 37.0)


def student_above(t: float, dof: float) -> float:
    """P(T > t), t >= 0, of Student's t with any degrees of freedom: half the incomplete beta function of dof / (dof + t^2)."""
    if dof > 1e6:
        return normal_above(t)
    return 0.5 * _beta(dof / (dof + t * t), 0.5 * dof, 0.5) if t > 0 else 0.5


@lru_cache(maxsize=65536)
def student_quantile(above: float, dof: float) -> float:
    """The t that is exceeded with probability `above` (0 < above <= 0.5)."""
    return _invert(lambda t: student_above(t, dof), above, 1e9)


MAD_DOF = 0.45
"""Degrees of freedom, per part beyond the first, of a spread that is a median absolute deviation. With it Student's quantiles
meet the simulated limits for the worst of 18, 36, 72 and 1296 Gaussian parts (reference signatures, section 3) to 4 %."""
GAUSS = math.inf
"""The tail of a family that is not known to be heavy."""
TAILS = (5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 50.0, 100.0)
"""Tails that are told apart. The heaviest is that of real fleets (reference signatures, section 0)."""
UNKNOWN = 0.0
"""The tail of a family of which too few healthy parts were ever seen: one rack of 72 GPUs cannot show it. With 72 parts of seven
families together, a limit that one normal rack in 1000 passes tells one t5 rack in ten (simulated), so nothing is tried."""
DOUBTED = 0.005
"""Share of t5 racks that one family may hold where its tail is not known. All together may hold 12 %; where the catalogue knows
how far out healthy parts are (`sure`, at about 1 % each), that is where tails end, whatever this says."""
BEYOND = 25
TAIL_PARTS = 600
"""Fewer parts do not show what their tail is like."""


def worst(n: int, rate: float, dof: float, tail: float = GAUSS) -> float:
    """Robust sigmas that the worst of `n` healthy parts passes with at most this probability (Bonferroni), where sigma is known
    as well as from `dof` degrees of freedom. `tail`: parts are Gaussian (or taken for it), or like Student's t with so many
    degrees."""
    above = min(0.5, rate / max(n, 1))
    known = student_quantile(above, max(1.0, round(dof, 1)))
    return known if math.isinf(tail) or tail == UNKNOWN else max(known, _in_sigmas(above, tail))


def unless_heavy(n: int) -> float:
    """Robust sigmas that the worst of `n` parts with t5 tails passes in at most DOUBTED of racks."""
    return _in_sigmas(min(0.5, DOUBTED / max(n, 1)), 5.0)


def _in_sigmas(above: float, tail: float) -> float:
    return student_quantile(above, tail) / (1.4826 * student_quantile(0.25, tail))


@lru_cache(maxsize=256)
def _ratios(share: float) -> tuple[tuple[float, float], ...]:
    """(tail, how many robust sigmas this share of parts is further out, on either side), heaviest first."""
    return tuple((tail, _in_sigmas(share / 2, tail)) for tail in TAILS)


def tail_of(values: Floats, scale: float, least: int = TAIL_PARTS, doubt: float = 3.5) -> float:
    """What tail parts have whose robust sigma is `scale`: by how far out one in 50 of them is on either side, with more parts
    fewer of them (BEYOND parts in all, down to one in 1000), for it is far out that limits stand.

    GAUSS where so few parts, or so ordinary a reach (the Gaussian one + `doubt` standard errors), do not show another; then the
    lightest tail that explains it within two standard errors, for every degree of freedom too few hides weak parts; never heavier
    than the heaviest of TAILS: a few weak parts are not what their peers are like.
    """
    if np.count_nonzero(~np.isnan(values)) < least:
        return GAUSS
    ratio, share, gauss, error = _reached(values, scale)
    if not ratio > gauss + doubt * error:
        return GAUSS
    return next((tail for tail, at in reversed(_ratios(share)) if at >= ratio - 2 * error), TAILS[0])


def learned_tail(values: Floats, scale: float) -> float:
    """What a baseline knows of its parts' tail: `tail_of`, but UNKNOWN where it shows neither a heavy one nor that there is none.

    Ten racks do not tell t7 from a Gaussian: to take them for Gaussian held a third of heavy-tailed healthy racks. "Shown" is two
    and a half standard errors below what t7 reaches, whose quantile and MAD scatter by a quarter more than a Gaussian's.
    """
    tail = tail_of(values, scale)
    if tail != GAUSS or np.count_nonzero(~np.isnan(values)) < TAIL_PARTS:
        return tail
    ratio, share, _, error = _reached(values, scale)
    return GAUSS if ratio < dict(_ratios(share))[_HEAVY] - 2.5 * 1.25 * error else UNKNOWN


def skewness(values: Floats, scale: float) -> float:
    """Third standardised moment of parts that are no further than six `scale`s from their median, where it is beyond two and a
    half of its standard errors, sqrt(6 / n); else 0, and 0 of fewer than TAIL_PARTS.

    Products of normal factors (power, clock, resistance) are a little skewed: 0.05 to 0.1. What that does to the worst of 72 is
    small beside doubt about sigma in one rack, and no longer where thousands of parts have told sigma.
    """
    known = (values[~np.isnan(values)] - median(values)) / scale if scale > 0 else np.empty(0)
    known = known[np.abs(known) <= 6]
    if known.size < TAIL_PARTS:
        return 0.0
    apart = known - np.mean(known)
    skew = float(np.clip(np.mean(apart**3) / np.mean(apart**2) ** 1.5, -1, 1))
    return skew if abs(skew) > 2.5 * math.sqrt(6 / known.size) else 0.0


def leaning(k: float, skew: float) -> float:
    """The quantile `k` of a Gaussian family as a skewed one has it, from its median; never nearer than `k`. Cornish and Fisher's
    first term is skew (k^2 - 1) / 6 from the mean, which lies skew / 6 beyond the median."""
    return k + max(0.0, skew) * k * k / 6


def _reached(values: Floats, scale: float) -> tuple[float, float, float, float]:
    """(reach of a small share of parts in `scale`s, that share, what it is of a Gaussian, its standard error)."""
    parts = int(np.count_nonzero(~np.isnan(values)))
    share = float(f"{min(0.02, max(0.001, BEYOND / parts)):.2g}")
    ratio, _ = reach(values, scale, share)
    gauss = normal_quantile(share / 2)
    density = 2 * math.exp(-gauss * gauss / 2) / math.sqrt(2 * math.pi)
    return ratio, share, gauss, math.hypot(math.sqrt(share / parts) / density, 1.17 * gauss / math.sqrt(parts))  # quantile, MAD


_HEAVY = 7.0


def _beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function by Lentz's continued fraction; accurate relative to itself for small x."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / max(tiny, 1 - (a + b) * x / (a + 1))
    out = d
    for m in range(1, 500):
        for over in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + over * d
            c = 1 + over / c
            d, c = 1 / (d if abs(d) > tiny else tiny), c if abs(c) > tiny else tiny
            out *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * out


def limit(n: int, rate: float) -> float:
    """Robust sigmas that the worst of `n` healthy, t5-tailed parts passes with at most this probability."""
    return t5_quantile(min(0.5, rate / max(n, 1))) / (1.4826 * t5_quantile(0.25))


def normal_limit(n: int, rate: float) -> float:
    """The same for quantities whose error is averaged noise, hence normal: estimated slopes, means of many readings."""
    return normal_quantile(min(0.5, rate / max(n, 1)))


def _invert(above: Callable[[float], float], p: float, top: float) -> float:
    if not 0 < p <= 0.5:
        raise ValueError(f"a tail of {p:g} has no quantile here (0 < p <= 0.5)")
    low, high = 0.0, top
    for _ in range(200):
        mid = 0.5 * (low + high)
        if high - low <= 1e-13 * high:
            break
        low, high = (mid, high) if above(mid) > p else (low, mid)
    return 0.5 * (low + high)
