"""The emulated NVML, through unmodified pynvml: what a driver answers, and how it refuses."""

from __future__ import annotations

import contextlib
import ctypes as c
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml as n
import pytest

from burnin.twin.emulate import nvml
from burnin.twin.state import Event
from tests.unit.twin_tray import Bench, bench


@pytest.fixture
def tray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = bench(tmp_path)
    made.run(1)
    with installed(made, monkeypatch):
        yield made


@contextlib.contextmanager
def installed(tray: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(n, "nvmlLib", nvml.library(tray.facts, tray.state))
    monkeypatch.setattr(n, "_nvmlGetFunctionPointer_cache", {})
    n.nvmlInit()
    yield tray
    n.nvmlShutdown()


@pytest.fixture
def gpu(tray: Bench) -> Any:
    """NVML index 0: module 2, position 1."""
    return n.nvmlDeviceGetHandleByIndex(0)


def refused(code: int, call: Any, *args: Any) -> None:
    with pytest.raises(n.NVMLError) as caught:
        call(*args)
    assert caught.value.value == code


def fields(gpu: Any, *wanted: tuple[int, int]) -> list[Any]:
    """Values, or the refusal's code as ("refused", code)."""
    out: list[Any] = []
    for value in n.nvmlDeviceGetFieldValues(gpu, list(wanted)):
        if value.nvmlReturn:
            out.append(("refused", value.nvmlReturn))
        elif value.valueType == n.NVML_VALUE_TYPE_SIGNED_INT:
            out.append(value.value.siVal)
        elif value.valueType == n.NVML_VALUE_TYPE_UNSIGNED_INT:
            out.append(value.value.uiVal)
        else:
            assert value.valueType == n.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            out.append(value.value.ullVal)
    return out


# ---------------------------------------------------------------- life cycle and identity


def test_nothing_answers_before_init_but_the_error_texts(tray: Bench) -> None:
    fresh = nvml.library(tray.facts, tray.state)
    assert fresh.nvmlDeviceGetCount_v2(c.byref(c.c_uint())) == n.NVML_ERROR_UNINITIALIZED
    assert fresh.nvmlErrorString(n.NVML_ERROR_GPU_IS_LOST) == b"GPU is lost"
    assert fresh.nvmlInit_v2() == 0
    assert fresh.nvmlShutdown() == 0
    assert fresh.nvmlDeviceGetCount_v2(c.byref(c.c_uint())) == n.NVML_ERROR_UNINITIALIZED


def test_who_is_there(tray: Bench, gpu: Any) -> None:
    assert n.nvmlSystemGetDriverVersion() == "580.173.02"
    assert n.nvmlSystemGetNVMLVersion() == "13.580.173.02"
    assert n.nvmlSystemGetCudaDriverVersion() == 13000
    assert n.nvmlDeviceGetCount() == 4
    assert n.nvmlDeviceGetName(gpu) == "NVIDIA GB300"
    assert n.nvmlDeviceGetBoardPartNumber(gpu) == "900-2G548-0081-000"
    assert n.nvmlDeviceGetVbiosVersion(gpu) == "97.10.4A.00.1A"
    assert n.nvmlDeviceGetInforomImageVersion(gpu) == "G548.0301.00.03"
    assert n.nvmlDeviceGetInforomVersion(gpu, n.NVML_INFOROM_ECC) == "7.16"
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetInforomVersion, gpu, n.NVML_INFOROM_POWER)
    assert n.nvmlDeviceGetArchitecture(gpu) == n.NVML_DEVICE_ARCH_BLACKWELL
    assert n.nvmlDeviceGetCudaComputeCapability(gpu) == (10, 3)


def test_gpus_come_in_bus_order_and_say_which_module_they_are(tray: Bench) -> None:
    handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(4)]
    assert [n.nvmlDeviceGetModuleId(h, c.c_uint()) for h in handles] == [2, 1, 4, 3]
    bdfs = [n.nvmlDeviceGetPciInfo(h).busId for h in handles]
    assert bdfs == ["00000008:06:00.0", "00000009:06:00.0", "00000018:06:00.0", "00000019:06:00.0"]
    assert [n.nvmlDeviceGetIndex(h) for h in handles] == [n.nvmlDeviceGetMinorNumber(h) for h in handles] == [0, 1, 2, 3]
    serials = [n.nvmlDeviceGetSerial(h) for h in handles]
    assert serials[0] == serials[1] != serials[2] == serials[3]
    assert len({n.nvmlDeviceGetUUID(h) for h in handles}) == 4
    pci = n.nvmlDeviceGetPciInfo(handles[3])
    assert (pci.domain, pci.bus, pci.device, pci.pciDeviceId) == (0x19, 6, 0, 0x31C210DE)


