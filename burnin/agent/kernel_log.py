"""What a kernel log line says went wrong with the hardware around the GPUs, in one word. XIDs have their own parser.

A line is believed only where its subsystem's own prefix stands at its beginning, so that a process or a host name that
looks like an error is none. What each word means for a rack is `inventory/catalogue/kernel.yaml`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

_TEXT_MAX = 400
_PREFIX = re.compile(
    r"\s*(?:<\d{1,3}>)?(?:\d+,\d+,\d+,[^;]{0,40};)?"  # syslog's and kmsg's own
    r"(?:\d{4}-\d\d-\d\dT[\d:.,+-]{8,32}Z? )?(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8} )?(?:\S{1,80} kernel: ?)?"  # dmesg, journal
    r"(?:\[(?=[^\]]{0,40}\d)[\w :.]{1,40}\] ?)?\s*"
)
_BDF = r"(?P<device>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2})\.[0-7]"
_DRIVER = rf"[\w-]{{1,32}} {_BDF}: "
_NVME = r"(?:nvme (?P<device>nvme\d{1,4}): |(?P<disk>nvme\d{1,4})(?:c\d+)?n\d+: )"
_MLX5 = rf"mlx5_core {_BDF}:? "
_APEI = r"(?:\{\d+\})?\[Hardware Error\]: "


class Event(NamedTuple):
    """`code` a word of the catalogue; `device` as the kernel names it (`0008:06:00`, `nvme0`, "" for none); `text` the line."""

    code: str
    device: str
    text: str


_RULES = (
    # memory and firmware-first errors (EDAC, APEI/GHES, machine checks)
    ("memory_ue", r"EDAC \w{1,16}: \d+ UE "),
    ("memory_ce", r"EDAC \w{1,16}: \d+ CE "),
    ("memory_ue", r"Memory failure: 0x[0-9a-f]+: "),
    ("hardware_fatal", rf"{_APEI}event severity: (?:fatal|panic)"),
    ("hardware_uncorrected", rf"{_APEI}event severity: recoverable"),
    ("hardware_corrected", rf"{_APEI}event severity: corrected"),
    ("hardware_uncorrected", rf"mce: {_APEI}CPU \d+: Machine Check(?: Exception)?: \S+ Bank \d+: [2367abef][0-9a-f]{{15}}"),
    ("hardware_corrected", rf"mce: {_APEI}CPU \d+: Machine Check(?: Exception)?: \S+ Bank \d+: [0-9a-f]{{16}}"),
    # PCIe
    ("aer_fatal", rf"{_DRIVER}(?:AER: )?PCIe Bus Error: severity=Uncorrect(?:ed|able) \(Fatal\)"),
    ("aer_nonfatal", rf"{_DRIVER}(?:AER: )?PCIe Bus Error: severity=Uncorrect(?:ed|able) \(Non-Fatal\)"),
    ("aer_corrected", rf"{_DRIVER}(?:AER: )?PCIe Bus Error: severity=Correct(?:ed|able)"),
    ("pcie_not_recovered", rf"{_DRIVER}AER: .{{0,60}}(?:recovery|reset) failed"),
    ("pcie_contained", rf"{_DRIVER}DPC: containment event"),
    ("pcie_link_down", rf"{_DRIVER}pciehp: Slot\([^)]{{1,16}}\): (?:Link Down|Card not present)"),
    # drives
    ("nvme_dead", rf"{_NVME}(?:Device not ready; aborting|Removing after probe failure|Disabling device after reset)"),
    ("nvme_reset", rf"{_NVME}(?:controller is down; will reset|resetting controller)"),
    ("nvme_reset", rf"{_NVME}I/O .{{1,80}}timeout, (?:reset|disable) controller"),
    ("nvme_timeout", rf"{_NVME}I/O .{{1,80}}timeout, (?:aborting|completion polled)"),
    ("nvme_media", r"(?:blk_update_request: |print_req_error: )?critical medium error, dev (?P<device>nvme\d{1,4})"),
    ("nvme_media", rf"{_NVME}.{{1,80}}, (?:Unrecovered Read Error|Write Fault|End-to-end .{{1,24}} Check Error) \(sct"),
    ("io_error", r"(?:blk_update_request: |print_req_error: )?I/O error, dev (?P<device>nvme\d{1,4})?"),
    ("io_error", r"EXT4-fs error|XFS \(\w{1,32}\): (?:metadata I/O error|Corruption)"),
    # network cards
    ("nic_health", rf"{_MLX5}.{{0,80}}(?:health compromised|handling bad device|fatal error|firmware internal error)"),
    ("nic_timeout", rf"{_MLX5}.{{0,120}}(?:\) timeout\. Will cause a leak|TX timeout detected)"),
    ("nic_module", rf"{_MLX5}.{{0,40}}Port module event\[error\]"),
    ("thermal", rf"{_MLX5}.{{0,60}}High temperature on sensors"),
    ("nic_link_down", rf"{_MLX5}[\w.-]{{1,16}}: Link down"),
    ("nic_timeout", r"NETDEV WATCHDOG: (?P<device>[\w.-]{1,16}) "),
    # the rest of the host
    ("thermal", r"(?:mce: )?CPU\d+: (?:Core|Package) temperature (?:is )?above threshold"),
    ("thermal", r"thermal thermal_zone\d+: .{0,40}critical temperature reached"),
    ("smmu_fault", r"arm-smmu(?:-v3)? [\w.:-]{1,40}: (?:event|EVTQ|unexpected global error|GERROR|CMD_SYNC|Unhandled)"),
    ("smmu_fault", r"DMAR: \[(?:DMA|INTR)|AMD-Vi: Event logged"),
    ("gpu_init_failed", rf"NVRM: GPU {_BDF}: (?:RmInitAdapter failed|rm_init_adapter failed)"),
    ("gpu_init_failed", r"NVRM: The NVIDIA probe routine failed"),
    ("gpu_reset_required", r"NVRM: .{0,160}NV_ERR_RESET_REQUIRED"),
    ("peermem", r"nvidia-peermem \w{1,64}:\d+ ERROR"),
    ("sxid", r"nvidia-nvswitch\d+: SXid \(PCI:(?P<device>[0-9a-f:]{10,16})\.\d\): \d+, (?:Non-)?[Ff]atal"),
    ("oom", r"(?:Out of memory|Memory cgroup out of memory): Killed process"),
    ("lockup", r"(?:NMI )?watchdog: (?:BUG: soft lockup|Watchdog detected hard LOCKUP)"),
    ("lockup", r"rcu: INFO: \w{1,32} (?:self-)?detected"),
    ("hung_task", r"INFO: task .{1,40} blocked for more than \d+ seconds"),
    ("oops", r"Oops: |Internal error: |Unable to handle kernel |BUG: unable to handle|Kernel panic"),
)  # fmt: skip


@cache
def _compiled() -> list[tuple[str, re.Pattern[str]]]:
    """At the first line, not at import: a holder that starts has none yet."""
    return [(code, re.compile(pattern, re.ASCII)) for code, pattern in _RULES]


def parse_event(line: str) -> Event | None:
    """What a line of any origin (kmsg, dmesg, journal) reports, or None. Of a report of many lines one line counts."""
    head = line[: _TEXT_MAX + 200]
    start = _PREFIX.match(head)
    text = head[start.end() :] if start else head
    for code, rule in _compiled():
        found = rule.match(text)
        if found is not None:
            named = found.groupdict()
            return Event(code, named.get("device") or named.get("disk") or "", text.rstrip()[:_TEXT_MAX])
    return None


def codes() -> Iterator[str]:
    """Every word that `parse_event` can answer with."""
    yield from dict.fromkeys(code for code, _ in _RULES)
