"""A rack file as endpoints: where each tray answers, and a dialer that reaches them."""

from __future__ import annotations

import os

from burnin.errors import InputError
from burnin.rack.load import RackFile
from burnin.transport.known import KnownHosts
from burnin.transport.payload import Payload
from burnin.transport.ssh import Dialer, Endpoint


def endpoints(file: RackFile) -> dict[str, Endpoint]:
    """One endpoint per tray of the rack, with what `ssh` gives filled in. Raises InputError where there is no `ssh`."""
    ssh = file.rack.ssh
    if ssh is None:
        raise InputError(f"{file.path} has no `ssh`: nothing says how to reach its trays")
    nccl: dict[str, Payload] = {str(arch): Payload(file.resolve(one.file), one.sha256) for arch, one in file.rack.nccl.items()}
    out = {}
    for part, address in file.rack.trays.items():
        become = address.become or ssh.become
        out[part] = Endpoint(
            part=part,
            host=address.host,
            port=address.port or ssh.port,
            user=address.user or ssh.user,
            key=file.key(part),
            become=become == "sudo" and part.startswith("t"),
            python=ssh.python,
            dir=ssh.dir,
            nccl=dict(nccl) if part.startswith("t") else {},
        )
    return out


def dialer(file: RackFile) -> Dialer:
    """A dialer for all trays of a rack. Raises InputError for a known_hosts file that cannot be read."""
    ends = endpoints(file)
    ssh, known = file.rack.ssh, file.known_hosts
    assert ssh is not None and known is not None
    return Dialer(ends, KnownHosts(known), os.fspath(file.path), ssh.connect_timeout_s, ssh.jump)
