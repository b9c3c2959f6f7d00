"""SSH to the trays: connections that are verified, bounded in time, and known to be dead when they are.

Tuned as measured: one options object and parsed key for all trays that share them (a third of the CPU), at most 64
connecting at once (so that timeouts start when the work does), keepalive every 2 s and dead after 3 missed (8 s).
Foreign exceptions become burnin's here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnin.errors import HostKeyError, InputError, LinkLost, LoginRefused, TrayError, Unreachable
from burnin.transport.known import KnownHosts, fingerprint, scan
from burnin.transport.lean import asyncssh

if TYPE_CHECKING:
    from burnin.transport.payload import Payload

CONNECTING_AT_ONCE = 64
PUSHING_AT_ONCE = 4
"""Libraries of hundreds of MB over one management network."""
KEEPALIVE_S, KEEPALIVE_MISSES = 2, 3
OUTPUT_MAX = 1 << 20
"""Bytes of stdout or stderr of a shell order that are kept."""


@dataclass(frozen=True)
class Endpoint:
    """Where one tray answers and how to log in there. `key` None: ssh-agent or the user's default keys."""

    part: str
    host: str
    port: int
    user: str
    key: Path | None
    become: bool
    python: str
    dir: str
    nccl: Mapping[str, Payload] = field(default_factory=dict)
    """The site's own NCCL library, per architecture (burnin.transport.payload)."""


@dataclass(frozen=True)
class Answer:
    """What a shell order gave. `status` is the command's exit status; a lost link is never an Answer."""

    status: int
    out: str
    err: str


