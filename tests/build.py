"""Small racks, suites and runs for tests: only what the test is about has to be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from burnin.rack.schema import Catalogue, Limit, Profile, Rack
from burnin.suites.schema import Suite
from burnin.telemetry.series import Series, Stretch, Telemetry

LIMITS: dict[str, dict[str, Any]] = {
    "gpu.idle_power": {"max": 300, "unit": "W"},
    "gpu.idle_util": {"max": 0.05, "unit": "1"},
    "gpu.power_limit": {"equals": 1400, "unit": "W"},
    "gpu.tlimit.start": {"min": 10, "unit": "Cel"},
    "gpu.tlimit.cutoff": {"min": 0, "unit": "Cel"},
    "gpu.tlimit.load": {"min": 2, "unit": "Cel"},
    "hbm.temp.load": {"max": 105, "unit": "Cel"},
    "gpu.mismatches": {"max": 0, "unit": "1"},
    "throttle.sw_thermal.fraction": {"max": 0.001, "unit": "1"},
    "throttle.hw_thermal.growth": {"max": 0, "unit": "s"},
    "throttle.hw_brake.growth": {"max": 0, "unit": "s"},
    "ecc.dram_ue.growth": {"max": 0, "unit": "1"},
    "ecc.sram_ue.growth": {"max": 0, "unit": "1"},
    "ecc.dram_ce.growth": {"max": 4, "unit": "1"},
    "ecc.sram_ce.growth": {"max": 4, "unit": "1"},
    "remap.uncorrectable.growth": {"max": 0, "unit": "1"},
    "remap.correctable.growth": {"max": 0, "unit": "1"},
    "remap.pending": {"max": 0, "unit": "1"},
    "remap.failed": {"max": 0, "unit": "1"},
    "ecc.sram_threshold": {"max": 0, "unit": "1"},
    "repair.pending": {"max": 0, "unit": "1"},
    "gpu.recovery_action": {"max": 0, "unit": "1"},
    "nvlink.state": {"min": 1, "unit": "1"},
    "nvlink.speed": {"min": 53.125, "unit": "GB/s"},
    "nvlink.effective_ber": {"max": 1e-12, "unit": "1"},
    "nvlink.effective_errors.growth": {"max": 0, "unit": "1"},
    "nvlink.symbol_errors.growth": {"max": 0, "unit": "1"},
    "nvlink.rx_errors.growth": {"max": 0, "unit": "1"},
    "nvlink.integrity_errors.growth": {"max": 0, "unit": "1"},
    "nvlink.recovery_ok.growth": {"max": 0, "unit": "1"},
    "nvlink.recovery_failed.growth": {"max": 0, "unit": "1"},
    "fabric.state": {"equals": 3, "unit": "1"},
    "fabric.status": {"equals": 0, "unit": "1"},
    "fabric.health": {"equals": 1, "unit": "1"},
}


def limits(**change: Mapping[str, Any] | None) -> dict[str, Limit]:
    """The limits above, some changed or taken out (None). Dots in names are written as double underscores."""
    rows: dict[str, Any] = {**LIMITS, **{key.replace("__", "."): value for key, value in change.items()}}
    return {key: Limit.model_validate({"unit": "1", "source": "test", **row}) for key, row in rows.items() if row is not None}


def profile(
    trays: int = 18, gpus: int = 4, switches: int = 0, interlocks: Sequence[str] = (), links: int | None = 0, **change: Any
) -> Profile:
    """An architecture of so many trays."""
    return Profile.model_validate(
        {
            "profile": "test-rack",
            "about": "for tests",
            "topology": {
                "compute_trays": trays,
                "gpus_per_tray": gpus,
                "cpus_per_tray": 2,
                "switch_trays": switches,
                "links_per_gpu": links,
            },
            "gpu": {"names": ["NVIDIA GB300"], "power_limit_w": 1400, "source": "test"},
            "rack_identity": True,
            "limits": {key: value.model_dump(exclude_unset=True) for key, value in limits().items()},
            "interlocks": list(interlocks),
            "frus": {"GPU": "superchip board", "compute tray": "compute tray"},
            **change,
        }
    )


def rack(trays: int = 18, **more: Any) -> Rack:
    """A rack of that profile."""
    hosts = {f"t{i:02}": {"host": f"192.0.2.{i + 1}"} for i in range(trays)}
    return Rack.model_validate(
        {"rack": "R-1", "profile": "test-rack", "ssh": {"known_hosts": "known_hosts"}, "trays": hosts, **more}
    )


def suite(**more: Any) -> Suite:
    """idle 10 s, load 24 s (settle 12 s), with the usual checks."""
    loaded = ["gpu-load", "thermal-margin", "throttling", "ecc", "xid"]
    return Suite.model_validate(
        {
            "suite": "test",
            "about": "for tests",
            "sample_slow": "2 s",
            "coverage": {"metrics": ["gpu.temp", "gpu.power"]},
            "stages": [
                {"stage": "audit", "steps": ["inventory"]},
                {"stage": "idle", "phase": "idle", "for": "10 s", "settle": "2 s", "steps": ["idle-baseline", "ecc", "xid"]},
                {"stage": "load", "phase": "load", "for": "24 s", "settle": "12 s", "load": {}, "steps": loaded},
            ],
            **more,
        }
    )


def catalogue() -> Catalogue:
    """Three metrics, three XIDs, the two thermal signatures."""
    least = {"unit": "1", "source": "test"}
    row = {
        "mechanism": "m", "signals": ["gpu.temp"], "statistic": "s", "unit": "K/W", "confounders": "c", "fru": "cold plate",
        "action": "renew it", "evidence": "e",
    }  # fmt: skip
    return Catalogue.model_validate(
        {
            "metrics": {
                "gpu.temp": {"unit": "Cel", "about": "t"},
                "ecc.dram_ue": {"unit": "1", "slow": True, "about": "e"},
                "transient.power": {"unit": "W", "transient": True, "about": "p"},
            },
            "xids": {
                79: {"name": "off the bus", "gate": "FAIL", "action": "replace it", "source": "test"},
                43: {"name": "reset", "gate": "WATCH", "action": "write it down", "source": "test"},
                13: {"name": "exception", "gate": "HOLD", "action": "repeat", "source": "test"},
            },
            "signatures": {
                "thermal.rth": {**row, "limits": _sizes(0.12, 0.30, least)},
                "thermal.tray": {**row, "fru": "hose", "limits": _sizes(0.10, 0.20, least)},
            },
        }
    )


def _sizes(floor: float, far: float, rest: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {
        "watch": {"max": 0.05, **rest},
        "hold": {"max": 0.0006, **rest},
        "fail": {"max": 0.002, **rest},
        "floor": {"min": floor, **rest},
        "far": {"min": far, **rest},
        "sigma_min": {"min": 0.01, **rest},
    }


IDLE = Stretch("idle", "idle", 0.0, 10.0, 2.0)
LOAD = Stretch("load", "load", 10.0, 34.0, 12.0)
LOAD_2 = Stretch("load-2", "load-2", 50.0, 74.0, 12.0)


def series(values: Mapping[tuple[str, str], Mapping[Stretch, float | Sequence[float | None] | None]]) -> Telemetry:
    """Readings once a second in each stretch: one value for all, or the values one by one (None: not read)."""
    out: dict[tuple[str, str], Series] = {}
    stretches: dict[Stretch, None] = {}
    for key, parts in values.items():
        times: list[float] = []
        readings: list[float] = []
        for stretch, value in parts.items():
            stretches[stretch] = None
            grid = np.arange(stretch.t0_s + 0.5, stretch.t1_s, 1.0)
            many = list(value) if isinstance(value, Sequence) else [value] * grid.size
            times += list(grid[: len(many)])
            readings += [float("nan") if v is None else float(v) for v in many]
        out[key] = Series(np.array(times), np.array(readings))
    return Telemetry(out, tuple(sorted(stretches, key=lambda s: s.t0_s)))


def thermal(
    slopes: Mapping[str, float] | float,
    trays: int = 18,
    gpus: int = 4,
    stretches: Sequence[Stretch] = (LOAD,),
    power: Mapping[str, float] | None = None,
) -> Telemetry:
    """A rack idle at 35 Cel and 190 W, loaded at 1390 W, whose GPUs have these thermal resistances (K/W; a number: all)."""
    values: dict[tuple[str, str], dict[Stretch, float]] = {}
    for tray in range(trays):
        for slot in range(gpus):
            part = f"t{tray:02}.g{slot}"
            slope = slopes if isinstance(slopes, float) else slopes.get(part, 0.025)
            load_w = (power or {}).get(part, 1390.0)
            values[part, "gpu.power"] = {IDLE: 190.0, **dict.fromkeys(stretches, load_w)}
            values[part, "gpu.temp"] = {IDLE: 35.0, **dict.fromkeys(stretches, 35.0 + slope * (load_w - 190.0))}
    return series(values)
