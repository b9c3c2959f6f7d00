"""What the twin's Redfish costs: CPU of its one process while every BMC of a rack is polled for leaks.

    python -m bench.twin_redfish [--seconds 20] [--hz 4]

Client and server are processes of their own; the client is plain asyncio over TLS, so that it is not what limits.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

from burnin.twin import identity, physics, tray
from burnin.twin.addresses import bind
from burnin.twin.facility import Facility
from burnin.twin.model import load
from burnin.twin.rackstate import RackState
from burnin.twin.redfish import process
from burnin.twin.redfish.certs import Authority

LEAKS = "/redfish/v1/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors"
NAMES = [f"Chassis_0_LeakDetector_{i}_{where}" for i in (0, 1) for where in ("ColdPlate", "Manifold")]
WAYS = {
    "idle": [],
    "one request a poll ($expand)": [f"{LEAKS}?$expand=."],
    "nine requests a poll (collection, 4 detectors, 4 voltages)": [
        LEAKS, *(f"{LEAKS}/{name}" for name in NAMES), *(f"/redfish/v1/Chassis/Chassis_0/Sensors/{name}" for name in NAMES),
    ],
}  # fmt: skip


def start(folder: Path) -> tuple[int, dict[str, tuple[str, int]], bytes]:
    """A whole rack's Redfish, without trays behind it."""
    model = load("gb300-nvl72")
    drawn, housing = physics.draw(model, 1), model.housing
    assert housing is not None
    parts = [*(f"{t}.bmc" for t in model.topology.trays() + model.topology.switches()), *(f"p{i}" for i in range(8)), "cdu"]
    sockets = bind(parts)
    state = RackState.create(str(folder / tray.RACK), 18, 9, housing.shelves * housing.psus)
    rack = identity.build(model, 1)
    site = process.Site(model, Facility(model, drawn, [], state, 1, list(drawn)), rack.trays, [], folder, 1, "u", "p")
    authority = Authority("bench")
    where = {part: sock.getsockname() for part, sock in sockets.items()}
    pems = {part: folder / f"{part}.pem" for part in parts}
    for part, pem in pems.items():
        pem.write_bytes(authority.issue(where[part][0]))
    ready_r, ready_w = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        process.run(site, sockets, pems, ready_w, parent)
    os.read(ready_r, 1)
    for sock in sockets.values():
        sock.close()
    return pid, where, authority.pem()


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def poll(where: tuple[str, int], context: ssl.SSLContext, paths: list[str], hz: float, end: float) -> list[float]:
    """Round trips of one client that asks `paths` so often, s."""
    reader, writer = await asyncio.open_connection(*where, ssl=context)
    word = base64.b64encode(b"u:p").decode()
    out, due = [], time.monotonic()
    while (now := time.monotonic()) < end:
        for path in paths:
            began = time.monotonic()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {word}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            out.append(time.monotonic() - began)
        due += 1 / hz
        await asyncio.sleep(max(0.0, due - now))
    writer.close()
    return out


async def measure(pid: int, bmcs: list[tuple[str, int]], ca: bytes, seconds: float, hz: float) -> None:
    """Print one line a way."""
    context = ssl.create_default_context(cadata=ca.decode())
    for way, paths in WAYS.items():
        before, began = cpu_s(pid), time.monotonic()
        end = began + seconds
        if paths:
            each = await asyncio.gather(*(poll(where, context, paths, hz, end) for where in bmcs))
            trips = sorted(trip for trips in each for trip in trips)
            said = f"{len(trips) / seconds:6.0f} requests/s, median {1e3 * statistics.median(trips):.2f} ms"
            said += f", 99 % within {1e3 * trips[int(0.99 * len(trips))]:.1f} ms"
        else:
            await asyncio.sleep(seconds)
            said = ""
        share = (cpu_s(pid) - before) / (time.monotonic() - began)
        print(f"{way:60} {100 * share:5.1f} % of a core  {said}")


def main() -> None:
    """Parse, start, measure, end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--hz", type=float, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        pid, where, ca = start(Path(name))
        try:
            bmcs = [place for part, place in where.items() if part.startswith("t")]
            print(f"{len(bmcs)} BMCs at {given.hz:g} Hz, {given.seconds:g} s each")
            asyncio.run(measure(pid, bmcs, ca, given.seconds, given.hz))
        finally:
            os.kill(pid, 15)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
