"""The digest job on the twin's CUDA driver, its combination against numpy, and its kernels' machine code."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent.consensus import ITERS, TILES, combine, run, seed_of
from burnin.agent.cuda import CudaError
from burnin.agent.work import KINDS, kernels
from tests.unit.gpu_jobs import Talk, do
from tests.unit.twin_tray import Bench, bench

pytestmark = pytest.mark.usefixtures("still")

ARGS = {"seed": 7, "rounds": 4}


@pytest.fixture
def tray(tmp_path: Path) -> Bench:
    made = bench(tmp_path)
    made.run(1)
    return made


@given(st.lists(st.integers(0, 2**64 - 1), max_size=200))
def test_tiles_are_combined_in_their_order(tiles: list[int]) -> None:
    """Reference: word i of n ends rotated left by n - 1 - i; the sum of all is their XOR."""
    words = np.array(tiles, dtype=np.uint64)
    turns = np.arange(len(tiles) - 1, -1, -1, dtype=np.uint64) % np.uint64(64)
    rotated = (words << turns) | np.where(turns > 0, words >> ((np.uint64(64) - turns) % np.uint64(64)), np.uint64(0))
    assert combine(words.astype("<u8").tobytes()) == int(np.bitwise_xor.reduce(rotated, initial=np.uint64(0)))


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 2**64 - 1))
def test_one_wrong_tile_always_shows_and_so_does_an_exchange(one: int, other: int, wrong: int) -> None:
    tiles = np.random.default_rng(1).integers(0, 2**64, 10, dtype=np.uint64)
    changed, swapped = tiles.copy(), tiles.copy()
    changed[one] ^= np.uint64(wrong)
    swapped[[one, other]] = swapped[[other, one]]
    assert combine(changed.tobytes()) != combine(tiles.tobytes())
    assert (combine(swapped.tobytes()) != combine(tiles.tobytes())) == (one != other)


def test_seeds_of_rounds_differ_and_fit_a_word() -> None:
    seeds = [seed_of(2**32 - 1, turn) for turn in range(1000)]
    assert len(set(seeds)) == 1000 and max(seeds) < 2**32


def test_healthy_gpus_agree_and_the_seed_decides(tray: Bench) -> None:
    told = [do(run, tray, f"g{i}", ARGS) for i in range(4)]
    assert {m["digest"] for m in told} == {told[0]["digest"]} and re.fullmatch("[0-9a-f]{16}", told[0]["digest"])
    assert told[0]["launch_digests"].keys() == told[0]["digests"].keys() == ITERS.keys()
    assert {len(set(words)) for words in told[0]["launch_digests"].values()} == {4}, "every round is other work"
    assert (told[0]["arch"], told[0]["launches"], told[0]["tiles"], told[0]["sets"]) == ("10.3", 8, 8 * TILES, 1)
    assert (told[0]["unstable"], told[0]["seed"], told[0]["rounds"]) == (0, 7, 4)
    assert do(run, tray, "g0", {**ARGS, "seed": 8})["digest"] != told[0]["digest"]


def test_sets_are_repeated_while_there_is_time_and_compared(tray: Bench) -> None:
    told = do(run, tray, "g0", {**ARGS, "seconds": 0.1})
    assert told["sets"] >= 3 and told["launches"] == 8 * told["sets"]
    assert 0.1 <= told["seconds"] < 1
    assert told["unstable"] == 0
    assert told["digest"] == do(run, tray, "g1", ARGS)["digest"], "how long it ran does not change the digest"


def test_one_kernel_alone(tray: Bench) -> None:
    told = do(run, tray, "g0", {**ARGS, "kernels": ["fma_digest"]})
    assert list(told["digests"]) == ["fma_digest"] and told["launches"] == 4
    with pytest.raises(CudaError, match="CUDA_ERROR_NOT_FOUND"):
        do(run, tray, "g0", {**ARGS, "kernels": ["no_digest"]})


def test_a_gpu_that_computes_wrong_disagrees_and_names_its_multiprocessor(tmp_path: Path) -> None:
    tray = bench(tmp_path, "sdc:t00.g2:0.5")
    tray.run(1)
    told = {f"g{i}": do(run, tray, f"g{i}", {**ARGS, "seconds": 0.1}) for i in range(4)}
    assert told["g0"]["digest"] == told["g1"]["digest"] == told["g3"]["digest"] != told["g2"]["digest"]
    assert told["g2"]["unstable"] > 0 and told["g0"]["unstable"] == 0
    assert len({one["sm"] for one in told["g2"]["first"]}) == 1
    again = do(run, tray, "g2", ARGS)
    assert again["digest"] not in (told["g0"]["digest"], told["g2"]["digest"]), "another process, other errors"


@pytest.mark.parametrize("launches", [0, 3])
def test_a_set_that_was_not_finished_has_no_digest(tray: Bench, launches: int) -> None:
    talk = Talk(launches)
    told = do(run, tray, "g0", ARGS, talk)
    assert (told["digest"], told["launches"], told["sets"]) == (None, launches, 0)
    assert talk.asked == launches + 1, "asked before every launch"


def test_launches_are_short_also_at_the_lowest_clock(tray: Bench) -> None:
    tray.state.gpus[0]["clock_busy_mhz"] = tray.facts["facts"]["clock_max_mhz"] // 16
    told = do(run, tray, "g0", ARGS)
    assert told["seconds"] / told["launches"] < 0.1


def test_the_kind_of_work_is_known() -> None:
    assert KINDS["digest"] == ("burnin.agent.consensus", "run")


@pytest.mark.parametrize("name", ["consensus", "hbm"])
def test_ptx_needs_no_more_than_ampere(name: str) -> None:
    text = kernels(name).decode()
    assert ".version 7.0" in text and ".target sm_80" in text


def test_nothing_in_the_digests_depends_on_chance_or_rounds_unsaid() -> None:
    """No atomics, no clocks, and every float operation says how it rounds."""
    text = kernels("consensus").decode()
    assert not re.search(r"\b(atom|red)\.|%clock|%globaltimer|\.ftz|\.approx", text)
    assert not re.search(r"\b(add|sub|mul|div)\.f32|\bmad\.(rn\.)?f32|fma\.r[zmp]i?\.f32", text)
    assert "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" in text


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="no PTX assembler here: the kernels cannot be assembled")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "sm_103"])
@pytest.mark.parametrize("name", ["burn", "consensus", "hbm"])
def test_ptx_assembles_without_spilling(name: str, arch: str, tmp_path: Path) -> None:
    source = tmp_path / f"{name}.ptx"
    source.write_bytes(kernels(name))
    command = ["ptxas", "-v", f"-arch={arch}", "-o", str(tmp_path / "cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert spilled and {n for pair in spilled for n in pair} == {"0"}
