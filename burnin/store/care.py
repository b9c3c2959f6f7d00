"""Looking after burnin.db: is it whole, a copy of it, room on its disk. Each opens the file by itself, and leaves it whole.

The file may be in use: readers and the one writer go on. Only `vacuum` wants it for itself.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from burnin.errors import InputError, StoreError
from burnin.store.failures import EMPTY, told
from burnin.store.queries import read_body
from burnin.telemetry.blocks import BadBlock, unpack, unpack_frames

_BUSY_S = 10.0
_READINGS = tuple(
    (f"SELECT sum(length(body)) FROM {table} WHERE run = ?", f"DELETE FROM {table} WHERE run = ?")
    for table in ("telemetry_block", "telemetry_frame")
)
_MOST = 20
"""Damages that are named; a file with more is no better known by them."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a check of the whole file found: how many of what were read, and what is damaged (part by part, in words)."""

    runs: int
    blocks: int
    frames: int
    evidence: int
    damage: tuple[str, ...]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise InputError(f"{path} does not exist, so no run was kept there: give another file with --db")
    # on a read-only disk SQLite makes no log of its own; where none is left there, the file is all there is
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    place = f"{path.absolute().as_uri()}?mode=ro&immutable=1" if alone else path
    with told(path, opening=True), closing(sqlite3.connect(place, timeout=_BUSY_S, isolation_level=None, uri=alone)) as db:
        with told(path, opening=True):
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            raise InputError(f"{path} {EMPTY}")
        yield db


def check(path: Path) -> Looked:
    """Reads every page, every reference between tables, and every packed body with its checksum."""
    with _open(path) as db:
        try:
            damage = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({_MOST})") if row[0] != "ok"]
            rows = db.execute("PRAGMA foreign_key_check").fetchmany(_MOST)
            damage += [f"{table} row {number} belongs to no {above}" for table, number, above, _ in rows]
            counts, bad = _bodies(db)
        except sqlite3.DatabaseError as error:
            if not getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")):
                raise  # locked, unreadable, a failing disk: nothing is known of the file
            return Looked(0, 0, 0, 0, (str(error),))
        (runs,) = db.execute("SELECT count(*) FROM run").fetchone()
    return Looked(runs, *counts, tuple([*damage, *bad][:_MOST]))


def _bodies(db: sqlite3.Connection) -> tuple[tuple[int, int, int], list[str]]:
    """(blocks, frames, evidence) read, and which of them do not unpack."""
    counts, bad = [], []
    for table in ("telemetry_block", "telemetry_frame"):
        number = 0
        for run, tray, t0_ms, body in db.execute(f"SELECT run, tray, t0_ms, body FROM {table}"):
            number += 1
            try:
                unpack(body) if table == "telemetry_block" else unpack_frames([body])
            except BadBlock as error:
                bad.append(f"readings of {tray} from {t0_ms / 1000:.0f} s of run {run}: {error}")
        counts.append(number)
    number = 0
    for run, stage, step, part, form, body in db.execute("SELECT run, stage, step, part, form, body FROM evidence"):
        number += 1
        try:
            read_body(form, body)
        except (zstandard.ZstdError, ValueError) as error:
            bad.append(f"evidence of {step} on {part} in {stage} of run {run}: {error}")
    return (counts[0], counts[1], number), bad


def backup(path: Path, to: Path) -> int:
    """A whole copy, also of a file in use; its size in bytes. The copy is checked, then takes its name.

    Raises InputError when `to` exists or cannot be made, StoreError when the copy is not whole.
    """
    if to.exists():
        raise InputError(f"{to} exists: a backup takes no other file's place")
    scratch = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise InputError(f"{to} cannot be made: {error.strerror}") from error
    try:
        with _open(path) as db, told(to), closing(sqlite3.connect(scratch)) as copy:
            db.backup(copy)
            found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
            copy.execute("PRAGMA journal_mode = DELETE")
        if found != "ok":
            raise StoreError(f"the copy of {path} is damaged ({found}): run `burnin db check`")
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(to)
    finally:
        for left in (scratch, *(scratch.with_name(scratch.name + tail) for tail in ("-wal", "-shm", "-journal"))):
            left.unlink(missing_ok=True)
    return to.stat().st_size


def forget_readings(path: Path, before: str) -> dict[str, int]:
    """Drops the readings of runs that ended before then (ISO 8601, UTC): run -> bytes. Minutes, evidence and verdicts stay.

    What is dropped is written into the run's log: it cannot be judged again, and nobody shall wonder why.
    """
    out: dict[str, int] = {}
    with _open(path) as db:
        old = db.execute("SELECT id FROM run WHERE ended IS NOT NULL AND ended < ? ORDER BY number", (before,)).fetchall()
        for (run,) in old:
            sizes = [db.execute(size, (run,)).fetchone()[0] or 0 for size, _ in _READINGS]
            if not sum(sizes):
                continue
            db.execute("BEGIN IMMEDIATE")
            for _, drop in _READINGS:
                db.execute(drop, (run,))
            (t_s,) = db.execute("SELECT coalesce(max(t_s), 0) FROM log WHERE run = ?", (run,)).fetchone()
            text = "readings were dropped to make room; their minutes are kept; this run cannot be judged again"
            line = (run, "rack", t_s, "note", "dropped", text, "controller")
            db.execute("INSERT INTO log (run, part, t_s, kind, code, text, source) VALUES (?, ?, ?, ?, ?, ?, ?)", line)
            db.execute("COMMIT")
            out[run] = sum(sizes)
    return out


PLAIN = ("session", "tray", "stage", "step", "measurement", "finding", "hold", "log", "tray_state", "voided", "rollup")
"""Tables (and one view) whose rows of a run are readable as they are."""


def plain(path: Path, run: str, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one run in one of PLAIN."""
    if table not in PLAIN:
        raise ValueError(f"{table} is not plain")
    with _open(path) as db:
        cursor = db.execute(f"SELECT * FROM {table} WHERE run = ?", (run,))
        return [column[0] for column in cursor.description], cursor.fetchall()


def vacuum(path: Path) -> tuple[int, int]:
    """Gives room that is no longer used back to the disk: bytes before and after. Needs as much room as the file holds."""
    before = path.stat().st_size if path.is_file() else 0
    with _open(path) as db:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, path.stat().st_size
