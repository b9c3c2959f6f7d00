"""A tray's SSH server: commands run by /bin/sh in the tray's environment, with the manners of OpenSSH's sshd.

When the link goes, a command is not killed: its standard input ends and nobody reads its output any more. A channel
closes when the command has ended *and* everybody who holds its output has closed it. Exit status and signal are told
as they are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import asyncssh

_CHUNK = 65536
_ENOUGH = 1 << 20
"""Bytes for a command that does not read: then the client is told to wait."""


class Children:
    """Reaps every child of this process, and tells who waits for one what became of it."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[subprocess.Popen[bytes], Callable[[int], None]]] = {}

    def add(self, process: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
        """`ended(status)` will be called with the exit status, or minus the signal."""
        self._waiting[process.pid] = (process, ended)

    def reap(self) -> None:
        """On SIGCHLD."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._waiting:
                process, ended = self._waiting.pop(pid)
                process.returncode = os.waitstatus_to_exitcode(status)
                ended(process.returncode)


class Tray:
    """What a login finds: its home, its environment, and who looks after its processes."""

    def __init__(self, home: Path, environ: Mapping[str, str], children: Children, slow_s: float = 0.0) -> None:
        """`slow_s`: how long a command waits until it is started."""
        self.home, self.environ, self.children, self.slow_s = home, environ, children, slow_s


class _Session(asyncssh.SSHServerSession[bytes]):
    """One command. Its pipes are watched directly: asyncssh's process objects cost four times as much."""

    def __init__(self, tray: Tray, user: str) -> None:
        self._tray, self._user = tray, user
        self._loop = asyncio.get_running_loop()
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._command: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._status: int | None = None
        self._stdin: int | None = None
        self._outs: dict[int, asyncssh.DataType] = {}
        self._pending = bytearray()
        self._ending = self._choked = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan

    def shell_requested(self) -> bool:
        """A shell without a terminal reads its commands from standard input."""
        self._command = ["/bin/sh"]
        return True

    def exec_requested(self, command: str) -> bool:
        """A command for the shell."""
        self._command = ["/bin/sh", "-c", command]
        return True

    def session_started(self) -> None:
        """Start it, now or when the tray gets to it."""
        if self._tray.slow_s:
            self._loop.call_later(self._tray.slow_s, self._start)
        else:
            self._start()

    def _start(self) -> None:
        if self._channel is None or self._channel.is_closing():
            return
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._tray.home,
            env={**self._tray.environ, "USER": self._user, "LOGNAME": self._user},
            start_new_session=True,
        )
        self._process = process
        self._tray.children.add(process, self._ended)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._stdin = _detach(process.stdin)
        self._outs = {_detach(process.stdout): None, _detach(process.stderr): asyncssh.EXTENDED_DATA_STDERR}
        self._read_outs()
        if self._pending or self._ending:
            self._write_stdin()

    # ---- towards the command

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Standard input."""
        if self._stdin is not None or self._process is None:
            self._pending += data
            self._write_stdin()

    def eof_received(self) -> bool:
        """The client will send no more; it still listens."""
        self._ending = True
        self._write_stdin()
        return True

    def _write_stdin(self) -> None:
        if self._stdin is None:
            return
        try:
            while self._pending:
                del self._pending[: os.write(self._stdin, self._pending[:_CHUNK])]
        except BlockingIOError:
            self._loop.add_writer(self._stdin, self._write_stdin)
            self._choke(len(self._pending) > _ENOUGH)
            return
        except OSError:  # the command reads no more
            self._ending = True
            self._pending.clear()
        self._choke(False)
        self._loop.remove_writer(self._stdin)
        if self._ending:
            os.close(self._stdin)
            self._stdin = None

    def _choke(self, on: bool) -> None:
        if self._channel is not None and on != self._choked:
            self._choked = on
            (self._channel.pause_reading if on else self._channel.resume_reading)()

    def signal_received(self, signal: str) -> None:
        """As sshd since 8.1: to the command's process group."""
        self._kill(signal)

    def _kill(self, name: str) -> None:
        number = getattr(signal, f"SIG{name}", None)
        if self._process is not None and self._status is None and number is not None:
            os.killpg(self._process.pid, number)

    # ---- from the command

    def _read_outs(self) -> None:
        for fd in self._outs:
            self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        if data and self._channel is not None:
            self._channel.write(data, self._outs[fd])
        elif not data:
            self._close_out(fd)
            self._finish()

    def _close_out(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        del self._outs[fd]
        os.close(fd)

    def pause_writing(self) -> None:
        """The client does not keep up: let the command's pipes fill."""
        for fd in self._outs:
            self._loop.remove_reader(fd)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._read_outs()

    def _ended(self, status: int) -> None:
        self._status = status
        self._finish()

    def _finish(self) -> None:
        if self._status is None or self._outs or self._channel is None:
            return
        self._channel.write_eof()
        if self._status < 0:
            self._channel.exit_with_signal(signal.Signals(-self._status).name[3:])
        else:
            self._channel.exit(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        """The link or the channel is gone. The command is left alone; its pipes are closed."""
        self._channel = None
        for fd in list(self._outs):
            self._close_out(fd)
        self._ending = True
        self._pending.clear()
        self._write_stdin()


def _detach(pipe: object) -> int:
    """The file descriptor of one of Popen's pipes, ours alone, not blocking."""
    fd = os.dup(pipe.fileno())  # type: ignore[attr-defined]
    pipe.close()  # type: ignore[attr-defined]
    os.set_blocking(fd, False)
    return fd


class _Server(asyncssh.SSHServer):
    def __init__(self, tray: Tray) -> None:
        self._tray = tray
        self._user = ""

    def begin_auth(self, username: str) -> bool:
        self._user = username
        return True

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._tray, self._user)


async def listen(
    sock: object, tray: Tray, host_key: asyncssh.SSHKey, clients: asyncssh.SSHAuthorizedKeys
) -> asyncssh.SSHAcceptor:
    """Serve on a bound socket; only these keys log in, as any user."""
    return await asyncssh.listen(
        sock=sock,
        server_factory=lambda: _Server(tray),
        server_host_keys=[host_key],
        authorized_client_keys=clients,
        encoding=None,
        line_editor=False,
        allow_pty=False,
        x11_forwarding=False,
        agent_forwarding=False,
        keepalive_interval=0,
    )
