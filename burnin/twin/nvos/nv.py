"""`nv` of a twin's switch tray: a program of its own for each command, as text or JSON. Standard library only.

It reads the tray's switch.json (what it is, who plugs where), the states of the compute trays beside it (a link's counters and
whether it is up) and the rack's state (leak detectors). What is planted in a port stands in switch.json: errors a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from burnin.twin.nvos.text import listed, properties
from burnin.twin.rackstate import RackState
from burnin.twin.state import Row, State

_ERRORS = ("effective_errors", "symbol_errors", "recovery_ok", "recovery_failed", "rx_errors", "integrity_errors")
_WET_BELOW_V = 1.3
Shown = dict[str, Any]


class Tray:
    """One switch tray at this moment."""

    def __init__(self, at: Path, now_s: float) -> None:
        """`now_s`: by the tray's clock (time.time)."""
        self.at, self._now_s = at, now_s
        self.own: dict[str, Any] = json.loads((at / "switch.json").read_text())
        self._states: dict[str, State | None] = {}

    # ---- ports

    def _row(self, link: str) -> Row | None:
        """The GPU's end of a link; None where its tray does not run, or the GPU does not answer."""
        tray, gpu, number = link.split(".")
        if tray not in self._states:
            self._states[tray] = self._open(tray)
        state = self._states[tray]
        position = int(gpu[1:])
        if state is None or state.gpus[position]["lost"]:
            return None
        return state.links[position][int(number[1:])]

    def _open(self, tray: str) -> State | None:
        try:
            state = State.open(str(self.at.parent / tray / "state"))
        except (OSError, ValueError):
            return None
        return state if time.monotonic_ns() - state.beat_ns < 5_000_000_000 else None

    def interfaces(self) -> Shown:
        """Every interface with its link."""
        out: Shown = {"eth0": {"link": {"state": "up", "speed": "1G"}, "type": "eth"}}
        for port in self.own["ports"]:
            out[port["name"]] = {"link": self._link(port), "type": "nvl"}
        for n in (1, 2):
            out[f"fnm{n}"] = {"link": self._plain("up"), "type": "fnm"}
        for n in range(1, 19):
            for side in (1, 2):
                unplugged = {"diagnostics": {"1024": {"status": "Cable is unplugged"}}}
                out[f"sw{n}p1s{side}"] = {"link": {**self._plain("down"), **unplugged}, "type": "nvl"}
        return out

    def _plain(self, state: str) -> Shown:
        up = state == "up"
        return {
            "state": state,
            "physical-state": "LinkUp" if up else "Polling",
            "logical-state": "Active" if up else "Down",
            "supported-speed": "400G",
            "diagnostics": {"0": {"status": "No issue was observed"}} if up else {"2": {"status": "Negotiation failure"}},
        }

    def _link(self, port: Shown) -> Shown:
        row = self._row(port["link"])
        link = self._plain("up" if row is not None and not row["down"] else "down")
        errors = {name: row[name] if row is not None else 0 for name in _ERRORS}
        ran_s = max(0.0, self._now_s - self.own["since_s"])
        own = int(port["rate"] * ran_s)
        link |= {
            "auto-negotiate": "on",
            "lanes": "2X",
            "asic": f"ASIC{port['asic'] + 1}",
            "local-port": port["number"],
            "counters": {
                "in-bytes": row["tx_bytes"] if row is not None else 0,
                "in-drops": 0,
                "in-errors": errors["rx_errors"],
                "in-symbol-errors": errors["symbol_errors"] + own,
                "out-bytes": row["rx_bytes"] if row is not None else 0,
                "out-errors": 0,
                "link-error-recovery": errors["recovery_ok"],
                "link-downed": errors["recovery_failed"],
                "local-link-integrity-errors": errors["integrity_errors"],
                "buffer-overrun-errors": 0,
            },
        }
        if link["state"] == "up":
            link["speed"] = "400G"
        return link

    def fabric(self) -> str:
        """Every port and what it is plugged to, as iblinkinfo prints it in line mode."""
        lines = []
        for port in sorted(self.own["ports"], key=lambda port: (port["asic"], port["number"])):
            node = f'{port["guid"]} "MF0;nvos-{self.own["part"]}:N5200_LD/U{port["asic"] + 1}"'
            row = self._row(port["link"])
            head = f"{node:60} {port['asic'] + 2:4} {port['number']:3}[  ]"
            if row is None or row["down"]:
                lines.append(f'{head} ==(                Down/ Polling)==>             [  ] "" ( )')
            else:
                far = f'{port["peer"]} {port["lid"]:4} {port["peer_port"]:3}[  ] "GPU"'
                lines.append(f"{head} ==( 2X      100.0 Gbps Active/  LinkUp)==>  {far} ( )")
        return "\n".join(lines) + "\n"

    # ---- the tray itself

    def leakage(self) -> Shown:
        """The eight detectors, as words."""
        volts = [1.73] * 8
        if (self.at.parent / "rack").exists():
            row = RackState.open(str(self.at.parent / "rack")).tray(self.own["part"])
            volts = [row[f"leak{i}_v"] for i in range(8)]
        return {f"leakage{i + 1}": {"state": "normal" if v > _WET_BELOW_V else "leak"} for i, v in enumerate(volts)}

    def cluster(self) -> Shown:
        """On in one switch tray of the rack."""
        return {"state": "enabled", "nmxc-conn": "up"} if self.own["manages"] else {"state": "disabled", "nmxc-conn": "down"}

    def apps(self) -> Shown:
        """What it runs."""
        if not self.own["manages"]:
            return {}
        controller = {
            "app-id": "nmx-c-nvos",
            "app-ver": "1.2.0_2025-08-01_10-20",
            "capabilities": "sm, gfm, fib, gw-api",
            "status": "ok",
            "reason": "",
            "additional-information": "CONTROL_PLANE_STATE_CONFIGURED",
        }
        return {
            "nmx-controller": controller,
            "nmx-telemetry": {**controller, "app-id": "nmx-telemetry", "additional-information": ""},
        }

    def partition(self) -> Shown:
        """All GPUs in one."""
        if not self.own["manages"]:
            return {}
        trays = {port["link"].partition(".")[0] for port in self.own["ports"]}
        states = [state for state in map(self._open, sorted(trays)) if state is not None]
        ill = sum(row["unhealthy"] for state in states for row in state.gpus)
        health, gpus = "degraded" if ill else "healthy", self.own["gpus"] - ill
        return {"32766": {"name": "Default Partition", "health": health, "num-gpus": gpus}}


