"""nvidia-smi: -q -x, nvlink -s, --query-gpu, --gpu-reset. Layout: a 4-GPU GB300 node, driver 580 (NVIDIA/k8s-test-infra)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from ..state import Row, State

Said = tuple[str, str, int]
"""Standard output, standard error, exit status."""
_LOST = "GPU is lost"


def _tag(name: str, value: object, depth: int) -> str:
    tabs = "\t" * depth
    if isinstance(value, dict):
        return f"{tabs}<{name}>\n" + "".join(_tag(k, v, depth + 1) for k, v in value.items()) + f"{tabs}</{name}>\n"
    return f"{tabs}<{name}>{value}</{name}>\n"


def _fabric(facts: Mapping[str, Any]) -> dict[str, Any]:
    absent = {"state": "N/A", "status": "N/A", "cliqueId": "N/A", "clusterUuid": "N/A", "health": {"summary": "N/A"}}
    clique = facts["facts"]["fabric_clique"]
    if clique is None:
        return absent
    health = {
        "summary": "Healthy", "bandwidth": "Full", "route_recovery_in_progress": "False", "route_unhealthy": "False",
        "access_timeout_recovery": "False", "incorrect_configuration": "None", "partition_assigned": "N/A",
    }  # fmt: skip
    cluster = str(uuid.UUID(facts["cluster_uuid"]))
    return {"state": "Completed", "status": "Success", "cliqueId": clique, "clusterUuid": cluster, "health": health}


def _errors(row: Row, kind: str) -> dict[str, Any]:
    return {
        "sram_correctable": 0, "sram_uncorrectable_parity": 0, "sram_uncorrectable_secded": 0,
        "dram_correctable": row[f"ecc_ce_{kind}"], "dram_uncorrectable": row[f"ecc_ue_{kind}"],
    }  # fmt: skip


def _gpu(facts: Mapping[str, Any], own: Mapping[str, Any], row: Row) -> dict[str, Any]:
    fixed = facts["facts"]
    out: dict[str, Any] = {"product_name": fixed["name"], "product_brand": "NVIDIA", "persistence_mode": "Enabled"}
    if row["lost"]:
        return {**out, **dict.fromkeys(("serial", "uuid", "vbios_version", "ecc_mode", "power_state"), _LOST)}
    out.update({"serial": own["serial"], "uuid": own["uuid"], "vbios_version": fixed["vbios"]})
    if fixed["platform_info"]:
        out["platformInfo"] = {
            "chassis_serial_number": facts["chassis"], "slot_number": facts["slot"], "tray_index": facts["tray_index"],
            "host_id": 1, "peer_type": "Switch Connected", "module_id": own["position"] + 1,
            "gpu_fabric_guid": f"0x{own['guid']}",
        }  # fmt: skip
    pending = "Yes" if row["remap_pending"] else "No"
    actions = {0: "None", 1: "Reset", 2: "Reboot", 3: "Drain P2P", 4: "Drain and Reset"}
    return {
        **out,
        "gpu_recovery_action": actions.get(row["recovery_action"], "None"),
        "clocks_event_reasons": {"clocks_event_reason_hw_slowdown": "Active" if row["reasons"] & 0x8 else "Not Active"},
        "utilization": {"gpu_util": f"{row['util_pct']} %"},
        "ecc_mode": {"current_ecc": "Enabled", "pending_ecc": "Enabled"},
        "ecc_errors": {
            "volatile": _errors(row, "volatile"),
            "aggregate": {**_errors(row, "aggregate"), "sram_threshold_exceeded": "No"},
            "channel_repair_pending": "No", "tpc_repair_pending": "No", "unrepairable_memory": "No",
        },
        "remapped_rows": {
            "remapped_row_corr": 0, "remapped_row_unc": row["remap_unc"], "remapped_row_pending": pending,
            "remapped_row_failure": "No",
        },
        "temperature": {"gpu_temp": f"{row['temp_c']} C", "gpu_temp_tlimit": f"{row['margin_c']} C"},
        "gpu_power_readings": {"instant_power_draw": f"{row['power_mw'] / 1000:.2f} W"},
        "clocks": {"sm_clock": f"{row['clock_mhz']} MHz", "mem_clock": f"{fixed['clock_mem_mhz']} MHz"},
        "fabric": _fabric(facts),
    }  # fmt: skip


def _xml(facts: Mapping[str, Any], state: State) -> str:
    cuda = facts["cuda"]
    head = {
        "driver_version": facts["driver"],
        "cuda_version": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "attached_gpus": len(facts["gpus"]),
    }
    gpus = ""
    for own in facts["gpus"]:
        body = "".join(_tag(k, v, 2) for k, v in _gpu(facts, own, state.gpus[own["position"]]).items())
        gpus += f'\t<gpu id="{own["bdf"].upper()}">\n{body}\t</gpu>\n'
    top = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">\n<nvidia_smi_log>\n'
    return top + "".join(_tag(k, v, 1) for k, v in head.items()) + gpus + "</nvidia_smi_log>\n"


def _nvlink(facts: Mapping[str, Any], state: State) -> str:
    out, speed = [], f"{facts['facts']['nvlink_mbps'] / 1000:.3f} GB/s"
    for own in facts["gpus"]:
        out.append(f"GPU {own['index']}: {facts['facts']['name']} (UUID: {own['uuid']})")
        links = state.links[own["position"]][: facts["facts"]["nvlinks"]]
        out += [f"\t Link {n}: {'<inactive>' if link['down'] else speed}" for n, link in enumerate(links)]
    return "\n".join(out) + "\n"


def _query(facts: Mapping[str, Any], state: State, argv: list[str]) -> Said:
    fields = next(word for word in argv if word.startswith("--query-gpu=")).partition("=")[2].split(",")
    wanted = argv[argv.index("-i") + 1] if "-i" in argv else ""
    lines = []
    for own in facts["gpus"]:
        row = state.gpus[own["position"]]
        known = {
            "index": own["index"], "name": facts["facts"]["name"], "uuid": own["uuid"], "serial": own["serial"],
            "pci.bus_id": own["bdf"].upper(), "temperature.gpu": row["temp_c"], "power.draw": f"{row['power_mw'] / 1000:.2f}",
            "clocks.sm": row["clock_mhz"], "driver_version": facts["driver"], "ecc.errors.uncorrected.volatile.total":
            row["ecc_ue_volatile"],
        }  # fmt: skip
        if bad := next((field for field in fields if field not in known), ""):
            return f'Field "{bad}" is not a valid field to query.\n', "", 2
        if wanted in ("", str(own["index"])):
            lines.append(", ".join("[GPU is lost]" if row["lost"] else str(known[field]) for field in fields))
    return ("\n".join(lines) + "\n", "", 0) if lines else ("No devices were found\n", "", 6)


def _reset(facts: Mapping[str, Any], state: State) -> Said:
    """All GPUs at once; one that is lost cannot be. Words as nvidia-smi has them; who else holds the driver is not known here."""
    rows = [(own["bdf"].upper(), state.gpus[own["position"]]) for own in facts["gpus"]]
    if gone := [bdf for bdf, row in rows if row["lost"]]:
        return "", "".join(f"Unable to determine the device handle for GPU {bdf}: GPU is lost.\n" for bdf in gone), 255
    for _, row in rows:
        row["remap_pending"] = row["recovery_action"] = 0
    return "".join(f"GPU {bdf} was successfully reset.\n" for bdf, _ in rows) + "All done.\n", "", 0


def nvidia_smi(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """None where a GPU hangs the driver."""
    if any(state.gpus[own["position"]]["hung"] for own in facts["gpus"]):
        return None
    if argv[:2] == ["-q", "-x"]:
        return _xml(facts, state), "", 0
    if argv in (["--gpu-reset"], ["-r"]):
        return _reset(facts, state)
    if argv[:2] == ["nvlink", "-s"]:
        return _nvlink(facts, state), "", 0
    if any(word.startswith("--query-gpu=") for word in argv):
        return _query(facts, state, argv)
    return f"Invalid combination of input arguments: {' '.join(argv)}\n", "", 2
