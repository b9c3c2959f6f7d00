"""Reaching many trays: our dialer beside untuned asyncssh, paramiko and OpenSSH, on the same real sshds, in one run.

    python -m bench.ssh [--trays 27,432] [--repeat 5]

Cold: connect, verify the host key, run `true`. Warm: `true` again over what is open (OpenSSH: a ControlMaster per tray, whose
own CPU is not counted). Every repetition is a process of its own, tools in turn; CPU is the client's with all its children,
without the start of Python and imports. Servers and clients share this machine, so wall times are mostly the servers'.
Also: `burnin --help`, and what `burnin run` spends until its first packet leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import getpass
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncssh
import paramiko

from burnin.transport.known import KnownHosts
from burnin.transport.ssh import Dialer, Endpoint, shell

AT_ONCE = 64
PER_SSHD = 16
"""Addresses one sshd listens on at most (MAX_LISTEN_SOCKS)."""
WARM_ROUNDS = 3
BUDGETS = {"help": 0.25, "first packet": 1.0, "cold wall, 27": 0.5, "cold CPU a tray, 27": 0.003, "warm CPU, 432": 0.25}


@dataclass(frozen=True)
class Cost:
    """Seconds: wall and client CPU of one cold fan-out, and medians of the warm rounds."""

    cold_s: float
    cold_cpu_s: float
    warm_s: float
    warm_cpu_s: float


# ---------------------------------------------------------------- servers


@contextlib.contextmanager
def servers(folder: Path, count: int) -> Iterator[list[str]]:
    """So many addresses on which real sshds answer at port 2200, and `known_hosts` and `key` in the folder for all of them."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if sshd is None:
        sys.exit("bench.ssh: there is no sshd on this machine; install openssh-server")
    hosts = [f"127.77.{i // 200}.{i % 200 + 1}" for i in range(count)]
    client, host_key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    for name, key in (("key", client), ("host", host_key)):
        (folder / name).write_bytes(key.export_private_key("openssh"))
        (folder / name).chmod(0o600)
    (folder / "authorized").write_bytes(client.export_public_key("openssh"))
    public = host_key.export_public_key("openssh").decode()
    (folder / "known_hosts").write_text("".join(f"[{host}]:2200 {public}" for host in hosts))
    Path("/run/sshd").mkdir(exist_ok=True)
    running = []
    try:
        for start in range(0, count, PER_SSHD):
            config = folder / f"sshd{start}"
            listen = "".join(f"ListenAddress {host}:2200\n" for host in hosts[start : start + PER_SSHD])
            config.write_text(
                f"{listen}HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nPidFile none\nStrictModes no\n"
                "UsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 1000\nSetEnv SHLVL=2\nLogLevel ERROR\n"
            )
            running.append(subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL))
        for host in hosts[::PER_SSHD]:
            _until_up(host)
        yield hosts
    finally:
        for process in running:
            process.kill()
            process.wait()


def _until_up(host: str) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((host, 2200), 0.2):
            return
        time.sleep(0.02)
    sys.exit(f"bench.ssh: no sshd came up on {host}:2200")


# ---------------------------------------------------------------- clients, each in a process of its own


def _cpu() -> float:
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


class Phases:
    """Measures one cold phase and some warm ones."""

    def __init__(self) -> None:
        self.costs: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def phase(self) -> Iterator[None]:
        """The time and CPU of what happens inside; the first is the cold one."""
        wall, cpu = time.perf_counter(), _cpu()
        yield
        self.costs.append((time.perf_counter() - wall, _cpu() - cpu))

    def cost(self) -> Cost:
        """All phases as one cost."""
        warm = [statistics.median(column) for column in zip(*self.costs[1:], strict=True)]
        return Cost(*self.costs[0], *warm)


