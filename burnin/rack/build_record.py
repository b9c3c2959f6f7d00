"""The build record -> `expect` in a rack file, so that nobody types 72 serials.

A CSV with the columns `part` and `serial` (t07 or t07.g2; others are ignored). Comments and order of the rack file stay;
it is written whole or not at all.
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
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from burnin.errors import InputError, Problem
from burnin.rack.load import RackFile, load_rack, one_board
from burnin.rack.parts import is_part, kind, tray_of

_SERIAL = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the record, and where its two fields begin (columns count characters, from 1)."""

    line: int
    part: str
    part_at: int
    serial: str
    serial_at: int


def import_expect(rack_path: Path, csv_path: Path) -> int:
    """Fill the rack file's `expect` from the record; how many serials it now expects. Raises InputError with every mistake."""
    file = load_rack(rack_path, need_known_hosts=False, need_keys=False)
    rows, problems = _rows(csv_path)
    problems += _wrong(csv_path, rows, file)
    if problems:
        raise InputError(sorted(problems, key=lambda p: (p.line or 0, p.column or 0)))
    expect: dict[str, Any] = {}
    for row in sorted(rows, key=lambda r: r.part):
        entry = expect.setdefault(tray_of(row.part), {})
        if "." in row.part:
            entry.setdefault("gpus", []).append(DoubleQuotedScalarString(row.serial))
        else:
            entry["serial"] = DoubleQuotedScalarString(row.serial)
    _write(rack_path, expect)
    return len(rows)


def _rows(path: Path) -> tuple[list[Row], list[Problem]]:
    text = _text(path)
    lines = text.splitlines()
    if not lines:
        raise InputError([Problem(str(path), 1, 1, "the file is empty", "a first line with the columns part and serial")])
    comma = ";" if lines[0].count(";") > lines[0].count(",") else ","
    head = [name.strip().lower() for name in next(csv.reader([lines[0]], delimiter=comma))]
    missing = [name for name in ("part", "serial") if name not in head]
    if missing:
        what = f"no column {' and '.join(missing)} in {lines[0].strip()[:80]!r}"
        raise InputError([Problem(str(path), 1, 1, what, "a first line with the columns part and serial")])
    rows, problems = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip(f" \t{comma}"):
            continue
        cells = next(csv.reader([line], delimiter=comma))
        if len(cells) <= max(head.index("part"), head.index("serial")):
            problems.append(
                Problem(str(path), number, 1, f"{len(cells)} fields in {line.strip()[:60]!r}", f"{len(head)}, as in line 1")
            )
            continue
        part, serial = (cells[head.index(name)].strip() for name in ("part", "serial"))
        at = [_column(line, comma, head.index(name)) for name in ("part", "serial")]
        rows.append(Row(number, part, at[0], serial, at[1]))
    return rows, problems


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError([Problem(str(path), None, None, "there is no such file")]) from None
    except UnicodeDecodeError as error:
        raise InputError([Problem(str(path), None, None, f"is not UTF-8 (byte {error.start})", "a CSV file in UTF-8")]) from None
    except OSError as error:
        raise InputError([Problem(str(path), None, None, f"cannot be read: {error.strerror}")]) from None


def _column(line: str, comma: str, index: int) -> int:
    """Where field `index` begins, quotes and blanks skipped."""
    at, quoted, field = 0, False, 0
    while field < index:
        quoted ^= line[at] == '"'
        field += line[at] == comma and not quoted
        at += 1
    while at < len(line) and line[at] in ' "\t':
        at += 1
    return at + 1


def _wrong(path: Path, rows: list[Row], file: RackFile) -> Iterator[Problem]:
    topology = file.profile.topology
    known = {gpu for tray in topology.trays() for gpu in topology.gpus(tray)} | set(topology.trays())
    parts: dict[str, int] = {}
    serials: dict[str, Row] = {}
    for row in rows:
        if not is_part(row.part) or kind(row.part) not in ("compute tray", "GPU"):
            yield Problem(str(path), row.line, row.part_at, f"part is {row.part!r}", "a compute tray (t07) or a GPU (t07.g2)")
        elif row.part not in known or tray_of(row.part) not in file.rack.trays:
            yield Problem(
                str(path), row.line, row.part_at, f"{row.part} is not in rack {file.rack.rack} ({file.profile.profile})"
            )
        elif (first := parts.setdefault(row.part, row.line)) != row.line:
            yield Problem(str(path), row.line, row.part_at, f"{row.part} is given twice, first in line {first}", "each part once")
        if not _SERIAL.fullmatch(row.serial):
            shown = f"serial of {row.part} is {row.serial!r}" if row.serial else f"serial of {row.part} is empty"
            yield Problem(str(path), row.line, row.serial_at, shown, "letters, digits and . : / - _")
        elif (other := serials.setdefault(row.serial, row)) is not row and not one_board(other.part, row.part):
            what = f"{row.part} has the serial of {other.part} (line {other.line})"
            yield Problem(str(path), row.line, row.serial_at, what, "each serial once")
    for tray in sorted({tray_of(part) for part in parts if part in known}):
        absent = [gpu for gpu in topology.gpus(tray) if gpu not in parts]
        if absent and len(absent) < topology.gpus_per_tray:
            yield Problem(str(path), parts.get(tray), None, f"{tray} lacks {', '.join(absent)}", "all GPUs of a tray, or none")


def _write(path: Path, expect: dict[str, Any]) -> None:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 16
    data = yaml.load(path.read_text("utf-8-sig"))
    data["expect"] = expect
    out = io.StringIO()
    yaml.dump(data, out)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(out.getvalue())
        scratch.chmod(path.stat().st_mode & 0o777)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError([Problem(str(path), None, None, f"cannot be written: {error.strerror}")]) from None
