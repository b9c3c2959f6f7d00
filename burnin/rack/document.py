"""A YAML file as plain values, each with the place where it stands.

YAML 1.2 (`on` and `yes` are text), one document, plain Python values. Aliases, merges and private tags are not taken:
ranges fold names, and every value stands where it is read.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from burnin.errors import InputError, Problem
from burnin.rack.parts import unfold

Loc = tuple[str | int, ...]
"""Where a value stands, from the top of the file down: ("stages", 2, "for")."""

LARGEST = 4 << 20
"""Bytes; a rack of 27 trays with everything filled in is 10 kB."""
DEEPEST = 4000
"""Levels: no document is nested deeper than its longest line is long and its brackets are many; libyaml's stack bears 5,000."""
_ODD = re.compile(r"[\t\r\x85\u2028\u2029\ufeff]|(?m:^(?:---|\.\.\.|%))|(?:^|[\s\[{,:-])[&*!]|[>|][^\s]*#")
"""What libyaml reads otherwise than ruamel: other line ends, several documents, anchors, tags, a comment at a block's mark."""
_TAG = "tag:yaml.org,2002:"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Place(NamedTuple):
    """Where a value and its key begin (line, column, from 1), and a scalar's own text."""

    value: tuple[int, int]
    key: tuple[int, int]
    text: str | None


@dataclass(frozen=True)
class Document:
    """One file's plain values, and where each of them stands. `problems` are mistakes of the YAML itself."""

    file: str
    data: Any
    places: Mapping[Loc, Place]
    problems: list[Problem] = field(default_factory=list)

    def problem(self, loc: Loc, what: str, expected: str = "", *, key: bool = False) -> Problem:
        """A mistake at the value (or its key) that stands at `loc`, or where a range says so for it."""
        place = self.places[self.find(loc)]
        line, column = place.key if key else place.value
        return Problem(self.file, line, column, _short(what), _short(expected, 600))

    def find(self, loc: Loc) -> Loc:
        """As much of `loc` as the file holds; t07 is found in `t[00-17]` when nothing else says it."""
        here: Loc = ()
        value = self.data
        for i, step in enumerate(loc):
            if isinstance(value, dict):
                found = _said_by(value, step, loc[i + 1] if i + 1 < len(loc) else None)
                if found is None:
                    break
                here, value = (*here, found), value[found]
            elif isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
                here, value = (*here, step), value[step]
            else:
                break
        return here

    def below(self, loc: Loc, data: Any) -> Document:
        """What stands at `loc` as a document of its own; where it is not said, at what holds it."""
        at = self.find(loc)
        places = {found[len(loc) :]: place for found, place in self.places.items() if found[: len(loc)] == loc}
        return Document(self.file, data, {(): self.places[at], **places})

    def each(self, *pattern: str) -> Iterable[tuple[Loc, Any]]:
        """Values at `pattern`, where "*" is every key or index: each("stages", "*", "steps"). What is absent is passed over."""
        found: list[tuple[Loc, Any]] = [((), self.data)]
        for step in pattern:
            deeper: list[tuple[Loc, Any]] = []
            for loc, value in found:
                pairs: Iterable[tuple[Any, Any]] = ()
                if isinstance(value, dict):
                    pairs = value.items()
                elif isinstance(value, list):
                    pairs = enumerate(value)
                deeper += [((*loc, k), v) for k, v in pairs if step in ("*", k)]
            found = deeper
        return found


def _said_by(mapping: dict[Any, Any], name: str | int, then: str | int | None) -> str | int | None:
    """The key that says `name`: itself before the last range with it in it, and first of all one that also holds `then`."""
    keys: list[str | int] = [k for k in mapping if isinstance(name, str) and isinstance(k, str) and name in _names(k)]
    keys += [name] if name in mapping else []
    holding = [k for k in keys if isinstance(mapping[k], dict) and then in mapping[k]]
    return holding[-1] if holding else keys[-1] if keys else None


def _names(key: str) -> list[str]:
    try:
        return unfold(key) if "[" in key or "," in key else []
    except ValueError:
        return []


def read(path: str | Path) -> Document:
    """Reads one file. Raises InputError where there is no file, no text, no YAML, or nothing in it."""
    file = str(path)
    text = text_of(path, "a YAML file")
    try:
        node = _compose(text)
    except ReaderError as error:
        raise InputError([_at(file, text, error.position, "an unprintable character", "plain text")]) from None
    except MarkedYAMLError as error:
        raise InputError([_syntax(file, error)]) from None
    except RecursionError:
        raise InputError([_deep(file)]) from None
    except Exception as error:  # the parser lets all sorts escape on hostile bytes: OverflowError, ValueError, AttributeError
        raise InputError([Problem(file, None, None, f"is not YAML: {error}")]) from None
    if node is None:
        raise InputError([Problem(file, 1, 1, "the file is empty")])
    places: dict[Loc, Place] = {}
    plain = _Plain(file, places)
    try:
        return Document(file, plain.value(node, (), _mark(node.start_mark)), places, plain.problems)
    except RecursionError:
        raise InputError([_deep(file)]) from None


def _compose(text: str) -> Any:
    """By libyaml where it is installed: nine times as fast. Ruamel's own reader has the last word (our sentences are its),
    and what libyaml takes otherwise or would nest deeper than a C stack may bear."""
    if not _ODD.search(text) and len(max(text.split("\n"), key=len)) + text.count("[") + text.count("{") < DEEPEST:
        with suppress(Exception):
            return YAML(typ="safe").compose(text)
    return _slowly(text)


