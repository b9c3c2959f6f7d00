"""One OS process of the twin: a compute tray with its SSH server and its silicon, or the switch trays of a rack.

It owns every process that its logins started, also those that cut loose (it is their subreaper): when the tray goes
dark, or the twin ends, they all go.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import asyncssh

from burnin.twin import disk, host, stuck, wallclock
from burnin.twin.around import Around
from burnin.twin.faults import Plant
from burnin.twin.hardware import Hardware
from burnin.twin.hosttree import interface
from burnin.twin.identity import TrayId, for_emulation, missing
from burnin.twin.model import Model
from burnin.twin.physics import TrayDraw
from burnin.twin.rackstate import FloatRow, RackState
from burnin.twin.sshd import Children, Tray, listen
from burnin.twin.state import State

STEP_S, LEAN_STEP_S = 0.1, 0.5
SHARED, RACK = "shared", "rack"
"""Beside the trays' folders: the folder of what those have in common in which nothing is weak, and the rack's mapped state."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class Silicon:
    """What makes a compute tray more than a shell: who it is, how its parts are, what is planted in them."""

    model: Model
    identity: TrayId
    cluster_uuid: str
    draw: TrayDraw
    plants: tuple[Plant, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One tray: its folder, bound socket, host key; `silicon` None for a switch tray; `slow_s` until a command begins;
    `step_s` how often its physics moves."""

    part: str
    at: Path
    sock: socket.socket
    host_key: asyncssh.SSHKey
    silicon: Silicon | None = None
    slow_s: float = 0.0
    step_s: float = STEP_S


def run(endpoints: Sequence[Endpoint], clients: asyncssh.SSHAuthorizedKeys, ready_fd: int, parent: int) -> NoReturn:
    """Be these trays, in a freshly forked process, until told to end (SIGTERM) or the parent dies. One byte on
    `ready_fd` says that all of them listen."""
    code = 1
    try:
        die_with(parent, signal.SIGTERM)
        adopt_orphans()
        disks, drivers = _disks(endpoints), _drivers(endpoints)  # before the first thread
        asyncio.run(_serve(endpoints, clients, ready_fd, disks, drivers))
        for driver in drivers:
            driver.close()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        kill_descendants()
        sys.stderr.flush()
        os._exit(code)


async def _serve(
    endpoints: Sequence[Endpoint],
    clients: asyncssh.SSHAuthorizedKeys,
    ready_fd: int,
    disks: Sequence[disk.Disk],
    drivers: Sequence[stuck.Driver],
) -> None:
    loop, over, children = asyncio.get_running_loop(), asyncio.Event(), Children()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # ^C at the terminal is for the twin, which then ends us
    loop.add_signal_handler(signal.SIGCHLD, children.reap)
    for driver in drivers:
        driver.serve()
    for endpoint in endpoints:
        hardware = _build(endpoint)
        if hardware is not None:
            hardware.step(time.monotonic_ns())
            beside: list[disk.Disk | wallclock.WallClock] = [*disks, *_clocks(endpoint)]
            step_s = endpoint.step_s
            loop.call_later(step_s, _beat, hardware, beside, loop.time() + step_s, step_s, over)
        home = endpoint.at / "home"
        login = Tray(home, host.environment(endpoint.at), children, endpoint.slow_s)
        await listen(endpoint.sock, login, endpoint.host_key, clients)
    for one in disks:
        one.step(time.monotonic())  # a disk that is full from the start is full for the first who asks
    os.write(ready_fd, b"!")
    os.close(ready_fd)
    await over.wait()


def _build(endpoint: Endpoint) -> Hardware | None:
    silicon = endpoint.silicon
    if silicon is None:
        host.make_switch(endpoint.at)
        return None
    rack = endpoint.at.parent / RACK
    port = RackState.open(str(rack)).tray(endpoint.part) if rack.exists() else None
    absent = missing(silicon.plants, endpoint.part, silicon.seed, int(port["boots"]) if port is not None else 0)
    if port is not None:
        port["absent"] = float(sum(1 << int(part[1:]) for part in absent if part.startswith("g")))
    emulation = for_emulation(silicon.model, silicon.identity, silicon.cluster_uuid, absent)
    if endpoint.step_s > STEP_S:  # whoever waits for events looks less often, too
        emulation["poll_s"] = endpoint.step_s
    if _planted(endpoint, stuck.KIND):
        emulation["stuck"] = str(endpoint.at / "driver" / stuck.FILE)
    emulation["nics"] = _interfaces(silicon.model, endpoint.sock.getsockname()[0], absent)
    emulation["address"] = endpoint.sock.getsockname()[0]
    emulation["host_bits"] = sum(int(plant.severity) for plant in _planted(endpoint, "host_bits"))
    host.make_compute(endpoint.at, silicon.model, silicon.identity, emulation)
    log = host.KernelLog(endpoint.at)
    log.booted(silicon.model.driver.version)
    state = State.create(str(endpoint.at / "state"), silicon.model.topology.gpus_per_tray)
    shared = endpoint.at.parent / SHARED
    around = Around(endpoint.part, endpoint.at / "root", silicon.model, silicon.plants, log, silicon.seed, shared, absent=absent)
    return Hardware(endpoint.part, silicon.model, silicon.draw, silicon.plants, state, log, silicon.seed, around, port)


def _interfaces(model: Model, address: str, absent: Collection[str]) -> dict[str, tuple[int, str]]:
    """The first interface of each network card, with an address in the tray's own net: 127.A.1.X -> 127.A.(200 + card).X. None
    where all there is is 127.0.0.1."""
    net, _, host = address.split(".")[1:]
    cards = enumerate(model.machine.nics) if address != "127.0.0.1" else ()
    return {interface(card): (i, f"127.{net}.{200 + i}.{host}") for i, card in cards if f"n{i}" not in absent}


def _head(endpoint: Endpoint) -> FloatRow | None:
    """The rack's mapped head, where it has one."""
    rack = endpoint.at.parent / RACK
    return RackState.open(str(rack)).head if rack.exists() else None


def _planted(endpoint: Endpoint, kind: str) -> list[Plant]:
    return [plant for plant in (endpoint.silicon.plants if endpoint.silicon else ()) if plant.kind == kind]


def _disks(endpoints: Sequence[Endpoint]) -> list[disk.Disk]:
    return [disk.Disk(one.at, plant, _head(one)) for one in endpoints for plant in _planted(one, disk.KIND)]


def _drivers(endpoints: Sequence[Endpoint]) -> list[stuck.Driver]:
    return [stuck.Driver(one.at) for one in endpoints if _planted(one, stuck.KIND)]


def _clocks(endpoint: Endpoint) -> list[wallclock.WallClock]:
    return [wallclock.WallClock(endpoint.at, plant, _head(endpoint)) for plant in _planted(endpoint, wallclock.KIND)]


def _beat(
    hardware: Hardware, beside: Sequence[disk.Disk | wallclock.WallClock], due_s: float, step_s: float, over: asyncio.Event
) -> None:
    """One step of the physics and of what the tray's host has beside it, and the appointment for the next."""
    for one in beside:
        one.step(time.monotonic())
    if not hardware.step(time.monotonic_ns()):
        kill_descendants()  # the tray went dark
        os._exit(0)
    if hardware.frozen:
        die_with(os.getppid(), signal.SIGKILL)  # what is stopped hears nothing else
        for pid in [*descendants(os.getpid()), os.getpid()]:  # the kernel still accepts connections; nobody answers
            os.kill(pid, signal.SIGSTOP)
        hardware.frozen = False
    loop = asyncio.get_running_loop()
    following = max(due_s + step_s, loop.time())
    loop.call_at(following, _beat, hardware, beside, following, step_s, over)


# ---------------------------------------------------------------- processes


def die_with(parent: int, number: signal.Signals) -> None:
    """Get this signal when the parent dies; at once if it already has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents die."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Living processes below this one, from /proc; one whose parent dies during the look may be missed."""
    below: dict[int, list[int]] = {}
    dead: set[int] = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(entry))
        if fields[0] in (b"Z", b"X"):
            dead.add(int(entry))
    found, heads = [], [root]
    while heads:
        heads = [child for head in heads for child in below.get(head, [])]
        found += heads
    return [pid for pid in found if pid not in dead]


def kill_descendants(patience_s: float = 5.0) -> None:
    """SIGKILL to every process below this one, until there was none at two looks in a row."""
    end, quiet = time.monotonic() + patience_s, 0
    while quiet < 2 and time.monotonic() < end:
        living = descendants(os.getpid())
        quiet = 0 if living else quiet + 1
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        time.sleep(0.005)
