"""The memory job: on the twin's CUDA driver, and its kernels compiled for this machine's own processor."""

from __future__ import annotations

import ctypes as c
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import hbm
from burnin.agent.cuda import CudaError, Gpu
from burnin.agent.work import KINDS
from burnin.twin.emulate.memory import Memory, word
from tests.unit.gpu_jobs import Talk, do, open_gpu
from tests.unit.twin_tray import Bench, bench

pytestmark = pytest.mark.usefixtures("still")

KERNELS = Path(hbm.__file__).parent / "kernels"
GIB = 1 << 30


@pytest.fixture
def tray(tmp_path: Path) -> Bench:
    made = bench(tmp_path, profile="h200-1gpu")
    made.run(1)
    return made


def test_all_memory_but_a_reserve_is_swept_with_every_pattern(tray: Bench) -> None:
    talk = Talk()
    told = do(hbm.run, tray, "g0", {}, talk)
    total = 143771 - 618 << 20
    assert told["total_bytes"] == total
    assert total - told["bytes"] - (512 << 20) in range(hbm.RESERVE, hbm.RESERVE + 2 * hbm.SMALLEST), "512 MiB are the context's"
    assert told["fraction"] == pytest.approx(told["bytes"] / total, abs=1e-6)
    assert (told["passes"], told["complete"], told["mismatches"], told["first"]) == (47, True, 0, [])
    assert told["gbps"] == pytest.approx(4010, rel=0.05), "the rate of the twin's model"
    assert told["seconds"] == pytest.approx(told["bytes"] * (1 + 2 * 46 + 1) / 4010e9, rel=0.05)
    assert told["seconds"] / talk.asked < 0.1, "asked before every launch, and each is short"


def test_the_programme_has_every_bit_both_ways_and_random_words() -> None:
    patterns = hbm.programme()
    fixed = [seed for kind, seed in patterns if kind == 0]
    assert all(b == a ^ 0xFFFFFFFF and d == a for a, b, d in zip(fixed[::3], fixed[1::3], fixed[2::3], strict=True))
    assert sorted(seed for kind, seed in patterns if kind == 1) == [1 << bit for bit in range(32)]
    assert len({seed for kind, seed in patterns if kind == 2}) == 3
    assert all(0 <= seed < 2**32 for _, seed in patterns)


def test_more_time_is_used_for_more_programmes(tray: Bench) -> None:
    told = do(hbm.run, tray, "g0", {"seconds": 0.5, "reserve_bytes": 135 * GIB})
    assert told["passes"] >= 94 and told["complete"]
    assert told["seconds"] >= 0.5


@pytest.mark.parametrize("launches", [0, 1, 30, 100])
def test_what_was_cut_short_says_so(tray: Bench, launches: int) -> None:
    told = do(hbm.run, tray, "g0", {}, Talk(launches))
    assert not told["complete"] and told["passes"] < 47
    assert told["mismatches"] == 0


def spoiled(tray: Bench, *words: tuple[int, int, int]) -> dict[str, Any]:
    """What is told when somebody writes these (chunk, offset, word) when all memory holds the first pattern, zeros."""
    driver, device = open_gpu(tray, "g0")
    test = hbm.Sweeps(Gpu(driver, device), 139 * GIB)
    test.take(Talk())

    def before(number: int) -> None:
        for chunk, offset, value in words if number == len(test.chunks) else ():
            driver.call("cuMemsetD32Async", test.chunks[chunk][0] + offset, value, 1, None)

    test.play(Talk(before=before), hbm.programme())
    return test.message(True)


def test_each_word_that_changed_is_counted_and_told_once(tray: Bench) -> None:
    told = spoiled(tray, (0, 4096, 0xDEADBEEF), (1, 0, 0x00000001))
    assert told["mismatches"] == 2
    assert [(one["expected"], one["actual"]) for one in told["first"]] == [
        ("0x00000000", "0xdeadbeef"),
        ("0x00000000", "0x00000001"),
    ]
    assert all(int(one["address"], 16) > 0 for one in told["first"])


def test_a_word_that_is_as_it_should_be_is_no_mismatch(tray: Bench) -> None:
    assert spoiled(tray, (0, 4096, 0))["mismatches"] == 0


def test_memory_that_nobody_touches_is_as_it_was_written(tray: Bench) -> None:
    told = spoiled(tray)
    assert (told["mismatches"], told["first"], told["passes"]) == (0, [], 47)
    assert told["bytes"] > 0


def test_more_mismatches_than_can_be_told_are_counted(tray: Bench) -> None:
    told = spoiled(tray, *((0, 4 * i, 0xFFFFFFFF) for i in range(40)))
    assert (told["mismatches"], len(told["first"])) == (40, hbm.FIRST)


def test_memory_that_is_taken_by_somebody_is_not_covered(tray: Bench) -> None:
    driver, device = open_gpu(tray, "g0")
    other = Gpu(driver, device)
    other.allocate(70 * GIB)
    told = do(hbm.run, tray, "g0", {})
    assert told["fraction"] < 0.52 and told["complete"]


def test_a_driver_that_fails_in_the_middle_is_not_a_result(tray: Bench) -> None:
    def lose(number: int) -> None:
        tray.state.gpus[0]["lost"] = int(number >= 50)

    talk = Talk(before=lose)
    with pytest.raises(CudaError, match="999 CUDA_ERROR_UNKNOWN"):
        do(hbm.run, tray, "g0", {}, talk)
    assert talk.told == []


def test_the_kind_of_work_is_known() -> None:
    assert KINDS["hbm"] == ("burnin.agent.hbm", "run")


# ---------------------------------------------------------------- the kernels themselves, on this machine's processor