class _Client(asyncssh.SSHClient):
    """Remembers the host key that was offered, so that the refusal can show it."""

    offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only for keys that are not enrolled: never."""
        self.offered = key
        return False


class Dialer:
    """Connects to the trays of one rack. `jump`: user@host:port that all connections go through."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], known: KnownHosts, rack_file: str, timeout_s: float, jump: str | None
    ) -> None:
        self.endpoints = dict(endpoints)
        self.known, self._rack_file, self._timeout_s, self._jump = known, rack_file, timeout_s, jump
        self._gate = asyncio.Semaphore(CONNECTING_AT_ONCE)
        self.pushing = asyncio.Semaphore(PUSHING_AT_ONCE)
        self._options: dict[tuple[str, Path | None], asyncssh.SSHClientConnectionOptions] = {}
        self._tunnel: asyncssh.SSHClientConnection | None = None
        self._tunnel_lock = asyncio.Lock()

    def told(self, parts: Collection[str]) -> dict[str, Any]:
        """What `of` makes a dialer of these parts from again: JSON. Keys are named by their files; no library is brought."""
        ends = [{**asdict(replace(self.endpoints[part], nccl={})), "key": _name(self.endpoints[part].key)} for part in parts]
        known, file = os.path.abspath(self.known.path), os.path.abspath(self._rack_file)
        return {"endpoints": ends, "known": known, "rack_file": file, "timeout_s": self._timeout_s, "jump": self._jump}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Dialer:
        """Raises KeyError or TypeError for what `told` did not write, InputError for a known_hosts file that is not one."""
        ends = [Endpoint(**{**at, "key": Path(at["key"]) if at["key"] else None}) for at in told["endpoints"]]
        known = KnownHosts(Path(told["known"]))
        return cls({at.part: at for at in ends}, known, told["rack_file"], float(told["timeout_s"]), told["jump"])

    def _options_of(self, user: str, key: Path | None) -> asyncssh.SSHClientConnectionOptions:
        if (user, key) not in self._options:
            try:
                keys = [asyncssh.read_private_key(key)] if key else ()
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                if "passphrase" in str(error).lower():
                    raise InputError(f"{key}: the key has a passphrase; load it into ssh-agent and leave `key` out") from None
                raise InputError(f"{key}: not a private key that can be used ({error})") from None
            self._options[user, key] = asyncssh.SSHClientConnectionOptions(
                username=user,
                client_keys=keys,
                agent_path=None if key else os.environ.get("SSH_AUTH_SOCK"),
                known_hosts=self.known.match,
                config=None,
                gss_host=None,
                preferred_auth="publickey",
                kex_algs="^curve25519-sha256",
                encryption_algs="^aes128-gcm@openssh.com",
                compression_algs=["none"],
                connect_timeout=self._timeout_s,
                login_timeout=self._timeout_s,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVE_MISSES,
            )
        return self._options[user, key]

    async def connect(self, part: str) -> asyncssh.SSHClientConnection:
        """An open, verified connection. Raises a TrayError that says in one sentence why there is none."""
        at = self.endpoints[part]
        client = _Client()
        async with self._gate:
            try:
                tunnel = await self._through()
                return await asyncssh.connect(
                    at.host,
                    at.port,
                    options=self._options_of(at.user, at.key),
                    client_factory=lambda: client,
                    **({"tunnel": tunnel} if tunnel else {}),
                )
            except asyncssh.HostKeyNotVerifiable:
                raise self._wrong_key(at, client.offered) from None
            except asyncssh.PermissionDenied:
                raise LoginRefused(f"{part} refuses {at.user}@{at.host}: none of our keys is accepted there") from None
            except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError) as error:
                await self._compare(at)
                raise Unreachable(f"{part} at {at.host}:{at.port} speaks no SSH that burnin accepts: {_plain(error)}") from None
            except (OSError, asyncssh.Error) as error:
                why = "no answer" if isinstance(error, TimeoutError) else _plain(error)
                raise Unreachable(f"{part} at {at.host}:{at.port}: {why}") from None

    async def _through(self) -> asyncssh.SSHClientConnection | None:
        if self._jump is None:
            return None
        async with self._tunnel_lock:
            if self._tunnel is None or self._tunnel.is_closed():
                user, _, place = self._jump.rpartition("@")
                host, _, port = place.partition(":")
                first = next(iter(self.endpoints.values()))
                options = self._options_of(user or first.user, first.key)
                try:
                    self._tunnel = await asyncssh.connect(host, int(port or 22), options=options)
                except asyncssh.HostKeyNotVerifiable:
                    raise HostKeyError(
                        f"the jump host {place} has a host key that is not in {self.known.path}: compare it and add it there"
                    ) from None
                except asyncssh.PermissionDenied:
                    raise LoginRefused(f"the jump host refuses {self._jump}: none of our keys is accepted there") from None
                except (OSError, asyncssh.Error) as error:
                    raise Unreachable(f"the jump host {place}: {_plain(error)}") from None
        return self._tunnel

    async def _compare(self, at: Endpoint) -> None:
        """A server may hang up because it has no key of the type that is enrolled. Raises HostKeyError where that is so."""
        enrolled = self.known.keys(at.host, at.port)
        if enrolled and self._jump is None:
            try:
                shown = await scan(at.host, at.port, self._timeout_s)
            except TrayError:
                return
            if shown not in enrolled:
                raise self._wrong_key(at, shown) from None

    def _wrong_key(self, at: Endpoint, offered: asyncssh.SSHKey | None) -> HostKeyError:
        enrolled = self.known.keys(at.host, at.port)
        shown = fingerprint(offered) if offered else "none that is known"
        if not enrolled:
            return HostKeyError(
                f"{at.part} at {at.host}:{at.port} is not enrolled (it shows {shown}): run `burnin enroll {self._rack_file}`"
            )
        return HostKeyError(
            f"{at.part} at {at.host}:{at.port} shows host key {shown}, but {fingerprint(enrolled[0])} is enrolled. If this tray "
            f"was swapped: `burnin enroll {self._rack_file} --part {at.part} --replaces SERIAL`; if not, this is another machine"
        )

    async def close(self) -> None:
        """Close the jump host's connection, if there is one."""
        if self._tunnel is not None:
            self._tunnel.close()
            await self._tunnel.wait_closed()


def _name(key: Path | None) -> str | None:
    return os.path.abspath(key) if key is not None else None


def _plain(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if isinstance(number, int) and number > 0 else str(error) or type(error).__name__


def script(text: str) -> str:
    """A POSIX script as one exec command, whatever the login shell is."""
    return f"exec sh -c {shlex.quote(text)}"


async def shell(connection: asyncssh.SSHClientConnection, text: str, *, timeout_s: float, stdin: bytes = b"") -> Answer:
    """Run a POSIX script. Raises LinkLost when the link went (exit status None), TrayError when it took too long."""
    try:
        async with asyncio.timeout(timeout_s):
            done = await connection.run(script(text), input=stdin, encoding=None)
    except TimeoutError:
        raise TrayError(f"no end after {timeout_s:g} s: {text[:60]}") from None
    except (OSError, asyncssh.Error) as error:
        raise LinkLost(f"link lost: {error}") from None
    if done.exit_status is None or done.exit_status < 0:
        raise LinkLost("link lost while a command ran")
    return Answer(done.exit_status, _text(done.stdout), _text(done.stderr))


def _text(raw: object) -> str:
    return raw[:OUTPUT_MAX].decode("utf-8", "replace") if isinstance(raw, bytes) else ""


@asynccontextmanager
async def closing(connection: asyncssh.SSHClientConnection) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Close a connection on the way out, without waiting for a peer that may be gone."""
    try:
        yield connection
    finally:
        connection.abort()
