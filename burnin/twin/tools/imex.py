"""nvidia-imex-ctl: the domain as this tray sees it. `peers` are the rack's compute trays, and whether each of them runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..state import State
from .smi import Said
from .versions import version

_LEGEND = (
    "I - Invalid - Node wasn't reachable, no connection status available", "N - Never Connected",
    "R - Recovering - Connection was lost, but clean up has not yet been triggered.",
    "D - Disconnected - Connection was lost, and clean up has been triggreed.",
    "A - Authenticating - If GSSAPI enabled, client has initiated mutual authentication.",
)  # fmt: skip
_NEWER = ("!V! - Version mismatch, communication disabled.", "!M! - Node map mismatch, communication disabled.")


def imex_ctl(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """-q: this node. -N: all of them, as a table; -N -j: as JSON. Versions of nodes are told by drivers from 570 on."""
    if argv == ["-q"]:
        return "READY\n", "", 0
    if argv == ["-N"]:
        return _table(facts, peers), "", 0
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
        if _new(facts):
            nodes[str(i)]["version"] = facts["driver"]
    domain = "UP" if all(peers.values()) else "DEGRADED"
    return json.dumps({"nodes": nodes, "timestamp": "11/21/2026 08:00:00.000", "status": domain}, indent=1) + "\n", "", 0


def _new(facts: Mapping[str, Any]) -> bool:
    return int(version(facts, "nvidia-imex-ctl")) >= 570


def _table(facts: Mapping[str, Any], peers: Mapping[str, bool]) -> str:
    names, new = sorted(peers), _new(facts)
    legend = [*_LEGEND, *(_NEWER if new else ()), "C - Connected - Ready for operation"]
    out = "Connectivity Table Legend:\n" + "".join(f"{line}\n" for line in legend) + "\n11/21/2026 08:00:00.000\nNodes:\n"
    for i, name in enumerate(names):
        status = "READY" if peers[name] else "UNAVAILABLE"
        said = f"{status:<20} - Version: {facts['driver']}" if new else status
        out += f"Node #{i:<3} - 10.0.0.{i + 1:<7} - {said}\n"
    out += "\n Nodes From\\To" + "".join(f"{i:4}" for i in range(len(names))) + "\n"
    for i, name in enumerate(names):
        cells = "".join("   C" if peers[name] and peers[other] else "   D" for other in names)
        out += f"      {i:2}      {cells}\n"
    return out + f"\nDomain State: {'UP' if all(peers.values()) else 'DEGRADED'}\n"
