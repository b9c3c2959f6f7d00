"""What a tool said, as a record: the words, and the one place that turns what was read into an outcome.

A parser is pure: (text, exit code, stderr) -> Reading. It never raises, whatever it is given. Its reader takes rows from
the text and says what is missing (a gap); `fold` then decides, for every tool alike:

    not this tool's text, or of a version that we do not know         ERROR
    exit code None: the link was lost                                 ERROR
    a verdict row says that something is bad                          FAIL, also when the rest was cut off
    a gap, an exit code other than 0, an error on stderr, no rows     ERROR, however good the rows look
    a row that proves nothing (Skip, Warn, N/A)                       UNKNOWN
    all verdict rows read, complete, good                             PASS
    complete and nothing wrong, of a tool without a verdict           MEASURED
    the same, of a text that has no end mark                          MEASURED: whoever judges counts GPUs, links, ports

A reader decides what "complete" is by what the tool prints last (a closing border, a summary, a balanced document): a text
that was cut before it has a gap. Only blanks may be missing from the end of a PASS.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

LIMIT = 4 * 2**20
"""Characters. The longest honest output seen is some hundred thousand; beyond this nothing is read: ERROR."""
ROWS = 50_000
"""Rows of one output, likewise; the longest honest one has some thousands."""
_GAPS = 200
"""Gaps that are told; one is enough to be no pass."""


class Outcome(StrEnum):
    """What a tool showed. MEASURED: complete, nothing wrong in it, values to be judged elsewhere. ERROR: it could not show."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"
    ERROR = "ERROR"
    MEASURED = "MEASURED"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a tool's verdict. `part` is the tool's own word (GPU index, link, rank, port); "" is the whole test."""

    name: str
    part: str = ""
    value: float | str | None = None
    unit: str = ""
    result: Outcome = Outcome.MEASURED
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A tool's output, read. `whys`: everything that keeps it from PASS or MEASURED, and what a judge should know besides."""

    tool: str
    version: str | None
    outcome: Outcome
    rows: tuple[Row, ...] = ()
    whys: tuple[str, ...] = ()


class Parse(Protocol):
    """`code` is the exit status of the tool; None says that it is not known, which is never success."""

    def __call__(self, text: str, code: int | None = None, stderr: str = "") -> Reading: ...


class Unreadable(Exception):
    """The text is not this tool's output, or not one that we know how to read."""


@dataclass(slots=True)
class Page:
    """What a reader has taken from a text so far."""

    version: str | None = None
    rows: list[Row] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    endless: bool = False
    """The text has no end mark, so that nobody can see in it whether it is whole: never PASS."""

    def add(
        self, name: str, part: str = "", value: float | str | None = None, unit: str = "",
        result: Outcome = Outcome.MEASURED, why: str = "",
    ) -> None:  # fmt: skip
        """One row. Raises Unreadable beyond ROWS of them."""
        if len(self.rows) >= ROWS:
            raise Unreadable(f"more than {ROWS} rows: not read")
        self.rows.append(Row(name, part, value, unit, result, why))

    def gap(self, why: str) -> None:
        """Something that should be there is not, or was not understood."""
        if why not in self.gaps[-1:] and len(self.gaps) < _GAPS:
            self.gaps.append(why)


def parser(
    tool: str, read: Callable[[str], Page], *, measures: bool = False, both: bool = False,
    tolerates: Callable[[int], bool] = lambda code: code == 0,
) -> Parse:  # fmt: skip
    """A tool's parser from its reader.

    `measures`: no verdict of its own. `both`: some versions print their rows on stderr. `tolerates`: exit codes of good rows.
    """

    def parse(text: str, code: int | None = None, stderr: str = "") -> Reading:
        if (size := len(text) + (len(stderr) if both else 0)) > LIMIT:
            return _error(tool, f"{size} characters, more than {LIMIT}: not read")
        if both and stderr:
            text, stderr = f"{text}\n{stderr}", ""
        said = plain(text)
        if not said.strip():
            return _error(tool, "it printed nothing", _exit(code, tolerates), _first(stderr))
        try:
            page = read(said)
        except Unreadable as error:
            return _error(tool, str(error), _exit(code, tolerates), trouble(stderr))
        except Exception as error:  # a defect of a reader must not become a verdict on hardware; tests look for this sentence
            return _error(tool, f"defect in the parser: {type(error).__name__}: {error}")
        whole = said[-4000:].split("\n")[len(said) > 4000 :]  # what is left of a line that was cut may begin with any word
        if (end := complaint(whole[-8:])) and not any(end in gap for gap in page.gaps):
            page.gap(f"at its end: {end}")
        return fold(tool, page, code, stderr, measures=measures, tolerates=tolerates)

    return parse


def fold(
    tool: str, page: Page, code: int | None, stderr: str, *, measures: bool = False,
    tolerates: Callable[[int], bool] = lambda code: code == 0,
) -> Reading:  # fmt: skip
    """Many rows to one outcome: the table at the top of this module."""
    results = {row.result for row in page.rows}
    against = [w for w in (_exit(code, tolerates), trouble(stderr)) if w]
    if code is None:
        outcome = Outcome.ERROR
    elif Outcome.FAIL in results:
        outcome = Outcome.FAIL
    elif page.gaps or against or not page.rows or Outcome.ERROR in results:
        outcome = Outcome.ERROR
    elif Outcome.UNKNOWN in results:
        outcome = Outcome.UNKNOWN
    elif Outcome.PASS in results and not measures and not page.endless:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.MEASURED
    if page.endless:
        page.notes.append("this text has no end mark: count what it shows")
    whys = [*page.gaps, *against, *page.notes, *(_said(row) for row in page.rows if row.result in _BAD)]
    if not page.rows:
        whys.append("it has no rows")
    return Reading(tool, page.version, outcome, tuple(page.rows), tuple(dict.fromkeys(whys)))


