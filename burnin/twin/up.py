"""Brings a twin rack up, writes the rack file that reaches it, and takes everything down again.

Two kinds of files, far apart: beside the rack file lies what a site has of a rack (rack file, client key, known_hosts) and
nothing of what was planted; a private folder holds the trays' own files and `trays.json` (part -> pid, host, port, dir).
A rack with a housing also gets a process for its Redfish services, in which the coolant loop turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh

from burnin.errors import InputError
from burnin.rack.parts import fold, kind, tray_of
from burnin.twin import disk, hosttree, identity, physics, stuck, tray
from burnin.twin.addresses import bind
from burnin.twin.facility import Facility
from burnin.twin.faults import KINDS, LIVE, Plant
from burnin.twin.model import Model, load, with_tools
from burnin.twin.mounts import can_mount
from burnin.twin.nvos import furnish
from burnin.twin.nvos.wiring import wire
from burnin.twin.rackfile import Place, Redfish, write_rack
from burnin.twin.rackstate import RackState
from burnin.twin.redfish import process as redfish
from burnin.twin.redfish.certs import Authority
from burnin.twin.trays import END_S, Trays, await_all, end, reap

WAKE = signal.SIGUSR1
"""From the Redfish process: a tray shall start."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A running twin: its rack file, its trays by part id, its private folder, and the process that serves it."""

    rack_file: Path
    trays: dict[str, Place]
    private: Path
    pid: int


