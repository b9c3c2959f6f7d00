"""nvbandwidth: text, JSON, and text of several nodes under MPI.

Values are judged elsewhere, cell by cell; SUM is only used to see that the cells are all there. A pattern that did not come
back as it was written is wrong data: FAIL. A test that was waived measured nothing: it has no row, and a note says so.
Complete is text with a SUM for every test that began and the closing note, or a JSON object with every test ended.
In JSON of several nodes before v0.9 remote devices are missing (NVIDIA/nvbandwidth#54): read the text there.
Sources: NVIDIA/nvbandwidth output.cpp and json_output.cpp; captures of v0.5, v0.7, v0.8.
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

_VERSION = re.compile(r"v?0\.\d{1,3}(\.\d+)?([-+]\w+)*")
_RUNNING = re.compile(r"Running (\w{1,80})\.")
_SUM = re.compile(r"SUM (\w{1,80}) (\S{1,30})")
_OTHER = re.compile(r"(MIN|MAX|AVG|COEFFICIENT_OF_VARIATION) \w{1,80} \S{1,30}")
_DEVICE = re.compile(r"(?:Process {1,4}(\d+) \((\S{1,80})\): device|Device) (\d+): (.{1,120})")
_UNIT = re.compile(r"\((GB/s|ns|us)\)\s*$")
_CLOSING = (
    "NOTE: The reported results may not reflect the full capabilities of the platform.",
    "NOTE: This tool reports current measured bandwidth on your system.",
)
_STATUS = re.compile(r"(Waived|Not Found|Error)[:.] ?(.{0,200})")
_PATTERN = re.compile(r"Invalid value when checking the pattern")
_DIED = re.compile(r"\bASSERT\b|CUDA_ERROR|\[\w*ERROR\w*\]|^ERROR|not found|NOT FOUND", re.IGNORECASE)
_CELL = re.compile(r"N/A|-?\d+\.\d+")


class _Text:
    """One pass over the lines."""

    def __init__(self) -> None:
        self.page = Page()
        self.test = ""
        self.sums = 0
        self.unit = ""
        self.columns = 0
        self.cells: list[tuple[int, int, str]] = []
        self.began = False
        self.closed = False

    def read(self, text: str) -> Page:
        for line in text.split("\n"):
            self.line(line.strip())
        if not self.began:
            raise stranger("nvbandwidth", text)
        if self.page.version is None:
            self.page.gap("the version is missing: the beginning was cut")
        self.end_test()
        if not self.closed:
            self.page.gap("the closing note is missing: it did not finish, or was cut")
        return self.page

    def line(self, line: str) -> None:
        if line.startswith("nvbandwidth Version:"):
            self.end_test()
            self.page.version, self.began, self.closed = line.split(":", 1)[1].strip()[:40], True, False
            if not _VERSION.fullmatch(self.page.version):
                raise Unreadable(f"nvbandwidth {self.page.version} is not one that we know to read (v0.x)")
        elif match := _RUNNING.fullmatch(line):
            self.end_test()
            self.test, self.began, self.closed = match[1], True, False
        elif not self.began or not line:
            return
        elif _PATTERN.search(line):
            self.page.add(self.test or "pattern", "", None, "", Outcome.FAIL, line[:200])
        elif match := _STATUS.fullmatch(line[:400].strip()):
            self.status(match[1], match[2])
        elif _DIED.search(line[:2000]):
            self.page.gap(f"it died: {line[:200]}")
        elif line in _CLOSING:
            self.closed = True
        elif line in ("...", "[...]"):
            self.page.gap("lines were left out")
        elif match := _DEVICE.fullmatch(line):
            part = f"process {match[1]}" if match[1] else f"device {match[3]}"
            self.page.add("device", part, f"{match[2]} {match[3]}: {match[4]}" if match[2] else match[4])
        elif self.test:
            self.matrix(line)

    def status(self, word_: str, said: str) -> None:
        """Of the test that runs; or, without a name, of one that did not begin."""
        if word_ != "Waived":
            self.page.gap(f"{self.test or 'a test'}: {word_}: {said}")
            return
        unfinished = self.test and not self.sums and not self.cells
        self.page.notes.append(f"{self.test if unfinished else 'a test that it does not name'} was waived: it measured nothing")
        if unfinished:
            self.test = ""

    def matrix(self, line: str) -> None:
        """One test may print several matrices (read1, read2, total), each with its SUM."""
        tokens = line.split(maxsplit=4096)
        if match := _SUM.fullmatch(line):
            self.sum(match[1], match[2])
        elif match := _UNIT.search(line):
            self.unit = match[1]
        elif _OTHER.fullmatch(line):
            return
        elif all(t.isdecimal() for t in tokens) and [int(t[:9]) for t in tokens] == list(range(len(tokens))):
            self.columns = len(tokens)
        elif tokens[0].isdecimal() and len(tokens) == self.columns + 1 and all(_CELL.fullmatch(t) for t in tokens[1:]):
            self.cells += [(int(tokens[0][:9]), column, said) for column, said in enumerate(tokens[1:])]
        elif tokens[0].isdecimal():
            self.page.gap(f"a row of {self.test} was not understood: {line[:80]!r}")

    def sum(self, name: str, said: str) -> None:
        if not name.startswith(self.test) or not self.unit:
            self.page.gap(f"SUM of {name} does not belong to {self.test}")
        add_cells(self.page, name, self.unit, self.cells, number(said))
        self.sums, self.cells, self.unit, self.columns = self.sums + 1, [], "", 0

    def end_test(self) -> None:
        if self.test and (not self.sums or self.cells):
            self.page.gap(f"{self.test} began and has no SUM: it did not finish")
        self.test, self.sums, self.unit, self.columns, self.cells = "", 0, "", 0, []


def add_cells(page: Page, test: str, unit: str, cells: list[tuple[int, int, str]], total: float | None) -> None:
    """One row per cell, when the cells agree with their sum. N/A is expected on the diagonal only."""
    values = [(row, column, number(said)) for row, column, said in cells]
    known = [value for _, _, value in values if value is not None]
    if total is None or not known or abs(sum(known) - total) > 0.01 * len(known) + 1e-4 * abs(total):
        page.gap(f"{test}: {len(known)} cells do not add up to their SUM {total}")
    for row, column, value in values:
        if value is not None:
            page.add(test, f"row {row} column {column}", value, unit)
        elif row != column:
            page.add(test, f"row {row} column {column}", None, unit, Outcome.UNKNOWN, "this pair has no value")


def _read_json(text: str) -> Page:
    document = load_json(text)
    body, page = part_of(document.root, "nvbandwidth"), Page()
    if not body:
        raise Unreadable("the JSON is not of nvbandwidth")
    page.version = word(body.get("version")) or word(body.get("git_version"))
    if page.version is None or not _VERSION.fullmatch(page.version):
        raise Unreadable(f"nvbandwidth {page.version} is not one that we know to read (v0.x)")
    if document.again:
        page.gap(f"beside the JSON: {document.beside}")
    for line in document.around:
        if _PATTERN.search(line[:2000]):
            page.add("pattern", "", None, "", Outcome.FAIL, line.strip()[:200])
        elif "ASSERT" in line[:2000] or complaint([line]):
            page.gap(f"beside the JSON: {line.strip()[:200]}")
    if said := word(body.get("error")):
        page.gap(f"it says: {said[:200]}")
    for device in items(body.get("GPU Device list")):
        number_, _, name = (word(device) or "").partition(":")
        page.add("device", f"device {number_}", name.strip())
    if not items(body.get("testcases")):
        page.gap("no test is in it")
    for case in items(body.get("testcases")):
        _case(page, part_of(case))
    return page


def _case(page: Page, case: dict[str, object]) -> None:
    name, status = word(case.get("name")) or "?", word(case.get("status"))
    if name == "?":
        page.gap("a test has no name")
    if status == "Waived":
        page.notes.append(f"{name} was waived: it measured nothing")
    elif status == "Passed":
        described = word(case.get("bandwidth_description")) or ""
        unit = match[1] if (match := _UNIT.search(described)) else ""
        matrix = [items(row) for row in items(case.get("bandwidth_matrix"))]
        if not unit or any(len(row) != len(matrix[0]) for row in matrix):
            page.gap(f"{name} has no unit, or rows of different length")
        elif (
            matrix and len(matrix) == 3 * len(matrix[0]) > 3
        ):  # read1, read2 and total lie one below the other; the sum is the last one's
            for n, part in enumerate(("_1", "_2", "_total")):
                block = matrix[n * len(matrix[0]) : (n + 1) * len(matrix[0])]
                add_cells(page, name + part, unit, _cells(block), number(case.get("sum")) if part == "_total" else _total(block))
        else:
            add_cells(page, name, unit, _cells(matrix), number(case.get("sum")))
    elif status == "Error" and _PATTERN.search(str(case.get("error", ""))):
        page.add(name, "", None, "", Outcome.FAIL, str(case.get("error"))[:200])
    else:
        page.add(name, "", None, "", Outcome.ERROR, f"status {status}: {str(case.get('error', ''))[:200]}")


def _cells(matrix: list[list[object]]) -> list[tuple[int, int, str]]:
    return [(r, c, word(cell) or "") for r, row in enumerate(matrix) for c, cell in enumerate(row)]


def _total(matrix: list[list[object]]) -> float:
    return sum(number(cell) or 0.0 for row in matrix for cell in row)


def _read(text: str) -> Page:
    if re.search(r"^[ \t]*\{", text, re.MULTILINE) and "nvbandwidth Version:" not in text:
        return _read_json(text)
    return _Text().read(text)


nvbandwidth = parser("nvbandwidth", _read, measures=True)
