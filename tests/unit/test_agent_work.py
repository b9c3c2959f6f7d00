"""A load process's loop, with the shipped kernels, on the twin's CUDA driver."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from burnin.agent import cublaslt
from burnin.agent.burn import FAMILIES, chosen
from burnin.agent.burn import run as burn
from burnin.agent.cuda import Burn, Cuda, CudaError, Launches
from burnin.agent.lease import Deadlines
from burnin.agent.talk import Over, Talk
from burnin.agent.work import Again, kernels, uuid_bytes
from burnin.twin.emulate import cuda
from tests.unit.twin_tray import Bench, bench

KERNELS = Path(__file__).parents[2] / "burnin/agent/kernels"
PTX = kernels("burn")


@pytest.fixture
def tray(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    made.run(1)
    return made


@pytest.fixture(autouse=True)
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a tray without a toolkit, whatever this machine has."""
    monkeypatch.setattr(cublaslt, "NAMES", ("libcublasLt-of-nobody.so",))
    monkeypatch.setattr(cublaslt, "PLACES", ())


NO_LIBRARY = "; no libcublasLt: libcublasLt-of-nobody.so: cannot open shared object file: No such file or directory"


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


@pytest.mark.long
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


# ---------------------------------------------------------------- which kernel


def capable(tray: Bench, major: int, minor: int) -> Cuda:
    """The driver of a tray whose GPUs are of this compute capability."""
    facts = {**tray.facts, "facts": {**tray.facts["facts"], "compute_capability": [major, minor]}}
    return Cuda(cuda.library(facts, tray.state))


def pick(driver: Cuda, tray: Bench, kernel: str = "tensor_burn", until_s: float = 60, **args: Any) -> tuple[Launches, str]:
    deadlines = Deadlines.create(1)
    deadlines.set(0, time.monotonic_ns() + int(until_s * 1e9))
    conversation = Talk(-1, io.StringIO(), deadlines, 0, time.monotonic_ns)
    return chosen(
        conversation, driver, driver.device(uuid_bytes(tray.facts["gpus"][0]["uuid"])), {"kernel": kernel, **args}, 20.0
    )


@pytest.mark.parametrize(
    ("capability", "kernel", "said"),
    [
        ((9, 0), "tensor_burn", "tensor_burn of burn_sm90a"),
        ((10, 0), "tensor_burn", "tensor_burn of burn_sm100f"),
        ((10, 3), "tensor_burn", "tensor_burn of burn_sm100f"),
        ((8, 0), "tensor_burn", "tensor_burn of burn"),
        ((12, 0), "tensor_burn", "tensor_burn of burn"),
        ((10, 3), "mma_burn", "tensor_burn of burn"),
        ((10, 3), "fma_burn", "fma_burn of burn"),
    ],
)
def test_a_gpu_is_loaded_in_its_own_familys_instruction(tray: Bench, capability: tuple[int, int], kernel: str, said: str) -> None:
    load, which = pick(capable(tray, *capability), tray, kernel)
    assert which == said
    own = "sm" in said
    assert load.launches == own, "the family's kernel was tried, the other needs no trial"
    assert load.grid % tray.facts["facts"]["sms"] == 0
    assert (load.grid == tray.facts["facts"]["sms"]) == own
    load.launch()
    assert load.wrong() == 0


def test_a_driver_that_does_not_take_the_familys_kernel_loads_with_the_other(
    tray: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "10.3", "burn_sm90a")
    load, which = pick(capable(tray, 10, 3), tray)
    why = "cuModuleLoadDataEx -> 209 CUDA_ERROR_NO_BINARY_FOR_GPU"
    assert which == f"tensor_burn of burn, because burn_sm90a: {why}{NO_LIBRARY}"
    load.launch()


def test_a_kernel_that_disagrees_with_itself_in_its_trial_is_not_used(tray: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Burn, "wrong", lambda load: 3)
    said = "tensor_burn of burn, because burn_sm90a disagreed with itself 3 times in its trial"
    assert pick(capable(tray, 9, 0), tray)[1] == said + NO_LIBRARY


def test_a_kernel_that_breaks_its_context_is_tried_once_and_a_fresh_process_uses_the_other(
    tray: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(load: Burn) -> None:
        raise CudaError("cuEventSynchronize -> 715 CUDA_ERROR_ILLEGAL_INSTRUCTION", 715)

    with monkeypatch.context() as patched, pytest.raises(Again) as again:
        patched.setattr(Burn, "launch", broken)
        pick(capable(tray, 9, 0), tray, pulse=None)
    assert again.value.changed["kernel"] == "tensor_burn"
    _, which = pick(capable(tray, 9, 0), tray, **{key: again.value.changed[key] for key in ("pulse", "portable")})
    said = "tensor_burn of burn, because burn_sm90a: cuEventSynchronize -> 715 CUDA_ERROR_ILLEGAL_INSTRUCTION"
    assert which == said + NO_LIBRARY


def test_nothing_is_tried_when_the_time_is_over(tray: Bench) -> None:
    assert pick(capable(tray, 9, 0), tray, until_s=-1)[0].launches == 0


def test_which_kernel_it_is_is_told(tray: Bench) -> None:
    deadlines = Deadlines.create(1)
    assert burned(tray, deadlines)[0]["why"] == "tensor_burn of burn_sm100f"


@pytest.mark.parametrize(
    ("image", "target", "version"), [("burn_sm90a", "sm_90a", "8.0"), ("burn_sm100f", "sm_100f", "8.8"), ("burn", "sm_80", "7.0")]
)
def test_every_image_names_its_family_and_the_oldest_ptx_that_knows_it(image: str, target: str, version: str) -> None:
    text = kernels(image).decode()
    assert f".target {target}\n" in text
    assert f".version {version}\n" in text
    assert ".entry tensor_burn(" in text


LIVES = """
import json, os, sys, time
from burnin.agent import work

class Driver:
    def device(self, uuid): return 0

def run(talk, cuda, device, args):
    if not args.get("portable"):
        raise work.Again({"portable": "it broke"})
    talk.state({"state": "burning", "why": args["portable"], "going": talk.going()})

def renew(spec):
    os.execv(sys.executable, [sys.executable, __file__, json.dumps(spec), *sys.argv[2:]])

sys.modules["lives"] = sys.modules["__main__"]
work.open_driver, work.KINDS["burn"] = Driver, ("lives", "run")
spec, fd, parent = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
raise SystemExit(work.main("GPU-00", spec, fd, 0, 1, parent, time.monotonic_ns, renew))
"""


def test_a_fresh_process_goes_on_with_lease_and_voice_of_the_old_one(tmp_path: Path) -> None:
    script, deadlines = tmp_path / "lives.py", Deadlines.create(1)
    script.write_text(LIVES)
    deadlines.set(0, time.monotonic_ns() + 60_000_000_000)
    words = [sys.executable, str(script), json.dumps({"kind": "burn", "args": {}}), str(deadlines.fd), str(os.getpid())]
    done = subprocess.run(words, capture_output=True, text=True, pass_fds=(deadlines.fd,), timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"state": "burning", "why": "it broke", "going": True}
