"""dcgmi diag, levels 1 to 4, of DCGM 2 to 4: table and JSON.

"Successfully ran diagnostic" says that it ran. The verdict is in the rows: the row of a test counts, also when every GPU
below it says Pass (an error of the test as a whole), and a test that says Pass above a warning has not passed.
Complete is a table with its closing border, and a JSON object that closes with a result for every test.
Sources: NVIDIA/DCGM dcgmi/Diag.cpp and testing/python3/dcgm_diag_schema.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from burnin.checks.tools.reading import (
    Outcome,
    Page,
    Row,
    Unreadable,
    complaint,
    items,
    load_json,
    parser,
    part_of,
    stranger,
    word,
)

RESULTS = {
    "Pass": Outcome.PASS,
    "Fail": Outcome.FAIL,
    "Warn": Outcome.UNKNOWN,
    "Skip": Outcome.UNKNOWN,
    "Not Run": Outcome.UNKNOWN,
}
_WHY = {
    "Warn": "a warning is not a pass",
    "Skip": "it was skipped, so nothing is known",
    "Not Run": "it did not run, so nothing is known",
}
_VERSION = re.compile(r"[234]\.\d+(\.\d+)*([-+~.]\w+)*")


_MANY = 40
"""Messages of one test that are kept; an honest one has a few, and every row is held against every message."""


def outcome_of(said: object) -> tuple[Outcome, str]:
    """DCGM's five words, also in capitals (nvvs itself). Another word is ERROR."""
    text = word(said) or ""
    name = text if text in RESULTS else text.title()
    if name not in RESULTS or text not in (name, name.upper()):
        return Outcome.ERROR, f"the verdict {text[:60]!r} is not one of DCGM's"
    return RESULTS[name], _WHY.get(name, "")


_WHOLE = ("", "All")
Message = tuple[str, frozenset[str]]
"""What was said, and of whom; of nobody is of the test as a whole."""


def message(text: str, own: Sequence[str] = ()) -> Message:
    """`own`: the parts of the result that it stood in. A result of one part needs no name; else the GPUs that it names."""
    if len(own) == 1 and own[0]:
        return text, frozenset(own)
    first = re.match(r"(GPU|CPU) ?(\d{1,5})\b", text)
    said = [first] if first else list(re.finditer(r"\b(GPU|CPU) ?(\d{1,5})\b", text[:4000]))
    return text, frozenset(f"{one[1]} {one[2]}" for one in said)


def judge(name: str, rows: list[Row], messages: list[Message]) -> Iterator[Row]:
    """The rows of one test with its warnings. A Pass with a warning is not one: of the part that the warning speaks of, or of
    the test where it speaks of nobody and no row is bad that it may explain."""
    spoken = messages[:_MANY]
    if len(messages) > _MANY:
        spoken.append((f"and {len(messages) - _MANY} more", frozenset()))
    bad = any(row.result is not Outcome.PASS for row in rows)
    there = {row.part for row in rows}
    whole = {row.result for row in rows if row.part in _WHOLE}
    if whole - {Outcome.PASS}:  # the test as a whole is bad: what is said of a part without a row of its own explains it
        spoken = [(text, parts if parts <= there else frozenset()) for text, parts in spoken]
    general = [text for text, parts in spoken if not parts]
    for row in rows:
        mine = [text for text, parts in spoken if row.part in parts]
        if row.result is not Outcome.PASS:
            told = [*([row.why] if row.why else []), *mine, *general]
            yield Row(row.name, row.part, row.value, "", row.result, "; ".join(told))
        elif mine or (general and row.part in _WHOLE and not bad):
            yield _warned(row.name, row.part, row.value, [*mine, *general] if row.part in _WHOLE else mine)
        else:
            yield row
    if general and not whole and not bad:
        yield _warned(name, "", "Pass", general)
    for part in sorted({part for _, parts in spoken for part in parts} - there):
        yield _warned(name, part, None, [text for text, parts in spoken if part in parts])


def _warned(name: str, part: str, value: float | str | None, said: list[str]) -> Row:
    return Row(name, part, value, "", Outcome.UNKNOWN, "Pass, with a warning: " + "; ".join(said))