SHIM = """
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#include <stdint.h>
struct uint4 { uint32_t x, y, z, w; };
static uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
struct Dim { unsigned x; };
static Dim blockIdx, threadIdx, gridDim = {3}, blockDim = {64};
static unsigned long long atomicAdd(unsigned long long *at, unsigned long long n) { auto old = *at; *at += n; return old; }
#include KERNELS
template <class F> static void each(F f) {
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
    for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) f();
}
extern "C" void fill(uint32_t *base, uint64_t words, uint32_t kind, uint32_t seed) {
  each([&] { hbm_write(base, words, kind, seed); });
}
extern "C" void step(uint32_t *base, uint64_t words, uint32_t kind, uint32_t seed, uint64_t *report, uint32_t next_kind,
                     uint32_t next_seed, uint32_t flags) {
  each([&] { hbm_step(base, words, kind, seed, report, next_kind, next_seed, flags); });
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernels as a library, a thread after the other."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler here: the kernels cannot be run on this processor")
    at = tmp_path_factory.mktemp("kernels")
    (at / "shim.cpp").write_text(SHIM)
    define = f'-DKERNELS="{KERNELS / "hbm.cu"}"'
    command = ["g++", "-shared", "-fPIC", "-O1", define, "-o", str(at / "hbm.so"), str(at / "shim.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    library = c.CDLL(str(at / "hbm.so"))
    library.fill.argtypes = (c.c_void_p, c.c_uint64, c.c_uint32, c.c_uint32)
    library.step.argtypes = (*library.fill.argtypes, c.c_void_p, c.c_uint32, c.c_uint32, c.c_uint32)
    return library


WORDS = 1024
PATTERNS = [(0, 0x12345678), (1, 1), (1, 0xFFFFFFFE), (2, 0), (2, 0x9E3779B1)]


def reference(base: int, pattern: tuple[int, int]) -> Any:
    """The pattern, as hbm.cu's head describes it, in numpy's 64-bit arithmetic."""
    kind, seed = pattern
    low = np.uint64(0xFFFFFFFF)
    index = base // 4 + np.arange(WORDS, dtype=np.uint64)
    if kind == 0:
        return np.full(WORDS, seed, dtype=np.uint32)
    if kind == 1:
        turned = np.uint64(seed) << (index & np.uint64(31))
        return (turned & low | turned >> np.uint64(32)).astype(np.uint32)
    x = (index & low) ^ np.uint64(seed)
    x = (x ^ x >> np.uint64(16)) * np.uint64(0x85EBCA6B) & low
    x = (x ^ x >> np.uint64(13)) * np.uint64(0xC2B2AE35) & low
    return ((x ^ x >> np.uint64(16)) + (index >> np.uint64(32)) * np.uint64(0x9E3779B9) & low).astype(np.uint32)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_kernels_reference_and_twin_write_the_same_words(host: Any, pattern: tuple[int, int]) -> None:
    room = np.zeros(WORDS, dtype=np.uint32)
    host.fill(room.ctypes.data, WORDS, *pattern)
    assert np.array_equal(room, reference(room.ctypes.data, pattern))
    assert room.tolist() == [word(pattern, room.ctypes.data // 4 + i) for i in range(WORDS)]


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("now", PATTERNS)
def test_a_step_finds_every_wrong_word_and_writes_the_next_pattern(host: Any, now: tuple[int, int], flags: int) -> None:
    room, report, following = np.zeros(WORDS, np.uint32), np.zeros(2 + 2 * hbm.FIRST, np.uint64), (2, 77)
    host.fill(room.ctypes.data, WORDS, *now)
    before = room.copy()
    wrong = {0: 1, 5: 0x80000000, 510: 0xFFFF, WORDS - 1: 0xFFFFFFFF}
    for at, flip in wrong.items():
        room[at] ^= np.uint32(flip)
    host.step(room.ctypes.data, WORDS, *now, report.ctypes.data, *following, flags)
    assert report[:2].tolist() == [4, 4]
    told = {(int(report[at]) - room.ctypes.data) // 4: int(report[at + 1]) for at in range(2, 10, 2)}
    assert told == {at: int(before[at]) << 32 | int(before[at]) ^ flip for at, flip in wrong.items()}
    if flags & 1:
        assert np.array_equal(room, reference(room.ctypes.data, following))
    else:
        assert [int(room[at]) for at in wrong] == [int(before[at]) ^ flip for at, flip in wrong.items()]


def test_a_step_counts_more_than_it_tells(host: Any) -> None:
    room, report = np.zeros(WORDS, np.uint32), np.zeros(2 + 2 * hbm.FIRST + 1, np.uint64)
    host.step(room.ctypes.data, WORDS, 0, 0xFFFFFFFF, report.ctypes.data, 0, 0, 0)
    assert report[0] == WORDS
    assert report[-1] == 0, "nothing is written behind the report"


@given(st.sampled_from(PATTERNS), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_the_twins_memory_sees_what_differs(pattern: tuple[int, int], at: int, value: int) -> None:
    memory = Memory(1 << 20)
    base = memory.allocate(4096) or 0
    memory.paint(base, 4096, pattern)
    assert memory.differs(base, 4096, pattern, 4) == (0, [])
    memory.fill(base + 4 * at, value.to_bytes(4, "little"), 1)
    expected = word(pattern, base // 4 + at)
    found = (0, []) if value == expected else (1, [(base + 4 * at, expected, value)])
    assert memory.differs(base, 4096, pattern, 4) == found
    memory.paint(base, 4096, pattern)
    assert memory.differs(base, 4096, pattern, 4) == (0, [])
    assert memory.differs(base, 4096, (0, 5), 4)[0] == 1024, "another pattern is wrong everywhere"
