"""ipmitool sel list and elist: the events that a BMC keeps.

An event that is asserted and critical is FAIL, a lesser one that speaks of an error is UNKNOWN, the rest are rows. Whether it
happened during the run is for its time stamp and the judge. The list has no end mark: never PASS.
Sources: IPMI 2.0 tables 42-1 to 42-3 (sensor types, thresholds); captures.
"""

from __future__ import annotations

import re

from burnin.checks.tools.reading import Outcome, Page, complaint, parser, stranger

_LINE = re.compile(r"([0-9a-f]{1,5}) *\|(.{1,30}?)\|(.{1,30}?)\|(.{1,80}?)\|(.{0,120}?)(?:\|(.{0,60}))?", re.IGNORECASE)
_WHEN = re.compile(r"\d\d/\d\d/\d{2,4} \d\d:\d\d:\d\d(\.\d+)?( \w{2,5})?( [+-]\d{2,4})?|Pre-Init ?.{0,30}", re.IGNORECASE)
_OEM = re.compile(r"([0-9a-f]{1,5}) *\|(?:[^|]{1,40}\|){0,2} *(OEM record .{1,200})", re.IGNORECASE)
_CRITICAL = re.compile(
    r"(?<!non-)\bcritical\b|non-?recoverable|\bfatal\b|uncorrectable|thermal trip|ierr\b|failure detected|power supply ac lost"
    r"|drive fault|bus (uncorrectable|fatal)|cpu (bist|frb)|machine check|\bleak|parity|state asserted: critical",
    re.IGNORECASE,
)
_LESSER = re.compile(
    r"correctable|non-critical|predictive failure|redundancy (lost|degraded)|throttl|log (full|almost full)|error|fault|fail",
    re.IGNORECASE,
)


def _read(text: str) -> Page:
    page, lines = Page(), 0
    page.endless = True
    for line in text.split("\n"):
        line = line.strip()
        if not line:
            continue
        if match := _OEM.fullmatch(line[:600]):
            lines += 1
            page.add("event", f"{match[1]} OEM record", match[2].strip())
        elif line == "SEL has no entries":
            page.add("entries", "", 0.0, "1")
            lines += 1
        elif (
            (match := _LINE.fullmatch(line[:600]))
            and match[5].strip()
            and _WHEN.fullmatch(f"{match[2].strip()} {match[3].strip()}")
        ):
            lines += 1
            _event(page, *(cell.strip() for cell in match.groups(default="")))
        elif lines or "|" in line:
            page.gap(f"a line was not understood: {line[:80]!r}")
        elif said := complaint([line]):
            page.gap(said)
    if not lines and not page.gaps:
        raise stranger("ipmitool sel", text)
    return page


def _event(page: Page, number: str, date: str, time: str, sensor: str, event: str, direction: str) -> None:
    said = f"{date} {time} {sensor}: {event}"
    part = f"{number} {sensor}"
    if not re.match(r"(Asserted|Deasserted)( *\||$)", direction):
        page.gap(f"event {number} is neither asserted nor deasserted: {direction[:40]!r}")
    elif direction.startswith("Deasserted"):
        page.add("event", part, event, "", Outcome.MEASURED, f"deasserted, {date} {time}")
    elif _CRITICAL.search(f"{sensor} {event}"):
        page.add("event", part, event, "", Outcome.FAIL, said)
    elif _LESSER.search(event) and "Upper Non-critical" not in event and "Lower Non-critical" not in event:
        page.add("event", part, event, "", Outcome.UNKNOWN, said)
    else:
        page.add("event", part, event, "", Outcome.MEASURED, f"{direction.lower()}, {date} {time}")


sel = parser("ipmitool sel", _read)
