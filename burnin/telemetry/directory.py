"""Telemetry as files: a judge directory, written and read.

    rack.yaml                    rack, profile, trays (read by burnin.rack; nothing in it is contacted)
    telemetry.parquet or .csv    columns time_s, phase, part, metric, value; rows in any order, an empty value was not read
    events.csv                   time_s, part, kind, code, text; absent: no log is claimed
    baseline.json                optional: what healthy racks look like (burnin.signatures.baseline)

Metrics and units are those of the catalogue, counters cumulative. A phase may recur: its windows are the contiguous
stretches. What a name means is not known here, so the caller says which metrics and parts there are.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from burnin.errors import InputError, Problem
from burnin.events import LogLine
from burnin.telemetry.series import Floats, Series, Telemetry
from burnin.telemetry.table import COLUMNS, MOST_WINDOWS, Rows, mixed, stretches

RACK, EVENTS, BASELINE = "rack.yaml", "events.csv", "baseline.json"
TABLES = ("telemetry.parquet", "telemetry.csv")
EVENT_COLUMNS = ("time_s", "part", "kind", "code", "text")
MOST_EVENTS = 1_000_000
BETWEEN = "between"
"""The phase of what was read in none."""
_BATCH = 1 << 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a judge directory holds. `counts`: (part, metric, phase) -> readings that are not null, of every metric in it;
    `log` is None where no log is claimed."""

    telemetry: Telemetry
    counts: dict[tuple[str, str, str], int]
    log: tuple[LogLine, ...] | None


def read(
    folder: str | Path, metrics: Collection[str], is_part: Callable[[str], bool], needed: Collection[str] | None = None
) -> Recorded:
    """Everything in `folder` but its rack and baseline. Only series of `needed` metrics are kept (None: all).

    Raises InputError, with one sentence per mistake, for anything that is not such a directory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError([Problem(str(folder), None, None, "there is no such folder", "one with rack.yaml and telemetry.csv")])
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) != 1:
        what = "holds both telemetry.parquet and telemetry.csv" if found else "holds no telemetry"
        raise InputError([Problem(str(folder), None, None, what, f"one of {' or '.join(TABLES)}")])
    rows = Rows(found[0], metrics, is_part, metrics if needed is None else needed)
    for columns in _csv(found[0]) if found[0].suffix == ".csv" else _parquet(found[0]):
        rows.add(columns)
    series, courses = rows.done()
    if tray := mixed(courses):
        what = f"the GPUs of {tray} are in different phases at the same time"
        raise _bad(found[0], what, "one phase for all GPUs of a tray; record them one after the other in folders of their own")
    windows = stretches(courses)
    if len(windows) > MOST_WINDOWS:
        what = f"its phase changes {len(windows)} times"
        raise _bad(found[0], what, f"at most {MOST_WINDOWS} stretches of a phase, each of many readings")
    log = _events(folder / EVENTS, is_part) if (folder / EVENTS).exists() else None
    return Recorded(Telemetry(series, windows), rows.counts(), log)


# ---------------------------------------------------------------- the two kinds of tables


def _csv(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv as arrow

    names = _names(path)
    word = pa.dictionary(pa.int32(), pa.string())
    types = {"time_s": pa.float64(), "value": pa.float64(), "phase": word, "part": word, "metric": word}
    nulls = ["", "nan", "NaN", "null", "None", "N/A"]
    convert = arrow.ConvertOptions(column_types=types, include_columns=list(COLUMNS), null_values=nulls)
    yield from _batches(
        path,
        lambda: arrow.open_csv(
            path, arrow.ReadOptions(use_threads=False, block_size=1 << 24), convert_options=convert
        ),
        names,
    )  # fmt: skip


def _names(path: Path) -> list[str]:
    """The names in a table's first line. Raises InputError for a file that is something else, and says what it is."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    kinds = {b"\x1f\x8b": "is compressed by gzip", b"\x28\xb5\x2f\xfd": "is compressed by zstd", b"PK": "is a zip archive"}
    kinds |= {b"PAR1": "is Parquet", b"\xff\xfe": "is UTF-16", b"\xfe\xff": "is UTF-16"}
    for begin, what in kinds.items():
        if head.startswith(begin):
            expected = "the name telemetry.parquet" if begin == b"PAR1" else "plain CSV text in UTF-8: unpack it or save it so"
            raise _bad(path, what, expected, 1)
    text = head.decode("utf-8-sig", "replace")
    first = next(iter(text.splitlines()), "")
    names = next(csv.reader([first]), [])
    lacking = [name for name in COLUMNS if names.count(name) != 1]
    if lacking:
        what = f"has no column {', '.join(lacking)} in its first line ({first[:60]!r})"
        if several := [name for name in lacking if name in names]:
            what = f"has the column {', '.join(several)} more than once"
        raise _bad(path, what, f"commas between the columns {', '.join(COLUMNS)}", 1)
    return names


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import parquet

    def batches() -> Any:
        names = parquet.read_schema(path).names
        lacking = [name for name in COLUMNS if name not in names]
        if lacking:
            raise _bad(path, f"has no column {', '.join(lacking)}", f"the columns {', '.join(COLUMNS)}")
        file = parquet.ParquetFile(path, read_dictionary=["phase", "part", "metric"])
        return file.iter_batches(_BATCH, columns=list(COLUMNS), use_threads=False)

    yield from _batches(path, batches)


