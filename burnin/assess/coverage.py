"""What had to be read, and was it: slots of (part, required metric, phase). Pure.

A slot is measured when it has the suite's share of the readings that were due in that phase's stretch. The floor holds
for every slot: one GPU that was not sampled is a hole, whatever the mean says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from burnin.assess.case import Case, ended, row_of
from burnin.assess.went import cut
from burnin.events import Coverage
from burnin.rack.parts import tray_of
from burnin.suites.schema import Stage

_PER = {
    "gpu": "GPU",
    "hbm": "GPU",
    "throttle": "GPU",
    "ecc": "GPU",
    "remap": "GPU",
    "load": "GPU",
    "c2c": "GPU",
    "fabric": "GPU",
    "module": "GPU",
    "transient": "GPU",
    "pcie": "GPU",
    "repair": "GPU",
    "nvlink": "NVLink",
    "cpu": "CPU",
    "cpu.util": "compute tray",
    "nic": "NIC",
    "nvme": "NVMe",
    "host": "compute tray",
    "tray": "compute tray",
    "leak": "compute tray",
    "psu": "PSU",
    "pump": "cdu",
    "agent": "compute tray",
    "nvml": "compute tray",
}
"""What a metric is read of, by its name or its first word; all others have one slot for the rack."""


def coverage(case: Case) -> Coverage:
    """Required and measured slots over all stages that were owed."""
    required = 0
    missing = []
    for stage, metric in _owed(case):
        for part in _parts(case, metric):
            required += 1
            if not _measured(case, stage, part, metric):
                missing.append((part, metric, stage.phase or ""))
    return Coverage(required, required - len(missing), tuple(missing))


def holes(case: Case) -> dict[tuple[str, str], str]:
    """(stage, tray) -> what was not read often enough of that tray in a stage that went through."""
    found: dict[tuple[str, str], list[str]] = {}
    for stage, metric in _owed(case):
        for part in _parts(case, metric):
            tray = tray_of(part)
            went = row_of(case, stage.stage, tray)
            if tray in case.compute and went is not None and ended(went) and not _measured(case, stage, part, metric):
                found.setdefault((stage.stage, tray_of(part)), []).append(f"{part} {metric}")
    many = {key: f"; and {len(what) - 1} more" if len(what) > 1 else "" for key, what in found.items()}
    return {key: f"{what[0]} was not read often enough{many[key]}" for key, what in found.items()}


def _owed(case: Case) -> Iterator[tuple[Stage, str]]:
    """Stages and what must be read in them: all metrics in phases that must be covered, transient ones in the stages that ask
    for them. A stage that only a suspicion calls for is owed once it began."""
    began = {stage.name for stage in case.stages if stage.phase is not None}
    quick = {name for name, metric in case.catalogue.metrics.items() if metric.transient}
    for stage in case.suite.stages:
        asked = stage.phase is not None and any(stage.phase.split("-")[0].split("@")[0] == p for p in case.suite.coverage.phases)
        left_out = case.only and not any(step.check in case.only for step in stage.steps)
        if left_out or not (stage.when == "always" or stage.stage in began):
            continue
        for metric in case.suite.coverage.metrics:
            if stage.sample_power is not None if metric in quick else asked:
                yield stage, metric


def _parts(case: Case, metric: str) -> list[str]:
    per = _PER.get(metric) or _PER.get(metric.split(".")[0])
    if per == "GPU":
        return case.gpus()
    if per == "NVLink":
        links = case.profile.topology.links_per_gpu
        return case.gpus() if links is None else [f"{gpu}.l{i}" for gpu in case.gpus() for i in range(links)]
    topology = case.profile.topology
    counts = {"CPU": ("c", topology.cpus_per_tray), "NIC": ("n", topology.nics_per_tray), "NVMe": ("d", topology.nvmes_per_tray)}
    if per in counts:
        letter, count = counts[per]
        return [f"{tray}.{letter}{i}" for tray in case.compute for i in range(count)] if count is not None else list(case.compute)
    if per == "PSU":
        return [f"p{i}.u{j}" for i in range(topology.power_shelves or 0) for j in range(topology.psus_per_shelf or 1)]
    return ["cdu"] if per == "cdu" else list(case.compute) if per else ["rack"]


def _measured(case: Case, stage: Stage, part: str, metric: str) -> bool:
    went = row_of(case, stage.stage, tray_of(part))
    if went is None or went.t1_s is None or not ended(went):
        return False
    period = case.suite.period(case.catalogue.metrics.get(metric), stage)
    due = math.floor(stage.duration / period)
    # readings stand on the tray's own grid, so a stretch may hold one fewer than its length says
    need = max(1, math.ceil(case.suite.coverage.floor * due) - 1)
    earlier = cut(case.stages, stage.stage, tray_of(part), case.voided) if stage.cut == "rest" else []
    spans = [(row.t0_s, row.t1_s) for row in (went, *earlier) if row.t1_s is not None]
    return sum(case.telemetry.of(part, metric).between(*span).present for span in spans) >= need
