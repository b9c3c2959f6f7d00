"""Two rivals' rules on the same telemetry: fixed thresholds as DCGM ships them, and SuperBench's rule style.

Numbers are DCGM's (health watches of 4.6, and its diagnostic's 75 % floors) and SuperBench's (5 % from a baseline, and a
variance rule); both get the loaded means that burnin's signatures get.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from burnin.rack.schema import Topology
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median
from burnin.telemetry.series import Series, Telemetry

FUNCTIONAL = 0.75
"""Share of the reference that DCGM's diagnostic asks for (sm stress, targeted power, memory bandwidth)."""
SUPERBENCH = 0.05


def dcgm(telemetry: Telemetry, topology: Topology, like: Readings | None = None) -> Iterator[tuple[str, str]]:
    """(part, rule) of everything that DCGM's health watches or diagnostic would fail. `like`: looked at before."""
    readings = Readings(telemetry, topology, {}, like=like)
    for gpus in readings.gpus:
        for gpu in gpus:
            yield from ((gpu, metric) for metric in _GROWN if readings.whole(gpu, metric, Series.growth) >= 1)
            yield from ((gpu, metric) for metric in _FLAGS if readings.whole(gpu, metric, Series.highest) >= 1)
            if readings.whole(gpu, "hbm.temp", Series.highest) > 105 or readings.whole(gpu, "gpu.tlimit", Series.lowest) < 0:
                yield gpu, "temperature"
    for part in telemetry.parts("nvlink.state"):
        if readings.whole(part, "nvlink.state", Series.lowest) < 1:
            yield part, "link down"
        yield from ((part, metric) for metric in _LINKS if readings.whole(part, metric, Series.growth) >= 1)
        if readings.whole(part, "nvlink.effective_ber", Series.highest) > 1e-12:
            yield part, "effective BER"
    for name, grid in _work(readings).items():
        for i, j in zip(*np.nonzero(grid < FUNCTIONAL * median(grid)), strict=True):
            yield readings.gpus[i][j], name


_GROWN = ("ecc.dram_ue", "ecc.sram_ue", "remap.uncorrectable", "throttle.hw_thermal", "throttle.hw_brake")
_FLAGS = ("remap.failed", "remap.pending")
_LINKS = (
    "nvlink.effective_errors", "nvlink.symbol_errors", "nvlink.recovery_failed", "nvlink.recovery_ok", "nvlink.rx_errors",
    "nvlink.integrity_errors",
)  # fmt: skip


def _work(readings: Readings) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """What the GPUs did in the first full load: work, power, clock, bandwidth; the more the better."""
    out = {}
    for load in [s for s in readings.telemetry.phase("load") if "@" not in s.phase][:1]:
        out["work"] = readings.of("load.launches", load, Series.growth)
        for metric in ("gpu.power", "gpu.clock_sm", "gpu.bandwidth"):
            out[metric] = readings.mean(metric, load)
    return {name: grid for name, grid in out.items() if not np.isnan(grid).all()}


def superbench(telemetry: Telemetry, topology: Topology, like: Readings | None = None) -> Iterator[tuple[str, str]]:
    """(part, rule): 5 % worse than the baseline (the rack's median), or a coefficient of variation above 5 %; SDC is `!= 0`."""
    readings = Readings(telemetry, topology, {}, like=like)
    for name, grid in _work(readings).items():
        for i, j in zip(*np.nonzero(grid < (1 - SUPERBENCH) * median(grid)), strict=True):
            yield readings.gpus[i][j], name
    for load in [s for s in telemetry.phase("load") if "@" not in s.phase][:1]:
        temp = readings.mean("gpu.temp", load)
        for i, j in zip(*np.nonzero(temp > (1 + SUPERBENCH) * median(temp)), strict=True):
            yield readings.gpus[i][j], "gpu.temp"
        unrest = readings.of("gpu.power", load, lambda s: float(s.known().std() / s.known().mean()) if s.present else np.nan)
        for i, j in zip(*np.nonzero(unrest > SUPERBENCH), strict=True):
            yield readings.gpus[i][j], "variance"
    for gpus in readings.gpus:
        yield from ((gpu, "wrong results") for gpu in gpus if telemetry.of(gpu, "load.wrong").growth() > 0)
    for part in telemetry.parts("nvlink.state"):
        if telemetry.of(part, "nvlink.state").lowest() < 1:
            yield part, "link down"