def diagnostics(tray: Tray) -> Shown:
    """Of every NVLink interface."""
    links = {name: one["link"] for name, one in tray.interfaces().items() if "diagnostics" in one["link"]}
    return {name: {"link": {"diagnostics": link["diagnostics"]}} for name, link in links.items()}


_SHOWS: dict[str, Callable[[Tray], Shown]] = {
    "system": lambda tray: {"hostname": f"nvos-{tray.own['part']}", "product-name": "nvos", "product-release": "25.02.2342"},
    "platform": lambda tray: tray.own["platform"],
    "platform chassis-location": lambda tray: tray.own["location"],
    "platform inventory": lambda tray: tray.own["inventory"],
    "platform firmware": lambda tray: tray.own["firmware"],
    "platform environment": lambda tray: tray.own["environment"],
    "platform environment leakage": Tray.leakage,
    "interface": Tray.interfaces,
    "interface link-diagnostics": diagnostics,
    "cluster": Tray.cluster,
    "cluster apps": Tray.apps,
    "sdn partition": Tray.partition,
}


def main(arguments: list[str], at: Path, now_s: float) -> int:
    """One command; what it does not know is an error, as NVOS words it."""
    as_json = arguments[-2:] in (["-o", "json"], ["--output", "json"])
    words = [word for word in (arguments[:-2] if as_json else arguments) if word != "--view"]
    if words[:4] == ["action", "run", "ib", "cmd"] and words[4].split()[:1] == ["iblinkinfo"]:
        sys.stdout.write(Tray(at, now_s).fabric())
        return 0
    show = _SHOWS.get(" ".join(words[1:])) if words[:1] == ["show"] else None
    if show is None:
        sys.stderr.write(f"Error: Invalid Command: nv {' '.join(arguments)}\n")
        return 1
    said = show(Tray(at, now_s))
    flat = any(not isinstance(value, dict) for value in said.values())
    sys.stdout.write(json.dumps(said, indent=2) + "\n" if as_json else properties(said) if flat else listed(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], Path(sys.argv[1]), time.time()))
