"""Which evidence is of which part: what no longer counts when a part was replaced, and no more. Pure.

A tray that was opened is a tray whose hoses, boards and connectors were touched: all of its evidence goes with its GPUs and
CPUs. A card or a drive is pulled from outside: only what reads it goes. Checks of the whole rack go with any GPU, for every
GPU takes part in them; links go with what they lead through.
"""

from __future__ import annotations

from collections.abc import Iterable

from burnin.checks import CHECKS
from burnin.checks.base import RACK, Check
from burnin.rack.parts import kind, tray_of, within
from burnin.store.records import Attempt, Voided

_READS = {"NIC": "nic", "NVMe": "nvme", "power shelf": "psu", "PSU": "psu", "BMC": "bmc"}
"""What is pulled from outside, and the first word of the metrics that are read of it."""
_ASKS_ALL = ("inventory", "host")
"""Checks that ask a tray for everything in it."""
_LINKED = ("switch tray", "NVSwitch", "NVSwitch port", "cable cartridge")


def depends(check: Check, on: str, part: str) -> bool:
    """True when what `check` showed on `on` (a tray, or the rack) was shown of `part` too."""
    what, own = kind(part), on == tray_of(part)
    reads = {metric.split(".")[0] for metric in (*check.metrics, *check.explains)}
    if what in _READS:
        return (_READS[what] in reads and (own or on == RACK)) or (own and check.name in _ASKS_ALL)
    if what in _LINKED:
        return own or on == RACK or "nvlink" in reads
    if part[0] == "t":
        return own or on == RACK
    return True  # coolant, manifold, the rack itself: everything was measured with them


def beside(check: Check) -> bool:
    """True for a check that has nothing to do with what load does to a GPU: nothing else must be done again after it."""
    reads = {metric.split(".")[0] for metric in check.metrics}
    return check.name in _ASKS_ALL or (bool(reads) and reads <= {"host", *_READS.values()})


def since(check: Check, on: str, voided: Iterable[Voided]) -> float:
    """The run second from which evidence of this check on this part counts."""
    return max((one.t_s for one in voided if depends(check, on, one.part)), default=0.0)


def counts(attempt: Attempt, voided: Iterable[Voided]) -> bool:
    """False for an attempt on what is no longer there."""
    check = CHECKS.get(attempt.name)
    return check is None or attempt.t0_s >= since(check, attempt.part, voided)


def gone_until(part: str, voided: Iterable[Voided]) -> float:
    """The run second until which readings and log lines of `part` are another part's."""
    return max((one.t_s for one in voided if within(part, one.part)), default=0.0)


def tray_since(tray: str, voided: Iterable[Voided]) -> float:
    """The run second from which a tray's stretch of a stage is the tray's that is there now."""
    return max((one.t_s for one in voided if tray_of(one.part) == tray and kind(one.part) not in _READS), default=0.0)
