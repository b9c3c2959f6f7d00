"""The emulated NCCL library through ctypes, with the argument types a careful client sets; ranks are threads here."""

from __future__ import annotations

import ctypes as c
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.agent import nccl_group
from burnin.agent.cuda import Cuda
from burnin.agent.nccl_group import Config, Id
from burnin.twin.emulate import boot, cuda, nccl, nccl_hub, runs
from burnin.twin.emulate.memory import BACKED, Memory
from tests.unit.twin_tray import Bench, bench

VOID, U64 = c.c_void_p, c.c_uint64


class Rank:
    """A process with one GPU: its driver, its NCCL, one stream."""

    def __init__(self, tray: Bench, gpu: int) -> None:
        self.cuda = Cuda(cuda.library(tray.facts, tray.state))
        self.cuda.call("cuCtxSetCurrent", VOID(self.cuda.get("cuDevicePrimaryCtxRetain", VOID, gpu)))
        self.stream = VOID(self.cuda.get("cuStreamCreate", VOID, 1))
        self.lib = nccl.library(tray.facts, tray.state)
        for name, args in nccl_group.SYMBOLS.items():
            getattr(self.lib, name).argtypes = args
        self.comm = VOID()

    def join(self, ident: bytes, rank: int, ranks: int) -> int:
        config = Config(c.sizeof(Config), 0xCAFEBEEF, 21400, 0)
        args = (ranks, Id.from_buffer_copy(ident), rank, c.byref(config))
        code: int = self.lib.ncclCommInitRankConfig(c.byref(self.comm), *args)
        return self.settled() if code == nccl.IN_PROGRESS else code

    def settled(self, patience_s: float = 15) -> int:
        code, end = c.c_int(), time.monotonic() + patience_s
        while self.lib.ncclCommGetAsyncError(self.comm, c.byref(code)) == 0 and code.value == nccl.IN_PROGRESS:
            if time.monotonic() > end:
                return nccl.IN_PROGRESS
        return code.value

    def put(self, data: bytes) -> int:
        at: int = self.cuda.get("cuMemAlloc_v2", U64, len(data))
        for i in range(0, len(data), 4):
            self.cuda.call("cuMemsetD32Async", at + i, int.from_bytes(data[i : i + 4], "little"), 1, self.stream)
        return at

    def read(self, at: int, size: int) -> bytes:
        buffer = c.create_string_buffer(size)
        self.cuda.call("cuMemcpyDtoH_v2", buffer, at, size)
        return buffer.raw


def together(tray: Bench, ranks: int, do: Callable[[Rank, int], Any]) -> list[Any]:
    """Each rank in a thread of its own, with its own driver; what they return."""
    out: list[Any] = [None] * ranks
    ident = c.create_string_buffer(128)
    assert nccl.library(tray.facts, tray.state).ncclGetUniqueId(c.byref(ident)) == 0

    def one(number: int) -> None:
        rank = Rank(tray, number)
        assert rank.join(ident.raw, number, ranks) == 0
        try:
            out[number] = do(rank, number)
        finally:
            rank.lib.ncclCommDestroy(rank.comm)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return out


@pytest.fixture
def tray(tmp_path: Path) -> Iterator[Bench]:
    made = bench(tmp_path)
    made.run(1)
    yield made


def words(*values: int) -> bytes:
    return b"".join((v & 0xFFFFFFFF).to_bytes(4, "little") for v in values)


def test_it_stands_where_the_loader_looks() -> None:
    assert boot._LIBRARIES["libnccl.so.2"] == "nccl"


def test_version_and_id(tray: Bench) -> None:
    lib, version, ident = nccl.library(tray.facts, tray.state), c.c_int(), c.create_string_buffer(128)
    assert (lib.ncclGetVersion(c.byref(version)), version.value) == (0, 22807)
    assert lib.ncclGetUniqueId(c.byref(ident)) == 0
    assert ident.raw != bytes(128)
    assert not hasattr(lib, "ncclNoSuchThing")


def test_sums_are_word_by_word_and_wrap(tray: Bench) -> None:
    given_words = [(1, 2, 3, 4), (10, 20, 30, 0xFFFFFFFF), (100, 0, 0, 1)]

    def do(rank: Rank, number: int) -> bytes:
        send, receive = rank.put(words(*given_words[number])), rank.put(bytes(16))
        assert rank.lib.ncclAllReduce(send, receive, 4, 3, 0, rank.comm, rank.stream) in (0, nccl.IN_PROGRESS)
        assert rank.settled() == 0
        return rank.read(receive, 16)

    assert together(tray, 3, do) == [words(111, 22, 33, 4)] * 3


