"""The emulated CUDA driver, through ctypes with the argument types a careful client sets."""

from __future__ import annotations

import ctypes as c
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.twin.emulate import cuda
from burnin.twin.emulate.memory import BACKED, Memory
from tests.unit.twin_tray import Bench, bench

PTX = b".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry tensor_burn(\n)\n{ret;}\n.visible .entry other()\n{ret;}\n"
P, VOID, U64, INT, UINT, SIZE = c.POINTER, c.c_void_p, c.c_uint64, c.c_int, c.c_uint, c.c_size_t
TYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (UINT,),
    "cuDeviceGetUuid_v2": (VOID, INT),
    "cuDeviceGetName": (c.c_char_p, INT, INT),
    "cuDeviceGetPCIBusId": (c.c_char_p, INT, INT),
    "cuDeviceGetAttribute": (P(INT), INT, INT),
    "cuDevicePrimaryCtxRetain": (P(VOID), INT),
    "cuCtxSetCurrent": (VOID,),
    "cuModuleLoadDataEx": (P(VOID), VOID, UINT, P(INT), P(VOID)),
    "cuModuleGetFunction": (P(VOID), VOID, c.c_char_p),
    "cuMemAlloc_v2": (P(U64), SIZE),
    "cuMemFree_v2": (U64,),
    "cuMemGetInfo_v2": (P(SIZE), P(SIZE)),
    "cuMemHostAlloc": (P(VOID), SIZE, UINT),
    "cuMemcpyHtoDAsync_v2": (U64, VOID, SIZE, VOID),
    "cuMemcpyDtoHAsync_v2": (VOID, U64, SIZE, VOID),
    "cuMemcpyHtoD_v2": (U64, VOID, SIZE),
    "cuMemcpyDtoH_v2": (VOID, U64, SIZE),
    "cuMemcpyDtoDAsync_v2": (U64, U64, SIZE, VOID),
    "cuMemsetD32Async": (U64, UINT, SIZE, VOID),
    "cuStreamCreate": (P(VOID), UINT),
    "cuStreamSynchronize": (VOID,),
    "cuStreamQuery": (VOID,),
    "cuEventCreate": (P(VOID), UINT),
    "cuEventRecord": (VOID, VOID),
    "cuEventSynchronize": (VOID,),
    "cuEventElapsedTime": (P(c.c_float), VOID, VOID),
    "cuLaunchKernel": (VOID, UINT, UINT, UINT, UINT, UINT, UINT, UINT, VOID, P(VOID), P(VOID)),
    "cuGetErrorName": (INT, P(c.c_char_p)),
}


class Client:
    """A process that uses the driver; calls give the return code, `get` what is written behind the first argument."""

    def __init__(self, tray: Bench) -> None:
        self.tray = tray
        self.lib = cuda.library(tray.facts, tray.state)
        for name, types in TYPES.items():
            getattr(self.lib, name).argtypes = types

    def __call__(self, name: str, *args: Any) -> int:
        code: int = getattr(self.lib, name)(*args)
        return code

    def get(self, name: str, kind: Any, *args: Any) -> Any:
        out = kind()
        assert self(name, c.byref(out), *args) == 0
        return out.value

    def enter(self, device: int = 0) -> None:
        assert self("cuInit", 0) == 0
        assert self("cuCtxSetCurrent", VOID(self.get("cuDevicePrimaryCtxRetain", VOID, device))) == 0

    def function(self, name: bytes = b"tensor_burn") -> c.c_void_p:
        image = c.create_string_buffer(PTX)
        module = self.get("cuModuleLoadDataEx", VOID, c.cast(image, VOID), 0, None, None)
        return VOID(self.get("cuModuleGetFunction", VOID, VOID(module), name))

    def launch(self, function: c.c_void_p, iters: int, block: int = 256, stream: c.c_void_p | None = None) -> int:
        values = (U64(1), U64(2), INT(iters), UINT(3))
        pointers = (VOID * 4)(*[c.cast(c.byref(v), VOID) for v in values])
        return self("cuLaunchKernel", function, 160, 1, 1, block, 1, 1, 0, stream, pointers, None)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    tray = bench(tmp_path)
    tray.clock.now_ns = time.monotonic_ns()  # the driver lives in real time
    tray.run(0.1)
    yield Client(tray)


def test_nothing_works_before_init(client: Client) -> None:
    assert client("cuDeviceGetCount", c.byref(INT())) == 3
    text = c.c_char_p()
    assert client("cuGetErrorName", 214, c.byref(text)) == 0
    assert text.value == b"CUDA_ERROR_ECC_UNCORRECTABLE"