def check_version(page: Page, version: str | None, known: str) -> None:
    """`known` are the majors that the layout belongs to."""
    page.version = version
    if version is not None and not (_VERSION.fullmatch(version) and version[0] in known):
        raise Unreadable(f"DCGM version {version[:40]!r} is not one that we know to read (major {', '.join(known)})")


# --- JSON -------------------------------------------------------------------------------------------------------------

_ROOTS = {"DCGM Diagnostic": "4", "DCGM GPU Diagnostic": "23"}


def _read_json(text: str) -> Page:
    document = load_json(text)
    root, page = document.root, Page()
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    runs = root.get("iterations")
    if runs is None:
        _read_root(page, root)
        return page
    if not items(runs):
        page.gap("no iteration is in it")
    for run in items(runs):
        _read_root(page, run if isinstance(run, dict) else {})
    overall = root.get("Overall Result", root.get("result"))
    result, why = outcome_of(overall)
    page.add("Overall Result", "", word(overall), "", result, why or word(root.get("warning")) or "")
    return page


def _read_root(page: Page, root: dict[str, Any]) -> None:
    name = next((n for n in _ROOTS if n in root), None)
    if name is None:
        raise Unreadable("the JSON is not of dcgmi diag")
    body = part_of(root, name)
    version = word(part_of(root, "metadata").get("version")) or word(body.get("version")) or word(body.get("DCGM Version"))
    check_version(page, version, _ROOTS[name])
    if name == "DCGM Diagnostic" and version is None:
        page.gap("the DCGM version is missing")
    for said in _errors(root):
        page.gap(f"the engine could not run it: {said}"[:300])
    for overall in (of.get(key) for of in (root, body) for key in ("overall", "Overall Result", "overall_result", "result")):
        if isinstance(overall, str) and outcome_of(overall)[0] is not Outcome.PASS:
            page.add("Overall Result", "", overall, "", *outcome_of(overall))
    categories = items(body.get("test_categories"))
    if not categories:
        page.gap("no test is in it")
    for category in categories:
        tests = items(part_of(category).get("tests"))
        if not tests:
            page.gap(f"category {word(part_of(category).get('category'))!r} has no tests")
        for test in tests:
            page.rows += _test_of_json(page, part_of(test), need_summary=name == "DCGM Diagnostic")
    if name == "DCGM Diagnostic":
        gpus = {
            f"GPU {word(part_of(e).get('entity_id'))}"
            for g in items(root.get("entity_groups")) if part_of(g).get("entity_group") == "GPU"
            for e in items(part_of(g).get("entities"))
        }  # fmt: skip
        _everyone_was_tested(page, gpus)


def _errors(root: dict[str, Any]) -> Iterator[str]:
    """What is called an error, anywhere that a result is not; one that says nothing (null, "", 0, []) is none."""
    ahead: list[Any] = [root]
    while ahead:
        one = ahead.pop()
        for key, value in one.items() if isinstance(one, dict) else ():
            if key.lower() in _ERRORS and value not in (None, "", 0, [], {}):
                yield f"{key}: {word(value) or str(value)[:200]}"
        ahead += [v for v in (one.values() if isinstance(one, dict) else one) if isinstance(v, dict | list)]


_ERRORS = ("error", "errors", "error_code", "runtime_error", "failure", "failures", "global_errors")


def _test_of_json(page: Page, test: dict[str, Any], need_summary: bool) -> list[Row]:
    name = word(test.get("name")) or "?"
    results, rows, messages = items(test.get("results")), [], list[Message]()
    summary = test.get("test_summary")
    if isinstance(summary, dict):
        result, why = outcome_of(summary.get("status"))
        rows.append(Row(name, "", word(summary.get("status")), "", result, why))
    elif need_summary:
        page.gap(f"test {name!r} has no summary")
    if not results and not (rows and rows[0].result is not Outcome.PASS):
        page.gap(f"test {name!r} has no result")
    for each in results:
        each = part_of(each)
        result, why = outcome_of(each.get("status"))
        parts = _parts(each)
        rows += [Row(name, part, word(each.get("status")), "", result, why) for part in parts]
        messages += [message(text, parts) for text in _warnings(each)]
    told = {text for text, _ in messages}
    messages += [message(text) for text in _warnings(part_of(summary)) if text not in told]
    return list(judge(name, rows, list(dict.fromkeys(messages))))


