"""A twin's compute tray in its own time, read by the agent's own readers: minutes of telemetry in a second, the same each time.

Hardware, emulated NVML and the tree behind HOST_* are the twin's; pynvml is unmodified; groups, sources and the kernel log are
read by the agent's code. What is left out: processes, SSH and the load's kernels. GPUs are as busy as a load would make them.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pynvml

from burnin.agent import host, hostdata, kernel_log
from burnin.agent.fields import Reading
from burnin.agent.grip import GroupSource, Handles
from burnin.agent.sampler import Raw, Sample, Source, Table
from burnin.events import LogLine
from burnin.rack.parts import tray_of
from burnin.suites.schema import Stage, Suite
from burnin.telemetry.series import Series, Stretch, Telemetry
from burnin.twin import hosttree, identity, physics
from burnin.twin.around import Around
from burnin.twin.emulate import nvml
from burnin.twin.faults import Plant
from burnin.twin.hardware import Hardware
from burnin.twin.host import KernelLog
from burnin.twin.model import load
from burnin.twin.state import State

STEP_S = 0.1
_BEGIN_NS = 1_000_000_000_000


@dataclass(frozen=True)
class Told:
    """What a run would know of one tray: its readings, its stages, its log."""

    telemetry: Telemetry
    log: tuple[LogLine, ...]


def told(profile: str, suite: Suite, tray: str, plants: Sequence[Plant], seed: int) -> Told:
    """One tray through the phases of a suite. Nothing of a plant on another tray is seen."""
    with tempfile.TemporaryDirectory() as place, _tray(Path(place), profile, tray, plants, seed) as made:
        return made.through(suite)


@contextlib.contextmanager
def _tray(at: Path, profile: str, name: str, plants: Sequence[Plant], seed: int) -> Iterator[_Tray]:
    model = load(profile)
    mine = [plant for plant in plants if tray_of(plant.part) == name]
    rack, drawn = identity.build(model, seed), physics.weaken(physics.draw(model, seed), plants)[name]
    facts = identity.for_emulation(model, identity.swap(model, rack, seed, plants)[name], rack.cluster_uuid)
    clock = _Clock()
    (at / "root/dev").mkdir(parents=True)
    (at / "root/dev/kmsg").touch()
    (at / "root/proc").mkdir()
    hosttree.furnish(hosttree.Tree(at / "shared"), model)
    log, state = KernelLog(at, clock), State.create(str(at / "state"), model.topology.gpus_per_tray)
    around = Around(name, at / "root", model, mine, log, seed, at / "shared")
    hardware = Hardware(name, model, drawn, mine, state, log, seed, around)
    before = pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache
    pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache = nvml.library(facts, state), {}
    try:
        yield _Tray(name, hardware, state, clock, host.Roots(*(str(at / "root" / word) for word in ("proc", "sys", "dev"))))
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
        pynvml.nvmlLib, pynvml._nvmlGetFunctionPointer_cache = before
        state.close()


class _Clock:
    """CLOCK_MONOTONIC of the tray."""

    def __init__(self) -> None:
        self.now_ns = _BEGIN_NS

    def __call__(self) -> int:
        return self.now_ns


class _Tray:
    def __init__(self, name: str, hardware: Hardware, state: State, clock: _Clock, at: host.Roots) -> None:
        self._name, self._hardware, self._state, self._clock = name, hardware, state, clock
        self._step(0.0)
        self._handles = Handles(lambda: pynvml, lambda text: None, lambda gpu, code: None, lambda: True)
        self._handles.open()
        bdfs = {bdf: gpu for gpu, bdf in self._handles.bdfs.items() if bdf}
        self._devices, self._kmsg = hostdata.names(at, bdfs), host.KernelLog(at)
        groups = {cadence: self._groups(cadence) for cadence in ("fast", "slow", "links")}
        self._tables: list[tuple[Sequence[Source], str]] = [
            (groups["fast"], "fast"),
            ([*groups["slow"], *hostdata.sources(at, bdfs)], "slow"),
            (groups["links"], "links"),
        ]
        self._read: dict[tuple[str, str], list[tuple[float, Reading]]] = {}
        self._log: list[LogLine] = []

    def _groups(self, cadence: str) -> list[Source]:
        who = self._handles
        return [GroupSource(gpu, cadence, who.gpus, who.grip) for gpu in who.gpus]

    @property
    def _now_s(self) -> float:
        return (self._clock.now_ns - _BEGIN_NS) / 1e9

    def through(self, suite: Suite) -> Told:
        """All stages that have a phase, each read at the suite's cadences."""
        stretches = []
        every = {"fast": suite.sample, "slow": suite.sample_slow, "links": suite.sample_links}
        due = dict.fromkeys(every, 0.0)
        for stage in (one for one in suite.stages if one.phase is not None):
            begin = self._now_s
            while self._now_s < begin + stage.duration - STEP_S / 2:
                self._step(_activity(stage))
                for sources, name in self._tables:
                    if self._now_s >= due[name]:
                        due[name] = self._now_s + every[name] - STEP_S / 2
                        self._sample(sources)
                self._listen()
            stretches.append(Stretch(stage.stage, stage.phase or "", begin, self._now_s, stage.settle))
        return Told(self._telemetry(tuple(stretches)), tuple(self._log))

    def _step(self, activity: float) -> None:
        self._clock.now_ns += int(STEP_S * 1e9)
        if activity and not any(True for _ in self._state.slots()):
            for gpu in range(len(self._state.gpus)):
                self._state.take_slot(os.getpid(), gpu)["activity_ppm"] = 1_000_000
        for _, slot in self._state.slots():
            slot["busy_ns"] += int(activity * STEP_S * 1e9)
            slot["end_ns"] = self._clock.now_ns
        self._hardware.step(self._clock.now_ns)

    def _sample(self, sources: Sequence[Source | Raw]) -> None:
        table = Table("own", sources, 1)
        values, absent = Sample(0, 0, table.sources, [ask() for _, ask, _ in table.asks], _never).readings()
        for i, ((sub, metric), value) in enumerate(zip(table.columns, values, strict=True)):
            part = f"{self._name}.{sub}" if sub else self._name
            self._read.setdefault((part, metric), []).append((self._now_s, absent[i] if value is None else value))

    def _listen(self) -> None:
        for line in self._kmsg.poll():
            xid = host.parse_xid(line)
            if xid is not None:
                gpu = next((gpu for gpu, bdf in self._handles.bdfs.items() if host.same_device(xid.bdf, bdf)), "")
                self._say(gpu, "xid", str(xid.code), xid.text)
            elif (event := kernel_log.parse_event(line)) is not None:
                self._say(self._devices.get(event.device, ""), "kernel", event.code, event.text)

    def _say(self, sub: str, kind: str, code: str, text: str) -> None:
        self._log.append(LogLine(f"{self._name}.{sub}" if sub else self._name, self._now_s, kind, code, text, "kmsg"))

    def _telemetry(self, stretches: tuple[Stretch, ...]) -> Telemetry:
        series, absent = {}, {}
        for key, pairs in self._read.items():
            values = [math.nan if isinstance(value, str) else float(value) for _, value in pairs]
            series[key] = Series(np.array([t for t, _ in pairs]), np.array(values))
            if why := [value for _, value in pairs if isinstance(value, str)]:
                absent[key] = why[-1]
        return Telemetry(series, stretches, absent)


def _never(trouble: str) -> None:
    raise AssertionError(trouble)


def _activity(stage: Stage) -> float:
    return 1.0 if stage.load is not None else 0.0
