"""What a site has of a rack: the rack file, the client's key and known_hosts, the CA and the secret of its BMCs, side by side.

Written from the true build. Nothing of what was planted is in any of them.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from burnin.rack.parts import fold
from burnin.twin.identity import RackId
from burnin.twin.model import Model


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tray answers, and what runs it."""

    pid: int
    host: str
    port: int
    dir: Path


@dataclass(frozen=True, slots=True)
class Redfish:
    """Where Redfish answers (part -> address and port), the CA that vouches for it, and its one account."""

    where: dict[str, tuple[str, int]]
    ca: bytes
    user: str
    password: str


def write_rack(
    inventory: Path,
    model: Model,
    rack: RackId,
    where: dict[str, Place],
    key: asyncssh.SSHKey,
    host_keys: dict[str, asyncssh.SSHKey],
    redfish: Redfish | None = None,
) -> None:
    """Client key and known_hosts, CA and secret of the BMCs, then the rack file: who sees it, can use it."""
    inventory.parent.mkdir(parents=True, exist_ok=True)
    key_file, known_hosts = inventory.with_suffix(".key"), inventory.with_suffix(".known_hosts")
    _replace(key_file, key.export_private_key(), 0o600)
    lines = (
        f"{f'[{w.host}]:{w.port}' if w.port != 22 else w.host} {host_keys[part].export_public_key().decode().strip()}\n"
        for part, w in where.items()
    )
    _replace(known_hosts, "".join(lines).encode(), 0o644)
    doors: list[str] = []
    if redfish is not None:
        ca, secret = inventory.with_suffix(".ca.pem"), inventory.with_suffix(".bmc")
        _replace(ca, redfish.ca, 0o644)
        _replace(secret, f"{redfish.password}\n".encode(), 0o600)
        doors = _doors(redfish, ca.name, secret.name)
    _replace(inventory, _rack_text(model, rack, where, key_file.name, known_hosts.name, doors).encode(), 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    fresh.chmod(mode)
    fresh.replace(path)


def _doors(redfish: Redfish, ca: str, secret: str) -> list[str]:
    """Lines of `bmc` and `coolant`."""
    rest = f"ca: {json.dumps(ca)}, secret: {json.dumps(f'file:{secret}')}, user: {redfish.user}"
    bmcs = {part.removesuffix(".bmc"): place for part, place in redfish.where.items() if part != "cdu"}
    lines = ["bmc:"]
    for letter in "tsp":
        some = {part: place for part, place in bmcs.items() if part.startswith(letter)}
        if len({host for host, _ in some.values()}) < len(some):
            lines += [f'  {part}: {{url: "https://{host}:{port}", {rest}}}' for part, (host, port) in some.items()]
        elif some:
            hosts, port = _fold_hosts([host for host, _ in some.values()]), next(iter(some.values()))[1]
            lines.append(f'  {fold(some)}: {{url: "https://{hosts}:{port}", {rest}}}')
    host, port = redfish.where["cdu"]
    return [*lines, f'coolant: {{redfish: "https://{host}:{port}", {rest}, scope: rack}}']


def _rack_text(model: Model, rack: RackId, where: dict[str, Place], key: str, known_hosts: str, doors: Sequence[str]) -> str:
    """The rack file: true build record, folded addresses, and a waiver for each interlock with nothing behind it."""
    until = dt.date.today() + dt.timedelta(days=365)
    lines = [
        f"# A twin of a {model.profile}: no such rack exists. It answers as long as the process that wrote this file serves.",
        f"rack: {json.dumps(rack.serial)}",
        f"profile: {model.profile}",
        f"ssh: {{user: burnin, key: {json.dumps(key)}, known_hosts: {json.dumps(known_hosts)}}}",
        "trays:",
        *_addresses(where),
        *doors,
    ]
    if model.gpu.platform_info:
        lines.append(f"chassis: {json.dumps(rack.chassis)}")
    lines.append("expect:")
    for part, built in rack.trays.items():
        if part in where:
            uuids = ", ".join(json.dumps(gpu.uuid) for gpu in built.gpus)
            lines.append(f"  {part}: {{serial: {json.dumps(built.serial)}, gpus: [{uuids}]}}")
    waived = _waived(model, where, bool(doors))
    if waived:
        lines.append("waive:")
        lines += [f"  - {{interlock: {name}, by: twin, why: {json.dumps(why)}, until: {until}}}" for name, why in waived.items()]
    return "\n".join(lines) + "\n"


def _waived(model: Model, where: dict[str, Place], redfish: bool) -> dict[str, str]:
    """Interlocks that cannot be good on this twin, and why."""
    out = {}
    if redfish:
        out["leak_policy"] = "off, as the tray that this twin is shaped after was delivered; there is no coolant to spill"
    missing = [part for part in model.topology.switches() if part not in where]
    if missing:
        out["switch_trays"] = f"this twin serves none of {fold(missing)}"
    return out


def _addresses(where: dict[str, Place]) -> list[str]:
    """One folded line per kind of tray where addresses run on, else a line per tray."""
    if len({w.host for w in where.values()}) < len(where):
        return [f"  {part}: {{host: {w.host}, port: {w.port}}}" for part, w in where.items()]
    out = []
    for letter in "ts":
        some = {part: w for part, w in where.items() if part.startswith(letter)}
        if some:
            port = next(iter(some.values())).port
            hosts = _fold_hosts([w.host for w in some.values()])
            out.append(f'  {fold(some)}: {{host: "{hosts}", port: {port}}}')
    return out


def _fold_hosts(hosts: Sequence[str]) -> str:
    net, first = hosts[0].rsplit(".", 1)
    last = hosts[-1].rsplit(".", 1)[1]
    return hosts[0] if len(hosts) == 1 else f"{net}.[{first}-{last}]"