def serve(
    profile: str,
    seed: int,
    plants: Sequence[Plant],
    inventory: Path,
    *,
    ready: Callable[[Path], None] | None = None,
    trays: int | None = None,
    switches: int | None = None,
    private: Path | None = None,
    lean: bool = False,
    tools: Mapping[str, str] | None = None,
) -> None:
    """Draw the rack, start it, write `inventory`, call `ready` with it, and serve until SIGTERM or SIGINT.

    `trays` and `switches`: only the first so many. `private`: an empty folder for the trays' files (default: a fresh one,
    removed at the end). `lean`: its physics moves every LEAN_STEP_S, for many racks on one machine. `tools`: versions of the
    trays' tools (tools/versions.py). Raises InputError for a profile, plant or version that cannot be; call from the main thread.
    """
    model = with_tools(load(profile), tools or {})
    parts = model.topology.trays()[:trays] + model.topology.switches()[:switches]
    services = _services(model, parts)
    _check(plants, model, parts, services)
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, WAKE}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    folder = private if private is not None else Path(tempfile.mkdtemp(prefix="burnin-twin-"))
    pids: set[int] = set()
    try:
        tray.adopt_orphans()
        sockets = bind([*parts, *services])
        key = asyncssh.generate_private_key("ssh-ed25519")
        host_keys = {part: asyncssh.generate_private_key("ssh-ed25519") for part in parts}
        rack = identity.build(model, seed)
        site = _site(model, rack, seed, plants, folder, parts) if services else None
        endpoints = _endpoints(model, rack, seed, plants, folder, {p: sockets[p] for p in parts}, host_keys)
        if lean:
            site = replace(site, step_s=tray.LEAN_STEP_S) if site is not None else None
            endpoints = [replace(endpoint, step_s=tray.LEAN_STEP_S) for endpoint in endpoints]
        hosttree.furnish(hosttree.Tree(folder / tray.SHARED), model)
        clients = asyncssh.import_authorized_keys(key.export_public_key().decode())
        doors = _start_redfish(site, sockets, services, before, pids) if site is not None else None
        below = Trays(endpoints, clients, before, pids, site.facility.state if site is not None else None)
        below.start()
        where = below.where
        (folder / "trays.json").write_text(
            json.dumps({p: {"pid": w.pid, "host": w.host, "port": w.port, "dir": str(w.dir)} for p, w in where.items()})
        )
        known = host_keys | {p.part: asyncssh.generate_private_key("ssh-ed25519") for p in plants if p.kind == "wrong_host_key"}
        write_rack(inventory, model, rack, where, key, known, doors)
        if ready is not None:
            ready(inventory)
        while _next_signal(signals, below.look(time.monotonic())) in (None, signal.SIGCHLD, WAKE):
            reap(pids)
    finally:
        end(pids)
        if private is None:
            shutil.rmtree(folder, ignore_errors=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _next_signal(signals: set[signal.Signals], within_s: float | None) -> int | None:
    """The next of these that comes; None where none did in time."""
    if within_s is None:
        return int(signal.sigwait(signals))
    came = signal.sigtimedwait(signals, within_s)
    return came.si_signo if came is not None else None


def _services(model: Model, parts: Sequence[str]) -> list[str]:
    """What answers Redfish: BMCs of the trays that are served, power shelves, the CDU."""
    if model.housing is None or model.loop is None:
        return []
    return [f"{part}.bmc" for part in parts] + [f"p{i}" for i in range(model.housing.shelves)] + ["cdu"]


def _check(plants: Sequence[Plant], model: Model, parts: Sequence[str], services: Sequence[str]) -> None:
    around = {*services, *(part for part in parts if kind(part) == "switch tray")}
    if services and model.housing is not None:
        around |= {"manifold", *(f"p{i}.u{j}" for i in range(model.housing.shelves) for j in range(model.housing.psus))}
    around |= {end for part, ports in wire(model, 0).items() if part in parts for end in (f"{part}.a{p.asic}" for p in ports)}
    around |= {port.part(part) for part, ports in wire(model, 0).items() if part in parts for port in ports}
    for plant in plants:
        if LIVE not in KINDS[plant.kind].seams:
            raise InputError(f"{plant}: {plant.kind} happens in recorded racks only (burnin twin record)")
        needs = {disk.KIND: "tmpfs", stuck.KIND: "fuse"}.get(plant.kind)
        if needs is not None and not can_mount(needs):
            raise InputError(f"{plant}: this machine lets no process of ours mount a {needs}")
        if plant.part in around:
            continue
        if plant.start_s is not None and not services:
            raise InputError(f"{plant}: a {model.profile} has no loop of its own, and no fault that begins later")
        name = tray_of(plant.part)
        gpus = model.topology.gpus(name)
        links = [f"{gpu}.l{link}" for gpu in gpus for link in range(model.gpu.nvlinks)]
        cards = [f"{name}.n{i}" for i in range(len(model.machine.nics))] + [
            f"{name}.d{i}" for i in range(len(model.machine.nvmes))
        ]
        cards += [f"{name}.c{i}" for i in range(model.machine.sockets)]
        if name not in parts or plant.part not in {name, *gpus, *links, *cards}:
            trays = fold(p for p in parts if kind(p) == "compute tray")
            each = f"each with g0 to g{len(gpus) - 1}" + (f", each with l0 to l{model.gpu.nvlinks - 1}" if links else "")
            raise InputError(f"{plant}: this {model.profile} has no {plant.part}; it has {trays}, {each}")


# ---------------------------------------------------------------- processes


def _endpoints(
    model: Model,
    rack: identity.RackId,
    seed: int,
    plants: Sequence[Plant],
    folder: Path,
    sockets: dict[str, socket.socket],
    host_keys: dict[str, asyncssh.SSHKey],
) -> list[tray.Endpoint]:
    drawn = physics.weaken(physics.draw(model, seed), plants)
    standing = identity.swap(model, rack, seed, plants)
    out = []
    for part, sock in sockets.items():
        silicon = None
        if part in drawn:
            own = tuple(plant for plant in plants if tray_of(plant.part) == part)
            silicon = tray.Silicon(model, standing[part], rack.cluster_uuid, drawn[part], own, seed)
        elif kind(part) == "switch tray":
            manages = part == next(one for one in sockets if kind(one) == "switch tray")
            furnish.write(folder / part, part, model, replace(rack, trays=standing), seed, plants, manages)
        slow_s = max((p.severity for p in plants if p.kind == "slow_ssh" and p.part == part), default=0.0)
        out.append(tray.Endpoint(part, folder / part, sock, host_keys[part], silicon, slow_s))
    return out


def _site(
    model: Model, rack: identity.RackId, seed: int, plants: Sequence[Plant], folder: Path, parts: Sequence[str]
) -> redfish.Site:
    """The rack's mapped state with the loop at rest in it, and what its Redfish services need to know."""
    drawn = physics.weaken(physics.draw(model, seed), plants)
    housing = model.housing
    assert housing is not None
    topology = model.topology
    state = RackState.create(
        str(folder / tray.RACK), topology.compute_trays, topology.switch_trays, housing.shelves * housing.psus
    )
    facility = Facility(model, drawn, plants, state, seed, [part for part in parts if kind(part) == "compute tray"])
    facility.step(time.monotonic())
    standing = identity.swap_bmcs(model, identity.swap(model, rack, seed, plants), seed, plants)
    return redfish.Site(model, facility, standing, plants, folder, seed, "burnin", secrets.token_urlsafe(12))


def _start_redfish(
    site: redfish.Site,
    bound: Mapping[str, socket.socket],
    services: Sequence[str],
    mask: set[signal.Signals | int],
    pids: set[int],
) -> Redfish:
    """Fork the process of the Redfish services; returns when all of them listen. `bound`: the sockets of all parts."""
    sockets = {part: bound[part] for part in services}
    authority = Authority("Twin rack CA")
    where = {part: sock.getsockname() for part, sock in sockets.items()}
    pems = {part: site.folder / f"{part}.pem" for part in sockets}
    for part, pem in pems.items():
        pem.touch(0o600)
        pem.write_bytes(authority.issue(where[part][0]))
    ready_r, ready_w = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for part in bound.keys() - sockets.keys():  # a tray that goes dark must not be listened for here
            bound[part].close()
        redfish.run(site, sockets, pems, ready_w, parent)
    os.close(ready_w)
    pids.add(pid)
    for sock in sockets.values():
        sock.close()
    try:
        await_all([ready_r])
    finally:
        os.close(ready_r)
    return Redfish(where, authority.pem(), site.user, site.password)


# ---------------------------------------------------------------- for tests


@contextlib.contextmanager
def running(
    profile: str,
    seed: int,
    plants: Sequence[Plant] = (),
    *,
    where: Path,
    trays: int | None = None,
    switches: int | None = None,
    lean: bool = False,
    tools: Mapping[str, str] | None = None,
) -> Iterator[Twin]:
    """A twin in a process of its own, its rack file in `where`; ended when the block is left, however."""
    private = Path(tempfile.mkdtemp(prefix="burnin-twin-"))
    wish = {
        "profile": profile,
        "seed": seed,
        "plants": [(p.kind, p.part, p.severity, p.start_s, p.growth, p.over_s) for p in plants],
        "inventory": str(where / "rack.yaml"),
        "private": str(private),
        "trays": trays,
        "switches": switches,
        "lean": lean,
        "tools": dict(tools or {}),
        "parent": os.getpid(),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from burnin.twin.up import _serve_as_told; _serve_as_told()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(wish).encode())
        process.stdin.close()
        rack_file = Path(process.stdout.readline().decode().strip())
        if not rack_file.is_file():
            raise RuntimeError("the twin did not come up; its reason is on standard error")
        places = json.loads((private / "trays.json").read_text())
        found = {p: Place(w["pid"], w["host"], w["port"], Path(w["dir"])) for p, w in places.items()}
        yield Twin(rack_file, found, private, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(END_S + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(private, ignore_errors=True)


def _serve_as_told() -> None:
    wish = json.load(sys.stdin)
    tray.die_with(wish["parent"], signal.SIGTERM)

    def ready(rack_file: Path) -> None:
        print(rack_file, flush=True)  # noqa: T201 - the other end of a pipe of ours

    private = Path(wish["private"])
    try:
        serve(
            wish["profile"],
            wish["seed"],
            [Plant(*plant) for plant in wish["plants"]],
            Path(wish["inventory"]),
            ready=ready,
            trays=wish["trays"],
            switches=wish["switches"],
            private=private,
            lean=wish["lean"],
            tools=wish["tools"],
        )
    finally:
        shutil.rmtree(private, ignore_errors=True)  # who asked may be gone
