"""Faults that are not heat: what each does to the readings and the log of a rack that is written down.

Those of physics are in the parts (`population.planted`), those of links in their margins (`population.margins`), those of
coolant and power in what stands around (`batch_rack`). Times are those of the live rack: SOON_S after the first load begins,
or the severity's own seconds after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from burnin.rack.parts import within
from burnin.telemetry.series import Floats
from burnin.twin.around import FLAP_EVERY_S
from burnin.twin.canvas import Canvas
from burnin.twin.faults import Plant
from burnin.twin.hardware import SOON_S, XID_TEXT
from burnin.twin.hosttree import fewer
from burnin.twin.population import population

_CLUSTER_S = 600.0
_MOST = 100_000
"""Events of one fault that are drawn one by one."""


def befall(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """Everything that happens to this rack."""
    for number, plant in enumerate(plants):
        act = HAPPEN.get(plant.kind)
        if act is not None:
            act(canvas, plant, canvas.chance.stream(f"fault.{number}.{plant.kind}.{plant.part}"))


def _begin(canvas: Canvas, plant: Plant) -> float:
    """When it starts: when it is told to, or soon after the first load began."""
    return canvas.plan.first_load_s + (SOON_S if plant.start_s is None else plant.start_s)


def _after(canvas: Canvas, plant: Plant) -> float:
    """For kinds whose severity is a time."""
    return canvas.plan.first_load_s + (plant.start_s or 0.0) + plant.severity


def _arrivals(canvas: Canvas, plant: Plant, per_h: float, chance: np.random.Generator) -> Floats:
    """Random times of events that come at so many an hour, or at a share of it while the fault grows."""
    end = float(canvas.plan.t[-1])
    count = min(_MOST, int(chance.poisson(max(0.0, per_h * end / 3600))))
    times = chance.uniform(0.0, end, count)
    kept: Floats = times[chance.uniform(size=count) < canvas.grown(plant, times)]
    return kept


def _xid(canvas: Canvas, part: str, t_s: float, code: int) -> None:
    text = f"Xid {code}" + (f": {XID_TEXT[code]}" if code in XID_TEXT else "")
    canvas.say(part, t_s, "xid", str(code), text, "nvml")


# ---------------------------------------------------------------- memory


def _ce_rate(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    canvas.count(plant.part, "ecc.dram_ce", _arrivals(canvas, plant, plant.severity, chance))


def _row_cluster(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = _begin(canvas, plant)
    canvas.count(plant.part, "ecc.dram_ce", begin + chance.uniform(0, _CLUSTER_S, int(plant.severity)))
    canvas.add(plant.part, "remap.correctable", begin + _CLUSTER_S, 1)
    canvas.add(plant.part, "remap.pending", begin + _CLUSTER_S, 1)
    _xid(canvas, plant.part, begin + _CLUSTER_S, 63)


def _dram_ue(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = _begin(canvas, plant)
    for metric in ("ecc.dram_ue", "remap.uncorrectable"):
        canvas.add(plant.part, metric, begin, plant.severity)
    canvas.add(plant.part, "remap.pending", begin, 1)
    for code in (48, 63, 94):
        _xid(canvas, plant.part, begin, code)


def _sram_ue(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = _begin(canvas, plant)
    canvas.add(plant.part, "ecc.sram_ue", begin, plant.severity)
    _xid(canvas, plant.part, begin, 94)


def _cpu_edac(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = _begin(canvas, plant)
    canvas.add(f"{plant.part}.c0", "cpu.edac_ue", begin, plant.severity)
    canvas.say(plant.part, begin, "kernel", "edac", "EDAC MC0: 1 UE multi-bit ECC on unknown memory", "kmsg")


# ---------------------------------------------------------------- GPUs


def _sdc(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    """The load's kernels check themselves: each launch of a weak GPU goes wrong with this probability."""
    one = canvas.series[plant.part, "load.launches"]
    more = np.diff(one.v, prepend=0.0) * plant.severity * canvas.grown(plant, one.t_s)
    wrong = np.cumsum(chance.poisson(np.maximum(more, 0.0)))
    canvas.change(plant.part, "load.wrong", lambda t, v: v + wrong)


