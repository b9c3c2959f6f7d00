"""A tray without processes, for the twin's unit tests: its state, its hardware, and the facts its emulation is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnin.twin import identity, physics
from burnin.twin.faults import parse
from burnin.twin.hardware import Hardware
from burnin.twin.host import KernelLog
from burnin.twin.model import load
from burnin.twin.state import State

STEP_NS = 100_000_000


class Clock:
    """CLOCK_MONOTONIC as a test wants it."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Bench:
    """One tray (t00) on the bench."""

    state: State
    hardware: Hardware
    facts: dict[str, Any]
    kmsg: Path
    clock: Clock
    starved: set[int]
    """Processes that wait for a core of this machine."""

    def run(self, seconds: float) -> bool:
        """Let time pass; False once the tray has gone dark."""
        lit = True
        for _ in range(round(seconds * 1e9 / STEP_NS)):
            self.clock.now_ns += STEP_NS
            lit = self.hardware.step(self.clock.now_ns) and lit
        return lit

    def queue(self, pid: int, gpu: int, seconds: float) -> None:
        """A process (a living one) queues work of full weight on a GPU."""
        slot = self.state.take_slot(pid, gpu)
        slot["activity_ppm"] = 1_000_000
        slot["end_ns"] = self.clock.now_ns + int(seconds * 1e9)
        slot["busy_ns"] = int(seconds * 1e9)


def bench(where: Path, *plants: str, profile: str = "gb300-nvl72", seed: int = 1) -> Bench:
    """Tray t00 of a rack, with these faults in it."""
    model, planted = load(profile), [parse(text) for text in plants]
    rack = identity.build(model, seed)
    drawn = physics.weaken(physics.draw(model, seed), planted)["t00"]
    (where / "root/dev").mkdir(parents=True)
    state, clock = State.create(str(where / "state"), model.topology.gpus_per_tray), Clock()
    starved: set[int] = set()
    hardware = Hardware("t00", model, drawn, planted, state, KernelLog(where, clock), seed, starved=starved.__contains__)
    facts = identity.for_emulation(model, identity.swap(model, rack, seed, planted)["t00"], rack.cluster_uuid)
    return Bench(state, hardware, facts, where / "root/dev/kmsg", clock, starved)
