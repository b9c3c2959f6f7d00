"""nccl-tests (all_reduce_perf and the others): table and JSON.

Values are judged elsewhere: bus bandwidth per size, out-of-place and in-place. Wrong is FAIL: #wrong above 0, "Out of bounds
values ... FAILED", or a bandwidth that the tool itself called FAILED. A crash is ERROR: it says that it could not measure, not
which part is bad. #wrong N/A is neither 0 nor an error; when nothing at all was validated, that is UNKNOWN.
Complete is a table followed by both closing lines (# Out of bounds values, # Avg bus bandwidth), each with what ends it.
Sources: NVIDIA/nccl-tests src/common.cu and src/util.cu; captures from 2.x before 2.13 to 2.20.
"""

from __future__ import annotations

import re

from burnin.checks.tools.reading import (
    Outcome,
    Page,
    Unreadable,
    complaint,
    items,
    load_json,
    number,
    parser,
    part_of,
    stranger,
    word,
)

_TAG = re.compile(r"[ \t]*\[(?:[\w.-]{1,80}@)?\d+,\d+\]<std(?:out|err)>:|\d{1,5}: ")
"""What mpirun --tag-output, prterun and srun --label put before a line."""
_TYPES = re.compile(r"(u?int(8|32|64)|half|float|double|bfloat16|float(16|32|64)|f(p)?8_?\w{1,8}|fp8_\w{1,8})")
_LEAD = {
    "size": re.compile(r"\d{1,18}"), "count": re.compile(r"\d{1,18}"), "type": _TYPES,
    "redop": re.compile(r"[a-z]{2,12}"), "root": re.compile(r"-1|\d{1,6}"),
}  # fmt: skip
_TAIL = {"time", "cputime", "algbw", "busbw", "#wrong", "error", "#iters"}
_RANK = re.compile(
    r"#\s{1,8}Rank\s{1,8}(\d{1,6})\s{1,8}(?:Group\s{1,8}\d+\s{1,8})?Pid\s{1,12}\d+"
    r" on\s{1,40}(\S{1,80}) device\s{1,8}(\d+) \[([^\]]{1,20})\] (.{1,80})"
)
_BOUNDS = re.compile(r"# Out of bounds values : (\d{1,18}) (OK|FAILED)")
_AVERAGE = re.compile(r"# Avg bus bandwidth {1,8}: (\S{1,24})(?: (OK|FAILED)?)? *")
_VERSION = re.compile(r"# nccl-tests version (\S{1,20})")
_NCCL = re.compile(r"NCCL version (\d+\.\d+\.\d+)")
_DIED = re.compile(
    r"Test (?:NCCL |CUDA )?failure |unhandled (?:system|cuda) error|slots available in the system"
    r"|ORTE|prterun|mpirun (?:noticed|has exited)"
)
_HALVES = ("out-of-place", "in-place")


