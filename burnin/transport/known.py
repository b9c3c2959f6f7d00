"""Host keys: the rack's own known_hosts file, in OpenSSH's format, and how a key gets into it.

A key enters only through `burnin enroll`, where a person sees its fingerprint. Nothing is trusted on first use.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from burnin.errors import InputError, Problem, Unreachable
from burnin.transport.lean import asyncssh


@dataclass(frozen=True)
class Enrolled:
    """What enrolling one tray did: the host's name in the file, its new fingerprint, and the one it replaced."""

    name: str
    new: str
    old: str | None


def host_name(host: str, port: int) -> str:
    """How known_hosts names a host: plain on port 22, `[host]:port` elsewhere."""
    return host if port == 22 else f"[{host}]:{port}"


def fingerprint(key: asyncssh.SSHKey) -> str:
    """`SHA256:...`, as ssh-keygen -l prints it."""
    return str(key.get_fingerprint())


class KnownHosts:
    """A known_hosts file, read once. An absent file knows nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[str] = []
        self._keys: dict[str, list[asyncssh.SSHKey]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        problems = []
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            self._lines.append(line)
            if not line.strip() or line.startswith("#"):
                continue
            try:
                names, words = line.split(None, 1)
                key = asyncssh.import_public_key(words)
            except (ValueError, asyncssh.KeyImportError) as error:
                problems.append(Problem(str(self.path), number, 1, f"not a known_hosts line ({error})", "NAME TYPE KEY"))
                continue
            for name in names.split(","):
                self._keys.setdefault(name, []).append(key)
        if problems:
            raise InputError(problems)

    def keys(self, host: str, port: int) -> list[asyncssh.SSHKey]:
        """The keys enrolled for this host and port."""
        return self._keys.get(host_name(host, port), [])

    def match(
        self, host: str, addr: str, port: int | None
    ) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        """What asyncssh asks for: trusted keys, trusted CAs, revoked keys."""
        return self.keys(host, port or 22), [], []

    def replace(self, host: str, port: int, key: asyncssh.SSHKey) -> Enrolled:
        """Make `key` the only one of this host, in memory; `save` writes it."""
        name = host_name(host, port)
        old = self._keys.get(name)
        self._lines = [line for line in self._lines if line.split(None, 1)[:1] != [name]]
        self._lines.append(f"{name} {key.export_public_key('openssh').decode().strip()}")
        self._keys[name] = [key]
        return Enrolled(name, fingerprint(key), fingerprint(old[0]) if old else None)

    def save(self) -> None:
        """Write the whole file beside itself and rename: never half a file. Raises OSError."""
        handle, scratch = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "w") as file:
            file.write("\n".join(self._lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, self.path)


async def scan(host: str, port: int, timeout: float) -> asyncssh.SSHKey:
    """The host key that a server shows; nothing else is said to it. Raises Unreachable."""
    try:
        async with asyncio.timeout(timeout):
            key = await asyncssh.get_server_host_key(host, port, config=None)
    except (OSError, asyncssh.Error) as error:
        raise Unreachable(f"{host}:{port} shows no host key: {error or 'no answer'}") from None
    if key is None:
        raise Unreachable(f"{host}:{port} shows no host key")
    return key
