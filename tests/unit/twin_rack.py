"""A rack's surroundings without processes, for the twin's unit tests: loop, shelves, detectors, and one tray's silicon."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnin.twin import identity, physics
from burnin.twin.around import Around
from burnin.twin.facility import Facility
from burnin.twin.faults import parse
from burnin.twin.hardware import Hardware
from burnin.twin.host import KernelLog
from burnin.twin.model import Model, load
from burnin.twin.rackstate import RackState
from burnin.twin.redfish.http import Answer, Request
from burnin.twin.redfish.process import Site, make_services
from burnin.twin.redfish.root import Made
from burnin.twin.state import State
from tests.unit.twin_tray import Clock

USER, PASSWORD = "burnin", "not-a-secret"
STEP_S = 0.1


@dataclass
class Ward:
    """One rack, t00 of which has silicon; the other trays stand idle."""

    model: Model
    state: RackState
    facility: Facility
    tray: Hardware
    gpus: State
    services: dict[str, Made]
    clock: Clock
    activity: float = 0.0
    lit: bool = True

    def run(self, seconds: float, step_s: float = STEP_S) -> None:
        """Let time pass, with this activity on t00's GPUs."""
        for _ in range(round(seconds / step_s)):
            self.clock.now_ns += int(step_s * 1e9)
            for _, slot in self.gpus.slots():
                slot["busy_ns"] += int(self.activity * step_s * 1e9)
                slot["end_ns"] = self.clock.now_ns
            if self.lit:
                self.lit = self.tray.step(self.clock.now_ns)
            self.facility.step(self.clock.now_ns / 1e9)
            for made in self.services.values():
                made.beat(self.clock.now_ns / 1e9)

    def load(self, activity: float, pid: int) -> None:
        """From now on all GPUs of t00 are this busy."""
        if not list(self.gpus.slots()):
            for gpu in range(4):
                self.gpus.take_slot(pid, gpu)["activity_ppm"] = 1_000_000
        self.activity = activity

    def ask(self, part: str, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """One request with the account's password."""
        word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        own = {"authorization": f"Basic {word}"} if not headers else {k.replace("_", "-"): v for k, v in headers.items()}
        target, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        return asyncio.run(self.services[part].service.answer(Request(method, target, query, own, data)))

    def get(self, part: str, path: str) -> Any:
        """A resource that must be there."""
        answer = self.ask(part, path)
        assert answer.status == 200, (part, path, answer)
        return json.loads(answer.body)


def ward(where: Path, *plants: str, profile: str = "gb300-nvl72", seed: int = 1) -> Ward:
    """A rack with these faults in it."""
    model, planted = load(profile), [parse(text) for text in plants]
    assert model.housing is not None
    topology, clock = model.topology, Clock()
    drawn = physics.weaken(physics.draw(model, seed), planted)
    psus = model.housing.shelves * model.housing.psus
    where.mkdir(exist_ok=True)
    state = RackState.create(str(where / "rack"), topology.compute_trays, topology.switch_trays, psus)
    facility = Facility(model, drawn, planted, state, seed, ["t00"])
    facility.step(clock.now_ns / 1e9)
    at = where / "t00"
    (at / "root/dev").mkdir(parents=True)
    gpus, log = State.create(str(at / "state"), topology.gpus_per_tray), KernelLog(at, clock)
    around = Around("t00", at / "root", model, planted, log, seed)
    tray = Hardware("t00", model, drawn["t00"], planted, gpus, log, seed, around, state.tray("t00"))
    rack = identity.build(model, seed)
    standing = identity.swap_bmcs(model, identity.swap(model, rack, seed, planted), seed, planted)
    site = Site(model, facility, standing, planted, where, seed, USER, PASSWORD)
    services = make_services(site, lambda: None, now=lambda: 1.8e9, clock_s=lambda: clock.now_ns / 1e9)
    made = Ward(model, state, facility, tray, gpus, services, clock)
    made.run(0.5)
    return made