def client_burnin(folder: Path, hosts: Sequence[str]) -> Cost:
    """The product's own way in."""
    ends = {h: Endpoint(h, h, 2200, getpass.getuser(), folder / "key", False, "python3", "/tmp") for h in hosts}

    async def true(connection: asyncssh.SSHClientConnection) -> None:
        assert (await shell(connection, "true", timeout_s=60)).status == 0

    gc.set_threshold(50_000, 20, 100)  # as burnin's entry point sets it
    dialer = Dialer(ends, KnownHosts(folder / "known_hosts"), "rack.yaml", 60, None)
    return asyncio.run(_async_client(hosts, dialer.connect, true))


def client_asyncssh(folder: Path, hosts: Sequence[str]) -> Cost:
    """asyncssh as its first example has it, with the rack's keys."""

    async def connect(host: str) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            host, 2200, client_keys=[str(folder / "key")], known_hosts=str(folder / "known_hosts"), connect_timeout=60
        )

    async def true(connection: asyncssh.SSHClientConnection) -> None:
        await connection.run("true", check=True)

    return asyncio.run(_async_client(hosts, connect, true))


async def _async_client(
    hosts: Sequence[str],
    connect: Callable[[str], Awaitable[asyncssh.SSHClientConnection]],
    true: Callable[[asyncssh.SSHClientConnection], Awaitable[None]],
) -> Cost:
    async def one(host: str) -> asyncssh.SSHClientConnection:
        connection = await connect(host)
        await true(connection)
        return connection

    phases = Phases()
    with phases.phase():
        connections = await asyncio.gather(*map(one, hosts))
    for _ in range(WARM_ROUNDS):
        with phases.phase():
            await asyncio.gather(*map(true, connections))
    for connection in connections:
        connection.abort()
    return phases.cost()


def client_paramiko(folder: Path, hosts: Sequence[str]) -> Cost:
    """paramiko in threads, keys parsed once."""
    key = paramiko.Ed25519Key.from_private_key_file(str(folder / "key"))
    host_key = paramiko.Ed25519Key.from_private_key_file(str(folder / "host"))  # a file parsed per client would be most of it

    def connect(host: str) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.get_host_keys().add(f"[{host}]:2200", host_key.get_name(), host_key)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            host, 2200, pkey=key, allow_agent=False, look_for_keys=False, timeout=60, banner_timeout=60, auth_timeout=60
        )
        true(client)
        return client

    def true(client: paramiko.SSHClient) -> None:
        assert client.exec_command("true")[1].channel.recv_exit_status() == 0

    phases = Phases()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        with phases.phase():
            clients = list(pool.map(connect, hosts))
        for _ in range(WARM_ROUNDS):
            with phases.phase():
                list(pool.map(true, clients))
        for client in clients:
            client.close()
    return phases.cost()