class _Table:
    """One pass over the lines."""

    def __init__(self) -> None:
        self.page = Page()
        self.lead: list[str] = []
        self.tail: list[str] = []
        self.rows = 0
        self.validated = 0
        self.bounds = False
        self.average = False

    def read(self, text: str) -> Page:
        lines = text.split("\n")
        for at, line in enumerate(lines):
            tag = _TAG.match(line)
            line = line[tag.end() :] if tag else line
            self.line(line.strip(), ended=at + 1 < len(lines) or line.endswith(" "))
        if not self.tail:
            raise Unreadable(self.page.gaps[0]) if self.page.gaps else stranger("nccl-tests", text)
        if not self.rows:
            self.page.gap("the table has no rows")
        if not (self.bounds and self.average):
            self.page.gap("the closing lines are missing: it did not finish, or was cut")
        _check_average(self.page)
        if self.rows and not self.validated:
            self.page.add("wrong", "", None, "1", Outcome.UNKNOWN, "no result was validated: #wrong is N/A everywhere")
        return self.page

    def line(self, line: str, ended: bool) -> None:
        tokens = line.split(maxsplit=40)
        if _DIED.search(line[:2000]):
            self.page.gap(f"it died: {line[:200]}")
        elif not tokens:
            return
        elif line.startswith("#"):
            self.comment(line, tokens, ended)
        elif line in ("...", "[...]") and self.tail:
            self.page.gap("lines were left out")
        elif self.tail and len(tokens) > 2 and tokens[0].isdecimal() and tokens[1].isdecimal() and _TYPES.fullmatch(tokens[2]):
            self.row(tokens)
        elif match := _NCCL.search(line[:400]):
            self.page.version = self.page.version or f"NCCL {match[1]}"
        elif " NCCL WARN " in line[:2000]:
            self.page.notes.append(line[line.find("NCCL WARN") :][:200])
        elif said := complaint([line]):
            self.page.gap(said)

    def comment(self, line: str, tokens: list[str], ended: bool) -> None:
        if match := _RANK.fullmatch(line[:400]):
            self.page.add("rank", f"rank {match[1]}", f"{match[2]} device {match[3]} [{match[4]}] {match[5]}")
        elif {"size", "count", "type", "busbw"} <= set(tokens):
            self.head(tokens[1:] if tokens[0] == "#" else [tokens[0][1:], *tokens[1:]])
        elif match := _BOUNDS.fullmatch(line):
            self.bounds = True
            wrong = float(match[1])
            bad = match[2] == "FAILED" or wrong > 0
            self.page.add(
                "out of bounds", "", wrong, "1", Outcome.FAIL if bad else Outcome.MEASURED, "results are wrong" if bad else ""
            )
        elif (match := _AVERAGE.fullmatch(line)) and number(match[1]) is not None and (ended or match[2]):
            self.average = True
            bad = match[2] == "FAILED"
            why = "below the minimum that the test was given" if bad else ""
            self.page.add("average busbw", "", number(match[1]), "GB/s", Outcome.FAIL if bad else Outcome.MEASURED, why)
        elif match := _VERSION.match(line):
            self.page.version = match[1]
            if not match[1].startswith("2."):
                raise Unreadable(f"nccl-tests {match[1]} is not one that we know to read (2.x)")

    def head(self, columns: list[str]) -> None:
        first = next((n for n, c in enumerate(columns) if c in ("time", "cputime")), 0)
        self.lead, self.tail = columns[:first], columns[first:]
        if self.lead[:3] != ["size", "count", "type"] or not set(self.lead) <= set(_LEAD) or not set(self.tail) <= _TAIL:
            raise Unreadable(f"columns that we do not know to read: {' '.join(columns)[:200]}")
        if self.tail.count("busbw") != 2:
            raise Unreadable(f"{self.tail.count('busbw')} columns of busbw where 2 were expected")

    def row(self, tokens: list[str]) -> None:
        """Read from the right: redop may be blank in old tables. A row is taken whole or not at all: shifted, its values lie."""
        many = len(self.tail)
        lead = tokens[: max(0, len(tokens) - many)]
        known = zip(self.lead, lead, strict=False)
        good = lead and all(_LEAD[name].fullmatch(said) for name, said in known)
        if not good or (len(lead) != len(self.lead) and (len(lead), self.lead[-1]) != (3, "redop")):
            self.page.gap(f"a row has {len(tokens)} words that do not fit its columns: {' '.join(tokens)[:120]!r}")
            return
        values = [number(said) for said in tokens[-many:]]
        for name, said, value in zip(self.tail, tokens[-many:], values, strict=True):
            checked = name in ("#wrong", "error")
            if (value is None and not (checked and said == "N/A")) or (name == "#wrong" and value is not None and value % 1):
                self.page.gap(f"{name} of {tokens[0]} B is {said[:40]!r}")
                return
        self.rows += 1
        half = -1
        for name, value in zip(self.tail, values, strict=True):
            half += name in ("time", "cputime")
            part = f"{tokens[0]} B {tokens[2]} {_HALVES[min(half, 1)]}"
            if name in ("time", "cputime", "algbw", "busbw"):
                self.page.add(name, part, value, "us" if "time" in name else "GB/s")
            elif value is not None and name != "#iters":
                self.validated += 1
                bad = name == "#wrong" and value != 0
                result = Outcome.FAIL if bad else Outcome.MEASURED
                self.page.add(name.strip("#"), part, value, "1", result, "wrong results" if bad else "")