_BAD = (Outcome.FAIL, Outcome.ERROR, Outcome.UNKNOWN)


def _said(row: Row) -> str:
    name = f"{row.name} ({row.part})" if row.part else row.name
    value = "" if row.value is None else f" {row.value}"
    return f"{name}: {row.result}{value}{': ' if row.why else ''}{row.why}"


def _error(tool: str, *whys: str) -> Reading:
    return Reading(tool, None, Outcome.ERROR, (), tuple(w for w in whys if w))


NOT_THERE = "the program is not there"


def _exit(code: int | None, tolerates: Callable[[int], bool]) -> str:
    if code is None:
        return "its exit status is not known: the link was lost"
    if tolerates(code):
        return ""
    if code == 127:
        return f"exit status 127: {NOT_THERE}"
    signal = code - 128 if 128 < code < 160 else -code if code < 0 else 0
    return f"exit status {code}" + (f": killed by signal {signal}" if signal else "")


# --- text -------------------------------------------------------------------------------------------------------------

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TROUBLE = re.compile(
    r"\b(error|errors|fatal|panic|fail|failed|failure|killed|abort|aborted|segmentation fault|core dumped|not found|no such"
    r"|refused|denied|timed out|timeout|unable|cannot|could not|couldn't|can't|traceback|assert|assertion|terminated)\b",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(
    r"^\s*(error|fatal)\b|\berror: |\bassertion\b|^traceback|segmentation fault|core dumped|\bkilled\b|terminated with exit code"
    r"|dumped core|no space left on device|command not found|connection (closed|reset)|broken pipe",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def plain(text: str) -> str:
    """Without colours, with \\n for every kind of line end."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def trouble(stderr: str) -> str:
    """The first line of stderr that speaks of an error, "" if none does. More than LIMIT of it is trouble, too."""
    if len(stderr) > LIMIT:
        return f"stderr: {len(stderr)} characters, more than {LIMIT}: not read"
    for line in stderr.split("\n"):
        if _TROUBLE.search(line[:2000]):
            return f"stderr: {line.strip()[:200]}"
    return ""


def complaint(lines: Iterable[str]) -> str:
    """The first of the lines around a result that says that something died, "" if none does."""
    for line in lines:
        if _OUTSIDE.search(line[:2000]):
            return line.strip()[:200]
    return ""


def _first(stderr: str) -> str:
    return f"stderr: {start(stderr)}" if stderr.strip() else ""


def start(text: str) -> str:
    """How a text begins, on one line, for a sentence."""
    return " ".join(text.lstrip()[:400].split())[:160]


def stranger(tool: str, text: str) -> Unreadable:
    """The text has nothing of the tool in it; if something in it complains, that is the better sentence."""
    return Unreadable(f"not the output of {tool}: {complaint(text.split(chr(10), 2000)[:2000]) or start(text)}")


def number(said: object) -> float | None:
    """A finite number from a JSON number or a text that is nothing else; None otherwise (N/A is not 0)."""
    if isinstance(said, bool):
        return None
    if isinstance(said, str):
        said = said.strip()
        if len(said) > 64 or not _NUMBER.fullmatch(said):
            return None
    elif not isinstance(said, int | float):
        return None
    try:
        value = float(said)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


# --- JSON -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object and the lines that stood around it."""

    root: dict[str, Any]
    around: tuple[str, ...]

    @property
    def again(self) -> bool:
        """Something opens or closes an object behind it: two outputs in one text, or half of one."""
        return any(line.lstrip()[:1] in ("{", "}") for line in self.around if line.strip())

    @property
    def beside(self) -> str:
        """What around the object says that it is not the whole story, "" if nothing does."""
        return complaint(self.around) or ("more than one JSON object: only the first was read" if self.again else "")


def load_json(text: str) -> Document:
    """The object that begins on the first line that opens one. Refuses a cut object, a key said twice, NaN.

    No second try is made: inside an object that was cut off, complete objects stand that say less than the whole.
    """
    at = re.search(r"^[ \t]*\{", text, re.MULTILINE)
    if at is None:
        raise Unreadable("no JSON object in it")
    start = at.end() - 1
    try:
        root, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise Unreadable("the JSON is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"the JSON is cut or broken: {error}"[:200]) from None
    return Document(root, (*text[:start].split("\n"), *text[end:].split("\n")))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is said twice")
    return out


def _no_constant(said: str) -> float:
    raise ValueError(f"{said} is not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def part_of(tree: object, *path: str) -> dict[str, Any]:
    """The object at a path of keys, {} if there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def items(said: object) -> list[Any]:
    """The list that was said, [] if it was something else."""
    return said if isinstance(said, list) else []


def word(said: object) -> str | None:
    """The text that was said, stripped; a number as text; None for anything else."""
    if isinstance(said, str):
        return said.strip()
    if isinstance(said, int | float) and not isinstance(said, bool):
        return str(said)
    return None
