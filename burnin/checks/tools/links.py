"""Network links: mlxlink (JSON and text), ibstat, and the bandwidth tests of perftest (ib_write_bw and its like).

A link that is not Active and up is FAIL: whether it should be up is for the rack to say, not for the tool. ibstat and the text
of mlxlink have no end mark: never PASS. perftest measures; complete is a table with the last of its four
rules below it (client and server may share one output).
MB/sec of perftest is 2^20, Gb/sec is 10^9 bit; both become GB/s.
Sources: linux-rdma/perftest src/perftest_parameters.h; NVIDIA MFT manual; captures.
"""

from __future__ import annotations

import re
from collections import Counter

from burnin.checks.tools.reading import Outcome, Page, Unreadable, complaint, load_json, number, parser, part_of, stranger, word

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR

# --- mlxlink ----------------------------------------------------------------------------------------------------------

_GOOD = {"State": {"Active"}, "Physical state": {"LinkUp", "ACTIVE", "LinkUp (Active)"}}
_DOWN = re.compile(r"poll|disab|sleep|down|training|recovery|test|shut|init|armed|close", re.IGNORECASE)
"""Physical states without a link. Others, as of an Ethernet port that negotiated, are for a person when the state is Active."""
_KEY = re.compile(r"([A-Za-z][^:\n]{0,60}?) *: ?(.{0,300})")
_COUNTERS = re.compile(r"(Effective|Symbol|Raw) Physical (Errors|BER).{0,20}|(Link (Down|Error Recovery) Counter).{0,20}")


def _link(page: Page, operational: dict[str, str], others: dict[str, str]) -> None:
    for name, good in _GOOD.items():
        said = operational.get(name, "")
        if said in ("", "N/A"):
            page.gap(f"{name} is missing")
        else:
            unknown = E if name == "State" else U
            result = P if said in good else F if _DOWN.search(said) else unknown
            page.add(name, "", said[:60], "", result, "" if said in good else f"not {sorted(good)[-1]}")
    for name in ("Speed", "Width", "FEC"):
        if operational.get(name, "N/A") != "N/A":
            page.add(name, "", operational[name][:60])
    opcode = others.get("Status Opcode")
    if opcode is not None and opcode != "N/A":
        why = others.get("Recommendation", "")[:200]
        page.add(
            "Status Opcode",
            "",
            opcode[:20],
            "",
            P if opcode == "0" else F if number(opcode) is not None else E,
            "" if opcode == "0" else why,
        )
    for name, said in others.items():
        if _COUNTERS.fullmatch(name) and number(said) is not None:
            page.add(name, "", number(said), "1")


def _read_mlxlink(text: str) -> Page:
    page = Page()
    if re.search(r"^[ \t]*\{", text, re.MULTILINE):
        document = load_json(text)
        output, status = part_of(document.root, "result", "output"), part_of(document.root, "result", "status")
        if not output and not status:
            raise Unreadable("the JSON is not of mlxlink")
        if number(status.get("code")) != 0:
            page.gap(f"its status is {word(status.get('code'))}: {word(status.get('message')) or 'no message'}"[:200])
        if said := document.beside:
            page.gap(f"beside the JSON: {said}")
        flat = {k: word(v) or "" for group in output for k, v in part_of(output, group).items() if group != "Operational Info"}
        _link(page, {k: word(v) or "" for k, v in part_of(output, "Operational Info").items()}, flat)
        return page
    sections: dict[str, dict[str, str]] = {}
    section = ""
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("-E-"):
            page.gap(line[:200])
        elif match := _KEY.fullmatch(line[:400]):
            sections.setdefault(section, {}).setdefault(match[1], match[2].strip())
        elif line and not line.startswith("-"):
            section = line[:80]
            if section == "Operational Info" and section in sections:
                page.gap("more than one link: only the first was read")
    if "Operational Info" not in sections:
        raise Unreadable(page.gaps[0]) if page.gaps else stranger("mlxlink", text)
    _link(
        page,
        sections["Operational Info"],
        {k: v for name, group in sections.items() if name != "Operational Info" for k, v in group.items()},
    )
    page.endless = True
    return page


mlxlink = parser("mlxlink", _read_mlxlink)

# --- ibstat -----------------------------------------------------------------------------------------------------------

_CA = re.compile(r"CA '(\w{1,40})'")
_PORT = re.compile(r"Port (\d{1,3}):")
_PAIR = re.compile(r"([A-Z][A-Za-z ]{1,40}): (.{1,80})")
_NEEDED = ("State", "Physical state", "Rate", "Link layer")


