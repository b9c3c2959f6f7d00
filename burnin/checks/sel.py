"""The BMC's logs: saved as they are, and what was added since the run began.

The run notes how long each log is when it begins (log lines of kind `sel`). Lines that came after are judged; a log that was
cleared or went round meanwhile has lost what it said, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from burnin.checks import asked
from burnin.checks.base import Answer, Check, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.bmc import SYSTEMS, Entry, entries

KIND = "sel"
"""LogLine.kind of the notes: code = the log's path, text = JSON {"count", "first", "last"}, or {"failed": why}."""
_READ = "read the line, and the part it names; clear the log when it is understood, and run again"
LOGS = Quantity("sel.logs", "1", "logs that were saved whole", action="look at the BMC: its log cannot be read")
CRITICAL = Quantity("sel.critical.growth", "1", "critical lines added since the run began", action=_READ)
WARNING = Quantity("sel.warning.growth", "1", "warnings added since the run began", action=_READ)
NAMES = ("LogServices", "Entries")
KEEP = ("Severity", "Message", "MessageId", "Created", "EntryType", "SensorType", "Members")
BEGIN = (SYSTEMS, "/redfish/v1/Managers")


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """All logs of systems and managers, whole."""
    return [] if answers else [asked.walk(asked.bmc(context), BEGIN, 3, NAMES, KEEP)]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """What was added to every log."""
    tray, found = context.tray, asked.bodies(evidence)
    logs = entries(found)
    began: dict[str, str] = {}
    for line in evidence.log:
        if line.kind == KIND and line.part.split(".")[0] == tray:
            began.setdefault(line.code, line.text)  # a run that goes on notes again
    out = asked.unread(LOGS, tray, {path: body for path, body in found.items() if "LogServices" in path})
    fresh: list[Entry] = []
    for log, lines in sorted(logs.items()):
        added, why = since(began.get(log), lines)
        fresh += added
        out += [LOGS.unknown(tray, "missing", f"{log}: {why}")] if why else []
    if not logs:
        out.append(LOGS.unknown(tray, "missing", "the BMC shows no log"))
    whole = not out
    if whole:
        out.append(asked.good(LOGS, tray, float(len(logs))))
    grown = [_grown(context, CRITICAL, "Critical", fresh), _grown(context, WARNING, "Warning", fresh)]
    return out + [one if whole or one.result is not Result.PASS else _unsaid(one) for one in grown]


def _unsaid(one: Measurement) -> Measurement:
    """Nothing was seen to be added, but not everything was seen."""
    return replace(
        one, value=None, result=Result.UNKNOWN, reason="missing", why="not every log was read, now and when the run began"
    )


def since(note: str | None, lines: list[Entry]) -> tuple[list[Entry], str]:
    """Lines that were added after the note was taken, and why that cannot be said (empty when it can)."""
    if note is None:
        return [], "nobody noted how long it was when the run began"
    began = json.loads(note)
    if "failed" in began:
        return [], f"it was not read when the run began: {began['failed']}"
    if began["count"] == 0:
        return lines, ""
    idents = [line.ident for line in lines]
    if began["last"] not in idents or began["first"] not in idents:
        return [], "it was cleared or went round since the run began"
    first, last = idents.index(began["first"]), idents.index(began["last"])
    if last - first + 1 != began["count"]:
        return lines, "lines that stood in it when the run began are gone"
    return lines[:first] + lines[last + 1 :], ""  # newest last, or newest first


def note(lines: list[Entry], failed: str = "") -> str:
    """What the run notes of a log when it begins; `failed`: why that says nothing of what came since."""
    if failed:
        return json.dumps({"failed": failed})
    first, last = (lines[0].ident, lines[-1].ident) if lines else ("", "")
    return json.dumps({"count": len(lines), "first": first, "last": last})


def _grown(context: Context, quantity: Quantity, severity: str, fresh: list[Entry]) -> Measurement:
    grown = [line for line in fresh if line.severity == severity]
    if not grown:
        return quantity.judge(context.tray, 0.0, context.limits)
    one = quantity.judge(context.tray, float(len(grown)), context.limits)
    why = f"{grown[0].text} ({grown[0].created})" + (f", and {len(grown) - 1} more" if len(grown) > 1 else "")
    if quantity is CRITICAL and one.result is Result.FAIL:
        return asked.bad(quantity, context.tray, float(len(grown)), why, one.limit)
    return asked.hold(quantity, context.tray, float(len(grown)), why, one.limit) if one.result is not Result.PASS else one


CHECK = Check(
    name="sel",
    about="the BMC's event logs: saved, and what was added during the run",
    quantities=(LOGS, CRITICAL, WARNING),
    judge=judge,
    orders=orders,
    equipment=("BMC",),
)