def _batches(path: Path, start: Callable[[], Any], names: Sequence[str] = ()) -> Iterator[Any]:
    """Batches of a file that may be anything: what the reader says of it is told in one line."""
    import pyarrow as pa

    try:
        yield from start()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:200]
        if found := re.search(
            r"(?:CSV column #(\d+): )?(?:CSV parse error: )?Row #(\d+): (?:CSV conversion error to )?(.*)", text
        ):
            column = f"column {names[int(found[1])]}: " if found[1] and int(found[1]) < len(names) else ""
            raise _bad(
                path,
                column + found[3].replace("double: invalid value", "no number:"),
                f"the columns {', '.join(COLUMNS)}",
                int(found[2]),
            ) from None
        raise _bad(path, f"cannot be read as {path.suffix[1:]}: {text}", f"the columns {', '.join(COLUMNS)}") from None


def _bad(path: Path, what: str, expected: str = "", line: int | None = None) -> InputError:
    return InputError([Problem(str(path), line, None, what, expected)])


# ---------------------------------------------------------------- events


def _events(path: Path, is_part: Callable[[str], bool]) -> tuple[LogLine, ...]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return tuple(_lines(path, csv.reader(file), is_part))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad(path, f"cannot be read: {' '.join(str(error).split())[:200]}", "a CSV file in UTF-8") from None


def _lines(path: Path, reader: Any, is_part: Callable[[str], bool]) -> Iterator[LogLine]:
    head: list[str] = next(reader, [])
    lacking = [name for name in EVENT_COLUMNS if name not in head]
    if lacking:
        raise _bad(path, f"has no column {', '.join(lacking)}", f"the columns {', '.join(EVENT_COLUMNS)}", 1)
    at = [head.index(name) for name in EVENT_COLUMNS]
    for count, row in enumerate(reader):
        if not row:
            continue
        if count >= MOST_EVENTS or len(row) <= max(at):
            what = f"has more than {MOST_EVENTS} lines" if count >= MOST_EVENTS else f"has {len(row)} fields"
            raise _bad(path, what, f"{len(head)} fields a line", reader.line_num)
        time_s, part, kind, code, text = (row[i] for i in at)
        yield _line(path, reader.line_num, time_s, (part, kind, code, text), is_part)