def _slow(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    def slower(t: Floats, v: Floats) -> Floats:
        more = np.diff(v, prepend=0.0) * (1 - plant.severity * canvas.grown(plant, t))
        return np.floor(np.cumsum(more) + 1e-6)

    canvas.change(plant.part, "load.launches", slower)


def _lone_xid(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    _xid(canvas, plant.part, _begin(canvas, plant), int(plant.severity))


def _off_bus(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    _xid(canvas, plant.part, _after(canvas, plant), 79)
    canvas.silence(plant.part, _after(canvas, plant))


def _hang(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    canvas.silence(plant.part, _after(canvas, plant))


def _stuck(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    def hold(t: Floats, v: Floats) -> Floats:
        at = max(0, int(np.searchsorted(t, plant.severity)) - 1)
        return np.where(t >= plant.severity, v[at], v)

    for metric in ("gpu.temp", "gpu.tlimit"):
        canvas.change(plant.part, metric, hold)


def _unhealthy(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    canvas.add(plant.part, "fabric.health", _after(canvas, plant), 1)  # NVML: 1 healthy, 2 unhealthy


def _c2c(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    times = _arrivals(canvas, plant, plant.severity, chance)
    for metric in ("c2c.crc", "c2c.replay"):
        canvas.count(plant.part, metric, times)


# ---------------------------------------------------------------- links


def _link_down(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = _after(canvas, plant)
    canvas.change(plant.part, "nvlink.state", lambda t, v: np.where(t >= begin, 0.0, v))
    canvas.change(plant.part, "nvlink.speed", lambda t, v: np.where(t >= begin, 0.0, v))
    canvas.add(plant.part, "nvlink.recovery_failed", begin, 1)


def _flaps(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = canvas.plan.first_load_s + (plant.start_s or 0.0)
    since = np.maximum(0.0, canvas.plan.minutes - begin) / 60 * plant.severity
    canvas.change(plant.part, "nvlink.recovery_ok", lambda t, v: v + np.floor(since))


# ---------------------------------------------------------------- cards and trays


def _nic_flap(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    times = _begin(canvas, plant) + FLAP_EVERY_S * np.arange(int(plant.severity), dtype=float)
    canvas.count(plant.part, "nic.link_flaps", times)
    for t_s in times[:8]:
        canvas.say(plant.part, t_s, "kernel", "nic", "mlx5_core: Link down", "kmsg")


def _media(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    canvas.add(plant.part, "nvme.media_errors", _begin(canvas, plant), plant.severity)
    canvas.say(plant.part, _begin(canvas, plant), "kernel", "nvme", "critical medium error", "kmsg")


def _downtrain(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    def narrower(t: Floats, v: Floats) -> Floats:
        return np.where(canvas.grown(plant, t) > 0, fewer(int(v[0]), plant.severity), v)

    canvas.change(plant.part, "pcie.width", narrower)


def _replay(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    begin = _begin(canvas, plant)

    def grow(t: Floats, v: Floats) -> Floats:
        return v + np.floor(np.maximum(0.0, t - begin) * plant.severity)

    for metric in ("pcie.replay", "pcie.aer_correctable"):
        canvas.change(plant.part, metric, grow)


def _dead(canvas: Canvas, plant: Plant, chance: np.random.Generator) -> None:
    canvas.silence(plant.part, _after(canvas, plant))
    canvas.log = [x for x in canvas.log if not within(x.part, plant.part) or x.t_s < _after(canvas, plant)]


def healthy_counters(canvas: Canvas) -> None:
    """Corrected errors of healthy parts: few GPUs have any, and those have several (gamma distributed rates)."""
    spread, end = population().memory, float(canvas.plan.t[-1])
    for metric, per_h, shape in (
        ("ecc.dram_ce", spread.dram_ce_per_h, spread.dram_ce_shape),
        ("ecc.sram_ce", spread.sram_ce_per_h, spread.sram_ce_shape),
    ):
        stream = canvas.chance.stream(metric)
        rates = stream.gamma(shape, per_h / shape, len(canvas.gpus))
        for gpu, count in zip(canvas.gpus, stream.poisson(rates * end / 3600), strict=True):
            if count:
                canvas.count(gpu, metric, stream.uniform(0, end, min(count, _MOST)))


HAPPEN: dict[str, Callable[[Canvas, Plant, np.random.Generator], None]] = {
    "ecc_ce_rate": _ce_rate,
    "row_cluster": _row_cluster,
    "ecc_ue": _dram_ue,
    "sram_ue": _sram_ue,
    "cpu_edac": _cpu_edac,
    "sdc": _sdc,
    "slow_gpu": _slow,
    "xid": _lone_xid,
    "gpu_off_bus": _off_bus,
    "nvml_hang": _hang,
    "sensor_stuck": _stuck,
    "fabric_unhealthy": _unhealthy,
    "c2c_crc": _c2c,
    "link_down": _link_down,
    "lane_flap": _flaps,
    "nic_flap": _nic_flap,
    "nvme_media": _media,
    "pcie_downtrain": _downtrain,
    "pcie_replay": _replay,
    "tray_dead": _dead,
    "tray_hang": _dead,
}
