"""The agent's table of GPU metrics, read through unmodified pynvml from the twin's library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from burnin.agent import links
from burnin.agent.nvml import FAST_NUMBERS, SLOW_CALLS, SLOW_FIELDS, Gpus, fast_fields
from burnin.twin.emulate import nvml
from tests.unit.twin_tray import Bench, bench

Open = Callable[..., tuple[Bench, Gpus]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens a tray's NVML as the agent does."""

    def open_tray(*plants: str, **more: Any) -> tuple[Bench, Gpus]:
        tray = bench(tmp_path, *plants, **more)
        tray.run(1)
        monkeypatch.setattr(pynvml, "nvmlLib", nvml.library(tray.facts, tray.state))
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return tray, Gpus(pynvml)

    yield open_tray


def values(gpus: Gpus, name: str) -> dict[str, Any]:
    gpu = next(g for g in gpus.gpus if g.name == name)
    names = [metric for _, metric in gpu.fast.metrics + gpu.slow.metrics]
    return dict(zip(names, gpu.fast.read() + gpu.slow.read(), strict=True))


def test_gpus_stand_in_module_order_not_in_index_order(opened: Open) -> None:
    _, gpus = opened()
    assert [(g.name, g.index) for g in gpus.gpus] == [("g0", 1), ("g1", 0), ("g2", 3), ("g3", 2)], "modules are 2, 1, 4, 3"


def test_identity_is_read_whole(opened: Open) -> None:
    tray, gpus = opened()
    one = gpus.gpus[0].identity()
    facts = tray.facts["gpus"][1]  # NVML index 1 is module 1
    assert (one["uuid"], one["serial"], one["module_id"]) == (facts["uuid"], facts["serial"], 1)
    assert one["chassis"] == tray.facts["chassis"], "raw bytes, cut at the first NUL"
    assert one["tray_index"] == 0
    assert one["bdf"].endswith(":06:00.0")
    assert one["pdi"] == f"{facts['pdi']:016x}", "what the board is to its maker, whichever driver and slot"
    assert all(value is not None for value in one.values())


def test_what_was_asked_stays_as_it_was_until_it_is_told(opened: Open) -> None:
    tray, gpus = opened()
    group = gpus.gpus[0].fast
    at = [metric for _, metric in group.metrics].index("gpu.energy")
    first = group.ask()
    before = group.read()[at]
    tray.run(3)
    second = group.ask()
    told = [group.told(asked)[at] for asked in (first, second)]
    assert told[0] == before and isinstance(before, float)
    assert isinstance(told[1], float) and told[1] > before, "the driver has written over the same memory since"


def test_every_metric_is_read_and_agrees_with_single_calls(opened: Open) -> None:
    tray, gpus = opened()
    tray.run(3)
    for gpu in gpus.gpus:
        got = values(gpus, gpu.name)
        handle = pynvml.nvmlDeviceGetHandleByIndex(gpu.index)
        assert {k for k, v in got.items() if isinstance(v, str)} == set()
        assert got["gpu.temp"] == pynvml.nvmlDeviceGetTemperature(handle, 0)
        assert got["gpu.tlimit"] == 87 - got["gpu.temp"]
        assert got["gpu.power"] == pytest.approx(pynvml.nvmlDeviceGetPowerUsage(handle) / 1000, rel=0.05)
        assert got["gpu.energy"] == pytest.approx(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
        assert got["gpu.power_limit"] == 1400.0
        assert got["gpu.clock_sm"] == pynvml.nvmlDeviceGetClockInfo(handle, 1)
        assert (got["ecc.dram_ue"], got["remap.failed"]) == (0, 0)
        assert 20 < got["hbm.temp"] < 60


def test_declared_metrics_and_readings_have_the_same_order(opened: Open) -> None:
    _, gpus = opened()
    gpu = gpus.gpus[0]
    calls = [number.metric for number in FAST_NUMBERS]
    assert gpu.fast.metrics == tuple(("", metric) for metric in [*(f.metric for f in fast_fields("580")), *calls])
    slow = [metric for call in (*SLOW_CALLS, *links.CALLS) for metric in call.metrics]
    assert gpu.slow.metrics == tuple(("", metric) for metric in [*(f.metric for f in SLOW_FIELDS), *slow])
    assert len(gpu.fast.read()) == len(gpu.fast.metrics)
    assert len(gpu.slow.read()) == len(gpu.slow.metrics)


def test_memory_errors_show_on_their_gpu_only(opened: Open) -> None:
    tray, gpus = opened("ecc_ue:t00.g2:3")
    with tray_under_load(tray):
        tray.run(8)
    assert values(gpus, "g2")["ecc.dram_ue"] == 3
    assert values(gpus, "g2")["remap.pending"] == 1
    assert [values(gpus, g)["ecc.dram_ue"] for g in ("g0", "g1", "g3")] == [0, 0, 0]


def test_a_lost_gpu_says_lost_for_everything_and_the_others_go_on(opened: Open) -> None:
    tray, gpus = opened("gpu_off_bus:t00.g1:2")
    with tray_under_load(tray):
        tray.run(8)
    assert set(values(gpus, "g1").values()) == {"lost"}
    assert {k for k, v in values(gpus, "g0").items() if isinstance(v, str)} == set()
    assert gpus.gpus[1].settings()["power_limit_w"] is None


class tray_under_load:
    """All four GPUs are busy for a minute of the bench's time."""

    def __init__(self, tray: Bench) -> None:
        self._tray = tray

    def __enter__(self) -> None:
        import os

        for gpu in range(4):
            self._tray.queue(os.getpid(), gpu, 60)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("driver", "first"), [("580.95.05", 269), ("570.124.06", 269), ("575.51.03", 251), ("610.1", 269)])
def test_throttle_counters_moved_between_driver_branches(driver: str, first: int) -> None:
    ids = {f.metric: f.id for f in fast_fields(driver)}
    names = ("throttle.sw_thermal", "throttle.hw_thermal", "throttle.hw_brake")
    assert [ids[name] for name in names] == [first, first + 1, first + 2]


def test_settings_show_who_else_is_on_the_gpu(opened: Open) -> None:
    tray, gpus = opened()
    before = gpus.gpus[0].settings()
    with tray_under_load(tray):
        tray.run(1)
        during = gpus.gpus[0].settings()
    assert before["processes"] == 0
    assert during["processes"] == 1
    assert before["ecc"] == [1, 1]


def test_xids_come_as_events_with_their_gpu(opened: Open) -> None:
    tray, gpus = opened("xid:t00.g3:94")
    seen: list[tuple[str, int]] = []
    done = threading.Event()

    def found(gpu: str, code: int) -> None:
        seen.append((gpu, code))
        done.set()

    watcher = threading.Thread(target=gpus.watch_xids, args=(found, done.is_set), daemon=True)
    watcher.start()
    for _ in range(50):  # the events set is registered by another thread: let load begin a little later each time
        with tray_under_load(tray):
            tray.run(1)
        if done.wait(0.05):
            break
    watcher.join(5)
    assert seen == [("g3", 94)]


def test_an_empty_library_is_an_error_with_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "CDLL", _no_library)
    with pytest.raises(pynvml.NVMLError) as caught:
        Gpus(pynvml)
    assert caught.value.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND


def _no_library(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")