def test_gather_scatter_and_send(tray: Bench) -> None:
    def do(rank: Rank, number: int) -> list[bytes]:
        lib, comm, stream = rank.lib, rank.comm, rank.stream
        mine, out = rank.put(words(number + 1, 7)), rank.put(bytes(24))
        both, two = rank.put(words(*(10 * number + i for i in range(6)))), rank.put(bytes(8))
        codes = [lib.ncclAllGather(mine, out, 2, 3, comm, stream), rank.settled()]
        codes += [lib.ncclReduceScatter(both, two, 2, 3, 0, comm, stream), rank.settled()]
        got = [rank.read(out, 24), rank.read(two, 8)]
        codes += [lib.ncclGroupStart(), lib.ncclSend(mine, 2, 3, (number + 1) % 3, comm, stream)]
        codes += [lib.ncclRecv(two, 2, 3, (number - 1) % 3, comm, stream), lib.ncclGroupEnd(), rank.settled()]
        assert set(codes) <= {0, nccl.IN_PROGRESS}
        assert codes[-1] == 0
        return [*got, rank.read(two, 8)]

    for number, (gathered, scattered, sent) in enumerate(together(tray, 3, do)):
        assert gathered == words(1, 7, 2, 7, 3, 7)
        assert scattered == words(30 + 3 * 2 * number, 30 + 3 * (2 * number + 1))
        assert sent == words((number - 1) % 3 + 1, 7)


def test_what_is_wrong_is_refused(tray: Bench) -> None:
    def do(rank: Rank, number: int) -> None:
        lib, comm, stream = rank.lib, rank.comm, rank.stream
        at = rank.put(bytes(16))
        assert lib.ncclAllReduce(at, at, 400, 3, 0, comm, stream) == nccl.INVALID_ARGUMENT, "beyond the allocation"
        assert lib.ncclAllReduce(at, at, 4, 9, 0, comm, stream) == nccl.INVALID_ARGUMENT, "floats are not moved"
        assert lib.ncclSend(at, 4, 3, 7, comm, stream) == nccl.INVALID_ARGUMENT, "no such rank"
        assert lib.ncclAllReduce(at, at, 4, 3, 0, VOID(1), stream) == nccl.INVALID_ARGUMENT, "no such communicator"
        assert lib.ncclCommDestroy(comm) == 0
        assert lib.ncclCommAbort(comm) == nccl.INVALID_ARGUMENT, "it was given up"

    together(tray, 2, do)


@pytest.mark.parametrize(("ident", "code"), [(bytes(128), nccl.INVALID_ARGUMENT), (b"\xff" * 128, nccl.INVALID_ARGUMENT)])
def test_an_id_that_is_none_is_refused(tray: Bench, ident: bytes, code: int) -> None:
    assert Rank(tray, 0).join(ident, 0, 2) == code


def test_nobody_listens_behind_an_old_id(tray: Bench) -> None:
    def do(rank: Rank, number: int) -> int:
        return rank.settled()

    ident = c.create_string_buffer(128)
    assert nccl.library(tray.facts, tray.state).ncclGetUniqueId(c.byref(ident)) == 0
    assert Rank(tray, 0).join(ident.raw, 5, 2) == nccl.INVALID_ARGUMENT, "no such rank"
    assert together(tray, 1, do) == [0]


def test_a_rank_that_leaves_is_an_error_for_the_others_and_one_that_never_comes_is_waited_for(tray: Bench) -> None:
    begun = threading.Event()

    def do(rank: Rank, number: int) -> int:
        at = rank.put(bytes(16))
        if number == 1:
            assert begun.wait(10)
            assert rank.lib.ncclCommAbort(rank.comm) == 0
            return 0
        rank.lib.ncclAllReduce(at, at, 4, 3, 0, rank.comm, rank.stream)
        begun.set()
        return rank.settled()

    assert together(tray, 2, do) == [nccl.REMOTE, 0]

    tired = threading.Event()

    def alone(rank: Rank, number: int) -> int:
        at = rank.put(bytes(16))
        if number == 1:
            assert tired.wait(10)
            return rank.settled()
        rank.lib.ncclAllReduce(at, at, 4, 3, 0, rank.comm, rank.stream)
        code = rank.settled(0.2)
        tired.set()
        return code

    assert together(tray, 2, alone) == [nccl.IN_PROGRESS, 0]