def _line(path: Path, line: int, time_s: str, words: tuple[str, ...], is_part: Callable[[str], bool]) -> LogLine:
    part, kind, code, text = words
    try:
        t = float(time_s)
    except ValueError:
        t = math.nan
    if not math.isfinite(t):
        raise _bad(path, f"time_s is {time_s[:40]!r}", "seconds", line)
    if not is_part(part):
        raise _bad(path, f"{part[:40]!r} is no part of this rack", "a part such as t07.g2", line)
    if kind == "xid" and not (code.isascii() and code.isdigit() and len(code) < 6):
        raise _bad(path, f"code {code[:40]!r} of an xid", "its number", line)
    return LogLine(part, t, kind, code, text, EVENTS)


# ---------------------------------------------------------------- writing


class Writer:
    """Writes one judge directory; `rack` is the text of rack.yaml, readings come in any order (`grid` is the quick way).

    Times are seconds, NaN is written as null. A context manager: the table is complete when it is closed.
    """

    def __init__(self, folder: str | Path, rack: str, parquet: bool = True) -> None:
        import pyarrow as pa

        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RACK).write_text(rack)
        word = pa.dictionary(pa.int32(), pa.string())
        kinds = {"time_s": pa.float64(), "phase": word, "part": word, "metric": word, "value": pa.float64()}
        self._schema = pa.schema(list(kinds.items()))
        self._pending: list[Any] = []
        self._rows = 0
        self._file: Any
        if parquet:
            from pyarrow.parquet import ParquetWriter

            self._file = ParquetWriter(self.folder / TABLES[0], self._schema, compression="zstd", compression_level=1)
        else:
            from pyarrow.csv import CSVWriter

            plain = pa.schema([(name, pa.string() if kind is word else kind) for name, kind in kinds.items()])
            self._schema, self._file = plain, CSVWriter(str(self.folder / TABLES[1]), plain)

    def series(self, phase: str, part: str, metric: str, t_s: Floats, v: Floats) -> None:
        """Readings of one metric of one part in one phase."""
        self.grid(phase, [part], metric, t_s, np.asarray(v, float)[None, :])

    def grid(self, phase: str, parts: Sequence[str], metric: str, t_s: Floats, v: Floats) -> None:
        """Readings of one metric of many parts at the same times in one phase; `v` is (parts, times)."""
        import pyarrow as pa

        n = v.size

        def words(of: Sequence[str], each: int) -> Any:
            kind = pa.dictionary(pa.int32(), pa.string())
            index = np.repeat(np.arange(len(of), dtype=np.int32), each)
            column = pa.DictionaryArray.from_arrays(index, pa.array(list(of), pa.string()))
            return column if self._schema.field(1).type == kind else column.dictionary_decode()

        times = pa.array(np.tile(np.asarray(t_s, float), len(parts)))
        values = pa.array(np.ascontiguousarray(v, float).ravel(), from_pandas=True)  # NaN becomes null
        columns = [times, words([phase], n), words(parts, len(t_s)), words([metric], n), values]
        self._pending.append(pa.table(columns, schema=self._schema))
        self._rows += n
        if self._rows >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            self._file.write_table(pa.concat_tables(self._pending).unify_dictionaries().combine_chunks())
        self._pending, self._rows = [], 0

    def telemetry(self, telemetry: Telemetry) -> None:
        """All series, each cut by the stretches; what lies in none has the phase BETWEEN."""
        for (part, metric), one in telemetry.series.items():
            for phase, piece in _cut(telemetry, one):
                if piece.t_s.size:
                    self.series(phase, part, metric, piece.t_s, piece.v)

    def events(self, log: Iterable[LogLine]) -> None:
        """The log; an empty one claims that nothing happened."""
        with (self.folder / EVENTS).open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(EVENT_COLUMNS)
            out.writerows((repr(line.t_s), line.part, line.kind, line.code, line.text) for line in log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._file.close()


def _cut(telemetry: Telemetry, one: Series) -> Iterator[tuple[str, Series]]:
    end = -math.inf
    for stretch in sorted(telemetry.stretches, key=lambda s: s.t0_s):
        yield BETWEEN, one.between(end, stretch.t0_s)
        yield stretch.phase, one.between(max(end, stretch.t0_s), stretch.t1_s)
        end = max(end, stretch.t1_s)
    yield BETWEEN, one.between(end, math.inf)
