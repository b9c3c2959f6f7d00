"""What can be read of a twin rack at its seams while one tray (t00) is loaded, without processes: NVML and the host's files
by the agent's own readers, the kernel log, NVML's events, what CUDA and NCCL will do, sensors of loop and shelves.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pynvml

from burnin.agent import hostdata
from burnin.agent.host import Roots
from burnin.agent.nvml import Gpus
from burnin.agent.sysfs import Part
from burnin.twin import identity
from burnin.twin.emulate import nvml
from burnin.twin.faults import parse
from tests.unit.twin_rack import Ward, ward

IDLE_S, LOAD_S, STEP_S = 2, 13, 0.5
NEWEST = "595.58.03"
"""A driver that has a field for everything."""
Seen = dict[tuple[str, str], list[Any]]
"""(part, signal) -> its readings, one a second; a reason where it was not read."""
_CUDA = {
    "sdc_ppm": "CUDA digests",
    "bw_lost_ppm": "CUDA copies",
    "slow_ppm": "NCCL pace",
    "poisoned": "CUDA contexts",
    "bad_cells": "CUDA memory",
    "reset_ppm": "resets",
}
_SEL = "/redfish/v1/Systems/System_0/LogServices/SEL/Entries"
_CDU = {
    "says_flow_lpm": "coolant.flow", "says_supply_c": "coolant.supply_temp", "says_return_c": "coolant.return_temp",
    "says_dp_kpa": "coolant.dp", "says_pressure_kpa": "coolant.pressure", "says_filter_kpa": "coolant.filter",
    "pump0_rpm": "pump.speed", "level": "coolant.level",
}  # fmt: skip
_SHARED = {"coolant.return_temp": 0.15, "psu.power": 6.0}
"""What one part's fault may add to what the whole rack shares, and nobody sees."""


@contextlib.contextmanager
def library(made: Any) -> Iterator[None]:
    """This library behind pynvml, as long as the block lasts."""
    kept = pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache
    pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache = made, {}
    try:
        yield
    finally:
        pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache = kept


def seen(where: Path, *plants: str) -> Seen:
    """A rack with these faults, idle and then with t00 loaded, as it is read once a second."""
    rack, out = ward(where, *plants), Seen()
    planted = [parse(text) for text in plants]
    standing = identity.swap(rack.model, identity.build(rack.model, 1), 1, planted)["t00"]
    facts = identity.for_emulation(rack.model, standing, "0" * 32) | {"driver": NEWEST}
    made = nvml.library(facts, rack.gpus)
    root = where / "t00/root"
    (root / "dev/kmsg").touch()
    at = Roots(*(str(root / name) for name in ("proc", "sys", "dev")))
    with library(made):
        gpus = Gpus(pynvml)
        host = hostdata.sources(at, {gpu.bdf: gpu.name for gpu in gpus.gpus if gpu.bdf})
        for gpu in gpus.gpus:
            out["t00." + gpu.name, "serial"] = [gpu.identity()["serial"], gpu.identity()["uuid"]]
            out["t00." + gpu.name, "versions"] = [gpu.identity()["vbios"]]
        out["t00", "serial"] = [standing.serial]
        out["t00.bmc", "serial"] = [rack.get("t00.bmc", "/redfish/v1/Systems/System_0")["SerialNumber"]]
        for second in range(IDLE_S + LOAD_S):
            if second == IDLE_S:
                rack.load(1.0, os.getpid())
            rack.run(1, STEP_S)
            for (part, signal), value in _now(rack, gpus, host, root).items():
                out.setdefault((part, signal), []).append(value)
    return out


def _now(rack: Ward, gpus: Gpus, host: list[Part], root: Path) -> Mapping[tuple[str, str], Any]:
    out: dict[tuple[str, str], Any] = {("t00", "runs"): rack.lit and not rack.tray.frozen}
    for gpu in gpus.gpus:
        position = int(gpu.name[1:])
        row = rack.gpus.gpus[position]
        out[f"t00.{gpu.name}", "NVML answers"] = not row["hung"]
        for word, name in _CUDA.items():
            out[f"t00.{gpu.name}", name] = row[word]
        if not row["hung"]:
            for group in (gpu.fast, gpu.slow, gpu.links):
                for (below, metric), value in zip(group.metrics, group.read(), strict=True):
                    out[".".join(filter(None, ("t00", gpu.name, below))), metric] = value
    for source in host:
        for (below, metric), value in zip(source.columns, source.read(), strict=True):
            out[".".join(filter(None, ("t00", below))), metric] = value
    out["t00", "kernel log"] = (root / "dev/kmsg").read_text().count("\n")
    out["t00.bmc", "BMC's log"] = len(rack.get("t00.bmc", _SEL)["Members"])
    out["t00", "xid"] = [rack.gpus.event(i)[::2] for i in range(rack.gpus.events)]
    out.update(_around(rack))
    return out


def _around(rack: Ward) -> Mapping[tuple[str, str], Any]:
    state = rack.state
    out: dict[tuple[str, str], Any] = {("cdu", name): state.cdu[word] for word, name in _CDU.items()}
    for i, psu in enumerate(state.psus):
        out[f"p{i // 6}.u{i % 6}", "psu.power"] = psu["out_w"]
    for letter, rows, count in (("t", state.trays, 4), ("s", state.switches, 8)):
        for i, row in enumerate(rows):
            name = f"t{i:02}" if letter == "t" else f"s{i}"
            out[name, "leak.voltage"] = min(row[f"leak{n}_v"] for n in range(count))
            out[name, "tray.return_temp"], out[name, "tray.power"] = row["return_c"], row["power_w"]
    return out


def moved(faulty: Seen, healthy: Seen) -> dict[str, set[str]]:
    """Signal -> parts whose readings differ between two racks of one seed, by more than what is shared."""
    out: dict[str, set[str]] = {}
    for part, signal in faulty.keys() | healthy.keys():
        if _differ(faulty.get((part, signal), []), healthy.get((part, signal), []), _SHARED.get(signal, 0.0)):
            out.setdefault(signal, set()).add(part)
    return out


def _differ(one: list[Any], other: list[Any], by: float) -> bool:
    if len(one) != len(other):
        return True
    numbers = all(isinstance(v, float) for v in (*one, *other))
    return any(abs(a - b) > by for a, b in zip(one, other, strict=True)) if numbers and by else one != other
