"""What burnin's own tests would measure of the GPUs of a rack that is written down: one exchange at the head of every load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from burnin.rack.parts import within
from burnin.telemetry.series import Floats, Series
from burnin.twin.canvas import Canvas
from burnin.twin.faults import Plant
from burnin.twin.population import population

AFTER_S = 1.0
"""How far into a load the exchange before it has been told."""
_WAITS = 0.02
"""Share of a collective that everybody waits (assumption)."""


def exchanges(canvas: Canvas, plants: Sequence[Plant]) -> None:
    """`gpu.bandwidth`: what every GPU reached to all others; `gpu.wait`: the share of a collective in which it waited."""
    rates, when = canvas.model.nccl.busbw.get("alltoall", {}), canvas.plan
    t = np.array([span.t0_s + AFTER_S for span in when.spans if span.condition.activity > 0])
    if len(canvas.gpus) < 2 or not rates or not t.size:
        return
    spread, gpus = population().load, len(canvas.gpus)
    stream = canvas.chance.stream("exchanges")
    reached = rates[max(rates)] * (1 + spread.copy_sd * canvas.chance.parts("exchanges.own", gpus, 1))
    reached = reached * (1 + spread.copy_repeat * stream.standard_normal((gpus, t.size)))
    reached = reached * (1 - _lost(canvas, plants, "bw_loss", t))
    takes = 1 + spread.rate_sd * canvas.chance.parts("load.rate", gpus, 1)  # the faster at its load's kernels, the sooner done
    takes = (2 - takes) * (1 + spread.rate_repeat * stream.standard_normal((gpus, t.size)))
    takes = takes / (1 - _lost(canvas, plants, "slow_gpu", t))
    waits = _WAITS + 1 - takes / takes.max(axis=0)
    for metric, values, digits in (("gpu.bandwidth", reached, 2), ("gpu.wait", waits, 5)):
        for gpu, row in zip(canvas.gpus, np.round(values, digits), strict=True):
            canvas.series[gpu, metric] = Series(t, row)


def _lost(canvas: Canvas, plants: Sequence[Plant], kind: str, t: Floats) -> Floats:
    out = np.zeros((len(canvas.gpus), t.size))
    for plant in plants:
        if plant.kind == kind:
            for i, gpu in enumerate(canvas.gpus):
                if within(gpu, plant.part):
                    out[i] = 1 - (1 - out[i]) * (1 - plant.severity * canvas.grown(plant, t))
    return out