def _slowly(text: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # an anchor without its alias means nothing
    return yaml.compose(text)


def text_of(path: str | Path, what: str) -> str:
    """The text of one file, without a byte-order mark. Raises InputError; `what` says what was expected to be there."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise InputError([Problem(file, None, None, "there is no such file")]) from None
    except IsADirectoryError:
        raise InputError([Problem(file, None, None, "is a directory", what)]) from None
    except PermissionError:
        raise InputError([Problem(file, None, None, "may not be read by this user", "read permission")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError([Problem(file, None, None, f"cannot be read: {reason}")]) from None
    if len(data) > LARGEST:
        raise InputError([Problem(file, None, None, f"is larger than {LARGEST >> 20} MiB", what)])
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        bad = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise InputError([_at(file, before, len(before), bad, f"{what} in UTF-8")]) from None


def _deep(file: str) -> Problem:
    return Problem(file, None, None, "is nested far too deeply", "a handful of levels")


def _at(file: str, text: str, index: int, what: str, expected: str) -> Problem:
    before = text[:index]
    return Problem(file, before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1, what, expected)


def _mark(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _syntax(file: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = _mark(mark) if mark is not None else (None, None)
    problem = str(error.problem or error.context or "it cannot be understood")
    if "'\\t'" in problem:
        return Problem(file, line, column, "a tab stands where only spaces may", "spaces for indentation")
    if "another document" in problem:
        return Problem(file, line, column, "a second document begins (---)", "one document per file")
    begun = ""
    if error.context and error.context_mark is not None and error.context_mark.line != (mark.line if mark else None):
        begun = f" ({error.context} that begins on line {error.context_mark.line + 1})"
    hint = next((hint for mark_of, hint in _HINTS if mark_of in problem), "")
    return Problem(file, line, column, f"this is not YAML: {problem}{begun}", hint)


_HINTS = (
    ("mapping values", "one key: value per line, the same indentation as its neighbours, and quotes around text with a colon"),
    ("but got '['", 'quotes around a range inside { }, as in {"t[00-17]": ...}'),
)


class _Plain:
    """Turns nodes into plain values, noting where each stands and what YAML allows but we do not."""

    def __init__(self, file: str, places: dict[Loc, Place]) -> None:
        self.problems: list[Problem] = []
        self._file, self._places, self._seen = file, places, set[int]()

    def value(self, node: Node, loc: Loc, key: tuple[int, int]) -> Any:
        text = node.value if isinstance(node, ScalarNode) else None
        at = (
            _mark(node.start_mark) if text != "" or getattr(node, "style", "") else key
        )  # nothing after the colon: ruamel marks the next line
        self._places[loc] = Place(at, key, text)
        if id(node) in self._seen:
            self._problem(key, "an alias (*name) stands here", "the value itself, written out")
            return None
        self._seen.add(id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*loc, i), _mark(item.start_mark)) for i, item in enumerate(node.value)]
        return self._scalar(node, at)

    def _mapping(self, node: Any, loc: Loc) -> dict[str | int, Any]:
        out: dict[str | int, Any] = {}
        for key_node, value_node in node.value:
            at = _mark(key_node.start_mark)
            if not isinstance(key_node, ScalarNode) or key_node.tag == _TAG + "merge":
                merge = isinstance(key_node, ScalarNode)
                self._problem(at, "a merge (<<) stands here" if merge else "a key is not a word", "key: value, written out")
                continue
            key = self._scalar(key_node, at)
            key = key if type(key) is int else key_node.value
            if key in out:
                line, column = self._places[(*loc, key)].key
                self._problem(at, f"{key!r} is given twice, first at {line}:{column}", "each key once")
            else:
                out[key] = self.value(value_node, (*loc, key), at)
        return out

    def _scalar(self, node: Any, at: tuple[int, int]) -> Any:
        text = str(node.value)
        if _CONTROL.search(text):
            self._problem(at, f"{text!r} holds a control character", "plain text")
            return ""
        tag = str(node.tag)
        if tag in (_TAG + "str", _TAG + "value", _TAG + "merge"):
            return text
        read = _SCALARS.get(tag.removeprefix(_TAG))
        try:
            if read is not None:
                return read(text)
        except (ValueError, OverflowError):
            pass
        self._problem(at, f"{text!r} cannot be read as {tag.removeprefix(_TAG)}", "plain text or a number")
        return None

    def _problem(self, at: tuple[int, int], what: str, expected: str) -> None:
        self.problems.append(Problem(self._file, *at, _short(what), expected))


def _number(text: str) -> int | float:
    digits = text.replace("_", "").lower()
    for prefix, base in (("0x", 16), ("0o", 8), ("0b", 2)):
        if digits.lstrip("+-").startswith(prefix):
            return int(digits.replace(prefix, "", 1), base)
    return int(digits)


def _float(text: str) -> float:
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _date(text: str) -> dt.date | str:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return text


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}.get(text.lower(), text),
    "int": _number,
    "float": _float,
    "timestamp": _date,
}


def one_of(options: Iterable[str], word: object = None) -> str:
    """`one of a, b, c (did you mean b?)`."""
    known = sorted(options)
    near = get_close_matches(word, known, 1, 0.6) if isinstance(word, str) else []
    some = known if len(known) <= 24 else [*known[:12], f"... {len(known) - 12} more"]
    listed = ("one of " if len(known) > 1 else "") + ", ".join(some) if known else "nothing here"
    return listed + (f" (did you mean {near[0]}?)" if near else "")


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 4] + " ..."
