"""Unix sockets beside the database: mode 0600, one owner at a time, JSON lines.

Who listens holds a lock on a file beside the socket for as long as it lives, frozen or not; a socket without its lock is
stale and is replaced. Sockets are reached through their folder, so that a deep folder does not overrun sockaddr_un.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from burnin.errors import InputError, NotReady
from burnin.run.beside import guard, live, reachable

__all__ = ["Listening", "connect", "guard", "listen", "live"]

LINE_MAX = 4 << 20

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listening:
    """A socket that is listened at, until `close`."""

    def __init__(self, path: Path, server: asyncio.Server, lock: int, served: set[asyncio.Task[None]]) -> None:
        self.path, self._server, self._lock, self._served = path, server, lock, served

    async def close(self) -> None:
        """Remove the socket, and let go whoever is connected."""
        self._server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)
        for name in (self.path, _lock_of(self.path)):
            with contextlib.suppress(OSError):
                os.unlink(name)
        os.close(self._lock)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


async def listen(path: Path, serve: Serve, owner: str) -> Listening:
    """Listen at `path` as `owner` (a few words). Raises NotReady, naming the other, where somebody does already."""
    lock = _lock(_lock_of(path))
    os.ftruncate(lock, 0)
    os.pwrite(lock, owner.encode(), 0)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        with reachable(path) as short:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(short)
            bound.bind(short)
    except (OSError, NotReady) as error:
        bound.close()
        os.close(lock)
        if isinstance(error, NotReady):
            raise
        raise NotReady(f"no socket can be made at {path}: {os.strerror(error.errno or 0)}") from None
    finally:
        os.umask(before)
    served: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(serve, reader, writer))
        served.add(task)
        task.add_done_callback(served.discard)

    server = await asyncio.start_unix_server(begin, sock=bound, limit=LINE_MAX)
    return Listening(path, server, lock, served)


def kept_by(db: Path) -> str:
    """Who keeps a run in this database, on this machine and now (a few words); empty where nobody does."""
    place = _lock_of(live(db))
    try:
        lock = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ""  # who keeps a run has it there
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except OSError:
        return _owner(lock)
    finally:
        os.close(lock)


def _owner(lock: int) -> str:
    return os.pread(lock, 200, 0).decode("utf-8", "replace").strip() or "another run"


async def _serve(serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await serve(reader, writer)
    except (OSError, ValueError):  # gone, or a line without an end
        pass
    finally:
        writer.close()


def _lock(path: Path) -> int:
    """The locked file. One that its last owner removed meanwhile is made anew."""
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotReady(f"no socket can be made beside the database: {path}: {os.strerror(error.errno or 0)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = _owner(lock)
            os.close(lock)
            raise NotReady(
                f"{other} is using this database: wait for it, or give this run a database of its own (--db)"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.sameopenfile(lock, (there := os.open(path, os.O_RDONLY | os.O_CLOEXEC))):
                os.close(there)
                return lock
            os.close(there)
        os.close(lock)


async def connect(path: Path, whose: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Both ends of a connection. Raises InputError in one sentence: nobody listens, or not for this user."""
    try:
        with reachable(path) as short:
            return await asyncio.open_unix_connection(short, limit=LINE_MAX)
    except (FileNotFoundError, ConnectionRefusedError):
        raise InputError(f"{whose} is not going on: nobody listens at {path}") from None
    except PermissionError:
        raise InputError(f"{path} belongs to another user: {whose} is seen and stopped by who started it, or by root") from None
    except OSError as error:
        raise InputError(f"{path} cannot be reached: {os.strerror(error.errno or 0)}") from None
