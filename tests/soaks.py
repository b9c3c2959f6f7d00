"""Synthetic runs that take hours, and links: soaks that creep or jump, coolant that swings, margins of 1296 links."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from burnin.telemetry.series import Floats, Series, Stretch, Telemetry
from tests import racks

LOAD = Stretch("load", "load", 0.0, 36000.0, 0.0)
AGAIN = Stretch("load-again", "load-2", 36000.0, 72000.0, 0.0)
GPUS = [f"t{i:02}.g{j}" for i in range(18) for j in range(4)]
LINKS = [f"{gpu}.l{k}" for gpu in GPUS for k in range(18)]
SOAK = (Stretch("load-1", "load", 0.0, 23 * 3600.0, 600.0), Stretch("load-2", "load-2", 25 * 3600.0, 48 * 3600.0, 600.0))


def soak(
    seed: int,
    plant: dict[str, Floats] | None = None,
    rho: float = 0.5,
    every_s: float = 120.0,
    inlet_k: float = 0.8,
    spread_k: float = 2.0,
) -> Telemetry:
    """Two long loads in whole degrees; every GPU's noise remembers itself, and the inlet drifts for all, by `inlet_k` a day.

    `plant`: part -> kelvin added, one value per reading. Healthy GPUs creep a little of their own (0.05 K a day, t5).
    """
    rng = np.random.default_rng(seed)
    t = np.concatenate([np.arange(s.t0_s, s.t1_s, every_s) for s in SOAK])
    series: dict[tuple[str, str], Series] = {}
    for i in range(18):
        for j in range(4):
            part = f"t{i:02}.g{j}"
            shock = rng.standard_normal(t.size) * 0.4 * math.sqrt(1 - rho * rho)
            noise = np.convolve(shock, rho ** np.arange(12), "full")[: t.size] + 0.3 * rng.standard_normal(t.size)
            creep = 0.05 * rng.standard_t(5) * math.sqrt(0.6) * t / 86400
            inlet = inlet_k * t / 86400 + np.sin(t / 4000)
            value = 60 + rng.normal(0, spread_k) + noise + creep + inlet
            for name in (part, part[:3]):
                if plant and name in plant:
                    value = value + plant[name]
            series[part, "gpu.temp"] = Series(t, np.floor(value + 0.5))
            series[part, "gpu.power"] = Series(t, 1395 + 9 * rng.standard_normal(t.size))
    return Telemetry(series, SOAK)


LONG = Stretch("load", "load", 0.0, 1200.0, 0.0)


def swinging(seed: int, rack_k: float = 0.0, tray_k: float = 0.0, watts: float = 0.0, period_s: float = 40.0) -> Telemetry:
    """Twenty minutes of load; the rack, or tray t11 alone, swings by so many kelvin (and all power by so many watts)."""
    rng = np.random.default_rng(seed)
    t = np.arange(0.3, 1200.0, 1.0)
    wave = np.sin(2 * math.pi * t / period_s)
    series: dict[tuple[str, str], Series] = {}
    for i in range(18):
        for j in range(4):
            noise = rng.standard_normal(t.size)
            value = 62 + rng.normal(0, 2) + 0.45 * noise + (rack_k + (tray_k if i == 11 else 0.0)) * wave
            series[f"t{i:02}.g{j}", "gpu.temp"] = Series(t, np.floor(value + 0.5))
            series[f"t{i:02}.g{j}", "gpu.power"] = Series(t, 1395 + 9 * rng.standard_normal(t.size) + watts * wave)
    return Telemetry(series, (LONG,))


def margins(seed: int, tails: str = "normal", worse: Mapping[str, float] | None = None) -> Telemetry:
    """Raw error rates about 3e-8; sd 0.4 decades a link, 0.1 a GPU, a length per link number. `worse`: prefix -> decades."""
    rng = np.random.default_rng(seed)
    length = rng.normal(0, 0.3, 18)
    gpu_own = 0.1 * racks.draws(rng, tails, (72,))
    own = 0.4 * racks.draws(rng, tails, (72, 18))
    out = {}
    for i, gpu in enumerate(GPUS):
        for k in range(18):
            link = f"{gpu}.l{k}"
            extra = sum(
                by for part, by in (worse or {}).items() if link == part or link.startswith(part + ".") or part == f"*.l{k}"
            )
            value = 10 ** (-7.5 + length[k] + gpu_own[i] + own[i, k] + extra)
            out[link, "nvlink.raw_ber"] = Series(np.array([100.0, 36100.0]), np.array([value, value]))
    return Telemetry(out, (LOAD, AGAIN))
