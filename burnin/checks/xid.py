"""Did the driver report an error, at any time since the run began?

XIDs come from two sources that both must be watched: NVML's events, which miss what happened before they were asked
for, and the kernel log, which the driver always writes. A log that could not be opened is UNKNOWN. What an XID means
is in the catalogue; one that the catalogue does not know holds the rack until a person has looked.

While NVML is let go by order (a GPU reset, a program that wants the driver for itself) the kernel log alone is enough.
"""

from __future__ import annotations

from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.events import LogLine, Measurement, Result
from burnin.wire import LET_GO

XID = Quantity("xid", "1", "XID of the driver, from NVML events and the kernel log")
KERNEL_LOG = Quantity("log.kernel", "1", "the kernel log was read during the whole stage")
EVENTS = Quantity("log.nvml", "1", "NVML's XID events were watched during the whole stage")


def unwatched(source: str, reason: str) -> str:
    """Why a source of events was not watched, for a person."""
    known = {("kmsg", "missing"): "there is no /dev/kmsg", ("kmsg", "no_permission"): "only root may read it (`become: sudo`)"}
    return known.get((source, reason), reason)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """One measurement per (part, XID) seen, and one per source of events."""
    out = [
        _watched(context.tray, EVENTS, "xid", evidence),
        _watched(context.tray, KERNEL_LOG, "kmsg", evidence),
        *(_judge_xid(context, part, code, lines) for (part, code), lines in sorted(_seen(evidence).items())),
    ]
    clean = all(m.name != XID.name for m in out) and all(m.result is Result.PASS for m in out)
    return [*out, Measurement(XID.name, context.tray, 0.0, "1", "none", Result.PASS)] if clean else out


def _watched(tray: str, quantity: Quantity, source: str, evidence: Evidence) -> Measurement:
    reason = evidence.sources.get(source, "missing") or ("lost" if evidence.lost else None)
    if reason == LET_GO and not evidence.lost and evidence.sources.get("kmsg", "missing") is None:
        why = f"{reason} for a time, when the kernel log was read alone"
        return Measurement(quantity.name, tray, "watched", "1", "watched", Result.PASS, None, why)
    if reason is not None:
        known = reason if reason in ("no_permission", "not_supported", "lost", "hung") else "missing"
        return quantity.unknown(tray, known, f"it was not watched: {unwatched(source, reason)}", "watched")
    return Measurement(quantity.name, tray, "watched", "1", "watched", Result.PASS)


def _seen(evidence: Evidence) -> dict[tuple[str, int], list[LogLine]]:
    out: dict[tuple[str, int], list[LogLine]] = {}
    for line in evidence.log:
        if line.kind == "xid":
            out.setdefault((line.part, int(line.code)), []).append(line)
    return out


def _judge_xid(context: Context, part: str, code: int, lines: list[LogLine]) -> Measurement:
    row = context.catalogue.xids.get(code)
    said = next((line.text for line in lines if line.text), "")
    name = row.name if row else "not in the catalogue"
    why = f"XID {code} ({name}), {_times(lines)}: {said}" if said else f"XID {code} ({name}), {_times(lines)}"
    gate = row.gate if row else "HOLD"
    if gate == "FAIL":
        return Measurement(XID.name, part, float(code), "1", "none", Result.FAIL, None, why)
    if gate == "HOLD":
        return Measurement(XID.name, part, float(code), "1", "none", Result.UNKNOWN, "missing", why)
    return Measurement(XID.name, part, float(code), "1", "watched only", Result.PASS, None, why)


def _times(lines: list[LogLine]) -> str:
    counts = {source: sum(line.source == source for line in lines) for source in {line.source for line in lines}}
    many = max(counts.values())
    return "once" if many == 1 else f"{many} times"


CHECK = Check(
    name="xid",
    about="XIDs in NVML events and in the kernel log, judged by the catalogue",
    quantities=(XID, KERNEL_LOG, EVENTS),
    judge=judge,
    equipment=("kernel log",),
)
