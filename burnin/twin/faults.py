"""What can be planted in a twin rack: one row per kind, and the `KIND:PART[:SEVERITY]` that people type.

A kind says what it does to the machine, never how it might be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from burnin.errors import InputError
from burnin.rack.parts import is_part, kind
from burnin.telemetry.series import Floats

GPU, TRAY, LINK = "GPU", "compute tray", "NVLink"
NIC, NVME = "NIC", "NVMe"
CARTRIDGE, ASIC, PORT = "cable cartridge", "NVSwitch", "NVSwitch port"
LIVE, RECORDED = "live", "recorded"
"""Seams: a rack that runs behind SSH, and one that is written down (`twin record`)."""
CPU, BMC, SWITCH, SHELF, PSU, CDU, MANIFOLD = "CPU", "BMC", "switch tray", "power shelf", "PSU", "cdu", "manifold"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: which parts it takes, what SEVERITY counts (unit, least, most) and its default."""

    kind: str
    parts: tuple[str, ...]
    unit: str
    default: float
    least: float
    most: float
    about: str
    whole: bool = False
    starts: bool = False
    """True where `@SECONDS` may say when it begins."""
    seams: tuple[str, ...] = (LIVE, RECORDED)

    @property
    def has_severity(self) -> bool:
        """False for what is either there or not."""
        return self.most > self.least


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault in one part of one rack; `severity` in its kind's unit. `start_s`: when it begins, in seconds after the
    rack's first load; None for what was so from the beginning, or says its time itself. In recorded racks it may grow to its
    severity over `over_s` seconds, along a line or with the square of time."""

    kind: str
    part: str
    severity: float
    start_s: float | None = None
    growth: Literal["step", "linear", "square"] = "step"
    over_s: float = 0.0

    @property
    def moves(self) -> bool:
        """False for what is there, in full, from the beginning."""
        return self.start_s is not None or self.growth != "step"

    def part_of_full(self, loaded_s: Floats) -> Floats:
        """How much of its severity it has, 0 to 1, so long after the rack's first load (below 0: before)."""
        since = loaded_s - self.start_s if self.start_s is not None else np.full(loaded_s.shape, np.inf)
        if self.growth == "step" or self.over_s <= 0:
            return (since >= 0).astype(float)
        if self.start_s is None:
            since = loaded_s
        share: Floats = np.clip(since / self.over_s, 0.0, 1.0)
        return share if self.growth == "linear" else share**2

    def __str__(self) -> str:
        severity = f":{self.severity:g}" if KINDS[self.kind].has_severity else ""
        return f"{self.kind}:{self.part}{severity}" + ("" if self.start_s is None else f"@{self.start_s:g}")


_AFTER = "seconds after the tray's first load begins"