def test_an_operation_takes_the_time_of_its_slowest_gpu_whatever_the_host_does(tray: Bench) -> None:
    tray.state.gpus[tray.facts["gpus"][1]["position"]]["slow_ppm"] = 200_000
    size = 1 << 30

    def do(rank: Rank, number: int) -> list[float]:
        begin, end = (VOID(rank.cuda.get("cuEventCreate", VOID, 0)) for _ in range(2))
        send, receive = (rank.cuda.get("cuMemAlloc_v2", U64, size) for _ in range(2))
        out = []
        for _ in range(3):
            rank.cuda.call("cuEventRecord", begin, rank.stream)
            rank.lib.ncclAllReduce(send, receive, size // 4, 3, 0, rank.comm, rank.stream)
            assert rank.settled() == 0
            time.sleep(0.02)  # a busy host: the end is recorded late
            rank.cuda.call("cuEventRecord", end, rank.stream)
            assert rank.settled() == 0
            rank.cuda.call("cuStreamSynchronize", rank.stream)
            out.append(rank.cuda.get("cuEventElapsedTime", c.c_float, begin, end))
        return out

    model_ms = size * 1.5 / (685e9 * 0.8) * 1e3 + 0.03
    for taken in together(tray, 4, do):
        assert taken == pytest.approx([model_ms] * 3, rel=0.001)


def test_bandwidth_between_the_numbers_that_were_measured() -> None:
    table = {"4": 685.0, "8": 842.0, "64": 930.0}
    assert [nccl_hub.busbw_gbps(table, n) for n in (2, 4, 8, 64, 72)] == [685.0, 685.0, 842.0, 930.0, 930.0]
    assert 842 < nccl_hub.busbw_gbps(table, 36) < 930


# ---------------------------------------------------------------- contents as runs


RUNS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=8)


@given(RUNS)
def test_bytes_and_runs_are_the_same_contents(stretches: list[tuple[int, int]]) -> None:
    data = b"".join(value.to_bytes(4, "little") * count for count, value in stretches)
    found = runs.of_bytes(data)
    assert runs.to_bytes(found) == data
    assert all(a[1] != b[1] for a, b in pairwise(found)), "no longer than needed"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(1, 5)), max_size=12), st.integers(0, 49))
def test_patterns_are_what_bytes_would_be(fills: list[tuple[int, int, int]], at: int) -> None:
    pattern, real = runs.Patterns(), [0] * 50
    for begin, count, value in fills:
        pattern.fill(4000 + 4 * begin, count, value)
        real[begin : begin + count] = [value] * count
    assert runs.to_bytes(pattern.runs(4000 + 4 * at, 4 * (50 - at))) == words(*real[at:50])


@given(st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=4))
def test_sums_of_runs_are_sums_of_words(many: list[list[int]]) -> None:
    big = [[v * 0x7FFFFFFF & 0xFFFFFFFF for v in row] for row in many]
    total = runs.added([runs.of_bytes(words(*row)) for row in big])
    assert runs.to_bytes(total) == words(*(sum(column) for column in zip(*big, strict=True)))
    assert runs.to_bytes(runs.sliced(total, 3, 5)) == words(*(sum(column) for column in zip(*big, strict=True)))[12:32]


def test_contents_that_are_no_pattern_are_refused() -> None:
    with pytest.raises(ValueError, match="not made of patterns"):
        runs.of_bytes(words(*range(runs.MOST + 2)))


def test_large_memory_keeps_what_was_filled() -> None:
    memory = Memory(1 << 40)
    at = memory.allocate(4 * BACKED)
    assert at is not None
    memory.fill(at, words(7), BACKED // 4)
    memory.fill(at + BACKED, words(9), 2)
    assert memory.read(at + BACKED - 6, 16) == (words(7, 7, 9, 9, 0))[2:18]
    assert memory.runs(at, BACKED + 16) == [[BACKED // 4, 7], [2, 9], [2, 0]]
    assert memory.free(at)