def _parts(result: dict[str, Any]) -> list[str]:
    if "entity_group" in result:
        return [f"{word(result.get('entity_group'))} {word(result.get('entity_id'))}"]
    for key, kind in (("gpu_id", "GPU"), ("gpu_ids", "GPU"), ("cpu_id", "CPU")):
        if (ids := word(result.get(key))) is not None:
            return [f"{kind} {one.strip()}" for one in ids.split(",")[:1024]]
    return [""]


def _warnings(result: dict[str, Any]) -> list[str]:
    said = result.get("warnings", result.get("warning"))
    out = []
    for one in said if isinstance(said, list) else [said]:
        text = one if isinstance(one, str) else part_of(one).get("warning") or part_of(one).get("warnings")
        if text or one:
            out.append(word(text) or "a warning without words")
    return out


def _everyone_was_tested(page: Page, gpus: set[str]) -> None:
    seen = {row.part for row in page.rows}
    if missing := sorted(gpus - seen):
        page.gap(f"detected, but in no result: {', '.join(missing)}")


# --- table ------------------------------------------------------------------------------------------------------------

BORDER = re.compile(r"\+-{8,}\+-{8,}\+")
_HEAD = re.compile(r"\+={8,}\+={8,}\+")
SECTION = re.compile(r"[|+]-{2,} {1,4}(\w[\w -]*?\w) {1,4}-{2,}\+-{8,}[|+]")
CELLS = re.compile(r"\| (.{25}) \| (.{0,200}?) *(\|?)")
_VERDICT = re.compile(r"(Pass|Fail|Warn|Skip|Not Run)(?: - (?:(All)|GPUs?: ([\d, ]+)(\.*)))?")
_ENTITY = re.compile(r"([A-Za-z][A-Za-z ]{0,30}?) ?(\d{1,5}): (Pass|Fail|Warn|Skip|Not Run)")
_MESSAGE = ("Warning", "Error", "Info")
_NOT_RUN = ("Unable", "Failed", "Could not", "Cannot", "Diagnostic failed")
_AFTER = re.compile(r"Running iteration (\d+) of (\d+)\.\.\.|Passed all (\d+) runs of the diagnostic")


def _read(text: str) -> Page:
    if re.search(r"^\+=+\+=+\+", text, re.MULTILINE) or re.search(r"^\| .{25} \| ", text, re.MULTILINE):
        return _Table().read(text)
    if re.search(r"^[ \t]*\{", text, re.MULTILINE):
        return _read_json(text)
    raise stranger("dcgmi diag", text)


