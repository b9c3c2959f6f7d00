"""rasdaemon's own database, made here with sqlite3: counted since boot, and read without a trace."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnin.agent.host import Roots
from burnin.agent.rasdaemon import PLACES, Database
from burnin.agent.sysfs import Absent

BOOT = 1_750_000_000  # 2025-06-15 15:06:40 UTC
BEFORE, AFTER = "2025-06-15 15:06:39 +0000", "2025-06-15 17:06:40 +0200"


def tray(where: Path, fill: Callable[[sqlite3.Connection], Any] | None, place: str = PLACES[0]) -> Path:
    (where / "proc").mkdir()
    (where / "proc/stat").write_text(f"cpu 1 2 3\nbtime {BOOT}\n")
    file = where / "proc/1/root/var" / place
    file.parent.mkdir(parents=True)
    if fill is not None:
        db = sqlite3.connect(file)
        fill(db)
        db.commit()
        db.close()
    return file


def whole(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE mc_event (id INTEGER PRIMARY KEY, timestamp TEXT, err_count INTEGER, err_type TEXT)")
    db.execute("CREATE TABLE aer_event (id INTEGER PRIMARY KEY, timestamp TEXT, dev_name TEXT)")
    db.execute("CREATE TABLE mce_record (id INTEGER PRIMARY KEY, timestamp TEXT)")
    rows = [(BEFORE, 100), (AFTER, 3), (AFTER, 4)]
    db.executemany("INSERT INTO mc_event (timestamp, err_count, err_type) VALUES (?, ?, 'Corrected')", rows)
    db.execute("INSERT INTO aer_event (timestamp, dev_name) VALUES (?, '0008:06:00.0')", (AFTER,))


def read(where: Path, database: Database | None = None) -> dict[str, float | str]:
    database = database or Database(Roots(str(where / "proc"), str(where / "sys"), str(where / "dev")))
    out: dict[str, float | str] = {}
    for metric in ("ras.mc", "ras.aer", "ras.mce"):
        try:
            out[metric] = database._count(metric)
        except Absent as absent:
            out[metric] = absent.args[0]
    assert len(database.rows()) == len(out)
    return out


@pytest.mark.parametrize("place", PLACES)
def test_events_since_boot_are_counted_and_nothing_is_left_beside_the_file(tmp_path: Path, place: str) -> None:
    file = tray(tmp_path, whole, place)
    before = file.read_bytes()
    assert read(tmp_path) == {"ras.mc": 7.0, "ras.aer": 1.0, "ras.mce": 0.0}
    assert (os.listdir(file.parent), file.read_bytes()) == ([file.name], before)


def test_what_comes_later_is_counted_too(tmp_path: Path) -> None:
    file = tray(tmp_path, whole)
    database = Database(Roots(str(tmp_path / "proc"), "", ""))
    assert read(tmp_path, database)["ras.mce"] == 0.0
    db = sqlite3.connect(file)
    db.execute("INSERT INTO mce_record (timestamp) VALUES (?)", (AFTER,))
    db.commit()
    db.close()
    os.utime(file, (BOOT, BOOT))
    assert read(tmp_path, database)["ras.mce"] == 1.0


def test_without_rasdaemon_it_is_not_supported(tmp_path: Path) -> None:
    tray(tmp_path, None)
    assert set(read(tmp_path).values()) == {"not_supported"}


@pytest.mark.parametrize("data", [b"", b"not a database", b"SQLite format 3\0" + bytes(84)])
def test_a_file_that_is_no_database_is_missing(tmp_path: Path, data: bytes) -> None:
    tray(tmp_path, None).write_bytes(data)
    assert set(read(tmp_path).values()) == {"missing"}


def test_a_table_or_a_time_that_cannot_be_read_is_missing_and_the_others_count(tmp_path: Path) -> None:
    def fill(db: sqlite3.Connection) -> None:
        whole(db)
        db.execute("DROP TABLE mce_record")
        db.execute("INSERT INTO aer_event (timestamp, dev_name) VALUES ('yesterday', '')")

    tray(tmp_path, fill)
    assert read(tmp_path) == {"ras.mc": 7.0, "ras.aer": "missing", "ras.mce": "missing"}
