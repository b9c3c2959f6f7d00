"""Opening burnin.db: a new one is made, an older one is brought forward after a backup, anything else is refused.

A new file costs no alembic (its import is dearer than the run's first connection): tables are created as they are today
and stamped with today's revision; a test holds the two ways to the same schema.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, select

from burnin.errors import InputError, StoreError
from burnin.store.failures import EMPTY, told
from burnin.store.store import Store
from burnin.store.tables import REVISIONS, alembic_version, metadata


def utc_now() -> str:
    """Now, as ISO 8601 in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def open_store(
    path: Path | str,
    *,
    create: bool = True,
    busy_s: float = 10.0,
    keep_s: float | None = None,
    clock: Callable[[], str] = utc_now,
) -> Store:
    """The store in this file. Another program's lock is waited for `busy_s`, for what is to be written `keep_s`.

    Raises InputError when the file is not there (and `create` is false), is not burnin's or not ours to write, StoreError
    when it is locked, of a newer burnin, or its disk is full.
    """
    path = Path(path)
    _make_room(path, create)
    with told(path, opening=True):
        stamped = _stamped(path, busy_s)
        if stamped is None and not create:
            raise InputError(f"{path} {EMPTY}")
        if stamped is not None and stamped not in REVISIONS:
            raise StoreError(
                f"{path} was written by a newer burnin (schema {stamped}, this one knows {REVISIONS[-1]}): upgrade burnin"
            )
        write = _engine(path, busy_s if keep_s is None else keep_s, "BEGIN IMMEDIATE")
        try:
            if stamped is None:
                with write.begin() as connection:
                    _create(connection)
            elif stamped != REVISIONS[-1]:
                _bring_forward(path, stamped, write)
        except BaseException:
            write.dispose()
            raise
    return Store(path, write, _engine(path, busy_s, "BEGIN"), clock)


def _make_room(path: Path, create: bool) -> None:
    """The file exists, a new one is ours alone to read, and we may write it; or there is a sentence why not."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory: give a file with --db")
        if not path.exists():
            if not create:
                raise InputError(f"{path} does not exist, so no run was kept there: give another file with --db")
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise InputError(f"{path} cannot be reached or made: {error.strerror}; give another file with --db") from error
    for place in (path, path.parent):
        if not os.access(place, os.W_OK):
            raise InputError(
                f"{path} cannot be written, {place} is read-only for you: "
                "copy it (`burnin db backup`), or give another file with --db"
            )


def _stamped(path: Path, busy_s: float) -> str | None:
    """The schema's revision; None for a file without tables. Raises InputError for somebody else's tables."""
    with closing(sqlite3.connect(path, timeout=busy_s, isolation_level=None)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"alembic_version", "run", "telemetry_block"} <= tables:
            raise InputError(f"{path} is a database, but not burnin's: give another file with --db")
        db.execute("PRAGMA journal_mode = WAL")
        if not tables:
            return None
        row = db.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else "unknown"


def _engine(path: Path, busy_s: float, begin: str) -> Engine:
    """Connections that survive a power cut with what was committed, and begin their transactions as told."""
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": busy_s}, json_serializer=_canonical)

    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _create(connection: Connection) -> None:
    """Today's tables with today's stamp, unless another process was quicker."""
    if connection.exec_driver_sql("SELECT 1 FROM sqlite_master").first() is None:
        metadata.create_all(connection)
        connection.execute(insert(alembic_version).values(version_num=REVISIONS[-1]))


def _bring_forward(path: Path, stamped: str, write: Engine) -> None:
    """Copies the database beside itself, then runs the missing revisions."""
    copy = path.with_name(f"{path.name}.{stamped}.bak")
    os.close(os.open(copy, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600))
    with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    from burnin.store.migrate import upgrade

    with write.begin() as connection:
        upgrade(connection)
        now = connection.execute(select(alembic_version.c.version_num)).scalar_one()
    if now != REVISIONS[-1]:
        raise StoreError(f"{path} could not be brought from schema {stamped} to {REVISIONS[-1]}; its copy is {copy}")
