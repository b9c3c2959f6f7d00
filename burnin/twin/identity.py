"""Who the parts of a twin rack are: serials, UUIDs, places; drawn by seed, so that the same seed is the same rack.

The build record is the true one; what stands at an address may be something else (a `wrong_serial` plant).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from burnin.rack.parts import tray_of
from burnin.twin.faults import Plant
from burnin.twin.model import Model

SLOT_OFFSET = 10
"""Slot = tray index + 10, as in all captured trays."""


@dataclass(frozen=True, slots=True)
class GpuId:
    """One GPU. `serial` is its module's, which two GPUs of a GB200 or GB300 share."""

    uuid: str
    serial: str
    pdi: int
    guid: bytes
    behind: int = 0
    """Releases that its VBIOS is behind."""


@dataclass(frozen=True, slots=True)
class TrayId:
    """One compute tray: chassis serial of its rack, its own serials, its index, its GPUs in module order."""

    chassis: str
    serial: str
    board_serial: str
    index: int
    gpus: tuple[GpuId, ...]
    behind: int = 0
    bmc_behind: int = 0
    """Releases that its BIOS is behind, and its BMC's firmware."""


@dataclass(frozen=True, slots=True)
class RackId:
    """One rack: `serial` as its rack file names it, the chassis serial its trays report, its trays in order."""

    serial: str
    chassis: str
    cluster_uuid: str
    trays: dict[str, TrayId]


def build(model: Model, seed: int | str) -> RackId:
    """The rack of this seed as it was built."""
    chance = Random(f"{model.profile}/{seed}/identity")
    chassis = f"182{chance.randrange(10**10):010}"
    cluster = f"{chance.getrandbits(128):032x}"
    trays = {t: _tray(model, chance, chassis, i) for i, t in enumerate(model.topology.trays())}
    tag = f"{seed:04}" if isinstance(seed, int) else seed
    return RackId(f"TWIN-{model.profile.upper()}-{tag}", chassis, cluster, trays)


def serials(model: Model, seed: int | str) -> dict[str, str]:
    """Serials of what is no compute tray: s0 ..., p0, p0.u0 ..., cdu."""
    chance = Random(f"{model.profile}/{seed}/serials")
    housing = model.housing
    parts = model.topology.switches()
    for shelf in range(housing.shelves if housing is not None else 0):
        parts += [f"p{shelf}", *(f"p{shelf}.u{psu}" for psu in range(housing.psus if housing is not None else 0))]
    return {part: f"{part[0].upper()}{chance.randrange(10**11):011}" for part in [*parts, "cdu"]}