def client_openssh(folder: Path, hosts: Sequence[str]) -> Cost:
    """An ssh process per command, so many at once; warm ones through a master per tray."""
    options = ["-F", "none", "-p", "2200", "-i", str(folder / "key"), "-o", f"UserKnownHostsFile={folder}/known_hosts"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    masters = [*options, "-o", f"ControlPath={folder}/m-%h"]

    def run(*words: str) -> None:
        subprocess.run(["ssh", *words], check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    phases = Phases()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        with phases.phase():
            list(pool.map(lambda host: run(*options, host, "true"), hosts))
        list(pool.map(lambda host: run(*masters, "-M", "-N", "-f", host), hosts))
        try:
            for _ in range(WARM_ROUNDS):
                with phases.phase():
                    list(pool.map(lambda host: run(*masters, host, "true"), hosts))
        finally:
            list(pool.map(lambda host: run(*masters, "-O", "exit", host), hosts))
    return phases.cost()


CLIENTS: dict[str, Callable[[Path, Sequence[str]], Cost]] = {
    "burnin": client_burnin,
    "asyncssh, untuned": client_asyncssh,
    "paramiko, 64 threads": client_paramiko,
    "OpenSSH, 64 processes": client_openssh,
}


def measured(name: str, folder: Path, hosts: Sequence[str]) -> Cost:
    """One repetition in a fresh process."""
    words = [sys.executable, "-m", "bench.ssh", "--client", name, "--folder", str(folder), "--hosts", ",".join(hosts)]
    return Cost(**json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


# ---------------------------------------------------------------- burnin's own start


def help_s() -> float:
    """Wall of `burnin --help`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "burnin", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_packet_s(folder: Path) -> float:
    """CPU of `burnin run` when its first connection arrives: a rack of 18 trays, of which the first is a listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as tray:
        port = tray.getsockname()[1]
        key = asyncssh.generate_private_key("ssh-ed25519")
        (folder / "k").write_bytes(key.export_private_key("openssh"))
        (folder / "k").chmod(0o600)
        (folder / "kh").write_text(f"[127.0.0.1]:{port} {key.export_public_key('openssh').decode()}")
        (folder / "rack.yaml").write_text(
            f"rack: BENCH\nprofile: gb300-nvl72\nssh: {{user: root, key: k, known_hosts: kh}}\n"
            f'trays:\n  t[00-17]: {{host: "127.0.0.[1-18]", port: {port}}}\n'
        )
        words = [
            sys.executable,
            "-m",
            "burnin",
            "run",
            "smoke",
            str(folder / "rack.yaml"),
            "--plain",
            "--db",
            str(folder / "b.db"),
        ]
        run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            tray.settimeout(30)
            tray.accept()[0].close()
            fields = Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        finally:
            run.kill()
            run.wait()


# ---------------------------------------------------------------- the tables


def table(count: int, costs: dict[str, list[Cost]]) -> dict[str, Cost]:
    """Prints one table; medians, and in brackets the ratio to burnin. Gives the medians."""
    medians = {
        name: Cost(*(statistics.median(column) for column in zip(*(asdict(one).values() for one in all_of), strict=True)))
        for name, all_of in costs.items()
    }
    ours = medians["burnin"]
    print(f"\n{count} trays, {len(costs['burnin'])} repetitions\n")
    print("| | cold wall s | cold CPU ms/tray | warm wall s | warm CPU s |\n|---|---|---|---|---|")
    for name, one in medians.items():
        cells = [
            _cell(one.cold_s, ours.cold_s, 1, ".2f"),
            _cell(one.cold_cpu_s, ours.cold_cpu_s, 1000 / count, ".1f"),
            _cell(one.warm_s, ours.warm_s, 1, ".2f"),
            _cell(one.warm_cpu_s, ours.warm_cpu_s, 1, ".3f"),
        ]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return medians


def _cell(value: float, mine: float, scale: float, form: str) -> str:
    return f"{value * scale:{form}}" + (f" ({value / mine:.1f}x)" if value != mine else "")


def main() -> None:
    """Measures, and prints tables and budgets. A budget that is missed is said, and fails nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trays", default="27,432")
    parser.add_argument("--repeat", type=int, default=5)
    for hidden in ("--client", "--folder", "--hosts"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        print(json.dumps(asdict(CLIENTS[given.client](Path(given.folder), given.hosts.split(",")))))
        return
    counts = [int(word) for word in given.trays.split(",")]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, files[1]), files[1]))
    reached: dict[str, float] = {}
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="bs-") as place, servers(Path(place), count) as hosts:
            costs: dict[str, list[Cost]] = {name: [] for name in CLIENTS}
            for _ in range(given.repeat):
                for name, all_of in costs.items():
                    all_of.append(measured(name, Path(place), hosts))
        ours = table(count, costs)["burnin"]
        reached |= {f"cold wall, {count}": ours.cold_s, f"cold CPU a tray, {count}": ours.cold_cpu_s / count}
        reached[f"warm CPU, {count}"] = ours.warm_cpu_s
    with tempfile.TemporaryDirectory(prefix="bs-") as place:
        reached["help"] = statistics.median(help_s() for _ in range(given.repeat))
        reached["first packet"] = statistics.median(first_packet_s(Path(place)) for _ in range(given.repeat))
    print("\n| budget | s | |\n|---|---|---|")
    for name, most in BUDGETS.items():
        if name in reached:
            print(f"| {name} <= {most:g} | {reached[name]:.4g} | {'met' if reached[name] <= most else '**missed**'} |")


if __name__ == "__main__":
    main()