def _check_average(page: Page) -> None:
    """The tool's average is the mean of all rows, both halves: if the rows do not make it, rows are missing."""
    rows = [row.value for row in page.rows if row.name == "busbw" and isinstance(row.value, float)]
    said = [row.value for row in page.rows if row.name == "average busbw" and isinstance(row.value, float)]
    if rows and said and abs(sum(rows) / len(rows) - said[-1]) > 0.02 + 2e-4 * said[-1]:
        page.gap(f"the mean of the rows is {sum(rows) / len(rows):.3f}, the average says {said[-1]}: rows are missing")


# --- JSON (-J) --------------------------------------------------------------------------------------------------------


def _read_json(text: str) -> Page:
    document = load_json(text)
    root, page = document.root, Page()
    if "results" not in root or "nccl_version" not in root:
        raise Unreadable("the JSON is not of nccl-tests")
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    page.version = f"NCCL {word(root.get('nccl_version'))}, file {word(root.get('version'))}"
    if number(root.get("version")) not in (1, 2, 3, 4):
        raise Unreadable(f"file version {word(root.get('version'))} is not one that we know to read (1 to 4)")
    validated = 0
    for each in items(root["results"]):
        validated += _result(page, part_of(each))
    if not items(root["results"]):
        page.gap("no result is in it")
    elif not validated:
        page.add("wrong", "", None, "1", Outcome.UNKNOWN, "no result was validated")
    bounds, average = part_of(root, "out_of_bounds"), part_of(root, "average_bus_bandwidth")
    wrong, okay = number(bounds.get("count")), _truth(bounds.get("okay"))
    if wrong is None or okay is None or "end_time" not in root:
        page.gap("the closing values are missing: it did not finish")
    else:
        bad = wrong > 0 or not okay
        page.add("out of bounds", "", wrong, "1", Outcome.FAIL if bad else Outcome.MEASURED, "results are wrong" if bad else "")
    if (mean := number(average.get("bandwidth"))) is None:
        page.gap("the average bandwidth is missing")
    else:
        bad = _truth(average.get("okay")) is False
        why = "below the minimum that the test was given" if bad else ""
        page.add("average busbw", "", mean, "GB/s", Outcome.FAIL if bad else Outcome.MEASURED, why)
    return page


def _truth(said: object) -> bool | None:
    return {"true": True, "false": False, True: True, False: False}.get(said) if isinstance(said, str | bool) else None


def _result(page: Page, result: dict[str, object]) -> int:
    validated = 0
    for half, name in (("out_of_place", _HALVES[0]), ("in_place", _HALVES[1])):
        values = part_of(result.get(half))
        part = f"{word(result.get('size'))} B {word(result.get('type'))} {name}"
        if not values:
            page.gap(f"{part} is missing")
        for key, shown, unit in (
            ("time", "time", "us"),
            ("cpu_time", "cputime", "us"),
            ("alg_bw", "algbw", "GB/s"),
            ("bus_bw", "busbw", "GB/s"),
        ):
            if key in values and (value := number(values[key])) is not None:
                page.add(shown, part, value, unit)
            elif key in values or (key == "bus_bw" and values):
                page.gap(f"{shown} of {part} is not a number")
        wrong = number(values.get("nwrong"))
        if wrong is not None:
            validated += 1
            page.add("wrong", part, wrong, "1", Outcome.FAIL if wrong else Outcome.MEASURED, "wrong results" if wrong else "")
        elif values.get("nwrong") not in (None, "nan", "N/A"):
            page.gap(f"nwrong of {part} is not a number")
    return validated


def _read(text: str) -> Page:
    return _read_json(text) if text.lstrip().startswith("{") else _Table().read(text)


nccl_tests = parser("nccl-tests", _read, measures=True)
