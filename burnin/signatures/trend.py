"""Does it creep, does it jump, does it swing? Statistics of one series over time whose noise remembers itself. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from burnin.telemetry.series import Floats


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line: slope per unit of time, its standard error, and the lag-1 correlation that was corrected for."""

    slope: float
    error: float
    rho: float


def line(t: Floats, y: Floats) -> Line:
    """Least squares over equally spaced blocks, with a standard error that knows AR(1) noise; NaN with fewer than 8 blocks.

    The residuals' lag-1 correlation r is corrected for its bias by the fit of two parameters, r + (2 + 4 r) / n (Marriott and
    Pope's form for a line), kept within 0 and 0.95; the variance of the slope grows by (1 + r) / (1 - r). A negative
    correlation is not believed.
    """
    known = ~(np.isnan(t) | np.isnan(y))
    x, v = t[known], y[known]
    n = x.size
    if n < 8 or np.ptp(x) == 0:
        return Line(math.nan, math.nan, math.nan)
    x = x - x.mean()
    sxx = float(x @ x)
    slope = float(x @ (v - v.mean())) / sxx
    rest = v - v.mean() - slope * x
    variance = float(rest @ rest)
    r = float(rest[1:] @ rest[:-1]) / variance if variance > 0 else 0.0
    rho = min(0.95, max(0.0, r + (2 + 4 * r) / n))
    error = math.sqrt(variance / (n - 2) / sxx * (1 + rho) / (1 - rho))
    return Line(slope, error, rho)


def cusum(y: Floats, slack: float = 0.5, rho: float = 0.0) -> tuple[float, float, int]:
    """One-sided CUSUM of standardised values: (highest upward, highest downward, index where the graver one began).

    AR(1) noise is whitened first: e_i = (y_i - rho y_(i-1)) / sqrt(1 - rho^2). NaN are left out.
    """
    known = np.flatnonzero(~np.isnan(y))
    e = y[known]
    if rho > 0 and e.size:
        e = np.concatenate([e[:1], (e[1:] - rho * e[:-1]) / math.sqrt(1 - rho * rho)])
    if not e.size:
        return 0.0, 0.0, 0
    best: list[float] = []
    began: list[int] = []
    for sign in (1.0, -1.0):
        path = np.concatenate([[0.0], np.cumsum(sign * e - slack)])
        low = np.minimum.accumulate(path)
        rise = (path - low)[1:]
        at = int(np.argmax(rise))
        best.append(float(rise[at]))
        began.append(int(np.flatnonzero(path[: at + 2] == low[at + 1])[-1]) if rise[at] > 0 else 0)
    graver = 0 if best[0] >= best[1] else 1
    return best[0], best[1], int(known[began[graver]])


def swing(y: Floats, dt_s: float, shortest_s: float, longest_s: float) -> tuple[float, float, float]:
    """The strongest oscillation within a band: (amplitude, period in s, power over the median of the band).

    `y` equally spaced, without NaN. A line is taken away first, and a Hann window keeps a slow drift out of the band.
    (0, 0, 0) where the series is shorter than four of the longest periods that could be told from a drift.
    """
    n = y.size
    longest = min(longest_s, n * dt_s / 4)
    if n < 16 or longest <= shortest_s:
        return 0.0, 0.0, 0.0
    x = np.arange(n) - (n - 1) / 2
    flat = y - y.mean() - x * float(x @ y) / float(x @ x)
    window = np.hanning(n)
    spectrum = np.abs(np.fft.rfft(flat * window)) ** 2
    frequency = np.fft.rfftfreq(n, dt_s)
    band = (frequency >= 1 / longest) & (frequency <= 1 / shortest_s)
    if np.count_nonzero(band) < 8:
        return 0.0, 0.0, 0.0
    peak = int(np.flatnonzero(band)[np.argmax(spectrum[band])])
    floor = float(np.median(spectrum[band]))
    amplitude = 2 * math.sqrt(float(spectrum[peak])) / float(window.sum())
    return amplitude, 1 / float(frequency[peak]), float(spectrum[peak]) / floor if floor > 0 else math.inf


def blocks(t_s: Floats, v: Floats, t0_s: float, t1_s: float, every_s: float) -> Floats:
    """Means over blocks of `every_s` from t0 to t1 of one or many series (rows) read at the same rising times.

    NaN where a block has no reading. The last, incomplete one is left out.
    """
    count = max(0, int((t1_s - t0_s) / every_s + 1e-9))
    inside = (t_s >= t0_s) & (t_s < t0_s + count * every_s)
    out = np.full((*v.shape[:-1], count), np.nan)
    if not inside.any():
        return out
    values = v[..., inside]
    index = ((t_s[inside] - t0_s) / every_s).astype(np.int64)
    first = np.flatnonzero(np.diff(index, prepend=-1))
    if first.size == index.size:  # one reading a block
        out[..., index] = values
        return out
    known = ~np.isnan(values)
    sums = np.add.reduceat(np.where(known, values, 0.0), first, axis=-1)
    many = np.add.reduceat(known, first, axis=-1, dtype=np.int64)
    out[..., index[first]] = np.where(many > 0, sums / np.maximum(many, 1), np.nan)
    return out
