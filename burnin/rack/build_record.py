"""The build record -> `expect` in a rack file, so that nobody types 72 serials.

A CSV with the columns `part` and `serial` (t07 or t07.g2; others are ignored). Of the rack file only `expect` is touched, and
in it only what the record names; it is written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from burnin.errors import InputError, Problem
from burnin.rack.document import text_of
from burnin.rack.load import RackFile, load_rack, one_board
from burnin.rack.parts import is_part, kind, tray_of
from burnin.rack.schema import Expected
from burnin.rack.yamlfile import in_order

_SERIAL = re.compile(r"[\w.:/-]+")
_COLUMNS = ("part", "serial")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the record, and where its two fields begin (columns count characters, from 1)."""

    line: int
    part: str
    part_at: int
    serial: str
    serial_at: int


def import_expect(rack_path: Path, csv_path: Path) -> int:
    """Fill the rack file's `expect` from the record; how many serials were filled in. Raises InputError with every mistake."""
    file = load_rack(rack_path, need_known_hosts=False, need_keys=False)
    rows, problems = _rows(csv_path)
    problems += _wrong(csv_path, rows, file)
    if not rows and not problems:
        problems.append(Problem(str(csv_path), 1, 1, "the record holds no parts", "a line for each tray and GPU"))
    if problems:
        raise InputError(in_order(problems))
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda r: r.part):
        entry = found.setdefault(tray_of(row.part), {})
        if "." in row.part:
            entry.setdefault("gpus", []).append(row.serial)
        else:
            entry["serial"] = row.serial
    _write(file, found)
    return len(rows)


# ---------------------------------------------------------------- the record


def _rows(path: Path) -> tuple[list[Row], list[Problem]]:
    lines = text_of(path, "a CSV file").splitlines()
    if not lines:
        raise InputError([Problem(str(path), 1, 1, "the file is empty", "a first line with the columns part and serial")])
    comma = max(",;\t", key=lines[0].count)
    head = [name.strip().lower() for name in _cells(lines[0], comma)]
    lacking = [name for name in _COLUMNS if head.count(name) != 1]
    if lacking:
        what = f"{'no' if lacking[0] not in head else 'more than one'} column {lacking[0]} in {lines[0].strip()[:80]!r}"
        raise InputError([Problem(str(path), 1, 1, what, "a first line with the columns part and serial")])
    where = [head.index(name) for name in _COLUMNS]
    rows, problems = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip(f" \t{comma}"):
            continue
        cells = _cells(line, comma)
        if len(cells) <= max(where):
            what = f"{len(cells)} fields in {line.strip()[:60]!r}"
            problems.append(Problem(str(path), number, 1, what, f"{len(head)}, as in line 1"))
            continue
        (part, serial), at = (cells[i].strip() for i in where), [_column(line, comma, i) for i in where]
        rows.append(Row(number, part, at[0], serial, at[1]))
    return rows, problems


def _cells(line: str, comma: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=comma, skipinitialspace=True), [])
    except csv.Error:  # a field of more than 128 kB
        return []


def _column(line: str, comma: str, index: int) -> int:
    """Where field `index` begins, quotes and blanks skipped."""
    at, quoted, field = 0, False, 0
    while field < index and at < len(line):
        quoted ^= line[at] == '"'
        field += line[at] == comma and not quoted
        at += 1
    while at < len(line) and line[at] in ' "':
        at += 1
    return at + 1


def _wrong(path: Path, rows: list[Row], file: RackFile) -> Iterator[Problem]:
    topology = file.profile.topology
    known = {gpu for tray in topology.trays() for gpu in topology.gpus(tray)} | set(topology.trays())
    parts: dict[str, Row] = {}
    for row in rows:
        if not is_part(row.part) or kind(row.part) not in ("compute tray", "GPU"):
            yield Problem(str(path), row.line, row.part_at, f"part is {row.part!r}", "a compute tray (t07) or a GPU (t07.g2)")
        elif row.part not in known or tray_of(row.part) not in file.rack.trays:
            what = f"{row.part} is not in rack {file.rack.rack} ({file.profile.profile})"
            yield Problem(str(path), row.line, row.part_at, what, "a part of this rack")
        elif (first := parts.setdefault(row.part, row)) is not row:
            yield Problem(
                str(path), row.line, row.part_at, f"{row.part} is given twice, first in line {first.line}", "each part once"
            )
    yield from _wrong_serials(path, rows, file, set(parts))
    for tray in sorted({tray_of(part) for part in parts}):
        given = [parts[gpu] for gpu in topology.gpus(tray) if gpu in parts]
        absent = [gpu for gpu in topology.gpus(tray) if gpu not in parts]
        if given and absent:
            last = max(given, key=lambda row: row.line)
            yield Problem(str(path), last.line, last.part_at, f"{tray} lacks {', '.join(absent)}", "all GPUs of a tray, or none")


