"""What a site has of a rack: the rack file, the client's key and known_hosts, side by side.

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

WAIVED = (
    "coolant_flow", "coolant_supply", "coolant_pressure", "leak", "leak_policy", "switch_trays", "power_shelves",
)  # fmt: skip
"""Interlocks that a twin of this version has nothing behind."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tray answers, and what runs it."""

    pid: int
    host: str
    port: int
    dir: Path


def write_rack(
    inventory: Path,
    model: Model,
    rack: RackId,
    where: dict[str, Place],
    key: asyncssh.SSHKey,
    host_keys: dict[str, asyncssh.SSHKey],
) -> None:
    """Client key and known_hosts, then the rack file: who sees it, can use it."""
    inventory.parent.mkdir(parents=True, exist_ok=True)
    key_file, known_hosts = inventory.with_suffix(".key"), inventory.with_suffix(".known_hosts")
    _replace(key_file, key.export_private_key(), 0o600)
    lines = (
        f"{f'[{w.host}]:{w.port}' if w.port != 22 else w.host} {host_keys[part].export_public_key().decode().strip()}\n"
        for part, w in where.items()
    )
    _replace(known_hosts, "".join(lines).encode(), 0o644)
    _replace(inventory, _rack_text(model, rack, where, key_file.name, known_hosts.name).encode(), 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    fresh.chmod(mode)
    fresh.replace(path)


def _rack_text(model: Model, rack: RackId, where: dict[str, Place], key: str, known_hosts: str) -> str:
    """The rack file: true build record, folded addresses, and a waiver for each interlock with nothing behind it."""
    until = dt.date.today() + dt.timedelta(days=365)
    lines = [
        f"# A twin of a {model.profile}: no such rack exists. It answers as long as the process that wrote this file serves.",
        f"rack: {json.dumps(rack.serial)}",
        f"profile: {model.profile}",
        f"ssh: {{user: burnin, key: {json.dumps(key)}, known_hosts: {json.dumps(known_hosts)}}}",
        "trays:",
        *_addresses(where),
    ]
    if model.gpu.platform_info:
        lines.append(f"chassis: {json.dumps(rack.chassis)}")
    lines.append("expect:")
    for part, built in rack.trays.items():
        if part in where:
            uuids = ", ".join(json.dumps(gpu.uuid) for gpu in built.gpus)
            lines.append(f"  {part}: {{serial: {json.dumps(built.serial)}, gpus: [{uuids}]}}")
    if model.topology.switch_trays:
        why = "a twin of this version has nothing behind it, and no coolant to spill"
        lines.append("waive:")
        lines += [f"  - {{interlock: {name}, by: twin, why: {json.dumps(why)}, until: {until}}}" for name in WAIVED]
    return "\n".join(lines) + "\n"


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
