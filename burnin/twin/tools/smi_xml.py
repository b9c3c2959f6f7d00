"""`nvidia-smi -q -x`, whole: every element of driver 580's, in its order and its words (form: captures of GB200 and GB300).

What a twin GPU has no thought of is said as an idle one of the captures says it; docs/twin.md names what differs from those.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ..state import Row, State

LOST, NONE = "GPU is lost", "N/A"
_EVENTS = (
    ("gpu_idle", 0x1), ("applications_clocks_setting", 0x2), ("sw_power_cap", 0x4), ("hw_slowdown", 0x8),
    ("hw_thermal_slowdown", 0x40), ("hw_power_brake_slowdown", 0x80), ("sync_boost", 0x10), ("sw_thermal_slowdown", 0x20),
    ("display_clocks_setting", 0x100),
)  # fmt: skip
_ACTIONS = {0: "None", 1: "Reset", 2: "Reboot", 3: "Drain P2P", 4: "Drain and Reset"}
_BANDS = ("max", "high", "partial", "low", "none")
_COUNT = ("sram_correctable", "sram_uncorrectable_parity", "sram_uncorrectable_secded")
_CLOCK_STEP_MHZ = 7.5
Tree = Mapping[str, Any]


def document(facts: Tree, state: State) -> str:
    """The whole text."""
    cuda = facts["cuda"]
    head = {
        "timestamp": time.strftime("%a %b %d %H:%M:%S %Y"),
        "driver_version": facts["driver"],
        "cuda_version": f"{cuda // 1000}.{cuda % 1000 // 10}",
        "attached_gpus": len(facts["gpus"]),
    }
    gpus = ""
    for own in facts["gpus"]:
        used = [(slot["pid"], slot["mem_bytes"]) for _, slot in state.slots() if slot["gpu"] == own["position"]]
        body = _gpu(facts, own, state.gpus[own["position"]], state, used)
        gpus += f'\t<gpu id="{own["bdf"].upper()}">\n{"".join(_tag(k, v, 2) for k, v in body.items())}\t</gpu>\n\n'
    top = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">\n<nvidia_smi_log>\n'
    return top + "".join(_tag(k, v, 1) for k, v in head.items()) + "\n" + gpus + "</nvidia_smi_log>\n"


def _tag(name: str, value: Any, depth: int) -> str:
    tabs = "\t" * depth
    if isinstance(value, dict):
        return f"{tabs}<{name}>\n" + "".join(_tag(k, v, depth + 1) for k, v in value.items()) + f"{tabs}</{name}>\n"
    if isinstance(value, list):
        return "".join(_tag(name, one, depth) for one in value)
    return f"{tabs}<{name}>{value}</{name}>\n"


def _gpu(facts: Tree, own: Tree, row: Row, state: State, used: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Elements of one GPU; of a lost one those that are asked of it say so."""
    out = {
        **_names(facts, own),
        **_links(facts, own, row),
        **_work(facts, row, used),
        **_errors(facts, row),
        **_watts(facts, row),
    }
    out.update(_clocks(facts, row))
    out["fabric"] = _fabric(facts, row)
    out["supported_clocks"] = {"supported_mem_clock": {"value": _mhz(facts["facts"]["clock_mem_mhz"]), **_steps(facts)}}
    running = [
        {"gpu_instance_id": NONE, "compute_instance_id": NONE, "pid": pid, "type": "C", "process_name": "python3",
         "used_memory": _mib(size)} for pid, size in used
    ]  # fmt: skip
    out["processes"] = {"process_info": running} if running else ""
    out["accounted_processes"], out["capabilities"] = "", {"egm": "disabled"}
    if row["lost"]:
        for name in ("serial", "uuid", "vbios_version", "gpu_recovery_action", "remapped_rows"):
            out[name] = LOST
        for name in ("utilization", "fb_memory_usage", "ecc_errors", "temperature", "gpu_power_readings", "clocks"):
            out[name] = _lost(out[name])
    return out


def _lost(value: Any) -> Any:
    return {name: _lost(one) for name, one in value.items()} if isinstance(value, dict) else LOST