class _Table:
    """One pass over the lines of one or more tables."""

    def __init__(self) -> None:
        self.page = Page()
        self.section = ""
        self.state = "before"
        self.test: str | None = None
        self.rows: list[Row] = []
        self.said: dict[str, list[str]] = {kind: [] for kind in _MESSAGE}
        self.open: str | None = None
        self.devices = 0
        self.tables = 0
        self.runs: list[str] = []

    def read(self, text: str) -> Page:
        for line in text.split("\n"):
            if line.strip():
                self.line(line.strip())
        self.finish()
        if self.state != "after":
            self.page.gap("the table has no closing border: it was cut")
        if self.runs and self.runs != [str(n) for n in range(1, len(self.runs))] + ["all"]:
            self.page.gap("not all iterations were run, or the end is missing")
        if self.page.version is None and any(row.name.islower() for row in self.page.rows):
            self.page.gap("the DCGM version is missing")
        return self.page

    def line(self, line: str) -> None:
        if match := _AFTER.fullmatch(line):
            self.runs.append(match[1] or "all")
        elif _HEAD.fullmatch(line):
            self.state, self.section, self.devices = "in", "", 0
        elif BORDER.fullmatch(line):
            if self.state == "in":
                self.finish()
                self.state = "after"
        elif match := SECTION.fullmatch(line):
            self.finish()
            self.section = match[1]
        elif line.startswith("|"):
            self.row(line)
        elif self.state == "in":
            self.page.gap(f"a line in the table was not understood: {line[:80]!r}")
        elif self.state == "after":
            if not line.startswith("Successfully ran diagnostic"):
                self.page.gap(f"after the table: {line[:200]}")
        elif (said := complaint([line])) or line.startswith(_NOT_RUN):
            self.page.gap(f"before the table: {said or line[:200]}")

    def row(self, line: str) -> None:
        cells = CELLS.fullmatch(line)
        if cells is None:
            self.page.gap(f"a row was not understood: {line[:80]!r}")
            return
        name, info, closed = cells[1].rstrip(), cells[2], cells[3]
        if not closed:
            self.page.gap("a row is not closed: it was cut")
        if name == "Diagnostic" and info == "Result":
            return
        if self.state != "in":
            self.page.gap("the head of the table is missing")
        if self.section == "Metadata":
            self.metadata(name, info)
        elif name in _MESSAGE:
            self.open = name
            self.said[name].append(info)
        elif not name.strip():
            self.below(info)
        else:
            self.finish()
            self.test = name.strip()
            self.verdict(info)

    def metadata(self, name: str, info: str) -> None:
        if name == "DCGM Version":
            check_version(self.page, info.strip(), "234")
        elif name == "GPU Device IDs Detected" or (not name.strip() and self.devices):
            self.devices += len([d for d in info.split(",") if d.strip()])

    def below(self, info: str) -> None:
        """A row without a name: an entity's verdict, a further verdict of the test, or more of a message."""
        if self.test is not None and (match := _ENTITY.fullmatch(info)):
            result, why = outcome_of(match[3])
            self.rows.append(Row(self.test, f"{match[1]} {match[2]}", match[3], "", result, why))
            self.open = None
        elif self.test is not None and self.open is None:
            self.verdict(info)
        elif self.open is None:
            self.page.gap(f"a row belongs to no test: {info[:80]!r}")
        else:
            # wrapped at 45 characters, also in the middle of a word; the padding took the blanks at the end
            so_far = self.said[self.open]
            if len(so_far[-1]) < 4000:
                so_far[-1] += " " * (-len(so_far[-1]) % 45) + info

    def verdict(self, info: str) -> None:
        match = _VERDICT.fullmatch(info.strip())
        if match is None or self.test is None:
            self.page.gap(f"test {self.test!r} has no verdict that we know: {info.strip()[:60]!r}")
            return
        result, why = outcome_of(match[1])
        if match[4]:
            self.page.gap(f"the list of GPUs of {self.test!r} is cut")
        gpus = [f"GPU {n.strip()}" for n in (match[3] or "").split(",") if n.strip()] or [match[2] or ""]
        self.rows += [Row(self.test, part, match[1], "", result, why) for part in gpus]

    def finish(self) -> None:
        """The test above is over: its rows and what was said of it go to the page."""
        errors, messages = self.said["Error"], [*self.said["Error"], *self.said["Warning"]]
        if not any(row.result is Outcome.FAIL for row in self.rows):
            for said in errors:
                named = re.search(r"\bGPU (\d+)", said)
                result = Outcome.FAIL if named else Outcome.ERROR
                self.page.add(self.test or "Error", f"GPU {named[1]}" if named else "", "Error", "", result, said)
        if self.test is not None:
            self.page.rows += judge(self.test, self.rows, [message(said) for said in messages])
            if self.page.version is not None and self.page.version[0] == "4":
                gpus = sum(row.part.startswith("GPU ") for row in self.rows)
                passed = all(row.result is Outcome.PASS for row in self.rows)
                if 0 < gpus < self.devices or (passed and not any(row.part for row in self.rows)):
                    self.page.gap(f"test {self.test!r} has {gpus} GPUs of {self.devices}")
        self.test, self.open, self.rows, self.said = None, None, [], {kind: [] for kind in _MESSAGE}


diag = parser("dcgmi diag", _read)
