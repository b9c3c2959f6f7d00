"""A load process's loop, with the shipped kernels, on the twin's CUDA driver."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from burnin.agent.cuda import Burn, Cuda, CudaError
from burnin.agent.lease import Deadlines
from burnin.agent.talk import Over, Talk
from burnin.agent.work import burn, kernels, uuid_bytes
from burnin.twin.emulate import cuda
from tests.unit.twin_tray import Bench, bench

KERNELS = Path(__file__).parents[2] / "burnin/agent/kernels"
PTX = kernels("burn")


@pytest.fixture
def tray(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    made.run(1)
    return made


def open_gpu(tray: Bench, index: int = 0) -> tuple[Cuda, int]:
    driver = Cuda(cuda.library(tray.facts, tray.state))
    return driver, driver.device(uuid_bytes(tray.facts["gpus"][index]["uuid"]))


@pytest.mark.parametrize("kernel", ["tensor_burn", "fma_burn"])
def test_launches_settle_at_their_length_and_stay_short(tray: Bench, kernel: str) -> None:
    burn = Burn(*open_gpu(tray), PTX, kernel, launch_ms=20)
    lengths = []
    for _ in range(16):
        before = burn.busy_ms
        burn.launch()
        lengths.append(burn.busy_ms - before)
    assert max(lengths) < 100, "a stop is a stop"
    assert all(10 < length < 40 for length in lengths[-6:]), lengths
    assert burn.wrong() == 0


def burned(tray: Bench, deadlines: Deadlines) -> list[dict[str, Any]]:
    """All that a load process says until its deadline."""
    out = io.StringIO()
    burn(Talk(-1, out, deadlines, 0, time.monotonic_ns), *open_gpu(tray), {"kernel": "tensor_burn"})
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_load_ends_with_its_deadline_and_says_how_it_went(tray: Bench) -> None:
    deadlines = Deadlines.create(1)
    begin = time.monotonic_ns()
    deadlines.set(0, begin + 1_300_000_000)
    told = burned(tray, deadlines)
    late_s = (time.monotonic_ns() - begin) / 1e9 - 1.3
    assert 0 <= late_s < 0.5
    assert told[0]["state"] == "burning"
    assert told[-1]["state"] == "ended"
    assert told[-1]["launches"] > told[1]["launches"] > 0
    assert told[-1]["wrong"] == 0


def test_a_revoked_deadline_starts_nothing(tray: Bench) -> None:
    assert burned(tray, Deadlines.create(1))[-1]["launches"] == 0


def test_gpus_are_found_by_uuid_because_ordinals_differ(tray: Bench) -> None:
    driver = Cuda(cuda.library(tray.facts, tray.state))
    with pytest.raises(CudaError, match="no CUDA device has the UUID"):
        driver.device(bytes(16))
    found = {driver.device(uuid_bytes(gpu["uuid"])) for gpu in tray.facts["gpus"]}
    assert len(found) == 4


def test_a_kernel_that_is_not_there_is_said_with_the_drivers_words(tray: Bench) -> None:
    driver, device = open_gpu(tray)
    with pytest.raises(CudaError, match="cuModuleGetFunction -> 500 CUDA_ERROR_NOT_FOUND"):
        Burn(driver, device, PTX, "no_such_kernel")


def test_a_driver_that_lacks_a_symbol_is_too_old() -> None:
    with pytest.raises(CudaError, match="too old"):
        Cuda(object())


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here: the PTX cannot be compared with its source")
def test_ptx_is_what_its_source_compiles_to() -> None:
    done = subprocess.run(["make", "-s", "kernels-check"], cwd=KERNELS.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[:2000]


def test_ptx_targets_every_gpu_from_ampere_on() -> None:
    text = PTX.decode()
    assert ".target sm_80" in text
    assert ".version 7.0" in text
    assert text.count(".visible .entry") == 2


# ---------------------------------------------------------------- conversation


def talk(deadlines: Deadlines, lines: bytes) -> Talk:
    """A process's end of a conversation in which these lines were said, and no more will be."""
    out, into = os.pipe()
    os.write(into, lines)
    os.close(into)
    return Talk(out, io.StringIO(), deadlines, 0, time.monotonic_ns)


def test_messages_are_heard_in_order_and_their_end_is_the_end() -> None:
    deadlines = Deadlines.create(1)
    deadlines.set(0, 1 << 62)
    one = talk(deadlines, b'{"rank": 1}\n{"rank": 2}\n{"ra')
    assert [one.hear(), one.hear()] == [{"rank": 1}, {"rank": 2}]
    with pytest.raises(Over):
        one.hear()


def test_nothing_is_heard_after_the_deadline() -> None:
    with pytest.raises(Over):
        talk(Deadlines.create(1), b'{"rank": 1}\n').hear()
