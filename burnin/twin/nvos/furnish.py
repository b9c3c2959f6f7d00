"""What a switch tray's `nv` needs to know, written when the tray is made."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from burnin.twin.faults import Plant
from burnin.twin.identity import RackId, older, serials
from burnin.twin.links import words_per_s
from burnin.twin.model import Model
from burnin.twin.nvos.wiring import Port, guid, wire

_VERSIONS = {
    "ASIC": "35.2014.1694",
    "BMC": "88.0002.1950",
    "BIOS": "0ACTV_00.01.015",
    "CPLD1": "CPLD000370_REV0400",
    "EROT": "01.04.0031",
}


def write(at: Path, part: str, model: Model, rack: RackId, seed: int, plants: Sequence[Plant], manages: bool) -> None:
    """switch.json of one switch tray. `manages`: it runs the fabric manager of the rack."""
    serial, index = serials(model, seed)[part], int(part[1:])
    behind = sum(
        int(plant.severity) for plant in plants if plant.kind == "other_firmware" and plant.part in (part, f"{part}.bmc")
    )
    board = {"hardware-version": "A1", "model": "N5200_LD", "serial": serial, "state": "ok"}
    own: dict[str, Any] = {
        "part": part,
        "since_s": time.time(),
        "manages": manages,
        "gpus": model.topology.compute_trays * model.topology.gpus_per_tray,
        "platform": {
            "system-mac": f"9c:63:c0:00:{index:02x}:01",
            "manufacturer": "NVIDIA",
            "product-name": "N5200_LD",
            "part-number": "920-9K36F-00RV-7S0",
            "serial-number": serial,
            "asic-model": "Quantum3",
        },
        "location": {
            "tray-index": index,
            "slot-number": index + 9,
            "chassis-sn": rack.chassis,
            "topology-id": "GB300 NVL72" if "300" in model.profile else "GB200 NVL72",
        },
        "inventory": {
            name: {**board, "type": name.lower().rstrip("12")} for name in ("SWITCH", "ASIC1", "ASIC2", "BMC", "FAN1/1")
        },
        "firmware": {
            name: {"actual-firmware": older(said, behind if name == "BMC" else 0), "part-number": "N/A", "fw-source": "default"}
            for name, said in _VERSIONS.items()
        },
        "environment": {
            "ASIC1": {"state": "ok", "type": "temperature"},
            "ASIC2": {"state": "ok", "type": "temperature"},
            "CPU-Pack-Temp": {"state": "ok", "type": "temperature"},
            "FAN1": {"state": "off", "type": "led"},
            "FAN1/1": {"state": "ok", "type": "fan"},
            "HSC-VinDC-In": {"state": "ok", "type": "voltage"},
            "PMIC-1-ASIC1-VDD-Out-1": {"state": "ok", "type": "voltage"},
        },
        "ports": [_port(port, part, rack, plants) for port in wire(model, seed).get(part, ())],
    }
    at.mkdir(parents=True, exist_ok=True)
    (at / "switch.json").write_text(json.dumps(own))


def _port(port: Port, tray: str, rack: RackId, plants: Sequence[Plant]) -> dict[str, Any]:
    name, gpu, link = port.link.split(".")
    ends = (tray, f"{tray}.a{port.asic}", port.part(tray))
    rates = [words_per_s(plant.severity) for plant in plants if plant.kind == "switchport_margin" and plant.part in ends]
    return {
        "name": port.name,
        "asic": port.asic,
        "number": port.number,
        "link": port.link,
        "guid": guid(rack, tray, port.asic),
        "peer": f"0x{rack.trays[name].gpus[int(gpu[1:])].guid.hex()}",
        "peer_port": int(link[1:]) + 1,
        "lid": 100 + int(name[1:]) * 4 + int(gpu[1:]),
        "rate": sum(rates),
    }
