"""smartctl and nvme: the health logs of a tray's drives, as its own tree has them. Form: smartctl 7.3 of the captures; nvme-cli's
JSON of its source (reference/tool_formats.md)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..state import State
from .smi import Said

_LANE_GBPS = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
_GETS = 0.85
"""Share of its PCIe link that a drive's sequential reads get (assumption)."""
_MODEL = "TWIN E1.S 3840GB"


def number_of(path: str) -> int:
    """1 of /dev/nvme1n1; -1 of what is no NVMe drive."""
    found = re.search(r"nvme(\d+)", path)
    return int(found[1]) if found else -1


def line(path: str) -> str:
    """The first line of a file of the tree, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Drive:
    """One drive as it is now."""

    number: int
    temp_k: int
    spare: int
    threshold: int
    used: int
    media_errors: int
    gbps: float

    @classmethod
    def of(cls, facts: Mapping[str, Any], number: int) -> Drive | None:
        """None where there is no such drive."""
        root, slots = os.path.join(facts["at"], "root"), facts["machine"]["nvmes"]
        try:
            with open(os.path.join(root, f"dev/nvme{number}"), "rb") as file:
                page = file.read(512)
        except OSError:
            return None
        if not 0 <= number < len(slots) or len(page) < 512:
            return None
        lanes = line(os.path.join(root, "sys/bus/pci/devices", slots[number]["bdf"], "current_link_width"))
        gbps = _LANE_GBPS[slots[number]["gen"]] * int(lanes or slots[number]["lanes"]) * _GETS
        errors = int.from_bytes(page[160:176], "little")
        return cls(number, int.from_bytes(page[1:3], "little"), page[3], page[4], page[5], errors, gbps)


def smartctl(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`-j -a DEVICE`."""
    path = argv[-1] if argv else ""
    tool: dict[str, Any] = {"version": [7, 3], "svn_revision": "5338", "argv": ["smartctl", *argv], "exit_status": 0}
    drive = Drive.of(facts, number_of(path))
    if drive is None:
        tool["exit_status"] = 2
        tool["messages"] = [{"string": f"Smartctl open device: {path} failed: No such device", "severity": "error"}]
        return json.dumps({"json_format_version": [1, 0], "smartctl": tool}, indent=2) + "\n", "", 2
    temp = drive.temp_k - 273
    log = {
        "critical_warning": 0, "temperature": temp, "available_spare": drive.spare, "available_spare_threshold": drive.threshold,
        "percentage_used": drive.used, "data_units_read": 20126, "data_units_written": 18491, "host_reads": 134106,
        "host_writes": 492220, "controller_busy_time": 1, "power_cycles": 22, "power_on_hours": 164, "unsafe_shutdowns": 8,
        "media_errors": drive.media_errors, "num_err_log_entries": drive.media_errors, "warning_temp_time": 0,
        "critical_comp_time": 0,
    }  # fmt: skip
    body = {
        "json_format_version": [1, 0], "smartctl": tool,
        "device": {"name": path, "info_name": path, "type": "nvme", "protocol": "NVMe"},
        "model_name": _MODEL, "serial_number": f"S{drive.number:011}", "firmware_version": "1.0.4",
        "smart_support": {"available": True, "enabled": True}, "smart_status": {"passed": True, "nvme": {"value": 0}},
        "nvme_smart_health_information_log": log, "temperature": {"current": temp}, "power_cycle_count": 22,
        "power_on_time": {"hours": 164},
    }  # fmt: skip
    return json.dumps(body, indent=2) + "\n", "", 0


def nvme(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`smart-log DEVICE -o json`."""
    path = next((word for word in argv if word.startswith("/dev/")), "")
    drive = Drive.of(facts, number_of(path))
    if argv[:1] != ["smart-log"] or "json" not in argv or drive is None:
        return "", f"{path}: No such file or directory\n", 1
    body = {
        "critical_warning": 0, "temperature": drive.temp_k, "avail_spare": drive.spare, "spare_thresh": drive.threshold,
        "percent_used": drive.used, "data_units_read": 20126, "data_units_written": 18491, "host_read_commands": 134106,
        "host_write_commands": 492220, "controller_busy_time": 1, "power_cycles": 22, "power_on_hours": 164,
        "unsafe_shutdowns": 8, "media_errors": drive.media_errors, "num_err_log_entries": drive.media_errors,
        "warning_temp_time": 0, "critical_comp_time": 0,
    }  # fmt: skip
    return json.dumps(body, indent=2) + "\n", "", 0