def _tray(model: Model, chance: Random, chassis: str, index: int) -> TrayId:
    serial, board = (f"{letters}{chance.randrange(10**8):08}" for letters in ("J1", "B1"))
    modules = -(-model.topology.gpus_per_tray // model.gpu.gpus_per_module)
    serials = [f"165{chance.randrange(10**10):010}" for _ in range(modules)]
    gpus = (_gpu(chance, serials[i // model.gpu.gpus_per_module]) for i in range(model.topology.gpus_per_tray))
    return TrayId(chassis, serial, board, index, tuple(gpus))


def _gpu(chance: Random, serial: str) -> GpuId:
    uuid = f"{chance.getrandbits(128):032x}"
    grouped = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    return GpuId(f"GPU-{grouped}", serial, chance.getrandbits(63), b"\xa0\x88\xc2" + chance.randbytes(5))


def swap(model: Model, rack: RackId, seed: int, plants: Iterable[Plant]) -> dict[str, TrayId]:
    """What stands at each address: the built trays, but for `wrong_serial` plants.

    A tray is replaced by the tray of the same index of the rack next door; a GPU by one from the spares' shelf.
    """
    out = dict(rack.trays)
    plants = list(plants)
    for plant in plants:
        if plant.kind != "wrong_serial":
            continue
        name = tray_of(plant.part)
        if plant.part.endswith(".bmc"):
            continue
        if plant.part == name:
            out[name] = build(model, f"{seed}-next").trays[name]
            continue
        position = int(plant.part.rsplit("g", 1)[1])
        chance = Random(f"{model.profile}/{seed}/spare/{plant.part}")
        spare = _gpu(chance, f"165{chance.randrange(10**10):010}")
        gpus = out[name].gpus
        out[name] = replace(out[name], gpus=(*gpus[:position], spare, *gpus[position + 1 :]))
    for plant in plants:
        name = tray_of(plant.part)
        if plant.kind == "other_firmware" and name in out:
            out[name] = _behind(out[name], plant.part, int(plant.severity))
    return out


def _behind(tray: TrayId, part: str, releases: int) -> TrayId:
    """The same with older firmware in one of its parts."""
    if part.endswith(".bmc"):
        return replace(tray, bmc_behind=releases)
    gpu = part.rpartition(".g")[2] if ".g" in part else ""
    if not gpu:
        return replace(tray, behind=releases)
    at = int(gpu)
    older = replace(tray.gpus[at], behind=releases)
    return replace(tray, gpus=(*tray.gpus[:at], older, *tray.gpus[at + 1 :]))


def older(version: str, releases: int) -> str:
    """The version so many releases before: its last number is as much lower, or the one before where that is too low."""
    if not releases:
        return version
    numbers = list(re.finditer(r"[0-9]+", version))
    for found in reversed(numbers):
        if int(found[0]) >= releases:
            return f"{version[: found.start()]}{int(found[0]) - releases:0{len(found[0])}}{version[found.end() :]}"
    return f"{version}-{releases}"


def swap_bmcs(model: Model, standing: dict[str, TrayId], seed: int, plants: Iterable[Plant]) -> dict[str, TrayId]:
    """Whom each BMC says it serves: the tray it sits in, but for a `wrong_serial` BMC, which is one of the rack next door."""
    out = dict(standing)
    for plant in plants:
        if plant.kind == "wrong_serial" and plant.part.endswith(".bmc") and tray_of(plant.part) in out:
            name = tray_of(plant.part)
            out[name] = build(model, f"{seed}-next").trays[name]
    return out


def missing(plants: Iterable[Plant], tray: str, seed: int, boots: int) -> set[str]:
    """Devices of a tray that are not there after so many boots: g2, n0, d1 ... The first boot (0) finds them all."""
    own = [plant for plant in plants if plant.kind == "boot_intermittent" and tray_of(plant.part) == tray and boots > 0]
    gone = [plant for plant in own if Random(f"{seed}/{plant}/{boots}").random() < plant.severity]
    return {plant.part.partition(".")[2] for plant in gone}


def for_emulation(model: Model, tray: TrayId, cluster_uuid: str, absent: Collection[str] = ()) -> dict[str, Any]:
    """What the emulated libraries of one tray need to know, as JSON values; GPUs in NVML order, less those absent (g2)."""
    facts = model.gpu
    gpus: list[dict[str, Any]] = []
    for bus, module in enumerate(facts.module_id):
        if f"g{module - 1}" in absent:
            continue
        gpu = tray.gpus[module - 1]
        gpus.append(
            {
                "position": module - 1,
                "index": len(gpus),
                "bdf": facts.bdf[bus],
                "uuid": gpu.uuid,
                "serial": gpu.serial,
                "pdi": gpu.pdi,
                "guid": gpu.guid.hex(),
                "vbios": older(facts.vbios, gpu.behind),
            }
        )
    return {
        "driver": model.driver.version,
        "cuda": model.driver.cuda,
        "chassis": tray.chassis,
        "slot": tray.index + SLOT_OFFSET,
        "tray_index": tray.index,
        "cluster_uuid": cluster_uuid,
        "kernels": model.kernels,
        "rates": model.rates.model_dump(),
        "nccl": model.nccl.model_dump(),
        "facts": facts.model_dump(),
        "machine": model.machine.model_dump(),
        "tools": dict(model.tools),
        "host": f"node{tray.index:02}",
        "gpus": gpus,
    }
