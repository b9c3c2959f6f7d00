"""Shell orders: a POSIX script on a tray or switch tray, its exit, and as much of its output as is kept."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from typing import Any

from burnin.errors import LinkLost, TrayError
from burnin.transport.lean import asyncssh
from burnin.transport.ssh import Dialer, closing, script

OUTPUT_MAX = 16 << 20
"""Bytes of stdout and of stderr that are kept; what comes after is read and dropped."""
_CHUNK = 1 << 16


class Shell:
    """The door for `Order(via="shell")`. A connection of its own per order: a script that hangs holds up nobody."""

    def __init__(self, dial: Dialer) -> None:
        self._dial = dial

    async def order(self, part: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """{"exit", "stdout", "stderr", "cut"}. Raises LinkLost when the link went, TrayError when it took too long.

        What is still running then ends with its connection: SIGHUP from sshd, and its pipes are gone.
        """
        if verb != "script":
            raise TrayError(f"{part}: a shell has no order {verb!r}")
        text = str(args["script"])
        command = f"sudo -n sh -c {shlex.quote(text)}" if args.get("become") and self._dial.endpoints[part].become else text
        async with closing(await self._dial.connect(part)) as connection:
            try:
                async with asyncio.timeout(timeout_s):
                    return await _run(connection, command, part)
            except TimeoutError:
                raise TrayError(f"{part}: no end after {timeout_s:g} s: {text[:60]}") from None
            except (OSError, asyncssh.Error) as error:
                raise LinkLost(f"{part}: link lost: {error}") from None


async def _run(connection: asyncssh.SSHClientConnection, command: str, part: str) -> dict[str, Any]:
    process = await connection.create_process(script(command), stdin=asyncssh.DEVNULL, encoding=None)
    (out, out_cut), (err, err_cut) = await asyncio.gather(_read(process.stdout), _read(process.stderr))
    done = await process.wait()
    if done.exit_status is None and done.exit_signal is None:
        raise LinkLost(f"{part}: link lost while a command ran")
    ended = done.exit_status if done.exit_signal is None else None
    return {"exit": ended, "stdout": out, "stderr": err, "cut": out_cut or err_cut}


async def _read(stream: asyncssh.SSHReader[bytes]) -> tuple[str, bool]:
    kept, size = [], 0
    while chunk := await stream.read(_CHUNK):
        kept.append(chunk[: max(0, OUTPUT_MAX - size)])
        size += len(chunk)
    return b"".join(kept).decode("utf-8", "replace"), size > OUTPUT_MAX