def _read_ibstat(text: str) -> Page:
    page, ca, port = Page(), "", ""
    ports: dict[tuple[str, str], dict[str, str]] = {}
    counts: dict[str, str] = {}
    for line in text.split("\n"):
        line = line.strip()
        if match := _CA.fullmatch(line):
            ca, port = match[1], ""
            if ca in counts:
                page.gap(f"{ca} is shown twice")
            counts[ca] = ""
        elif ca and (match := _PORT.fullmatch(line)):
            port = match[1]
            ports[ca, port] = {}
        elif ca and (match := _PAIR.fullmatch(line)):
            if port:
                ports[ca, port].setdefault(match[1], match[2])
            elif match[1] == "Number of ports":
                counts[ca] = match[2]
        elif said := complaint([line]) or (line if "ibpanic" in line or (ca and line) else ""):
            page.gap(f"not of ibstat: {said[:200]}")
    if not counts:
        raise stranger("ibstat", text)
    shown = Counter(name for name, _ in ports)
    for name, count in counts.items():
        if number(count) != shown[name]:
            page.gap(f"{name} has {count or '?'} ports, {shown[name]} are shown")
    for (name, number_), said_ in ports.items():
        _ib_port(page, f"{name}/{number_}", said_)
    page.endless = True
    return page


def _ib_port(page: Page, part: str, said: dict[str, str]) -> None:
    if missing := [name for name in _NEEDED if name not in said]:
        page.gap(f"{part}: {', '.join(missing)} missing: it was cut")
        return
    up = said["State"] == "Active" and said["Physical state"] == "LinkUp"
    known = said["State"] in ("Active", "Down", "Initializing", "Armed", "Initialize")
    page.add(
        "State",
        part,
        f"{said['State']}, {said['Physical state']}",
        "",
        P if up else F if known else E,
        "" if up else "the port is not up",
    )
    if (rate := number(said["Rate"])) is None:
        page.gap(f"{part}: the rate is {said['Rate'][:40]!r}")
    elif up:
        page.add("Rate", part, rate, "Gb/s")
    page.add("Link layer", part, said["Link layer"])


ibstat = parser("ibstat", _read_ibstat)

# --- perftest ---------------------------------------------------------------------------------------------------------

_BANNER = re.compile(r"((?:RDMA_)?[A-Za-z_]{3,20})(?: Bidirectional| Post List| \w{1,20})? BW Test")
_HEAD = re.compile(
    r"#bytes\s{1,12}#iterations\s{1,12}BW peak\[(MB|Gb)/sec\]\s{1,12}BW average\[(MB|Gb)/sec\]\s{1,12}MsgRate\[Mpps\].{0,60}"
)
_FAILED = re.compile(
    r"couldn't|could not|unable to|failed|completion with error|problems with|error|timeout|mismatch", re.IGNORECASE
)
_RULE = re.compile(r"-{60,}")
_RULES = 4
"""Rules that one end prints: above its banner, below the settings, below the addresses, below the table."""
_GB = {"MB": 2**20 / 1e9, "Gb": 1 / 8}


def _read_perftest(text: str) -> Page:
    page, unit, closed, tests, heads, rules = Page(), "", False, 0, 0, 0
    for line in text.split("\n"):
        line = line.strip()
        tokens = line.split(maxsplit=12)
        if _BANNER.fullmatch(line[:100]):
            tests += 1
        elif match := _HEAD.fullmatch(line[:300]):
            unit, heads = match[2], heads + 1
        elif unit and tokens and tokens[0].isdecimal():
            closed = False
            _perftest_row(page, tokens, unit)
        elif _RULE.fullmatch(line):
            closed, rules = True, rules + 1
        elif _FAILED.search(line[:1000]) and not line.startswith(("Data ex.", "WARNING", "#")):
            page.gap(line[:200])
    if not tests or not unit:
        raise Unreadable(page.gaps[0]) if page.gaps else stranger("perftest", text)
    if not page.rows:
        page.gap("the table has no rows")
    if not closed or heads != tests or rules < _RULES * tests:
        page.gap("the table is not closed: it did not finish, or was cut")
    return page


def _perftest_row(page: Page, tokens: list[str], unit: str) -> None:
    values = [number(token) for token in tokens[1:5]]
    if len(values) < 4 or None in values:
        page.gap(f"a row was not understood: {' '.join(tokens)[:80]!r}")
        return
    page.add("bandwidth", f"{tokens[0]} B", (values[2] or 0.0) * _GB[unit], "GB/s")
    page.add("messages", f"{tokens[0]} B", values[3], "Mpps")


ib_write_bw = parser("ib_write_bw", _read_perftest, measures=True)
