"""Is this what was built: the right tray in the right place, with the right GPUs in the right positions, all of them?

What the build record (`expect` in the rack file) does not say is UNKNOWN; a shipping suite then holds the rack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result

TRAY_SERIAL = Quantity(
    "tray.serial",
    "1",
    "serial number of the tray, as its DMI says",
    advisory=True,
    action="compare with the build record: another tray stands here, or the record is wrong",
)
TRAY_INDEX = Quantity(
    "tray.index",
    "1",
    "tray index that NVML reports: is the tray where the rack file says",
    action="move the tray to its slot, or correct its address in the rack file",
)
GPU_COUNT = Quantity(
    "gpu.count", "1", "GPUs that NVML shows and can open", action="power-cycle the tray; if a GPU stays away, replace its board"
)
GPU_SERIAL = Quantity(
    "gpu.serial",
    "1",
    "serial or UUID of the GPU at this module position",
    advisory=True,
    action="compare with the build record: another board is in this tray, or the record is wrong",
)
GPU_NAME = Quantity(
    "gpu.name", "1", "what the GPU calls itself", action="this is not the GPU of the profile: check what was built"
)
FIRMWARE = Quantity(
    "firmware",
    "1",
    "VBIOS, InfoROM and driver where the rack file states them",
    action="bring the firmware to the release that the rack file states",
)
_FIRMWARE_OF_GPU = ("vbios", "inforom")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Ask the agent once who is there."""
    return [] if answers else [Order(context.tray, "identify")]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Compare what answered with what was built."""
    tray, expected = context.tray, context.rack.expect.get(context.tray)
    answers = evidence.answers[-1] if evidence.answers else ()
    identity: dict[str, Any] = next((answer.body for answer in answers if answer.ok), {})
    gpus: dict[str, dict[str, Any]] = {g["gpu"]: g for g in identity.get("gpus", [])}
    out = [
        TRAY_SERIAL.equal(
            tray, identity.get("host", {}).get("serial"), expected.serial if expected else None, "the build record"
        ),
        _count(context, identity, gpus),
    ]
    if context.profile.rack_identity:
        out.append(_index(tray, gpus))
    record = expected.gpus if expected else None
    for position, part in enumerate(context.gpus):
        gpu = gpus.get(f"g{position}")
        if gpu is None:
            reason = "hung" if f"g{position}" in identity.get("hung", []) else "missing"
            out.append(GPU_NAME.unknown(part, reason, identity.get("nvml") or "no GPU answers at this position"))
            continue
        out.append(_name(context, part, gpu.get("name")))
        wanted = record[position] if record else None
        own = gpu.get("uuid") if wanted is None or wanted.startswith("GPU-") else gpu.get("serial")
        out.append(GPU_SERIAL.equal(part, own, wanted, "the build record"))
        out += _firmware(context, part, gpu, _FIRMWARE_OF_GPU)
    return out + _firmware(context, tray, identity, ("driver",))


def _firmware(context: Context, part: str, source: dict[str, Any], keys: tuple[str, ...]) -> list[Measurement]:
    stated = context.rack.firmware
    return [
        replace(FIRMWARE.equal(part, source.get(key), stated[key], "the rack file"), name=f"firmware.{key}")
        for key in keys
        if key in stated
    ]


def _count(context: Context, identity: dict[str, Any], gpus: dict[str, Any]) -> Measurement:
    want = context.profile.topology.gpus_per_tray
    if identity.get("nvml") or not identity:
        return GPU_COUNT.unknown(context.tray, "missing", f"NVML: {identity.get('nvml') or 'not asked'}", f"= {want}")
    if identity.get("hung"):
        return GPU_COUNT.unknown(context.tray, "hung", f"the driver hangs on {', '.join(identity['hung'])}", f"= {want}")
    result = Result.PASS if len(gpus) == want and not identity.get("failed") else Result.FAIL
    why = "; ".join(f"NVML index {index}: {reason}" for index, reason in identity.get("failed", {}).items())
    return Measurement(GPU_COUNT.name, context.tray, float(len(gpus)), "1", f"= {want}", result, None, why)


def _index(tray: str, gpus: dict[str, dict[str, Any]]) -> Measurement:
    seen = {int(g["tray_index"]) for g in gpus.values() if g.get("tray_index") is not None}
    want = int(tray[1:])
    if not seen:
        return TRAY_INDEX.unknown(tray, "missing", "no GPU reports its tray index", f"= {want}")
    result = Result.PASS if seen == {want} else Result.FAIL
    return Measurement(TRAY_INDEX.name, tray, ",".join(map(str, sorted(seen))), "1", f"= {want}", result)


def _name(context: Context, part: str, name: str | None) -> Measurement:
    names = context.profile.gpu.names
    if names is None:
        return GPU_NAME.unknown(part, "missing", "nobody has published what this GPU calls itself")
    if name is None:
        return GPU_NAME.unknown(part, "missing", "NVML does not say", " or ".join(names))
    return Measurement(GPU_NAME.name, part, name, "1", " or ".join(names), Result.PASS if name in names else Result.FAIL)


CHECK = Check(
    name="inventory",
    about="right serials, right GPUs in the right slots, right firmware where stated",
    quantities=(TRAY_SERIAL, TRAY_INDEX, GPU_COUNT, GPU_SERIAL, GPU_NAME, FIRMWARE),
    judge=judge,
    orders=orders,
)