def _na(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, NONE)


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def _mhz(value: Any) -> str:
    return f"{int(value)} MHz"


def _w(value: Any) -> str:
    return NONE if value is None else f"{value:.2f} W"


def _names(facts: Tree, own: Tree) -> dict[str, Any]:
    """Who the GPU is."""
    fixed, number = facts["facts"], int(own["bdf"].split(":")[0], 16) << 16 | int(own["bdf"].split(":")[1], 16) << 8
    blackwell = fixed["architecture"] >= 10
    platform = {
        "chassis_serial_number": facts["chassis"], "slot_number": facts["slot"], "tray_index": facts["tray_index"], "host_id": 1,
        "peer_type": "Switch Connected", "module_id": own["position"] + 1, "gpu_fabric_guid": f"0x{own['guid']}",
    }  # fmt: skip
    return {
        "product_name": fixed["name"], "product_brand": "NVIDIA", "product_architecture": "Blackwell" if blackwell else "Hopper",
        "display_mode": "Requested functionality has been deprecated", "display_attached": "Yes", "display_active": "Disabled",
        "persistence_mode": "Enabled", "addressing_mode": "ATS" if fixed["c2c_links"] else "None",
        "mig_mode": {"current_mig": "Disabled", "pending_mig": "Disabled"}, "mig_devices": "None", "accounting_mode": "Disabled",
        "accounting_mode_buffer_size": 4000, "driver_model": _na("current_dm", "pending_dm"), "serial": own["serial"],
        "uuid": own["uuid"], "pdi": f"0x{own['pdi']:016x}", "minor_number": own["index"], "vbios_version": own["vbios"],
        "multigpu_board": "No", "board_id": f"0x{number:x}", "board_part_number": fixed["board_part"],
        "gpu_part_number": fixed["gpu_part"], "gpu_fru_part_number": NONE,
        "platformInfo": platform if fixed["platform_info"] else _na(*platform),
        "inforom_version": {
            "img_version": fixed["inforom"], "oem_object": fixed["inforom_oem"], "ecc_object": fixed["inforom_ecc"],
            "pwr_object": NONE,
        },
        "inforom_bbx_flush": _na("latest_timestamp", "latest_duration"),
        "gpu_operation_mode": _na("current_gom", "pending_gom"), "c2c_mode": "Enabled" if fixed["c2c_links"] else "Disabled",
        "gpu_virtualization_mode": {"virtualization_mode": "None", **_na("host_vgpu_mode", "vgpu_heterogeneous_mode")},
    }  # fmt: skip


def _links(facts: Tree, own: Tree, row: Row) -> dict[str, Any]:
    """How it is joined to its host."""
    fixed, (domain, bus, device) = facts["facts"], own["bdf"].upper().split(":")
    gen = fixed["pcie_gen"]
    return {
        "gpu_recovery_action": _ACTIONS.get(row["recovery_action"], "None"), "gsp_firmware_version": facts["driver"],
        "ibmnpu": _na("relaxed_ordering_mode"),
        "pci": {
            "pci_bus": bus, "pci_device": device.split(".")[0], "pci_domain": domain[-4:], "pci_base_class": 3,
            "pci_sub_class": 2,
            "pci_device_id": f"{fixed['pci_device']:08X}", "pci_bus_id": own["bdf"].upper(),
            "pci_sub_system_id": f"{fixed['pci_subsystem']:08X}",
            "pci_gpu_link_info": {
                "pcie_gen": {
                    "max_link_gen": gen, "current_link_gen": gen, "device_current_link_gen": gen,
                    "max_device_link_gen": 6 if fixed["architecture"] >= 10 else gen,
                    "max_host_link_gen": NONE,
                },
                "link_widths": {"max_link_width": "16x", "current_link_width": "16x"},
            },
            "pci_bridge_chip": _na("bridge_chip_type", "bridge_chip_fw"), "replay_counter": row["pcie_replays"],
            "replay_rollover_counter": 0, "tx_util": "0 KB/s", "rx_util": "0 KB/s", "atomic_caps_outbound": NONE,
            "atomic_caps_inbound": "FETCHADD_32 FETCHADD_64 SWAP_32 SWAP_64 CAS_32 CAS_64",
        },
        "fan_speed": NONE, "performance_state": "P0",
    }  # fmt: skip