def test_handles_by_uuid_and_by_bus(tray: Bench) -> None:
    for index in range(4):
        by_index = n.nvmlDeviceGetHandleByIndex(index)
        same = [
            n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(by_index)),
            n.nvmlDeviceGetHandleByPciBusId(n.nvmlDeviceGetPciInfo(by_index).busId),
        ]
        assert [n.nvmlDeviceGetIndex(h) for h in same] == [index, index]
    refused(n.NVML_ERROR_NOT_FOUND, n.nvmlDeviceGetHandleByUUID, "GPU-none")
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlDeviceGetHandleByIndex, 4)


def test_where_the_gpu_sits(tray: Bench, gpu: Any) -> None:
    info = n.c_nvmlPlatformInfo_v2_t()
    n.nvmlDeviceGetPlatformInfo(gpu, c.byref(info))
    raw, kind = bytes(info), type(info)
    assert raw[kind.chassisSerialNumber.offset :][:16].rstrip(b"\0").decode() == tray.facts["chassis"]
    places = (kind.slotNumber, kind.trayIndex, kind.hostId, kind.peerType, kind.moduleId)
    assert [raw[place.offset] for place in places] == [10, 0, 1, 1, 2]
    old = n.c_nvmlPlatformInfo_v1_t()
    n.nvmlDeviceGetPlatformInfo(gpu, c.byref(old))
    assert bytes(old)[4:] == raw[4:]


def test_fabric_and_pdi(tray: Bench, gpu: Any) -> None:
    v3 = n.c_nvmlGpuFabricInfo_v3_t()
    n.nvmlDeviceGetGpuFabricInfoV(gpu, c.byref(v3))
    assert bytes(v3.clusterUuid).hex() == tray.facts["cluster_uuid"]
    assert (v3.state, v3.status, v3.cliqueId, v3.healthMask, v3.healthSummary) == (3, 0, 32766, 0x1AA, 1)
    v2 = n.c_nvmlGpuFabricInfo_v2_t()
    n.nvmlDeviceGetGpuFabricInfoV(gpu, c.byref(v2))
    assert (v2.state, v2.healthMask) == (3, 0x1AA)
    assert n.nvmlDeviceGetPdi(gpu) == tray.facts["gpus"][0]["pdi"]


# ---------------------------------------------------------------- strictness


def test_a_wrong_struct_version_is_refused(gpu: Any) -> None:
    info = n.c_nvmlGpuFabricInfo_v2_t()
    info.version = 0x02000020
    refused(n.NVML_ERROR_ARGUMENT_VERSION_MISMATCH, n.nvmlDeviceGetGpuFabricInfoV, gpu, c.byref(info))


def test_a_struct_by_value_is_refused(gpu: Any) -> None:
    with pytest.raises(c.ArgumentError, match="by value"):
        n.nvmlDeviceGetPlatformInfo(gpu, n.c_nvmlPlatformInfo_v2_t())


def test_a_buffer_that_is_too_small_is_refused(tray: Bench, gpu: Any) -> None:
    name = n.nvmlLib.nvmlDeviceGetName
    assert name(gpu, c.create_string_buffer(4), c.c_uint(4)) == n.NVML_ERROR_INSUFFICIENT_SIZE
    with pytest.raises(c.ArgumentError, match="13 bytes would be touched in 4"):
        name(gpu, c.create_string_buffer(4), c.c_uint(64))
    with pytest.raises(c.ArgumentError, match="bytes would be touched"):
        n.nvmlLib.nvmlDeviceGetFieldValues(gpu, 3, (n.c_nvmlFieldValue_t * 2)())


