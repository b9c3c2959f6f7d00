"""Which fault moves which signals: what tests hold the twin to, and what `python -m bench.twin --signals` prints in docs/twin.md.

MOVES: readings of a recorded rack of two hours (tests/unit/test_twin_batch.py). LIVE: what is read of a live rack at its seams
in half a minute with t00 loaded (tests/unit/test_twin_signals.py). PROCESSES: faults of the processes themselves, shown by the
tests named.
"""

from __future__ import annotations

HEAT = {"gpu.temp", "gpu.tlimit", "gpu.clock_sm", "load.launches"}
"""A warmer die leaks, so its clock at the power limit falls, and with it the work done."""
IDLES = {"gpu.power", "gpu.power_avg", "gpu.energy", "module.power", "tray.power", "hbm.temp"}
"""And it draws more at rest, which the plate feels, and the memory on it."""
SLOW = (HEAT | IDLES) - {"hbm.temp"}
"""Within two hours not by a degree of its memory."""
RETURN = {"coolant.return_temp", "psu.power"}
"""What all GPUs draw, the loop carries and the shelves give."""
MARGIN = {"nvlink.raw_ber"}
MOVES: dict[str, tuple[str, set[str]]] = {
    "tim_void": ("t07.g2:1", HEAT | IDLES),
    "coldplate_clog": ("t07.g2:0.7", HEAT | IDLES),
    "plate_tilt": ("t07.g2:1", HEAT | IDLES),
    "hbm_tim": ("t07.g2:2", {"hbm.temp"}),
    "leaky_die": ("t07.g2:2", HEAT | IDLES),
    "weak_vmin": ("t07.g2:0.2", HEAT | IDLES),
    "vr_loss": ("t07.g2", HEAT | IDLES),
    "clock_cap": ("t07.g2:0.4", HEAT | IDLES | {"throttle.sw_power", "psu.power"}),
    "tsensor_off": ("t07.g2", {"gpu.temp", "gpu.tlimit"}),
    "psensor_gain": ("t07.g2", HEAT | IDLES),
    "tray_flow": ("t07", HEAT | IDLES | {"coolant.flow", "coolant.return_temp"}),
    "tim_pumpout": ("t07.g2:10", SLOW),
    "dryout": ("t07.g2:1", SLOW),
    "ecc_ce_rate": ("t07.g2:20", {"ecc.dram_ce"}),
    "row_cluster": ("t07.g2", {"ecc.dram_ce", "remap.correctable", "remap.pending"}),
    "ecc_ue": ("t07.g2", {"ecc.dram_ue", "remap.uncorrectable", "remap.pending"}),
    "sram_ue": ("t07.g2", {"ecc.sram_ue"}),
    "sdc": ("t07.g2", {"load.wrong"}),
    "slow_gpu": ("t07.g2", {"load.launches", "gpu.wait"}),
    "bw_loss": ("t07.g2:0.02", {"gpu.bandwidth"}),
    "xid": ("t07.g2", set()),
    "sensor_stuck": ("t07.g2:600", {"gpu.temp", "gpu.tlimit"}),
    "fabric_unhealthy": ("t07.g2", {"fabric.health"}),
    "c2c_crc": ("t07.g2:20", {"c2c.crc", "c2c.replay"}),
    "pcie_replay": ("t07.g2", {"pcie.replay"}),
    "pcie_downtrain": ("t07.n2", {"pcie.width"}),
    "nic_flap": ("t07.n2", {"nic.link_flaps"}),
    "nvme_media": ("t07.d1", {"nvme.media_errors"}),
    "cpu_edac": ("t07", {"cpu.edac_ue"}),
    "link_margin": ("t07.g2.l13:1.5", MARGIN),
    "link_down": ("t07.g2.l13", {"nvlink.state", "nvlink.speed", "nvlink.recovery_failed"}),
    "lane_flap": ("t07.g2.l13", {"nvlink.recovery_ok"}),
    "cartridge_margin": ("x2", MARGIN),
    "switchport_margin": ("s3.a1.p44", MARGIN),
    "cpu_hot": ("t07.c1", {"cpu.temp"}),
    "leak": ("t07", {"leak.voltage", "leak.state"}),
    "leak_decay": ("manifold", {"coolant.pressure"}),
    "cdu_lowdp": ("cdu", HEAT | IDLES | {"coolant.return_temp", "coolant.flow", "coolant.dp", "coolant.pressure", "pump.speed"}),
    "supply_warm": ("cdu", HEAT | IDLES | RETURN | {"coolant.supply_temp"}),
    "pump_osc": ("cdu", {"gpu.temp", "gpu.tlimit", "hbm.temp", "coolant.flow", "pump.speed"}),
    "flowmeter_gain": ("cdu", {"coolant.flow"}),
    "rtd_offset": ("cdu", {"coolant.return_temp"}),
    "shelf_lost": ("p3", {"psu.power"}),
    "psu_imbalance": ("p3.u2", {"psu.power"}),
}
"""Kind -> where, and everything that it moves."""
SILENT = {"gpu_off_bus": "t07.g2", "nvml_hang": "t07.g2", "tray_dead": "t07", "tray_hang": "t07"}
"""Kinds after which nothing more is read of their part."""
ELSEWHERE = {"x2": ".l", "s3.a1.p44": "t11.g0.l7", "p3": "p", "p3.u2": "p"}
LOGGED = {"ecc_ue", "sram_ue", "row_cluster", "xid", "gpu_off_bus", "nic_flap", "nvme_media", "cpu_edac"}

