"""Copies beside a load: on the twin's CUDA driver, and judged."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from burnin.agent.burn import run as burn
from burnin.agent.exchange import BYTES, Exchange
from burnin.agent.lease import Deadlines
from burnin.checks import CHECKS
from burnin.checks.base import Context, Evidence
from burnin.events import LogLine, Measurement, Result
from burnin.rack.load import load_profile
from burnin.telemetry.series import Stretch
from burnin.twin.emulate import cuda, cuda_core, transfers
from tests import build
from tests.unit.gpu_jobs import Clock, open_gpu, uuids
from tests.unit.test_agent_pulse import Still
from tests.unit.twin_tray import Bench, bench


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (cuda, cuda_core, transfers):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def tray(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    made.run(1)
    return made


def burned(tray: Bench, clock: Clock, peer: str, seconds: float = 5.0) -> list[dict[str, Any]]:
    out, deadlines = io.StringIO(), Deadlines.create(1)
    deadlines.set(0, clock.monotonic_ns() + int(seconds * 1e9))
    burn(Still(out, deadlines, clock), *open_gpu(tray, "g0"), {"kernel": "tensor_burn", "peer": peer})
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_load_copies_to_its_peer_and_burns_on(tray: Bench, clock: Clock) -> None:
    told = burned(tray, clock, uuids(tray)["g1"])
    last = told[-1]
    assert "no copies" not in told[0]["why"]
    assert last["copied"] / 5.0 / 1e9 > 230, "GB/s: what the profile asks of a GB300"
    assert last["launches"] > 30
    assert last["wrong"] == 0


def test_copies_are_short_enough_for_a_stop(tray: Bench, clock: Clock) -> None:
    driver, device = open_gpu(tray, "g0")
    one = Exchange(driver, device, driver.device(bytes.fromhex(uuids(tray)["g1"][4:].replace("-", ""))))
    before, begin = one.copied, clock.monotonic_ns()
    one.go_on()
    one.go_on()
    assert one.copied == before, "a batch that flies is not counted, and no second one queued"
    driver.call("cuStreamSynchronize", None)
    assert clock.monotonic_ns() - begin < 100_000_000
    one.go_on()
    assert one.copied - before >= BYTES


def test_a_load_whose_peer_cannot_be_reached_burns_and_says_so(tray: Bench, clock: Clock) -> None:
    own = burned(tray, clock, uuids(tray)["g0"], 1.0)
    assert "no copies beside it: the driver says that this GPU cannot reach the next one" in own[0]["why"]
    assert "copied" not in own[-1]
    assert "no CUDA device" in burned(tray, clock, "GPU-" + "0" * 32, 1.0)[0]["why"]


def test_cores_work_beside_the_launches_and_end_with_them(tray: Bench, clock: Clock) -> None:
    out, deadlines, before = io.StringIO(), Deadlines.create(1), threading.active_count()
    deadlines.set(0, clock.monotonic_ns() + int(1e9))
    burn(Still(out, deadlines, clock), *open_gpu(tray, "g0"), {"kernel": "tensor_burn", "cores": 2})
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert told[0]["why"].endswith("; 2 CPU threads beside it")
    assert told[-1]["state"] == "ended"
    assert threading.active_count() == before
    deadlines.set(0, clock.monotonic_ns() + int(1e9))
    burn(Still(out, deadlines, clock), *open_gpu(tray, "g0"), {"kernel": "tensor_burn", "cores": 0})
    assert "no CPU load beside it: the tray has no core to spare" in out.getvalue()


# ---------------------------------------------------------------- judged

LOAD = Stretch("load", "load", 10.0, 34.0, 12.0)
GPUS = [f"t07.g{i}" for i in range(4)]


def judge(gbps: Any = 400.0, asked: bool = True, log: list[LogLine] | None = None, gpu: str = "t07.g2") -> list[Measurement]:
    rates = dict.fromkeys(GPUS, 400.0) | {gpu: gbps}
    rows = {(g, "load.copied"): {LOAD: [n * r * 1e9 for n in range(24)]} for g, r in rates.items() if r is not None}
    suite = build.suite()
    stage = suite.stages[2].model_dump(mode="json", by_alias=True) | {"load": {"nvlink": asked}}
    suite = build.suite(stages=[stage])
    context = Context("t07", build.rack(), load_profile("gb300-nvl72"), suite, suite.stages[0], build.catalogue())
    evidence = Evidence(telemetry=build.series(rows), stretch=LOAD, log=log or [])
    return CHECKS["together"].judge(context, evidence)


def test_copies_that_flow_are_good_and_measured() -> None:
    assert {(m.value, m.result) for m in judge()} == {(400.0, Result.PASS)}


@pytest.mark.parametrize(("gbps", "reason"), [(0.0, "not_attained"), (200.0, "not_attained"), (None, "missing")])
def test_copies_that_do_not_flow_prove_nothing(gbps: float | None, reason: str) -> None:
    got = {m.part: (m.result, m.reason) for m in judge(gbps)}
    assert got.pop("t07.g2") == (Result.UNKNOWN, reason)
    assert set(got.values()) == {(Result.PASS, None)}


def test_why_there_are_none_is_said() -> None:
    line = LogLine("t07.g2", 11.0, "load", "burning", "tensor_burn of burn; no copies beside it: no way", "agent")
    assert "no way" in next(m.why for m in judge(None, log=[line]) if m.part == "t07.g2")


def test_a_stage_that_asks_for_none_has_nothing_to_judge() -> None:
    assert {m.result for m in judge(asked=False)} == {Result.UNKNOWN}


def judge_cores(util: float | None, nvlink: bool = False, log: list[LogLine] | None = None) -> list[Measurement]:
    rows: dict[Any, Any] = {} if util is None else {("t07", "cpu.util"): {LOAD: [util] * 24}}
    rows |= {(g, "load.copied"): {LOAD: [n * 400e9 for n in range(24)]} for g in GPUS}
    stage = build.suite().stages[2].model_dump(mode="json", by_alias=True) | {"load": {"cpu": True, "nvlink": nvlink}}
    suite = build.suite(stages=[stage])
    context = Context("t07", build.rack(), load_profile("gb300-nvl72"), suite, suite.stages[0], build.catalogue())
    return CHECKS["together"].judge(context, Evidence(telemetry=build.series(rows), stretch=LOAD, log=log or []))


@pytest.mark.parametrize(
    ("util", "result", "reason"),
    [
        (0.97, Result.PASS, None),
        (0.8, Result.PASS, None),
        (0.5, Result.UNKNOWN, "not_attained"),
        (None, Result.UNKNOWN, "missing"),
    ],
)
def test_the_cores_of_the_tray_are_judged_by_what_they_did(util: float | None, result: Result, reason: str | None) -> None:
    (one,) = judge_cores(util)
    assert (one.name, one.part, one.value, one.result, one.reason) == ("together.cpu", "t07", util, result, reason)


def test_cores_that_did_not_work_say_why_and_copies_are_judged_beside_them() -> None:
    line = LogLine("t07.g1", 11.0, "load", "burning", "tensor_burn of burn; no CPU load beside it: no way", "agent")
    cores, *copies = judge_cores(0.02, nvlink=True, log=[line])
    assert "0.02 of the CPU time was used; t07.g1: " in cores.why
    assert "no way" in cores.why
    assert {m.result for m in copies} == {Result.PASS}
    assert len(copies) == 4