def test_an_unknown_handle_is_refused(tray: Bench) -> None:
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlDeviceGetName, c.c_void_p(0x1234))
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlDeviceGetName, None)


def test_what_the_driver_does_not_export_is_a_missing_symbol(tray: Bench, gpu: Any) -> None:
    refused(n.NVML_ERROR_FUNCTION_NOT_FOUND, n.nvmlDeviceGetUnrepairableMemoryFlag_v1, gpu)  # since R590
    assert not hasattr(n.nvmlLib, "nvmlNoSuchThing")
    with pytest.raises(TypeError):
        n.nvmlLib.nvmlDeviceGetCount_v2()


def test_what_the_board_does_not_have_is_not_supported(gpu: Any) -> None:
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetTemperatureThreshold, gpu, 0)
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetFanSpeed, gpu)


# ---------------------------------------------------------------- readings


def test_every_getter_shows_the_state(tray: Bench, gpu: Any) -> None:
    row = tray.state.gpus[1]
    for name, value in {
        "temp_c": 66, "margin_c": -3, "hbm_c": 61, "power_mw": 1_401_234, "power_avg_mw": 1_399_000, "energy_mj": 1 << 40,
        "hbm_power_mw": 36_000, "module_power_mw": 2_890_000, "clock_mhz": 1770, "reasons": 0x24, "util_pct": 97,
        "sw_power_ns": 5, "sw_thermal_ns": 6, "hw_thermal_ns": 7, "ecc_ue_volatile": 1, "ecc_ue_aggregate": 3,
        "remap_unc": 2, "remap_pending": 1, "recovery_action": 4,
    }.items():  # fmt: skip
        row[name] = value
    assert n.nvmlDeviceGetTemperature(gpu, 0) == n.nvmlDeviceGetTemperatureV(gpu, 0) == 66
    assert n.nvmlDeviceGetMarginTemperature(gpu) == -3
    assert n.nvmlDeviceGetPowerUsage(gpu) == 1_399_000
    assert n.nvmlDeviceGetTotalEnergyConsumption(gpu) == 1 << 40
    assert [n.nvmlDeviceGetClockInfo(gpu, k) for k in (0, 1, 2)] == [1770, 1770, 3996]
    assert [n.nvmlDeviceGetMaxClockInfo(gpu, k) for k in (0, 1, 2, 3)] == [2070, 2070, 3996, 1912]
    assert n.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 0x24
    assert n.nvmlDeviceGetUtilizationRates(gpu).gpu == 97
    assert n.nvmlDeviceGetRemappedRows(gpu) == (0, 2, 1, 0)
    assert n.nvmlDeviceGetRowRemapperHistogram(gpu).max == 5950
    counter = n.nvmlDeviceGetMemoryErrorCounter
    assert [counter(gpu, kind, which, place) for kind in (0, 1) for which in (0, 1) for place in (2, 7)] == [
        0, 0, 0, 0, 1, 0, 3, 0,
    ]  # fmt: skip
    assert n.nvmlDeviceGetTotalEccErrors(gpu, 1, 0) == 1
    assert fields(gpu, (186, 0), (186, 1), (185, 0), (185, 2), (186, 2)) == [
        1_401_234, 2_890_000, 1_399_000, 36_000, ("refused", 3),
    ]  # fmt: skip
    assert fields(gpu, (82, 0), (83, 0), (191, 0), (74, 0), (269, 0), (270, 0), (271, 0)) == [61, 1 << 40, 1 << 40, 5, 6, 7, 0]
    assert fields(gpu, (4, 0), (6, 0), (143, 0), (144, 0), (230, 0)) == [1, 3, 2, 1, 4]
    assert n.nvmlDeviceGetTemperature(n.nvmlDeviceGetHandleByIndex(1), 0) != 66


