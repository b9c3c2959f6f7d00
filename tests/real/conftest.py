"""A real OpenSSH server on loopback, as the trays run it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from burnin.transport.known import KnownHosts
from burnin.transport.ssh import Dialer, Endpoint

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin")


@dataclass
class RealSshd:
    """One running sshd: where it answers, and what is needed to log in."""

    process: subprocess.Popen[bytes]
    port: int
    user: str
    key: Path
    known_hosts: Path
    host_key: str
    root: Path

    def endpoint(self, part: str = "t00", become: bool = False) -> Endpoint:
        """As a rack file would give it; the agent's private directory is the test's own."""
        place = str(self.root / part / "burnin-agent")
        return Endpoint(part, "127.0.0.1", self.port, self.user, self.key, become, "python3", place)

    def dialer(self, *parts: str, known: KnownHosts | None = None, timeout_s: float = 10) -> Dialer:
        """A dialer for these parts, all on this server."""
        ends = {part: self.endpoint(part) for part in parts or ("t00",)}
        return Dialer(ends, known or KnownHosts(self.known_hosts), "rack.yaml", timeout_s, None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@pytest.fixture
def start_sshd(tmp_path: Path) -> Iterator[Callable[[], RealSshd]]:
    """Starts sshds; every one is ended, by pid, when the test is over."""
    if SSHD is None:
        pytest.skip("no sshd on this machine: install openssh-server to test against the real one")
    started: list[RealSshd] = []

    def start() -> RealSshd:
        root = tmp_path / f"sshd{len(started)}"
        root.mkdir()
        client, host = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
        for name, key in (("client", client), ("host", host)):
            (root / name).write_bytes(key.export_private_key("openssh"))
            (root / name).chmod(0o600)
        (root / "authorized").write_bytes(client.export_public_key("openssh"))
        port = _free_port()
        (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {host.export_public_key('openssh').decode()}")
        (root / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\nAuthorizedKeysFile {root}/authorized\n"
            f"PidFile {root}/pid\nPasswordAuthentication no\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
            "MaxStartups 100\nSetEnv SHLVL=2\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(root / "config")], stderr=subprocess.DEVNULL)
        for _ in range(200):
            if _listening(port):
                break
            time.sleep(0.02)
        user = os.environ.get("USER") or "root"
        server = RealSshd(process, port, user, root / "client", root / "known_hosts", str(root / "host"), root)
        started.append(server)
        return server

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def sshd(start_sshd: Callable[[], RealSshd]) -> RealSshd:
    """One real sshd."""
    return start_sshd()
