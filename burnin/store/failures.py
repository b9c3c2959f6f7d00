"""What SQLite says when it cannot, in a sentence for a person. The one place where its errors become burnin's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from burnin.errors import BurninError, InputError, StoreError

_SENTENCES = {
    "SQLITE_FULL": "has no room left on its disk: free some, and start again (what was kept before is whole)",
    "SQLITE_BUSY": "is locked by another program: end its transaction (an open sqlite3?), and try again",
    "SQLITE_LOCKED": "is locked by another program: end its transaction (an open sqlite3?), and try again",
    "SQLITE_READONLY": "cannot be written: the file or its directory is read-only",
    "SQLITE_CANTOPEN": "cannot be opened: the file, or its directory, is not ours to read and write",
    "SQLITE_NOTADB": "is not a SQLite database: give another file with --db",
    "SQLITE_CORRUPT": "is damaged: take its last backup, or recover it with `sqlite3 FILE .recover`",
    "SQLITE_IOERR": "cannot be read or written, its disk reports an error: look at the disk, then start again",
}
EMPTY = "holds no runs yet: give another file with --db (if it was copied or moved, the -wal file beside it is part of it)"
_WRONG_FILE = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_NOTADB")


@contextmanager
def told(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Errors of the database as StoreError; while `opening`, a wrong file is the user's InputError."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _sentence(path, error, opening) from error


def _sentence(path: Path, error: Exception, opening: bool) -> BurninError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", None) or ""
    for kind, sentence in _SENTENCES.items():
        if name.startswith(kind):
            return (InputError if opening and kind in _WRONG_FILE else StoreError)(f"{path} {sentence}")
    return StoreError(f"{path} does not take what it is given: {cause}")
