"""nvidia-imex-ctl: the domain as this tray sees it. `peers` are the rack's compute trays, and whether each of them runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..state import State
from .smi import Said


def imex_ctl(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """-q: this node. -N -j: all of them."""
    if argv == ["-q"]:
        return "READY\n", "", 0
    if argv != ["-N", "-j"]:
        return "", f"nvidia-imex-ctl: error: unknown arguments {' '.join(argv)}\n", 1
    names, nodes = sorted(peers), dict[str, Any]()
    for i, name in enumerate(names):
        links = {
            str(j): {"host": f"10.0.0.{j + 1}", "status": "CONNECTED" if peers[name] and peers[other] else "DISCONNECTED",
                     "changed": True}
            for j, other in enumerate(names) if j != i
        }  # fmt: skip
        status = "READY" if peers[name] else "UNAVAILABLE"
        nodes[str(i)] = {"status": status, "host": f"10.0.0.{i + 1}", "connections": links, "changed": True}
        nodes[str(i)]["version"] = facts["driver"]
    domain = "UP" if all(peers.values()) else "DEGRADED"
    return json.dumps({"nodes": nodes, "timestamp": "11/21/2026 08:00:00.000", "status": domain}, indent=1) + "\n", "", 0
