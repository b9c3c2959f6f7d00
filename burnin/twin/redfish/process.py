"""The process of a rack's Redfish services, and of what stands around its trays: it moves the loop and serves every address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NoReturn

from burnin.rack.parts import tray_of
from burnin.twin import identity
from burnin.twin.facility import STALE_S, Facility
from burnin.twin.faults import Plant
from burnin.twin.identity import TrayId
from burnin.twin.model import Model
from burnin.twin.rackstate import FloatRow
from burnin.twin.redfish import bmc, cdu, shelf, switch
from burnin.twin.redfish.http import Connection
from burnin.twin.redfish.root import Account, Made
from burnin.twin.state import RING, Row, State
from burnin.twin.tray import die_with

STEP_S = 0.1
_MANNERS = ("bmc_dead", "bmc_slow", "bmc_errors", "bmc_lies", "bmc_stale")


@dataclass(frozen=True, slots=True)
class Site:
    """One rack as its Redfish services need it. `standing`: whom each BMC says it serves; `folder`: the trays' files."""

    model: Model
    facility: Facility
    standing: Mapping[str, TrayId]
    plants: Sequence[Plant]
    folder: Path
    seed: int
    user: str
    password: str
    step_s: float = STEP_S


class TrayHost:
    """A compute tray as its BMC sees it: through the files that the tray's process writes. `wake`: have it ended or started."""

    def __init__(self, row: FloatRow, path: Path, clock_s: Callable[[], float], wake: Callable[[], None]) -> None:
        self.row, self._path, self._clock_s, self._wake = row, path, clock_s, wake
        self._state: State | None = None
        self._boots, self._told = -1.0, 0

    def gpu(self, position: int) -> Row | None:
        """The GPU's words; None while the tray is dark or the GPU is not there."""
        if int(self.row["absent"]) >> position & 1:
            return None
        state = self._current()
        return state.gpus[position] if state is not None else None

    def xids(self) -> list[tuple[int, int]]:
        """XIDs that the driver told since the last look: position of the GPU, number."""
        state = self._current()
        if state is None:
            return []
        first, self._told = max(self._told, state.events - RING), state.events
        return [(event.gpu, event.data) for event in map(state.event, range(first, self._told))]

    def _current(self) -> State | None:
        """The state of a tray that runs; one that started anew has a new one."""
        if not self.on():
            return None
        if self._boots != self.row["boots"]:
            self._open()
        return self._state

    def on(self) -> bool:
        """True while the tray writes, or would if it did not hang."""
        writes = self._clock_s() - self.row["beat_s"] < STALE_S
        return self.row["off"] == 0.0 and (writes or self.row["hung"] != 0.0)

    def boots(self) -> bool:
        """True from power to the first sign of life."""
        started = self.row["off"] == 0.0 and self._clock_s() - self.row["start_s"] < STALE_S
        return not self.on() and (self.row["wish"] != 0.0 or started)

    def order(self, what: str) -> None:
        """Take the tray's power, or give it, or both."""
        on = self.on() or self.boots()
        if what in ("ForceOff", "GracefulShutdown"):
            self.row["off"], self.row["wish"] = 1.0, 0.0
            self._wake()
        elif what in ("On", "ForceOn") and on:
            return
        else:  # a restart of what is off is a start
            self.row["off"], self.row["wish"] = 1.0, 1.0
            self._wake()

    def memory_errors(self) -> int:
        """As EDAC of the host counts them."""
        path = self._path.parent / "root/sys/devices/system/edac/mc/mc0/ue_count"
        try:
            return int(path.read_text() or 0) if self.on() else 0
        except (OSError, ValueError):
            return 0

    def keep(self, created_s: float, severity: str, text: str) -> None:
        """Beside the tray's folder, which a boot makes anew."""
        sensor, event, asserted = ipmi(severity, text)
        with contextlib.suppress(OSError), open(f"{self._path.parent}.sel", "a", encoding="utf-8") as file:
            file.write(json.dumps([created_s, sensor, event, asserted]) + "\n")

    def _open(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            fresh = State.open(str(self._path))
            if self._state is not None:
                self._state.close()
            self._state, self._boots, self._told = fresh, self.row["boots"], 0


def ipmi(severity: str, text: str) -> tuple[str, str, bool]:
    """A line of the event log in IPMI's words (tables 42-2 and 42-3): sensor, event, asserted."""
    if "ECC" in text:
        return "Memory #0x88", f"Uncorrectable ECC ({text.partition(':')[0]})", True
    if "power is" in text:
        return "System ACPI Power State #0x22", "S0/G0: working" if text.endswith("on") else "S4/S5: soft-off", True
    word = "Transition to Critical from less severe" if severity == "Critical" else "Transition to OK"
    return "Cooling Device #0x61", f"{word} ({text.partition(' (')[0]})", True


def make_services(
    site: Site,
    wake: Callable[[], None],
    now: Callable[[], float] = time.time,
    clock_s: Callable[[], float] = time.monotonic,
) -> dict[str, Made]:
    """Every service of a rack: t00.bmc ..., s0.bmc ..., p0 ..., cdu. `wake` is called when a tray shall start;
    `now`: time of day; `clock_s`: monotonic."""
    model, state = site.model, site.facility.state
    assert model.housing is not None and model.loop is not None
    serials = identity.serials(model, site.seed)
    foreign = identity.serials(model, f"{site.seed}-next")
    swapped = {tray_of(p.part) for p in site.plants if p.kind == "wrong_serial" and p.part.endswith(".bmc")}
    account = Account(site.user, site.password, now, clock_s, Random(f"{model.profile}/{site.seed}/manners"))
    made: dict[str, Made] = {}
    for part, tray in site.standing.items():
        host = TrayHost(state.tray(part), site.folder / part / "state", clock_s, wake)
        made[f"{part}.bmc"] = bmc.make(model, tray, host, account)
    for part in model.topology.switches():
        made[f"{part}.bmc"] = switch.make((foreign if part in swapped else serials)[part], state.tray(part), account)
    psus = model.housing.psus
    for number in range(model.housing.shelves):
        own = [serials[f"p{number}"], *(serials[f"p{number}.u{i}"] for i in range(psus))]
        made[f"p{number}"] = shelf.make(own, state.psus[number * psus : (number + 1) * psus], model.housing, account)
    made["cdu"] = cdu.make(serials["cdu"], state.cdu, model.loop, account)
    return made


def run(site: Site, sockets: Mapping[str, socket.socket], pems: Mapping[str, Path], ready_fd: int, parent: int) -> NoReturn:
    """Serve the parts that have a socket, in a freshly forked process, until SIGTERM or the parent's death. `pems`: key and
    certificate of each part. One byte on `ready_fd` says that all of them listen; SIGUSR1 to the parent: a tray shall start."""
    code = 1
    try:
        die_with(parent, signal.SIGTERM)
        asyncio.run(_serve(site, sockets, pems, ready_fd, lambda: os.kill(parent, signal.SIGUSR1)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _serve(
    site: Site, sockets: Mapping[str, socket.socket], pems: Mapping[str, Path], ready_fd: int, wake: Callable[[], None]
) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    made = {part: one for part, one in make_services(site, wake).items() if part in sockets}
    servers: dict[str, asyncio.Server] = {}
    for part, one in made.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(pems[part])
        servers[part] = await listen(one, sockets[part], context)
    _beat(site, made, servers, loop.time())
    os.write(ready_fd, b"!")
    os.close(ready_fd)
    await over.wait()


async def listen(made: Made, sock: socket.socket, context: ssl.SSLContext | None) -> asyncio.Server:
    """Answer on a bound socket."""
    service = made.service
    return await asyncio.get_running_loop().create_server(
        lambda: Connection(service.answer, service.connections), sock=sock, ssl=context
    )


def _beat(site: Site, made: Mapping[str, Made], servers: dict[str, asyncio.Server], due_s: float) -> None:
    """One step of the loop and of everything that watches it, and the appointment for the next."""
    now_s = time.monotonic()
    site.facility.step(now_s)
    for one in made.values():
        one.beat(now_s)
        one.service.breathe(now_s)
    for plant in site.plants:
        if plant.kind in _MANNERS and plant.part in made:
            began = site.facility.began_s(plant)
            if began is not None and now_s >= began:
                _misbehave(plant, made[plant.part], servers)
    loop = asyncio.get_running_loop()
    following = max(due_s + site.step_s, loop.time())
    loop.call_at(following, _beat, site, made, servers, following)


def _misbehave(plant: Plant, made: Made, servers: dict[str, asyncio.Server]) -> None:
    if plant.kind == "bmc_slow":
        made.service.manners.slow_s = plant.severity
    elif plant.kind == "bmc_errors":
        made.service.manners.errors = plant.severity
    elif plant.kind == "bmc_lies":
        made.service.manners.lies = True
    elif plant.kind == "bmc_stale":
        made.service.manners.stale = True
    elif plant.part in servers:
        servers.pop(plant.part).close()
        made.service.hang_up()