def test_limits_and_modes(gpu: Any) -> None:
    assert n.nvmlDeviceGetEnforcedPowerLimit(gpu) == n.nvmlDeviceGetPowerManagementLimit(gpu) == 1_400_000
    assert n.nvmlDeviceGetPowerManagementDefaultLimit(gpu) == 1_400_000
    assert n.nvmlDeviceGetPowerManagementLimitConstraints(gpu) == [200_000, 1_400_000]
    assert fields(gpu, *((f, s) for s in (0, 1) for f in (187, 188, 189, 190, 192))) == [
        200_000, *[1_400_000] * 4, 500_000, *[2_900_000] * 4,
    ]  # fmt: skip
    assert fields(gpu, (193, 0), (194, 0), (195, 0), (196, 0)) == [-5, -2, 0, 0]
    assert n.nvmlDeviceGetEccMode(gpu) == [1, 1]
    assert n.nvmlDeviceGetMigMode(gpu) == [0, 0]
    assert n.nvmlDeviceGetPersistenceMode(gpu) == 1
    assert n.nvmlDeviceGetComputeMode(gpu) == 0
    assert n.nvmlDeviceGetPerformanceState(gpu) == 0
    assert n.nvmlDeviceGetCurrPcieLinkGeneration(gpu) == 6
    assert n.nvmlDeviceGetCurrPcieLinkWidth(gpu) == 16


def test_sram_status_is_written_whole(gpu: Any) -> None:
    status = n.c_nvmlEccSramErrorStatus_v1_t()
    status.volatileCor = 77
    n.nvmlDeviceGetSramEccErrorStatus(gpu, c.byref(status))
    assert (status.volatileCor, status.bThresholdExceeded, status.version) == (0, 0, 0x1000068)
    assert n.nvmlDeviceGetRepairStatus(gpu) == [0, 0]


def test_links_by_scope(gpu: Any) -> None:
    aggregate = 0xFFFFFFFF
    assert fields(gpu, (91, 0), (164, 17), (166, 0), (170, 0), (172, 9)) == [18, 53125, 7, 10, 44712]
    assert fields(gpu, (222, 0), (222, aggregate), (220, aggregate), (206, 17)) == [0xFFF, 0xFEE, 0xFFF, 0]
    each, (together,) = [fields(gpu, (204, link))[0] for link in range(18)], fields(gpu, (204, aggregate))
    assert together == sum(each) and min(each) >= 10**9, "bytes since the driver was loaded"
    assert fields(gpu, (206, 18), (164, 18), (231, 10)) == [("refused", n.NVML_ERROR_INVALID_ARGUMENT)] * 3
    assert fields(gpu, (161, 0), (297, 0)) == [("refused", n.NVML_ERROR_NOT_SUPPORTED)] * 2
    assert n.nvmlDeviceGetNvLinkState(gpu, 17) == 1
    assert n.nvmlDeviceGetNvLinkVersion(gpu, 0) == 7
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlDeviceGetNvLinkState, gpu, 18)


def test_driver_575_numbers_the_event_reasons_otherwise(tray: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {**tray.facts, "driver": "575.57.08"}
    monkeypatch.setattr(n, "nvmlLib", nvml.library(old, tray.state))
    n.nvmlLib.nvmlInit_v2()
    monkeypatch.setattr(n, "_nvmlGetFunctionPointer_cache", {})
    tray.state.gpus[1]["hw_thermal_ns"] = 12
    gpu = n.nvmlDeviceGetHandleByIndex(0)
    assert fields(gpu, (252, 0), (270, 0)) == [12, ("refused", n.NVML_ERROR_NOT_SUPPORTED)]


def test_hopper_has_no_rack_place_and_no_nvlink5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(bench(tmp_path, profile="hgx-h200"), monkeypatch):
        gpu = n.nvmlDeviceGetHandleByIndex(7)
        assert n.nvmlDeviceGetName(gpu) == "NVIDIA H200"
        refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceGetPlatformInfo, gpu, c.byref(n.c_nvmlPlatformInfo_v2_t()))
        no = ("refused", n.NVML_ERROR_NOT_SUPPORTED)
        assert fields(gpu, (161, 17), (206, 0), (186, 1), (164, 0), (170, 0), (171, 0)) == [0, no, no, 26562, 0, no]