def _wrong_serials(path: Path, rows: list[Row], file: RackFile, replaced: set[str]) -> Iterator[Problem]:
    held = {serial: part for part, serial in _expected(file) if part not in replaced}
    serials: dict[str, Row] = {}
    for row in rows:
        if not _SERIAL.fullmatch(row.serial):
            shown = f"serial of {row.part} is {row.serial!r}" if row.serial else f"serial of {row.part} is empty"
            yield Problem(str(path), row.line, row.serial_at, shown, "letters, digits and . : / - _")
            continue
        other, there = serials.setdefault(row.serial, row), held.get(row.serial)
        if other is not row and not one_board(other.part, row.part):
            what = f"{row.part} has the serial of {other.part} (line {other.line})"
            yield Problem(str(path), row.line, row.serial_at, what, "each serial once")
        elif there is not None and not one_board(there, row.part):
            what = f"{row.part} has the serial that {there} has in {file.path.name}"
            yield Problem(str(path), row.line, row.serial_at, what, "each serial once")


def _expected(file: RackFile) -> Iterator[tuple[str, str]]:
    for tray, entry in file.rack.expect.items():
        if entry.serial is not None:
            yield tray, entry.serial
        yield from ((f"{tray}.g{i}", serial) for i, serial in enumerate(entry.gpus or ()))


# ---------------------------------------------------------------- the rack file


def _write(file: RackFile, found: dict[str, dict[str, Any]]) -> None:
    path = file.path.resolve()  # behind a link, the file itself
    wanted = dict(file.rack.expect)
    for tray, entry in found.items():
        wanted[tray] = wanted.get(tray, Expected()).model_copy(update=entry)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.yaml")
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            text = stream.read()
        filled = _filled(text, found)
        with open(scratch, "w", encoding="utf-8", newline="") as stream:
            stream.write(filled)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.chmod(path.stat().st_mode & 0o7777)
        if not _says(scratch, file, wanted):
            raise InputError([_not_fillable(file)])
        scratch.replace(path)
    except YAMLError:
        raise InputError([_not_fillable(file)]) from None
    except OSError as error:
        raise InputError([Problem(str(file.path), None, None, f"cannot be written: {error.strerror}")]) from None
    finally:
        scratch.unlink(missing_ok=True)


def _not_fillable(file: RackFile) -> Problem:
    what = "cannot be filled in without changing more of it"
    return Problem(str(file.path), None, None, what, "block style, expect: on a line of its own")


def _says(scratch: Path, file: RackFile, wanted: dict[str, Expected]) -> bool:
    """Is this the same rack with nothing but these expectations filled in?"""
    try:
        return load_rack(scratch, need_known_hosts=False, need_keys=False).rack == file.rack.model_copy(update={"expect": wanted})
    except InputError:
        return False


def _filled(text: str, found: dict[str, dict[str, Any]]) -> str:
    """The text of the rack file with its `expect` section, and nothing else, written anew."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    begin, end = _section(text)
    section = yaml.load(text[begin:end]) or CommentedMap()
    expect = section["expect"] = section.get("expect") or CommentedMap()
    expect.fa.set_block_style()
    for tray, entry in found.items():
        fields = expect.setdefault(tray, CommentedMap())
        for key, value in entry.items():
            fields[key] = _quoted(value)
    out = io.StringIO()
    yaml.dump(section, out)
    line_end = "\r\n" if "\r\n" in text else "\n"
    before = text[:begin] + ("" if text[:begin].endswith("\n") or not begin else line_end)
    return before + out.getvalue().replace("\n", line_end) + text[end:]


def _section(text: str) -> tuple[int, int]:
    """Where `expect` begins and ends, trailing comments and blank lines left to what follows; the end of the file without one."""
    lines = text.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if re.match(r"expect\s*:", line)]
    if not starts:
        return len(text), len(text)
    end = next((i for i in range(starts[0] + 1, len(lines)) if re.match(r"[^\s#}\]]", lines[i])), len(lines))
    while end - 1 > starts[0] and re.match(r"\s*(#.*)?$", lines[end - 1]):
        end -= 1
    return sum(map(len, lines[: starts[0]])), sum(map(len, lines[:end]))


def _quoted(value: str | list[str]) -> Any:
    if isinstance(value, str):
        return DoubleQuotedScalarString(value)
    many = CommentedSeq(map(DoubleQuotedScalarString, value))
    many.fa.set_flow_style()
    return many
