"""Kernel log lines: what each subsystem writes when hardware fails is recognised, and nothing else is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent.host import parse_xid
from burnin.agent.kernel_log import codes, parse_event
from burnin.rack.load import load_catalogue

CAPTURES = Path(os.environ.get("BURNIN_CAPTURES", Path(__file__).parents[3] / "shared/captures")) / "kernel-log"

LINES = {
    "EDAC MC0: 1 CE Single-bit ECC on unknown memory (node:0 page:0x2a5c91 offset:0x4c0 grain:1 syndrome:0x0)": ("memory_ce", ""),
    "EDAC MC1: 2 UE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0x0)": ("memory_ue", ""),
    "Memory failure: 0x3c9e10: recovery action for dirty LRU page: Recovered": ("memory_ue", ""),
    "{3}[Hardware Error]: event severity: corrected": ("hardware_corrected", ""),
    "{3}[Hardware Error]: event severity: recoverable": ("hardware_uncorrected", ""),
    "[Hardware Error]: event severity: fatal": ("hardware_fatal", ""),
    "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 5: be00000000800400": ("hardware_uncorrected", ""),
    "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 7: 8c00004000010090": ("hardware_corrected", ""),
    "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 7: dc00004000010090": ("hardware_corrected", ""),
    "pcieport 0008:00:00.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Transmitter ID)":
        ("aer_corrected", "0008:00:00"),
    "mlx5_core 0002:03:00.1: AER: PCIe Bus Error: severity=Correctable, type=Physical Layer, (Receiver ID)":
        ("aer_corrected", "0002:03:00"),
    "nvidia 0008:06:00.0: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer, (Requester ID)":
        ("aer_nonfatal", "0008:06:00"),
    "nvidia 0008:06:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer, (Receiver ID)":
        ("aer_fatal", "0008:06:00"),
    "pcieport 0008:00:00.0: AER: device recovery failed": ("pcie_not_recovered", "0008:00:00"),
    "pcieport 0008:00:00.0: DPC: containment event, status:0x1f01 source:0x0000": ("pcie_contained", "0008:00:00"),
    "pcieport 0000:b0:02.0: pciehp: Slot(12): Link Down": ("pcie_link_down", "0000:b0:02"),
    "nvme nvme0: I/O 853 QID 5 timeout, aborting": ("nvme_timeout", "nvme0"),
    "nvme nvme11: I/O tag 853 (1355) opcode 0x2 (I/O Cmd) QID 5 timeout, aborting req_op:READ(0) size:4096":
        ("nvme_timeout", "nvme11"),
    "nvme nvme0: I/O 10 QID 0 timeout, reset controller": ("nvme_reset", "nvme0"),
    "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff": ("nvme_reset", "nvme0"),
    "nvme nvme0: Device not ready; aborting reset, CSTS=0x1": ("nvme_dead", "nvme0"),
    "nvme0n1: Read(0x2) @ LBA 1465149160, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR": ("nvme_media", "nvme0"),
    "critical medium error, dev nvme3n1, sector 1465149160 op 0x0:(READ) flags 0x80700 phys_seg 1": ("nvme_media", "nvme3"),
    "I/O error, dev nvme0n1, sector 4096 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2": ("io_error", "nvme0"),
    "blk_update_request: I/O error, dev sda, sector 4096": ("io_error", ""),
    "EXT4-fs error (device nvme0n1p2): ext4_find_entry:1455: inode #2: comm sh: reading directory lblock 0": ("io_error", ""),
    "mlx5_core 0000:03:00.0: poll_health:823:(pid 0): device's health compromised - reached miss count":
        ("nic_health", "0000:03:00"),
    "mlx5_core 0000:03:00.0: wait_func:1135:(pid 88): CREATE_EQ(0x301) timeout. Will cause a leak of a command resource":
        ("nic_timeout", "0000:03:00"),
    "mlx5_core 0000:03:00.0 ens1np0: TX timeout detected": ("nic_timeout", "0000:03:00"),
    "NETDEV WATCHDOG: ens1np0 (mlx5_core): transmit queue 5 timed out": ("nic_timeout", "ens1np0"),
    "mlx5_core 0000:03:00.0: Port module event[error]: module 0, Cable error, Power budget exceeded":
        ("nic_module", "0000:03:00"),
    "mlx5_core 0000:03:00.0: temp_warn:185:(pid 0): High temperature on sensors with bit set 0 1": ("thermal", "0000:03:00"),
    "mlx5_core 0000:03:00.0 ens1np0: Link down": ("nic_link_down", "0000:03:00"),
    "mce: CPU12: Core temperature above threshold, cpu clock throttled (total events = 1)": ("thermal", ""),
    "CPU12: Package temperature is above threshold, cpu clock is throttled (total events = 9)": ("thermal", ""),
    "thermal thermal_zone0: acpitz: critical temperature reached, shutting down": ("thermal", ""),
    "arm-smmu-v3 arm-smmu-v3.1.auto: event 0x10 received:": ("smmu_fault", ""),
    "arm-smmu-v3 arm-smmu-v3.1.auto: CMD_SYNC timeout at 0x00000012 [hwprod 0x00000013, hwcons 0x00000012]": ("smmu_fault", ""),
    "DMAR: [DMA Read NO_PASID] Request device [03:00.0] fault addr 0xfff0000 [fault reason 0x06]": ("smmu_fault", ""),
    "NVRM: GPU 0008:06:00.0: RmInitAdapter failed! (0x62:0x65:1860)": ("gpu_init_failed", "0008:06:00"),
    "NVRM: The NVIDIA probe routine failed for 1 device(s).": ("gpu_init_failed", ""),
    "Out of memory: Killed process 4711 (python3) total-vm:1024kB, anon-rss:512kB": ("oom", ""),
    "Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1024kB": ("oom", ""),
    "watchdog: BUG: soft lockup - CPU#71 stuck for 22s! [python3:4711]": ("lockup", ""),
    "watchdog: Watchdog detected hard LOCKUP on cpu 3": ("lockup", ""),
    "rcu: INFO: rcu_preempt self-detected stall on CPU": ("lockup", ""),
    "INFO: task nvidia-smi:4711 blocked for more than 120 seconds.": ("hung_task", ""),
    "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000010": ("oops", ""),
    "nvidia-nvswitch0: SXid (PCI:0000:a9:00.0): 20034, Fatal, Link 30 LTSSM Fault Up": ("sxid", "0000:a9:00"),
    "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing": ("peermem", ""),
    "NVRM: nvAssertOkFailedNoLog: Assertion failed: Reset required [NV_ERR_RESET_REQUIRED] (0x00000062) returned":
        ("gpu_reset_required", ""),
}  # fmt: skip
PREFIXES = (
    "",
    "4,1227,437812449932,-;",
    "4,1227,437812449932,c,caller=T12;",
    "[12345.678901] ",
    "[    2.412331] ",
    " [Sun Jan 11 09:52:01 2026] ",
    "2024-11-15T05:39:15,491363+00:00 ",
    "2025-01-02T15:20:12+0800 tray-07 kernel: ",
    "Jun 12 16:31:50 tray-07 kernel: ",
    "Jun  2 16:31:50 tray-07 kernel: [12345.678901] ",
)


@pytest.mark.parametrize("line", LINES)
def test_each_line_is_its_word_and_device_whatever_wrote_it_down(line: str) -> None:
    for prefix in PREFIXES:
        event = parse_event(prefix + line)
        assert event is not None, prefix
        assert (event.code, event.device, event.text) == (*LINES[line], line)


def test_every_word_is_shown_here_and_explained_in_the_catalogue() -> None:
    assert {code for code, _ in LINES.values()} == set(codes()) == set(load_catalogue().kernel)


@pytest.mark.parametrize(
    "line",
    [
        "",
        ";",
        "nvme nvme0: 72/0/0 default/read/poll queues",
        "mlx5_core 0000:03:00.0 ens1np0: Link up",
        "mlx5_core 0000:03:00.0: firmware version: 28.39.1002",
        "EDAC MC0: Giving out device to module ghes_edac.c controller ghes_edac: DEV ghes (INTERRUPT)",
        "EDAC MC: Ver: 3.0.0",
        "pcieport 0008:00:00.0: AER: enabled with IRQ 34",
        "{3}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1",
        "{3}[Hardware Error]: event severity: info",
        "{3}[Hardware Error]:   section_type: memory error",
        "arm-smmu-v3 arm-smmu-v3.1.auto: ias 48-bit, oas 48-bit (features 0x001c1eff)",
        "NVRM: loading NVIDIA UNIX Open Kernel Module  580.173.02",
        "NVRM: GPU 0008:06:00.0: GPU has fallen off the bus.",  # Xid 79 says it already
        "python3[4711]: EDAC MC0: 1 UE made up by a process",
        "systemd[1]: nvme nvme0: I/O 853 QID 5 timeout, aborting",
        "audit: comm='Out of memory: Killed process 1 (init)'",
        "burnin: Out of memory: Killed process 1 (init)",
        "docker0: port 1(vetha17b2cc) entered disabled state",
        "EXT4-fs (nvme0n1p2): mounted filesystem with ordered data mode",
    ],
)
def test_what_is_no_error_of_the_kernel_is_nothing(line: str) -> None:
    for prefix in PREFIXES:
        assert parse_event(prefix + line) is None


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_cut_short_is_the_same_word_or_nothing(line: str) -> None:
    for end in range(len(line)):
        event = parse_event(line[:end])
        assert event is None or event.code in {LINES[line][0], "aer_corrected", "io_error"}


@given(st.text(max_size=300))
def test_any_text_is_an_event_of_a_known_word_or_nothing(text: str) -> None:
    event = parse_event(text)
    assert event is None or event.code in set(codes())


def test_hostile_lines_cost_no_time_and_no_space() -> None:
    """A megabyte of one letter, or of a prefix that never ends, is looked at once."""
    hostile = [
        "A" * 1_000_000,
        "nvme nvme0: I/O " + "timeout, " * 100_000,
        "[" * 1_000_000,
        "<4>" * 300_000,
        "mlx5_core 0000:03:00.0: " + ") timeout." * 90_000,
        "x kernel: " * 90_000,
        "EDAC MC0: " + "9" * 1_000_000 + " UE ",
    ]
    begun = time.process_time()
    found = [parse_event(line) for line in hostile]
    assert time.process_time() - begun < 0.2
    assert all(event is None or len(event.text) <= 400 for event in found)


def test_real_logs_of_failing_gpus_give_no_host_event_but_the_known_ones() -> None:
    if not CAPTURES.is_dir():
        pytest.skip("captures of real kernel logs are not beside this checkout")
    counted: dict[tuple[str, str], int] = {}
    for path in CAPTURES.iterdir():
        for line in path.read_text(errors="replace").splitlines():
            event = parse_event(line)
            assert event is None or parse_xid(line) is None, "one line, one reading"
            if event is not None:
                counted[path.name, event.code] = counted.get((path.name, event.code), 0) + 1
    assert counted["sichek51_nv_err_reset_required.txt", "gpu_reset_required"] == 1
    assert {code for _, code in counted} == {"peermem", "sxid", "gpu_reset_required"}
    for name in {name for name, code in counted if code == "peermem"}:
        text = (CAPTURES / name).read_text(errors="replace")
        assert counted[name, "peermem"] == text.count("nvidia-peermem nv_get_p2p_free_callback:127 ERROR")