def test_memory_and_processes(tray: Bench, gpu: Any) -> None:
    assert n.nvmlDeviceGetComputeRunningProcesses(gpu) == []
    for pid, mib in ((4242, 1024), (4243, 2048)):
        tray.state.take_slot(pid, 1)["mem_bytes"] = mib << 20
    tray.state.take_slot(4244, 0)["mem_bytes"] = 1 << 30
    found = [(p.pid, p.usedGpuMemory >> 20) for p in n.nvmlDeviceGetComputeRunningProcesses(gpu)]
    assert found == [(4242, 1024), (4243, 2048)]
    v1, v2 = n.nvmlDeviceGetMemoryInfo(gpu), n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2)
    assert v1.total == v2.total == 284208 << 20
    assert (v2.used >> 20, v2.reserved >> 20, v1.used >> 20) == (3072, 947, 3072 + 947)
    assert v1.free == v2.free == v2.total - v2.used - v2.reserved
    assert n.nvmlDeviceGetGraphicsRunningProcesses(gpu) == []


# ---------------------------------------------------------------- events, loss, hang


def event_set(*gpus: Any) -> Any:
    events = n.nvmlEventSetCreate()
    for gpu in gpus:
        n.nvmlDeviceRegisterEvents(gpu, n.nvmlEventTypeXidCriticalError, events)
    return events


def test_an_xid_wakes_who_waits_and_nothing_from_before_is_replayed(tray: Bench) -> None:
    tray.state.add_event(Event(2, 8, 13))
    handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(4)]
    events = event_set(*handles)
    refused(n.NVML_ERROR_TIMEOUT, n.nvmlEventSetWait_v2, events, 0)
    threading.Timer(0.02, tray.state.add_event, [Event(2, 8, 94)]).start()
    data = n.nvmlEventSetWait_v2(events, 5000)
    assert (data.eventData, data.eventType) == (94, 8)
    assert n.nvmlDeviceGetIndex(data.device) == 3  # position 2 is module 3, NVML index 3
    n.nvmlEventSetFree(events)
    refused(n.NVML_ERROR_INVALID_ARGUMENT, n.nvmlEventSetWait_v2, events, 0)


def test_only_what_was_asked_for_is_told(tray: Bench, gpu: Any) -> None:
    events = event_set(gpu)
    tray.state.add_event(Event(0, 8, 79))
    tray.state.add_event(Event(1, 2, 0))
    refused(n.NVML_ERROR_TIMEOUT, n.nvmlEventSetWait_v2, events, 0)
    tray.state.add_event(Event(1, 8, 31))
    assert n.nvmlEventSetWait_v2(events, 0).eventData == 31
    refused(n.NVML_ERROR_NOT_SUPPORTED, n.nvmlDeviceRegisterEvents, gpu, 1 << 40, events)


def test_waiting_sleeps(tray: Bench, gpu: Any) -> None:
    events, cpu = event_set(gpu), time.thread_time()
    refused(n.NVML_ERROR_TIMEOUT, n.nvmlEventSetWait_v2, events, 200)
    assert time.thread_time() - cpu < 0.05


def test_a_lost_gpu_says_so_to_every_call(tray: Bench, gpu: Any) -> None:
    other = n.nvmlDeviceGetHandleByIndex(1)
    tray.state.gpus[1]["lost"] = 1
    for call in (n.nvmlDeviceGetName, n.nvmlDeviceGetPowerUsage, n.nvmlDeviceGetMarginTemperature, n.nvmlDeviceGetMemoryInfo):
        refused(n.NVML_ERROR_GPU_IS_LOST, call, gpu)
    refused(n.NVML_ERROR_GPU_IS_LOST, n.nvmlDeviceGetHandleByIndex, 0)
    refused(n.NVML_ERROR_GPU_IS_LOST, n.nvmlDeviceGetFieldValues, gpu, [186])
    assert n.nvmlDeviceGetCount() == 4
    assert n.nvmlDeviceGetName(other) == "NVIDIA GB300"


def test_a_hung_gpu_blocks_its_caller_and_no_other(tray: Bench, gpu: Any) -> None:
    other = n.nvmlDeviceGetHandleByIndex(1)
    tray.state.gpus[1]["hung"] = 1
    caller = threading.Thread(target=n.nvmlDeviceGetPowerUsage, args=[gpu], daemon=True)
    caller.start()
    assert n.nvmlDeviceGetPowerUsage(other) > 0
    caller.join(0.05)
    assert caller.is_alive()
    tray.state.gpus[1]["hung"] = 0  # for the test's sake: a planted hang stays
    caller.join(5)
    assert not caller.is_alive()
