"""What lies beside the database of a run that goes on: its sockets, and the way straight to its trays.

Of the standard library alone, and little of it: an emergency stop imports this before anything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from burnin.errors import NotReady

PATH_MAX = 107
"""Bytes of a socket's path that fit into sockaddr_un."""


WAYS_MAX = 4 << 20
"""Bytes; a rack of 27 trays takes 5 kB."""


def _beside(db: Path, ending: str) -> Path:
    """Beside the file itself: a link to it is another name of the same database."""
    place = Path(os.path.realpath(db))
    return place.with_name(f"{place.name}.{ending}")


def live(db: Path) -> Path:
    """The run's socket: watch reads it, stop writes it."""
    return _beside(db, "live")


def guard(db: Path) -> Path:
    """The guard's socket: `stop --emergency` writes it."""
    return _beside(db, "guard")


def trusted(uid: int, db: Path) -> bool:
    """What lies beside the database counts if it is of who asks, of root, or of whose database it is."""
    owners = {0, os.geteuid()}
    with contextlib.suppress(OSError):
        owners.add(os.stat(db).st_uid)
    return uid in owners


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A short way to this socket. Raises NotReady where there is none."""
    if len(os.fsencode(path)) <= PATH_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if not Path(short).parent.exists() or len(os.fsencode(short)) > PATH_MAX:
            raise NotReady(f"{path} is {len(os.fsencode(path))} bytes long, {PATH_MAX} are the most: give --db a shorter path")
        yield short
    finally:
        os.close(folder)


# ---------------------------------------------------------------- the way to the trays


def ways(db: Path) -> Path:
    """Where each tray of the run answers, and as whom: what an emergency stop needs of rack file and database, ready to be used.

    It is there from before the first load until the run has ended in order.
    """
    return _beside(db, "ways")


def keep_ways(db: Path, run: str, told: Mapping[str, Any]) -> None:
    """Write them, 0600, whole or not at all: then an emergency stop takes the longer way, by the database."""
    place = ways(db)
    part = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump({"run": run, **told}, file)
        os.replace(part, place)
    except OSError:
        for one in (part, place):
            with contextlib.suppress(OSError):
                os.unlink(one)


def read_ways(db: Path, run: str) -> dict[str, Any] | None:
    """Those of this run (the beginning of its name, or `last`); None where there are none, or somebody else's."""
    try:
        # a pipe must not be waited for, a link not be followed
        with open(os.open(ways(db), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022 or not trusted(found.st_uid, db):
                return None
            told = json.loads(file.read(WAYS_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(told, dict) and isinstance(told.get("run"), str)
    return told if known and run and (run == "last" or told["run"].startswith(run)) else None


def drop_ways(db: Path, run: str) -> None:
    """Nothing of this run heats any more. Another's stay: of a run that was refused because that one's load goes on."""
    if read_ways(db, run) is not None:
        with contextlib.suppress(OSError):
            os.unlink(ways(db))
