"""ipmitool sel: the BMC's event log, read on the tray. The BMC writes it down beside the tray's folder. Form: captures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..state import State
from .smi import Said


def ipmitool(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`sel list`, `sel elist`."""
    if argv[:1] != ["sel"] or argv[1:2] not in (["list"], ["elist"]):
        return "", f"Invalid command: {' '.join(argv)}\n", 1
    lines = list[str]()
    try:
        with open(f"{facts['at']}.sel", encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
    except OSError:
        events = []
    for number, (when_s, sensor, event, asserted) in enumerate(events, 1):
        when = time.gmtime(when_s)
        said = "Asserted" if asserted else "Deasserted"
        if argv[1] == "elist":
            day, hour = time.strftime("%m/%d/%y", when), time.strftime("%H:%M:%S UTC", when)
            lines.append(f"{number:4x} | {day} | {hour} | {sensor} | {event} | {said}")
        else:
            day, hour = time.strftime("%m/%d/%Y", when), time.strftime("%H:%M:%S", when)
            lines.append(f"{number:4x} | {day} | {hour} | {sensor} | {event} | {said}")
    return ("\n".join(lines) + "\n", "", 0) if lines else ("SEL has no entries\n", "", 0)