def _work(facts: Tree, row: Row, used: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What it does, and with how much memory."""
    fixed, held = facts["facts"], sum(size for _, size in used)
    total, reserved, bar = fixed["memory_mib"], fixed["reserved_mib"], fixed["bar1_mib"]
    reasons = {f"clocks_event_reason_{name}": "Active" if row["reasons"] & bit else "Not Active" for name, bit in _EVENTS}
    counted = {
        "sw_power_cap": row["sw_power_ns"], "sync_boost": 0, "sw_therm_slowdown": row["sw_thermal_ns"],
        "hw_therm_slowdown": row["hw_thermal_ns"], "hw_power_brake": 0,
    }  # fmt: skip
    frames = {"session_count": 0, "average_fps": 0, "average_latency": 0}
    idle = {f"{name}_util": "0 %" for name in ("memory", "encoder", "decoder", "jpeg", "ofa")}
    return {
        "clocks_event_reasons": reasons,
        "clocks_event_reasons_counters": {f"clocks_event_reasons_counters_{k}": f"{v // 1000} us" for k, v in counted.items()},
        "sparse_operation_mode": NONE,
        "fb_memory_usage": {
            "total": f"{total} MiB", "reserved": f"{reserved} MiB", "used": _mib(held),
            "free": f"{total - reserved - (held >> 20) + 1} MiB",  # the driver rounds each by itself
        },
        "bar1_memory_usage": {"total": f"{bar} MiB", "used": "0 MiB", "free": f"{bar} MiB"},
        "cc_protected_memory_usage": dict.fromkeys(("total", "used", "free"), "0 MiB"),
        "compute_mode": "Default", "utilization": {"gpu_util": f"{row['util_pct']} %", **idle},
        "encoder_stats": frames, "fbc_stats": frames,
        "dram_encryption_mode": _na("current_dram_encryption", "pending_dram_encryption"),
        "ecc_mode": {"current_ecc": "Enabled", "pending_ecc": "Enabled"},
    }  # fmt: skip


def _errors(facts: Tree, row: Row) -> dict[str, Any]:
    """What its memory has seen."""

    def counts(kind: str) -> dict[str, Any]:
        dram = {"dram_correctable": row[f"ecc_ce_{kind}"], "dram_uncorrectable": row[f"ecc_ue_{kind}"]}
        return {**dict.fromkeys(_COUNT, 0), **dram}

    banks = {f"row_remapper_histogram_{band}": "0 bank(s)" for band in _BANDS}
    banks["row_remapper_histogram_max"] = f"{facts['facts']['remap_banks']} bank(s)"
    pages = _na("retired_count", "retired_pagelist")
    return {
        "ecc_errors": {
            "volatile": counts("volatile"), "aggregate": {**counts("aggregate"), "sram_threshold_exceeded": "No"},
            "aggregate_uncorrectable_sram_sources": dict.fromkeys(
                ("sram_l2", "sram_sm", "sram_microcontroller", "sram_pcie", "sram_other"), 0
            ),
            "channel_repair_pending": "No", "tpc_repair_pending": "No", "unrepairable_memory": "No",
        },
        "retired_pages": {
            "multiple_single_bit_retirement": pages, "double_bit_retirement": pages,
            **_na("pending_blacklist", "pending_retirement"),
        },
        "remapped_rows": {
            "remapped_row_corr": 0, "remapped_row_corr_inactive": 0, "remapped_row_unc": row["remap_unc"],
            "remapped_row_unc_inactive": 0, "remapped_row_pending": "Yes" if row["remap_pending"] else "No",
            "remapped_row_failure": "No", "row_remapper_histogram": banks,
        },
    }  # fmt: skip


def _watts(facts: Tree, row: Row) -> dict[str, Any]:
    """Heat and power."""
    fixed = facts["facts"]

    def meter(limit: Any, least: Any, now: Any, mean: Any) -> dict[str, str]:
        limits = dict.fromkeys(("current_power_limit", "requested_power_limit", "default_power_limit"), _w(limit))
        return {
            "power_state": "P0", "average_power_draw": _w(mean), "instant_power_draw": _w(now), **limits,
            "min_power_limit": _w(least), "max_power_limit": _w(limit),
        }  # fmt: skip

    module_w = row["module_power_mw"] / 1000 if fixed["module_limit_w"] is not None else None
    return {
        "temperature": {
            "gpu_temp": f"{row['temp_c']} C", "gpu_temp_tlimit": f"{row['margin_c']} C",
            "gpu_temp_max_tlimit_threshold": f"{fixed['shutdown_margin_c']} C",
            "gpu_temp_slow_tlimit_threshold": f"{fixed['slowdown_margin_c']} C", "gpu_temp_max_gpu_tlimit_threshold": "0 C",
            "gpu_target_temperature": NONE, "memory_temp": f"{row['hbm_c']} C", "gpu_temp_max_mem_tlimit_threshold": "0 C",
        },
        "supported_gpu_target_temp": _na("gpu_target_temp_min", "gpu_target_temp_max"),
        "gpu_power_readings": meter(
            fixed["limit_w"], fixed["limit_min_w"], row["power_mw"] / 1000, row["power_avg_mw"] / 1000
        ),
        "gpu_memory_power_readings": {"average_power_draw": _w(row["hbm_power_mw"] / 1000), "instant_power_draw": NONE},
        "module_power_readings": meter(fixed["module_limit_w"], fixed["module_limit_min_w"], module_w, module_w),
        "power_smoothing": "Insufficient Permissions",
        "power_profiles": _na("power_profile_requested_profiles", "power_profile_enforced_profiles"),
    }  # fmt: skip


def _clocks(facts: Tree, row: Row) -> dict[str, Any]:
    fixed = facts["facts"]
    top, memory, video = _mhz(fixed["clock_max_mhz"]), _mhz(fixed["clock_mem_mhz"]), _mhz(fixed["clock_video_mhz"])
    now, wished = _mhz(row["clock_mhz"]), {"graphics_clock": top, "mem_clock": memory}
    return {
        "clocks": {"graphics_clock": now, "sm_clock": now, "mem_clock": memory, "video_clock": video},
        "applications_clocks": wished, "default_applications_clocks": wished, "deferred_clocks": _na("mem_clock"),
        "max_clocks": {
            "graphics_clock": top, "sm_clock": top, "mem_clock": memory, "video_clock": _mhz(fixed["clock_video_max_mhz"]),
        },
        "max_customer_boost_clocks": {"graphics_clock": top}, "clock_policy": _na("auto_boost", "auto_boost_default"),
    }  # fmt: skip


def _steps(facts: Tree) -> dict[str, list[str]]:
    """Clocks that it can be locked to, highest first; the driver cuts halves off."""
    fixed = facts["facts"]
    low, steps = fixed["clock_idle_mhz"], int((fixed["clock_max_mhz"] + 0.5 - fixed["clock_idle_mhz"]) // _CLOCK_STEP_MHZ)
    return {"supported_graphics_clock": [_mhz(low + _CLOCK_STEP_MHZ * n) for n in range(steps, -1, -1)]}


def _fabric(facts: Tree, row: Row) -> dict[str, Any]:
    bad = bool(row["unhealthy"])  # State and Status go on saying Completed and Success, as captured
    health = {
        "summary": "Unhealthy" if bad else "Healthy", "bandwidth": "Full", "route_recovery_in_progress": "False",
        "route_unhealthy": "True" if bad else "False",
        "access_timeout_recovery": "False", "incorrect_configuration": "None", "partition_assigned": NONE,
    }  # fmt: skip
    clique = facts["facts"]["fabric_clique"]
    if clique is None:
        return {**_na("state", "status", "cliqueId", "clusterUuid"), "health": _na(*health)}
    cluster = str(uuid.UUID(facts["cluster_uuid"]))
    return {"state": "Completed", "status": "Success", "cliqueId": clique, "clusterUuid": cluster, "health": health}
