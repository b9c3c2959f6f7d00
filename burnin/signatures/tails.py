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
        low, high = (mid, high) if above(mid) > p else (low, mid)
    return 0.5 * (low + high)
