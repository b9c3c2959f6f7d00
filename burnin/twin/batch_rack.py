"""What stands around the GPUs of a rack that is written down: CPUs, cards, power of trays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnin.telemetry.series import Floats, Series
from burnin.twin.canvas import Canvas
from burnin.twin.faults import Plant
from burnin.twin.population import population

_CPU_NOISE_K, _CPU_SD_K = 0.3, 2.0


def surroundings(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """Everything of the trays that is no GPU."""
    loaded = np.array([c.activity for c in canvas.plan.conditions])[canvas.plan.now[:, _at_minutes(canvas)]]
    per_tray = canvas.model.topology.gpus_per_tray
    activity = loaded.reshape(-1, per_tray, loaded.shape[1]).mean(axis=1)
    _cpus(canvas, plants, activity)
    _cards(canvas)
    power = np.stack([canvas.series[gpu, "gpu.power_avg"].v for gpu in canvas.gpus])[:, _at_minutes(canvas)]
    beside = canvas.model.machine.module_w * per_tray / canvas.model.gpu.gpus_per_module + population().rack.misc_w
    for tray, watts in zip(canvas.model.topology.trays(), power.reshape(-1, per_tray, power.shape[1]).sum(axis=1), strict=True):
        canvas.around(tray, "tray.power", np.round(watts + beside, 1))


def _at_minutes(canvas: Canvas) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The GPU reading nearest before each minute."""
    return np.searchsorted(canvas.plan.t, canvas.plan.minutes, side="right").clip(1) - 1


def _cpus(canvas: Canvas, plants: Sequence[Plant], activity: Floats) -> None:
    machine, hot = canvas.model.machine, {p.part: p for p in plants if p.kind == "cpu_hot"}
    stream = canvas.chance.stream("cpu")
    own = canvas.chance.parts("cpu.own", activity.shape[0], machine.sockets)
    zero = Series(canvas.plan.minutes, np.zeros(canvas.plan.minutes.size))
    for i, tray in enumerate(canvas.model.topology.trays()):
        for j in range(machine.sockets):
            part = f"{tray}.c{j}"
            rise = np.full(activity.shape[1], machine.cpu_load_c - machine.cpu_idle_c)
            if part in hot:
                rise = rise + hot[part].severity * canvas.grown(hot[part], canvas.plan.minutes)
            noise = _CPU_NOISE_K * stream.standard_normal(activity.shape[1])
            canvas.around(part, "cpu.temp", np.round(machine.cpu_idle_c + _CPU_SD_K * own[i, j] + rise * activity[i] + noise))
            for metric in ("cpu.edac_ce", "cpu.edac_ue"):
                canvas.series[part, metric] = zero


def _cards(canvas: Canvas) -> None:
    """Network cards and drives: nothing moves until a fault does."""
    machine, facts, stream = canvas.model.machine, population().rack, canvas.chance.stream("cards")
    zero = Series(canvas.plan.minutes, np.zeros(canvas.plan.minutes.size))
    for tray in canvas.model.topology.trays():
        for kind, slots, celsius, counters in (
            ("n", machine.nics, facts.nic_c, ("nic.link_flaps", "nic.symbol_errors")),
            ("d", machine.nvmes, facts.nvme_c, ("nvme.media_errors",)),
        ):
            for number, slot in enumerate(slots):
                part = f"{tray}.{kind}{number}"
                canvas.around(part, f"{'nic' if kind == 'n' else 'nvme'}.temp", round(celsius + 3 * stream.standard_normal()))
                canvas.around(part, "pcie.gen", slot.gen)
                canvas.around(part, "pcie.width", slot.lanes)
                for metric in (*counters, "pcie.aer_correctable"):
                    canvas.series[part, metric] = zero