# ---------------------------------------------------------------- live

_HOT = {"gpu.temp", "gpu.tlimit", "gpu.clock_sm", "hbm.temp"}
_WATTS = {"gpu.energy", "gpu.power", "gpu.power_avg", "module.power", "tray.power", "tray.return_temp"}
_PUMPED = {"coolant.dp", "coolant.filter", "coolant.flow", "coolant.pressure", "pump.speed"}
_COUNTS = {"nvlink.effective_errors", "nvlink.symbol_errors", "nvlink.effective_ber", "nvlink.symbol_ber"}
NVML = {"all that NVML says"}
LIVE: dict[str, tuple[str, set[str]]] = {
    "tim_void": ("t00.g2", _HOT | _WATTS),
    "coldplate_clog": ("t00.g2", _HOT | _WATTS),
    "plate_tilt": ("t00.g2", _HOT | _WATTS),
    "hbm_tim": ("t00.g2", {"hbm.temp"}),
    "leaky_die": ("t00.g2", _HOT | _WATTS),
    "weak_vmin": ("t00.g2:0.4", _HOT | _WATTS),
    "vr_loss": ("t00.g2:0.4", _HOT | _WATTS),
    "clock_cap": ("t00.g2", _HOT | _WATTS | {"throttle.sw_power", "psu.power"}),
    "tsensor_off": ("t00.g2", {"gpu.temp", "gpu.tlimit"}),
    "psensor_gain": ("t00.g2", _HOT | _WATTS),
    "tray_flow": ("t00", _HOT | _WATTS | _PUMPED),
    "ecc_ce_rate": ("t00.g2:2000", {"ecc.dram_ce"}),
    "ecc_ue": ("t00.g2", {"ecc.dram_ue", "remap.pending", "remap.uncorrectable", "gpu.recovery_action", "CUDA contexts", "xid"}),
    "sdc": ("t00.g2", {"CUDA digests"}),
    "slow_gpu": ("t00.g2", {"NCCL pace"}),
    "bw_loss": ("t00.g2", {"CUDA copies"}),
    "xid": ("t00.g2", {"xid"}),
    "pcie_replay": ("t00.g2", {"pcie.replay", "pcie.aer_correctable"}),
    "pcie_downtrain": ("t00.n2", {"pcie.width"}),
    "nic_flap": ("t00.n2", {"nic.link_flaps", "nic.ports_up", "nic.speed"}),
    "nic_down": ("t00.n2:5", {"nic.link_flaps", "nic.ports_up", "nic.speed"}),
    "nvme_media": ("t00.d1", {"nvme.media_errors"}),
    "cpu_edac": ("t00", {"cpu.edac_ue", "BMC's log"}),
    "hbm_bits": ("t00.g2", {"CUDA memory"}),
    "reset_lost": ("t00.g2", {"resets"}),
    "fabric_unhealthy": ("t00.g2:5", {"fabric.health"}),
    "other_firmware": ("t00.g2", {"versions"}),
    "link_margin": ("t00.g2.l13:5", _COUNTS | {"nvlink.raw_ber"}),
    "link_down": ("t00.g2.l13:5", {"nvlink.state", "nvlink.speed", "nvlink.recovery_failed"}),
    "lane_flap": ("t00.g2.l13", {"nvlink.recovery_ok"}),
    "cpu_hot": ("t00.c1", {"cpu.temp"}),
    "leak": ("t00:60", {"leak.voltage", "coolant.level", "coolant.pressure", "BMC's log"}),
    "leak_decay": ("manifold:300", {"coolant.pressure"}),
    "cdu_lowdp": ("cdu:0.5", _HOT | _WATTS | _PUMPED | {"coolant.return_temp"}),
    "supply_warm": ("cdu", _HOT | _WATTS | {"coolant.return_temp", "coolant.supply_temp"}),
    "pump_osc": ("cdu", _HOT | _WATTS | _PUMPED | {"coolant.return_temp"}),
    "flowmeter_gain": ("cdu", {"coolant.flow"}),
    "rtd_offset": ("cdu", {"coolant.return_temp"}),
    "shelf_lost": ("p3", {"psu.power"}),
    "psu_imbalance": ("p3.u2", {"psu.power"}),
    "switch_flow": ("s3", _PUMPED | {"tray.return_temp"} | (_WATTS - {"tray.return_temp"})),
    "wrong_serial": ("t00.g2", {"serial"}),
    "gpu_off_bus": (
        "t00.g2:5",
        NVML | {"xid", "cpu.temp", "cpu.util", "host.load1", "psu.power", "tray.power", "tray.return_temp"},
    ),
    "nvml_hang": ("t00.g2:5", NVML),
    "tray_dead": ("t00:5", {"everything"}),
    "tray_hang": ("t00:5", {"everything"}),
}
"""Kind -> what is planted, and everything that it moves. What is told in the kernel log is in LOGGED."""
LOGGED_LIVE = {"ecc_ue", "xid", "gpu_off_bus", "nic_flap", "nic_down", "nvme_media", "cpu_edac"}
PROCESSES: dict[str, tuple[str, str]] = {
    "bmc_dead": ("Redfish answers", "test_a_dead_bmc_refuses_and_its_neighbour_does_not"),
    "bmc_slow": ("Redfish answers", "test_bad_manners_are_slowness_and_503"),
    "bmc_errors": ("Redfish answers", "test_bad_manners_are_slowness_and_503"),
    "bmc_lies": ("state of leak detectors", "test_a_bmc_that_lies_denies_its_leak_and_one_that_is_stale_says_what_it_said"),
    "bmc_stale": ("Redfish answers", "test_a_bmc_that_lies_denies_its_leak_and_one_that_is_stale_says_what_it_said"),
    "boot_intermittent": ("devices after a boot", "test_a_power_cycle_ends_a_tray_and_boots_it_and_a_device_may_be_missing"),
    "switchport_margin": ("the port's errors in NVOS", "test_a_port_without_margin_counts_errors_at_its_own_end"),
    "slow_ssh": ("SSH answers", "test_a_slow_tray_and_one_with_another_key"),
    "wrong_host_key": ("SSH host key", "test_a_slow_tray_and_one_with_another_key"),
    "clock_skew": ("clock of the day", "test_a_full_disk_and_a_wrong_clock_are_the_trays_own"),
    "proc_stuck": ("CUDA calls", "test_a_process_in_a_stuck_driver_outlives_its_kill_and_ends_with_the_tray"),
    "psu_trip": ("the shelf's other supplies, once one is off", "test_a_supply_that_trips_when_another_of_its_shelf_is_off"),
    "host_bits": ("stress-ng, STREAM", "test_what_is_planted_is_found_on_its_part"),
    "tray_disk_full": ("writes to the home", "test_a_full_disk_and_a_wrong_clock_are_the_trays_own"),
}
"""Kind -> what it moves, and the test that shows it."""