def test_devices_have_the_uuids_that_nvml_prints(client: Client) -> None:
    client("cuInit", 0)
    assert client.get("cuDeviceGetCount", INT) == 4
    for ordinal in range(4):
        uuid, name, bdf = c.create_string_buffer(16), c.create_string_buffer(64), c.create_string_buffer(32)
        assert client("cuDeviceGetUuid_v2", uuid, ordinal) == 0
        own = client.tray.facts["gpus"][ordinal]
        assert "GPU-" + uuid.raw.hex() == own["uuid"][:12] + own["uuid"][12:].replace("-", "")
        assert client("cuDeviceGetName", name, 64, ordinal) == client("cuDeviceGetPCIBusId", bdf, 32, ordinal) == 0
        assert (name.value, bdf.value) == (b"NVIDIA GB300", own["bdf"][4:].encode())
    assert client.get("cuDeviceGetAttribute", INT, 16, 0) == 160
    assert client("cuDeviceGetAttribute", c.byref(INT()), 16, 4) == 101


def test_visible_devices_are_those_asked_for(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = client.tray.facts["gpus"][2]["uuid"]
    for wanted, count in (("1", 1), (f"{uuid},0", 2), ("3,9,1", 1), ("-1", 0), ("", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
        some = Client(client.tray)
        assert some("cuInit", 0) == (0 if count else 100)
        if count:
            assert some.get("cuDeviceGetCount", INT) == count


def test_a_function_is_found_only_if_the_ptx_has_it(client: Client) -> None:
    client.enter()
    image = c.create_string_buffer(PTX)
    module = client.get("cuModuleLoadDataEx", VOID, c.cast(image, VOID), 0, None, None)
    assert client("cuModuleGetFunction", c.byref(VOID()), VOID(module), b"other") == 0
    assert client("cuModuleGetFunction", c.byref(VOID()), VOID(module), b"tensor") == 500
    assert client("cuModuleGetFunction", c.byref(VOID()), VOID(0x77), b"other") == 400
    junk = c.create_string_buffer(b"not PTX")
    assert client("cuModuleLoadDataEx", c.byref(VOID()), c.cast(junk, VOID), 0, None, None) == 218


def test_our_own_kernels_are_understood(client: Client) -> None:
    import burnin.agent

    client.enter()
    for path in (Path(burnin.agent.__file__).parent / "kernels").glob("*.ptx"):
        image = c.create_string_buffer(path.read_bytes())
        if "sm90a" in path.name:
            refused = client("cuModuleLoadDataEx", c.byref(VOID()), c.cast(image, VOID), 0, None, None)
            assert refused == 209, "what only Hopper understands is nothing to a GB300"
            continue
        module = client.get("cuModuleLoadDataEx", VOID, c.cast(image, VOID), 0, None, None)
        names = re.findall(rb"\.entry (\w+)", path.read_bytes())
        assert names, path
        for name in names:
            assert client("cuModuleGetFunction", c.byref(VOID()), VOID(module), name) == 0
            assert name.decode() in client.tray.facts["kernels"]


def test_free_memory_is_what_nobody_took(client: Client) -> None:
    client.enter()
    free, total = SIZE(), SIZE()
    assert client("cuMemGetInfo_v2", c.byref(free), c.byref(total)) == 0
    assert total.value == 284208 - 947 << 20
    before = free.value
    client.get("cuMemAlloc_v2", U64, 3 << 30)
    assert client("cuMemGetInfo_v2", c.byref(free), c.byref(total)) == 0
    assert before - free.value == 3 << 30


def test_a_kernel_that_would_write_where_nothing_is_allocated_is_refused(client: Client) -> None:
    client.enter()
    image = c.create_string_buffer(PTX.replace(b"other", b"gemm_digest"))
    module = client.get("cuModuleLoadDataEx", VOID, c.cast(image, VOID), 0, None, None)
    function = VOID(client.get("cuModuleGetFunction", VOID, VOID(module), b"gemm_digest"))
    assert client.launch(function, 1) == 1


def test_copies_take_the_time_of_their_bandwidth(client: Client) -> None:
    client.enter()
    at = client.get("cuMemAlloc_v2", U64, 1 << 30)
    host = VOID(client.get("cuMemHostAlloc", VOID, 1 << 30, 0))
    begin, end = (VOID(client.get("cuEventCreate", VOID, 0)) for _ in range(2))
    for name, words, gbps in (
        ("cuMemcpyHtoDAsync_v2", (at, host), 211),
        ("cuMemcpyDtoHAsync_v2", (host, at), 193),
        ("cuMemcpyDtoDAsync_v2", (at, at), 3312),
    ):
        client.tray.state.gpus[1]["bw_lost_ppm"] = 900_000
        took_ms = []
        for _ in range(20):  # a busy machine may come between two calls, not every time
            client("cuEventRecord", begin, None)
            assert client(name, *words, 1 << 30, None) == 0
            client("cuEventRecord", end, None)
            assert client("cuEventSynchronize", end) == 0
            took_ms.append(client.get("cuEventElapsedTime", c.c_float, begin, end))
            if min(took_ms) == (wanted := pytest.approx((1 << 30) / (0.1 * gbps * 1e6), rel=0.05, abs=0.5)):
                break
        assert min(took_ms) == wanted
    assert client("cuMemcpyHtoDAsync_v2", at + 16, host, 1 << 30, None) == 1, "beyond the allocation"


def test_memory_keeps_what_is_written(client: Client) -> None:
    client.enter()
    at, other = (client.get("cuMemAlloc_v2", U64, 4096) for _ in range(2))
    data = bytes(range(256)) * 4
    assert client("cuMemcpyHtoD_v2", at + 512, c.create_string_buffer(data, 1024), 1024) == 0
    assert client("cuMemcpyDtoDAsync_v2", other, at + 512, 1024, None) == 0
    assert client("cuMemsetD32Async", other + 4, 0xDEADBEEF, 2, None) == 0
    back = c.create_string_buffer(1024)
    assert client("cuMemcpyDtoH_v2", back, other, 1024) == 0
    assert back.raw == data[:4] + b"\xef\xbe\xad\xde" * 2 + data[12:]
    assert client("cuMemcpyDtoH_v2", back, other + 4000, 1024) == 1
    assert client("cuMemFree_v2", at) == 0
    assert client("cuMemFree_v2", at) == 1
    assert client("cuMemcpyDtoH_v2", back, at, 16) == 1


def test_memory_has_an_end_and_shows_in_the_state(client: Client) -> None:
    client.enter()
    ((_, slot),) = client.tray.state.slots()
    before = slot["mem_bytes"]
    big = client.get("cuMemAlloc_v2", U64, 200 << 30)
    assert slot["mem_bytes"] - before == 200 << 30
    assert client("cuMemAlloc_v2", c.byref(U64()), 100 << 30) == 2
    assert client("cuMemsetD32Async", big, 1, (200 << 30) // 4, None) == 0


def test_copies_of_another_stream_go_on_beside_kernels(client: Client) -> None:
    """What is on one stream goes in order; the GPU is busy as long as either is, not as both together."""
    client.enter()
    at, function = client.get("cuMemAlloc_v2", U64, 1 << 30), client.function()
    client.tray.state.gpus[1]["clock_busy_mhz"] = 2070
    one, other = (VOID(client.get("cuStreamCreate", VOID, 1)) for _ in range(2))
    host, now = VOID(client.get("cuMemHostAlloc", VOID, 1 << 30, 0)), time.monotonic_ns()
    assert client.launch(function, 2_000_000, stream=one) == 0
    assert client("cuMemcpyHtoDAsync_v2", at, host, 1 << 30, other) == 0
    ((_, slot),) = client.tray.state.slots()
    assert 2e9 <= slot["end_ns"] - now < 3e9
    assert slot["busy_ns"] == pytest.approx(2e9, rel=0.2)
    assert client("cuStreamSynchronize", other) == 0
    assert client("cuStreamQuery", one) == 600
    assert client("cuMemcpyHtoDAsync_v2", at, host, 1 << 30, one) == 0
    assert slot["end_ns"] - now > 2e9, "behind the kernel of its own stream"
    assert client("cuStreamQuery", other) == 0
    assert client("cuStreamQuery", None) == 600, "without a stream everything is meant"


def test_a_launch_takes_its_time_and_counts_as_work(client: Client) -> None:
    client.enter(0)
    function, row = client.function(), client.tray.state.gpus[1]
    row["clock_busy_mhz"] = 1035  # half of the highest
    begin, end = (VOID(client.get("cuEventCreate", VOID, 0)) for _ in range(2))
    start, cpu = time.monotonic(), time.thread_time()
    assert client("cuEventRecord", begin, None) == 0
    assert client.launch(function, 50_000) == 0
    assert client("cuEventRecord", end, None) == 0
    assert client("cuStreamQuery", None) == 600
    assert client("cuEventElapsedTime", c.byref(c.c_float()), begin, end) == 600
    assert client("cuEventSynchronize", end) == 0
    assert time.monotonic() - start >= 0.1
    assert time.thread_time() - cpu < 0.05
    assert client.get("cuEventElapsedTime", c.c_float, begin, end) == pytest.approx(100, abs=1)
    ((_, slot),) = client.tray.state.slots()
    assert slot["busy_ns"] == pytest.approx(100e6, rel=0.01)
    assert (slot["gpu"], slot["activity_ppm"]) == (1, 1_000_000)


def test_a_gpu_does_not_idle_because_this_machine_wakes_a_process_late(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.enter()
    function, sleep = client.function(), time.sleep
    client.tray.state.gpus[1]["clock_busy_mhz"] = 2070
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds + 0.1))
    assert client.launch(function, 20_000) == 0
    ((_, slot),) = client.tray.state.slots()
    one = slot["busy_ns"]
    assert client("cuStreamSynchronize", None) == 0
    assert client.launch(function, 20_000) == 0
    assert 2 * one + 100e6 <= slot["busy_ns"] < 2 * one + 200e6, "as if it had gone on"
    monkeypatch.undo()
    sleep(0.15)
    busy = slot["busy_ns"]
    assert client.launch(function, 20_000) == 0
    assert slot["busy_ns"] == busy + one, "nobody waited, so nobody was late"


def test_launches_queue_up(client: Client) -> None:
    client.enter()
    function = client.function(b"other")
    client.tray.state.gpus[1]["clock_busy_mhz"] = 2070
    now = time.monotonic_ns()
    for _ in range(10):
        assert client.launch(function, 100_000) == 0
    ((_, slot),) = client.tray.state.slots()
    assert 1e9 <= slot["end_ns"] - now < 1.5e9
    assert slot["activity_ppm"] == 500_000  # a kernel nobody described
    assert client.launch(function, 1, block=2048) == 1
    assert client.launch(VOID(5), 1) == 400


def test_the_physics_sees_the_work(client: Client) -> None:
    client.enter(0)
    function = client.function()
    client.tray.clock.now_ns = time.monotonic_ns()
    client.launch(function, 5_000_000)
    client.tray.run(4)
    assert client.tray.state.gpus[1]["util_pct"] >= 99
    assert client.tray.state.gpus[1]["power_avg_mw"] > 1_300_000


def test_calls_without_a_context_are_refused(client: Client) -> None:
    client("cuInit", 0)
    assert client("cuMemAlloc_v2", c.byref(U64()), 16) == 201
    assert client("cuCtxSetCurrent", VOID(0x123450)) == 400


def test_a_gpu_off_the_bus_fails_every_call_even_one_that_waits(client: Client) -> None:
    client.enter(0)
    function = client.function()
    client.launch(function, 60_000_000)
    client.tray.state.gpus[1]["lost"] = 1
    start = time.monotonic()
    assert client("cuStreamSynchronize", None) == 999
    assert time.monotonic() - start < 5
    assert client.launch(function, 1) == 999
    assert client("cuMemAlloc_v2", c.byref(U64()), 16) == 999
    assert client("cuDevicePrimaryCtxRetain", c.byref(VOID()), 0) == 999
    assert client("cuDevicePrimaryCtxRetain", c.byref(VOID()), 1) == 0


def test_a_memory_error_kills_the_contexts_it_met_and_no_later_one(client: Client) -> None:
    client.enter(0)
    client.tray.state.gpus[1]["poisoned"] = 1
    assert client("cuStreamSynchronize", None) == 214
    assert client("cuDevicePrimaryCtxRelease_v2", 0) == 0
    assert list(client.tray.state.slots()) == []
    client.enter(0)
    assert client("cuStreamSynchronize", None) == 0


def test_ctypes_is_as_strict_as_for_real(client: Client) -> None:
    client("cuInit", 0)
    with pytest.raises(c.ArgumentError, match="c_uint where c_void_p is expected"):
        client("cuCtxSetCurrent", UINT(5))
    with pytest.raises(TypeError):
        client("cuCtxSetCurrent")
    assert not hasattr(client.lib, "cuCtxCreate_v5")
    client.enter()
    at = client.get("cuMemAlloc_v2", U64, 16)
    assert at > 1 << 32
    client.lib.cuMemFree_v2.argtypes = None
    assert client("cuMemFree_v2", at) == 1  # without types ctypes passes a C int: the upper half is lost
    assert client("cuMemFree_v2", U64(at)) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4000), st.binary(min_size=1, max_size=96)), max_size=20))
def test_memory_is_like_bytearrays(writes: list[tuple[int, int, bytes]]) -> None:
    memory = Memory(1 << 20)
    starts = [memory.allocate(4096) for _ in range(4)]
    model = [bytearray(4096) for _ in range(4)]
    for which, offset, data in writes:
        start = starts[which]
        assert start is not None
        assert memory.holds(start + offset, len(data))
        memory.write(start + offset, data)
        model[which][offset : offset + len(data)] = data
    assert [memory.read(start or 0, 4096) for start in starts] == model


def test_large_memory_only_takes_room() -> None:
    memory = Memory(BACKED * 4)
    start = memory.allocate(BACKED + 1)
    assert start is not None
    memory.write(start, b"abcd")
    assert memory.read(start, 4) == b"\0\0\0\0"
    assert memory.allocate(BACKED * 3) is None
    assert memory.free(start)
    assert memory.used == 0
