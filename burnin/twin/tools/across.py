"""Tools that reach the other trays: dcgmi mndiag, and mpirun with nccl-tests. They read the states of the trays beside theirs.

mndiag: NVIDIA's JSON schema and printing code (no capture); mpirun's own words: captures of nccl-tests that failed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ..state import State
from . import loads
from .smi import Said
from .versions import version

_STALE_NS = 5_000_000_000


def beside(facts: Mapping[str, Any]) -> dict[str, tuple[Mapping[str, Any], State | None]]:
    """The rack's compute trays: name -> its facts and its state, None where it does not run."""
    rack, out = os.path.dirname(os.path.abspath(facts["at"])), dict[str, tuple[Mapping[str, Any], State | None]]()
    for name in sorted(os.listdir(rack)):
        at = os.path.join(rack, name)
        if name[:1] != "t" or not name[1:].isdigit() or not os.path.exists(os.path.join(at, "tray.json")):
            continue
        with open(os.path.join(at, "tray.json"), encoding="utf-8") as file:
            theirs = {**json.load(file), "at": at}
        try:
            state: State | None = State.open(os.path.join(at, "state"))
        except (OSError, ValueError):
            state = None
        runs = state is not None and time.monotonic_ns() - state.beat_ns < _STALE_NS
        out[name] = (theirs, state if runs else None)
    return out


def mndiag(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`mndiag --hostList A;B --run mnubergemm -j`: mpi_error where a host does not answer, else a row for each GPU."""
    words = dict(zip(argv, argv[1:]))
    specs, trays = [one for one in words.get("--hostList", "").split(";") if one], beside(facts)
    if version(facts, "dcgmi").startswith("3") or "-j" not in argv or not specs:
        return "", f"dcgmi: error: unknown arguments mndiag {' '.join(argv)}\n", 1
    by_address = {theirs["address"]: (theirs, its) for theirs, its in trays.values()}
    if len(by_address) < len(trays):  # a machine with one loopback address
        return "", "dcgmi: error: the trays of this twin share one address: no host can be told from another\n", 1
    found = [(spec, by_address.get(spec.partition(":")[0])) for spec in specs]
    name = "DCGM Multi-Node Diagnostic"
    if dark := [spec for spec, one in found if one is None or one[1] is None]:
        return json.dumps({name: name, "runtime_error": f"Failed to connect to hostengine on {', '.join(dark)}"}) + "\n", "", 226
    hosts, results, failed, stands = list[dict[str, Any]](), list[dict[str, Any]](), False, False
    for number, (spec, one) in enumerate(found):
        assert one is not None and one[1] is not None
        rows = [(own, one[1].gpus[own["position"]]) for own in one[0]["gpus"]]
        stands = stands or any(row["hung"] for _, row in rows)
        who = [{"entity_group_id": 1, "entity_group": "GPU", "entity_id": own["index"], "device_id": "31c2",
                "serial_num": own["serial"]} for own, _ in rows]  # fmt: skip
        hosts.append({
            "host_id": number, "hostname": spec, "dcgm_version": version(one[0], "dcgmi"), "driver_version": one[0]["driver"],
            "num_entities": len(who), "entities": who,
        })  # fmt: skip
        for own, row in rows:
            said = "GPU is lost." if row["lost"] else "A computation gave a wrong result." if row["sdc_ppm"] else ""
            result = {"host_id": number, "entity_group_id": 1, "entity_group": "GPU", "entity_id": own["index"],
                      "status": "Fail" if said else "Pass"}  # fmt: skip
            if said:
                result["warnings"] = [{"warning": said, "error_id": 95, "error_category": 7, "error_severity": 2}]
            failed = failed or bool(said)
            results.append(result)
    if stands:
        return None
    status = "Fail" if failed else "Pass"
    test = {"name": "MNUBERGEMM", "status": status, "test_summary": {"status": status}, "results": results}
    body = {
        name: name, "metadata": {"num_hosts": len(hosts), "num_entities": sum(h["num_entities"] for h in hosts)},
        "hosts": hosts, "test_categories": [{"category": "Multi-Node", "tests": [test]}],
    }  # fmt: skip
    return json.dumps(body, indent=2) + "\n", "", 226 if failed else 0


def mpirun(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`mpirun -np N ... OP_perf ARGS`: one rank for each GPU, tray after tray."""
    at = next((n for n, word in enumerate(argv) if os.path.basename(word).endswith("_perf")), None)
    if at is None:
        return "", "mpirun was unable to launch the specified application as it could not access or execute an executable\n", 134
    words, trays = dict(zip(argv[:at], argv[1:at])), beside(facts)
    if dark := [name for name, (_, its) in trays.items() if its is None]:
        return (
            "",
            f"ssh: connect to host {dark[0]} port 22: No route to host\nORTE was unable to reliably start one or more daemons.\n",
            1,
        )
    ranks = [
        (theirs, own, its.gpus[own["position"]]) for theirs, its in trays.values() if its is not None for own in theirs["gpus"]
    ]
    count = int(words.get("-np", words.get("-n", len(ranks))))
    if count > len(ranks):
        return "", f"There are not enough slots available in the system to satisfy the {count}\nslots that were requested.\n", 1
    if any(row["hung"] for _, _, row in ranks[:count]):
        return None
    op = os.path.basename(argv[at])[: -len("_perf")]
    return loads.collective(op, argv[at + 1 :], facts, [(t["host"], own, row) for t, own, row in ranks[:count]])