KINDS: dict[str, Kind] = {
    k.kind: k
    for k in (
        Kind(
            "tim_void", (GPU,), "rise of the TIM's thermal resistance, 1 = +100 %", 1.5, 0.05, 20,
            "A void in the thermal interface between die and cold plate: the GPU runs hotter per watt.",
        ),
        Kind(
            "tray_flow", (TRAY,), "fraction of the tray's coolant flow lost, 0 to 1", 0.4, 0.01, 1,
            "A kinked hose or half-seated coupling: every GPU of the tray runs hotter per watt.", starts=True,
        ),
        Kind(
            "clock_cap", (GPU,), "fraction of the maximum clock lost, 0 to 1", 0.3, 0.01, 0.95,
            "The GPU never clocks above a lower ceiling, though it reports the usual maximum.",
        ),
        Kind(
            "ecc_ue", (GPU,), "uncorrectable DRAM errors, a whole number", 1, 1, 512,
            "Uncorrectable memory errors a few seconds into the load: XIDs 48, 63 and 94, rows to be remapped, load killed.",
            whole=True,
        ),
        Kind(
            "xid", (GPU,), "the XID's number", 95, 1, 999,
            "One XID a few seconds into the load, as NVML event and in the kernel log, and nothing else.",
            whole=True,
        ),
        Kind(
            "gpu_off_bus", (GPU,), _AFTER, 12, 0, 864000,
            "XID 79: the GPU falls off the bus; NVML calls it lost and CUDA fails on it from then on.",
        ),
        Kind(
            "tray_dead", (TRAY,), _AFTER, 12, 0, 864000,
            "The tray goes dark: its SSH server and every process on it vanish.",
        ),
        Kind(
            "wrong_serial", (GPU, TRAY, BMC), "none", 0, 0, 0,
            "Not the part of the build record: a GPU of another serial and UUID, or a tray or BMC of another rack.",
            seams=(LIVE,),
        ),
        Kind(
            "link_down", (LINK,), _AFTER, 12, 0, 864000,
            "An NVLink goes down and does not come back.",
        ),
        Kind(
            "link_margin", (LINK, GPU), "signal to noise ratio lost, dB", 3, 0.5, 8,
            "An NVLink close to its margin: errors that correction cannot mend, at a rate that grows with the loss.",
        ),
        Kind(
            "lane_flap", (LINK,), "recoveries a minute", 12, 0.1, 600,
            "An NVLink that loses its lanes under load and recovers each time.",
        ),
        Kind(
            "cpu_edac", (TRAY,), "uncorrectable errors of the CPUs' memory, a whole number", 1, 1, 512,
            "Uncorrectable errors of the CPUs' memory a few seconds into the load, counted by EDAC, logged by kernel and BMC.",
            whole=True,
        ),
        Kind(
            "nic_flap", (NIC,), "times the link goes down, a whole number", 3, 1, 200,
            "A network link that goes down for a second every three seconds, from a few seconds into the load on.",
            whole=True,
        ),
        Kind(
            "nvme_media", (NVME,), "media errors, a whole number", 2, 1, 1000,
            "Reads that the drive cannot do, a few seconds into the load: in its health log and in the kernel log.",
            whole=True,
        ),
        Kind(
            "pcie_downtrain", (NIC, NVME), "fraction of the lanes lost, 0 to 1", 0.5, 0.01, 0.99,
            "The card's PCIe link runs with fewer lanes than card and slot have.",
        ),
        Kind(
            "pcie_replay", (GPU, NIC, NVME), "corrected errors a second", 5, 0.01, 1000,
            "PCIe packets to the card must be repeated under load: corrected errors, no loss.",
        ),
        Kind(
            "nvml_hang", (GPU,), _AFTER, 12, 0, 864000,
            "Every NVML call on the GPU blocks from then on.",
        ),
        Kind(
            "sdc", (GPU,), "probability that a launch of a digest kernel gets one tile wrong, 0 to 1", 0.25, 1e-6, 1,
            "Silent data corruption: one multiprocessor computes a wrong bit now and then, and no counter says so.",
        ),
        Kind(
            "bw_loss", (GPU,), "fraction of the GPU's copy and peer bandwidth lost, 0 to 1", 0.3, 0.01, 0.99,
            "Copies from, to and within the GPU are slower, and nothing else is.",
        ),
        Kind(
            "slow_gpu", (GPU,), "fraction of its speed lost, 0 to 1", 0.1, 0.005, 0.99,
            "The GPU works more slowly than its peers in collectives, and every group waits for it.",
        ),
        Kind(
            "coldplate_clog", (GPU,), "rise of the resistance from plate to coolant, 1 = +100 %", 1.0, 0.05, 20,
            "Debris in the fins of the cold plate: the GPU and its memory run hotter per watt.",
        ),
        Kind(
            "plate_tilt", (GPU,), "how far the plate is tilted, 1 = the interface resists 80 % more", 1.0, 0.05, 10,
            "The cold plate sits at an angle: core and, less so, memory run hotter per watt.",
        ),
        Kind(
            "hbm_tim", (GPU,), "rise of the memory's thermal resistance, 1 = +100 %", 1.0, 0.05, 10,
            "The memory stacks are badly coupled to the plate: they run hotter, and the core does not.",
        ),
        Kind(
            "leaky_die", (GPU,), "rise of the die's leakage, 1 = +100 %", 1.5, 0.05, 10,
            "The die leaks: more power at rest, ever more as it warms, and a lower clock at the power limit.",
        ),
        Kind(
            "weak_vmin", (GPU,), "rise of the voltage that each clock takes, 1 = +100 %", 0.1, 0.01, 0.5,
            "Weak silicon: more volts for the same clock, so a lower clock at the power limit.",
        ),
        Kind(
            "vr_loss", (GPU,), "share of its power lost in the regulators", 0.15, 0.01, 0.5,
            "The voltage regulators waste power: more watts for the same work, at rest and under load.",
        ),
        Kind(
            "tsensor_off", (GPU,), "error of the core's temperature sensor, K", 8, -30, 30,
            "The temperature sensor is off by a constant.",
        ),
        Kind(
            "psensor_gain", (GPU,), "error of the power sensor, 0.1 = reads 10 % too high", 0.1, -0.5, 0.5,
            "The power sensor is off by a factor; the power limit acts on what it reads.",
        ),
        Kind(
            "tim_pumpout", (GPU,), "kelvin a day by which the loaded GPU warms", 1.5, 0.1, 20,
            "The thermal interface is pumped out: under load the GPU warms day by day.", seams=(RECORDED,),
        ),
        Kind(
            "dryout", (GPU,), "kelvin by which the loaded GPU is warmer after each heating", 0.5, 0.1, 10,
            "The thermal interface dries out: each time the GPU is heated it stays a little warmer.", seams=(RECORDED,),
        ),
        Kind(
            "ecc_ce_rate", (GPU,), "corrected DRAM errors an hour", 0.5, 0.01, 1e5,
            "A weak cell or channel: corrected memory errors, at random times.",
        ),
        Kind(
            "row_cluster", (GPU,), "corrected DRAM errors, a whole number", 12, 3, 10000,
            "A failing row: many corrected errors within ten minutes, then the row is remapped.", whole=True, seams=(RECORDED,),
        ),
        Kind(
            "sram_ue", (GPU,), "uncorrectable errors of caches and registers, a whole number", 1, 1, 512,
            "Uncorrectable cache errors a few seconds into the load: XID 94, load killed.", whole=True, seams=(RECORDED,),
        ),
        Kind(
            "c2c_crc", (GPU,), "checksum errors an hour between GPU and CPU", 2, 0.01, 1e6,
            "The link between GPU and CPU repeats itself.", seams=(RECORDED,),
        ),
        Kind(
            "sensor_stuck", (GPU,), "seconds since the run began", 7200, 0, 864000,
            "The core's temperature reads one and the same number from then on.", seams=(RECORDED,),
        ),
        Kind(
            "fabric_unhealthy", (GPU,), _AFTER, 12, 0, 864000,
            "The GPU says that it is no longer a healthy member of the NVLink fabric.",
        ),
        Kind(
            "cartridge_margin", (CARTRIDGE,), "signal to noise ratio lost, dB", 1.5, 0.1, 8,
            "A cable cartridge with worn or dirty contacts: all links that it carries lose margin.", seams=(RECORDED,),
        ),
        Kind(
            "switchport_margin", (SWITCH, ASIC, PORT), "signal to noise ratio lost, dB", 1.5, 0.1, 8,
            "A port of an NVSwitch, or all of them: the links that end there lose margin.",
        ),
        Kind(
            "tray_hang", (TRAY,), _AFTER, 12, 0, 864000,
            "Everything on the tray stops, though it has power: connections are accepted and never answered.",
        ),
        Kind(
            "slow_ssh", (TRAY, SWITCH), "seconds until a command begins", 3, 0.05, 600,
            "The tray takes its time to start a command.", seams=(LIVE,),
        ),
        Kind(
            "wrong_host_key", (TRAY, SWITCH), "none", 0, 0, 0,
            "The tray shows another host key than the one in known_hosts.", seams=(LIVE,),
        ),
        Kind(
            "switch_flow", (SWITCH,), "fraction of the switch tray's coolant flow lost, 0 to 1", 0.4, 0.01, 1,
            "A kinked hose or half-seated coupling of a switch tray: its NVSwitches are warmer.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "boot_intermittent", (GPU, NIC, NVME), "probability that it is missing after a boot, 0 to 1", 0.3, 0.01, 1,
            "A device that now and then does not come up: the first boot finds it, any later one may not.", seams=(LIVE,),
        ),
        Kind(
            "other_firmware", (GPU, TRAY, BMC, SWITCH), "releases that it is behind, a whole number", 1, 1, 9,
            "Older firmware than its neighbours: a GPU's VBIOS, a tray's BIOS, a BMC's or a switch tray's own.",
            whole=True, seams=(LIVE,),
        ),
        Kind(
            "hbm_bits", (GPU,), "cells of the memory that are stuck, a whole number", 1, 1, 64,
            "Cells of the GPU's memory read as 1 whatever was written, and no ECC counter sees it.", whole=True, seams=(LIVE,),
        ),
        Kind(
            "host_bits", (TRAY,), "bits that do not hold, a whole number", 4, 1, 100000,
            "Bits of the host's memory do not hold, and no ECC counter sees it: who verifies what he wrote finds them.",
            whole=True, seams=(LIVE,),
        ),
        Kind(
            "reset_lost", (GPU,), "probability that it is away after a reset, 0 to 1", 1, 0.01, 1,
            "The GPU does not come back from a reset.", seams=(LIVE,),
        ),
        Kind(
            "nic_down", (NIC,), _AFTER, 12, 0, 864000,
            "A network link goes down and does not come back.", seams=(LIVE,),
        ),
        Kind(
            "cpu_hot", (CPU,), "kelvin above a healthy CPU at full load", 25, 1, 60,
            "A CPU with a badly seated cold plate: it runs hotter with the load, and nothing around it does.",
        ),
        Kind(
            "leak", (TRAY, SWITCH), "coolant lost, mL/min", 10, 0.1, 1000,
            "Coolant drips in the tray: once a millilitre is out a leak detector is wet, 20 s later a second one.", starts=True,
        ),
        Kind(
            "leak_decay", (MANIFOLD, CDU), "static pressure lost, kPa in an hour", 3, 0.1, 600,
            "A leak that no detector sees: the pressure of the loop falls slowly.", starts=True,
        ),
        Kind(
            "cdu_lowdp", (CDU,), "fraction of the loop's pressure difference lost, 0 to 1", 0.4, 0.01, 1,
            "A clogged filter: pumps at full speed, too little pressure and flow, every GPU hotter per watt.", starts=True,
        ),
        Kind(
            "supply_warm", (CDU,), "kelvin above the set point", 8, 0.2, 40,
            "The CDU delivers warmer coolant than it is set to: everything is warmer by as much.", starts=True,
        ),
        Kind(
            "pump_osc", (CDU,), "swing of the pumps' speed as a fraction, 0 to 1", 0.15, 0.01, 0.9,
            "The pumps hunt with a period of 24 s: flow and pressure swing, and temperatures follow.", starts=True,
        ),
        Kind(
            "flowmeter_gain", (CDU,), "error of the flow reading as a fraction, 0.1 = reads 10 % high", 0.12, -0.9, 3,
            "The flow meter reads wrongly; nothing else changes.", starts=True,
        ),
        Kind(
            "rtd_offset", (CDU,), "kelvin that the return temperature reads too high", 1.5, -20, 20,
            "The sensor of the return temperature is off; nothing else changes.", starts=True,
        ),
        Kind(
            "shelf_lost", (SHELF,), "none", 0, 0, 0,
            "A power shelf delivers nothing: the others carry its load.", starts=True,
        ),
        Kind(
            "psu_imbalance", (PSU,), "fraction of its share that the power supply does not carry, 0 to 1", 0.3, 0.01, 1,
            "A power supply that carries less than its neighbours.", starts=True,
        ),
        Kind(
            "psu_trip", (PSU,), "seconds that it goes on when another of its shelf is off", 2, 0, 600,
            "A power supply that trips soon after another of its shelf went off: the shelf has nothing to spare.",
            starts=True, seams=(LIVE,),
        ),
        Kind(
            "proc_stuck", (GPU,), _AFTER, 12, 0, 864000,
            "The driver does not come back to the processes that work on the GPU: not even SIGKILL ends them.", seams=(LIVE,),
        ),
        Kind(
            "clock_skew", (TRAY,), "seconds by which the clock of the day is ahead", 90, -864000, 864000,
            "The tray's clock of the day is wrong; its monotonic clock is not.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "tray_disk_full", (TRAY,), "kB that are left on the disk of the login's home", 0, 0, 16000,
            "The disk that the login's home lies on is full: nothing more can be written there.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "bmc_dead", (BMC, SHELF, CDU), "none", 0, 0, 0,
            "The management controller answers no more, though what it manages runs on.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "bmc_slow", (BMC, SHELF, CDU), "seconds for an answer", 2, 0.01, 600,
            "The management controller takes its time for every answer.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "bmc_errors", (BMC, SHELF, CDU), "share of the requests answered with 503, 0 to 1", 0.2, 0.001, 1,
            "The management controller is too busy for some of the requests.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "bmc_lies", (BMC,), "none", 0, 0, 0,
            "The leak detectors say that they are enabled and dry, whatever voltage they read.", starts=True, seams=(LIVE,),
        ),
        Kind(
            "bmc_stale", (BMC, SHELF, CDU), "none", 0, 0, 0,
            "The management controller answers in time and always the same: its readings do not move any more.",
            starts=True, seams=(LIVE,),
        ),
    )
}  # fmt: skip


