"""A site's own libnccl.so.2 on the trays: pushed once per tray, under its content's hash, into the agent's private directory.

The rack file names it per architecture, with its SHA-256 (`nccl`). It is checked here before it travels, on the tray before it
gets its name, and by the process that loads it. `doctor --clean` removes it with the directory.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from burnin.errors import LinkLost, TrayError, TrayUnfit
from burnin.transport.lean import asyncssh
from burnin.transport.ssh import Endpoint, script, shell

BYTES_MAX = 1 << 30
"""Of one library: NCCL's own is 200 to 400 MB."""
_SLOWEST = 2 << 20
"""Bytes a second that a push must reach (assumption: a management network of 100 Mbit/s, shared)."""
_LOOK_S = 20.0


@dataclass(frozen=True)
class Payload:
    """One file of this controller, and what it must be."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Its name on the tray, as `burnin.agent.nccl_group.payload` looks for it."""
        return f"nccl-{self.sha256}.so"

    def check(self) -> int:
        """Its size. Raises TrayUnfit where it cannot be read, is too large, or is not what the rack file says."""
        try:
            size = self.path.stat().st_size
            if size > BYTES_MAX:
                raise TrayUnfit(f"the site's NCCL library {self.path} has {size} bytes; {BYTES_MAX} are the most")
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise TrayUnfit(f"the site's NCCL library {self.path} cannot be read: {error.strerror}") from None
        if found != self.sha256:
            raise TrayUnfit(f"the site's NCCL library {self.path} has SHA-256 {found}, the rack file says {self.sha256}")
        return size


async def bring(connection: asyncssh.SSHClientConnection, at: Endpoint) -> bool:
    """Put the one for this tray's machine there, whole or not at all; False where it was, or none is for it.
    Raises TrayUnfit, TrayError, LinkLost, each with a sentence.

    What has the name was verified when it got it; it is verified again when it is loaded.
    """
    payload = at.nccl.get((await shell(connection, "uname -m", timeout_s=_LOOK_S)).out.strip())
    if payload is None:
        return False
    place, name, part = shlex.quote(at.dir), payload.name, f".{payload.name}.$$"
    there = await shell(connection, f"cd {place} && [ -s {name} ]", timeout_s=_LOOK_S)
    if there.status == 0:
        return False
    size = await asyncio.to_thread(payload.check)
    text = f"""
umask 077
cd {place} && [ -O . ] || exit 1
rm -f .nccl-*.so.* nccl-*.so
trap 'rm -f {part}' EXIT
cat > {part} && echo "{payload.sha256}  {part}" | sha256sum -c --status && mv -f {part} {name}
"""
    limit_s = _LOOK_S + size / _SLOWEST
    try:
        async with asyncio.timeout(limit_s):
            done = await connection.run(script(text), stdin=str(payload.path), encoding=None)
    except TimeoutError:
        raise TrayError(f"{at.part}: the site's NCCL library was not there after {limit_s:.0f} s") from None
    except (OSError, asyncssh.Error) as error:
        raise LinkLost(f"{at.part}: link lost: {error}") from None
    if done.exit_status is None or done.exit_status < 0:
        raise LinkLost(f"{at.part}: link lost while the site's NCCL library was pushed")
    if done.exit_status:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() if isinstance(done.stderr, bytes) else []
        why = said[-1] if said else "it is not ours, or the copy arrived changed"
        raise TrayUnfit(f"{at.part}: the site's NCCL library cannot be put into {at.dir}: {why}")
    return True
