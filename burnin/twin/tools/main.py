"""What a tool on a tray's PATH runs: `REAL -I -S main.py TRAY NAME ARGS`."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..state import State

OPS = ("all_reduce", "alltoall", "all_gather", "reduce_scatter")
TOOLS = (
    "dcgmi", "nvbandwidth", "nvidia-smi", "nvidia-imex-ctl", *(f"{op}_perf" for op in OPS), "mpirun", "gpu_burn", "hpl.sh",
    "xhpl", "hpl-mxp.sh", "stress-ng", "stream", "fio", "ibstat", "mlxlink", "ib_write_bw", "smartctl", "nvme", "ipmitool",
)  # fmt: skip
_STALE_NS = 5_000_000_000
Said = tuple[str, str, int]


def said(name: str, argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """(stdout, stderr, exit status); None hangs."""
    from . import across, burns, cards, diag, drives, hosts, imex, loads, sel, smi

    if name.endswith("_perf"):
        return loads.nccl(name[: -len("_perf")], argv, facts, state, peers)
    by_name = {
        "dcgmi": diag.dcgmi, "nvbandwidth": loads.nvbandwidth, "nvidia-smi": smi.nvidia_smi, "nvidia-imex-ctl": imex.imex_ctl,
        "mpirun": across.mpirun, "gpu_burn": burns.gpu_burn, "hpl.sh": burns.hpl, "xhpl": burns.hpl, "hpl-mxp.sh": burns.hpl_mxp,
        "stress-ng": hosts.stress_ng, "stream": hosts.stream, "fio": hosts.fio, "ibstat": cards.ibstat, "mlxlink": cards.mlxlink,
        "ib_write_bw": cards.ib_write_bw, "smartctl": drives.smartctl, "nvme": drives.nvme, "ipmitool": sel.ipmitool,
    }  # fmt: skip
    return by_name[name](argv, facts, state, peers)


def _peers(tray: str, state_of: Any) -> dict[str, bool]:
    """The compute trays beside this one, and whether the physics of each went on lately."""
    rack, out = os.path.dirname(os.path.abspath(tray)), {}
    for name in os.listdir(rack):
        if name[:1] == "t" and name[1:].isdigit() and os.path.exists(os.path.join(rack, name, "state")):
            other = state_of.open(os.path.join(rack, name, "state"))
            out[name] = time.monotonic_ns() - other.beat_ns < _STALE_NS
            other.close()
    return out


def main(tray: str, name: str, argv: list[str]) -> int:
    """Print what the tool says."""
    import importlib

    package = types.ModuleType("_tray")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["_tray"] = package
    if os.path.exists(os.path.join(tray, "clock")):
        importlib.import_module("_tray.emulate.clock").replace_clock(os.path.join(tray, "clock"))
    state_of = importlib.import_module("_tray.state").State
    with open(os.path.join(tray, "tray.json"), encoding="utf-8") as file:
        facts = {**json.load(file), "at": os.path.abspath(tray)}
    state = state_of.open(os.path.join(tray, "state"))
    found = importlib.import_module("_tray.tools.main").said(name, argv, facts, state, _peers(tray, state_of))
    while found is None:
        time.sleep(1)
    sys.stdout.write(found[0])
    sys.stderr.write(found[1])
    return int(found[2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