def parse(text: str) -> Plant:
    """`tim_void:t07.g2:1.5` or `leak:t07:10@30` -> Plant. Raises InputError with one sentence that says what was expected."""
    what, at, start = text.partition("@")
    name, _, rest = what.partition(":")
    part, colon, severity = rest.partition(":")
    if name not in KINDS:
        raise InputError(f"{text!r}: there is no fault {name!r}; there are {', '.join(sorted(KINDS))}")
    fault = KINDS[name]
    if not is_part(part):
        raise InputError(f"{text!r}: {part!r} is not a part id; {name} takes a {_takes(fault)}")
    if kind(part) not in fault.parts:
        raise InputError(f"{text!r}: {part} is a {kind(part)}, but {name} takes a {_takes(fault)}")
    value = _severity(fault, severity, text) if colon else fault.default
    return Plant(name, part, value, _start(fault, start, text) if at else None)


def _takes(fault: Kind) -> str:
    examples = {
        GPU: "GPU (t07.g2)",
        TRAY: "compute tray (t07)",
        LINK: "NVLink (t07.g2.l13)",
        NIC: "NIC (t07.n2)",
        NVME: "NVMe (t07.d0)",
        CARTRIDGE: "cable cartridge (x2)",
        ASIC: "NVSwitch (s3.a1)",
        PORT: "NVSwitch port (s3.a1.p44)",
        CPU: "CPU (t07.c1)",
        BMC: "BMC (t07.bmc)",
        SWITCH: "switch tray (s3)",
        SHELF: "power shelf (p4)",
        PSU: "PSU (p4.u2)",
        CDU: "CDU (cdu)",
        MANIFOLD: "manifold",
    }
    return " or a ".join(examples[p] for p in fault.parts)


def _severity(fault: Kind, given: str, text: str) -> float:
    if not fault.has_severity:
        raise InputError(f"{text!r}: {fault.kind} takes no severity")
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not fault.least <= value <= fault.most or (fault.whole and value != int(value)):
        raise InputError(
            f"{text!r}: {given!r} is not a severity of {fault.kind}; "
            f"expected {fault.unit} ({fault.least:g} to {fault.most:g}, default {fault.default:g})"
        )
    return value


def _start(fault: Kind, given: str, text: str) -> float:
    if not fault.starts:
        raise InputError(f"{text!r}: {fault.kind} takes no start time")
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 864000:
        raise InputError(f"{text!r}: {given!r} is not a start time; expected seconds after the rack's first load begins")
    return value
