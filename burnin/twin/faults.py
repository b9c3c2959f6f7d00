"""What can be planted in a twin rack: one row per kind, and the `KIND:PART[:SEVERITY]` that people type.

A kind says what it does to the machine, never how it might be found.
"""

from __future__ import annotations

from dataclasses import dataclass

from burnin.errors import InputError
from burnin.rack.parts import is_part, kind

GPU, TRAY, LINK = "GPU", "compute tray", "NVLink"
NIC, NVME = "NIC", "NVMe"


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

    @property
    def has_severity(self) -> bool:
        """False for what is either there or not."""
        return self.most > self.least


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault in one part of one rack; `severity` in its kind's unit."""

    kind: str
    part: str
    severity: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.part}" + (f":{self.severity:g}" if KINDS[self.kind].has_severity else "")


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
            "A kinked hose or half-seated coupling: every GPU of the tray runs hotter per watt.",
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
            "wrong_serial", (GPU, TRAY), "none", 0, 0, 0,
            "Not the part of the build record: a GPU of another serial and UUID, or a tray of another rack at this address.",
        ),
        Kind(
            "link_down", (LINK,), _AFTER, 12, 0, 864000,
            "An NVLink goes down and does not come back.",
        ),
        Kind(
            "link_margin", (LINK,), "signal to noise ratio lost, dB", 3, 0.5, 8,
            "An NVLink close to its margin: errors that correction cannot mend, at a rate that grows with the loss.",
        ),
        Kind(
            "lane_flap", (LINK,), "recoveries a minute", 12, 0.1, 600,
            "An NVLink that loses its lanes under load and recovers each time.",
        ),
        Kind(
            "cpu_edac", (TRAY,), "uncorrectable errors of the CPUs' memory, a whole number", 1, 1, 512,
            "Uncorrectable errors of the CPUs' memory a few seconds into the load, counted by EDAC and told in the kernel log.",
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
    )
}  # fmt: skip


def parse(text: str) -> Plant:
    """`tim_void:t07.g2:1.5` -> Plant. Raises InputError with one sentence that says what was expected."""
    name, _, rest = text.partition(":")
    part, colon, severity = rest.partition(":")
    if name not in KINDS:
        raise InputError(f"{text!r}: there is no fault {name!r}; there are {', '.join(sorted(KINDS))}")
    fault = KINDS[name]
    if not is_part(part):
        raise InputError(f"{text!r}: {part!r} is not a part id; {name} takes a {_takes(fault)}")
    if kind(part) not in fault.parts:
        raise InputError(f"{text!r}: {part} is a {kind(part)}, but {name} takes a {_takes(fault)}")
    return Plant(name, part, _severity(fault, severity, text) if colon else fault.default)


def _takes(fault: Kind) -> str:
    examples = {
        GPU: "GPU (t07.g2)",
        TRAY: "compute tray (t07)",
        LINK: "NVLink (t07.g2.l13)",
        NIC: "NIC (t07.n2)",
        NVME: "NVMe (t07.d0)",
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
