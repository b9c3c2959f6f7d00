"""Programs that have the GPUs for themselves: the BMC's temperatures end them, and they do not begin where nobody reads those."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from burnin.checks.base import Answer, Order
from burnin.errors import TrayError
from burnin.rack.load import load_profile
from burnin.run import alone
from tests import build

CHASSIS = "/redfish/v1/Chassis"
PROGRAM = Order("t03", "program", {"exclusive": True})


class Clock:
    """Time goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class Bmc:
    """A tray's BMC: GPU 2 gets 3 Cel hotter every 5 s from `hot_s` on; it is silent from `silent_s` on."""

    def __init__(self, clock: Clock, hot_s: float = 1e9, silent_s: float = 1e9, gpus: int = 4, field: str = "TEMP_0") -> None:
        self.clock, self.hot_s, self.silent_s, self.gpus, self.field = clock, hot_s, silent_s, gpus, field

    def _sensor(self, path: str) -> dict[str, Any]:
        over = max(0.0, self.clock.now_s - self.hot_s) * 0.6 if "GPU_2" in path else 0.0
        if path.endswith("TEMP_0"):
            reading, known = 80.0 + over, {"UpperCaution": {"Reading": 87.0}}
        else:
            reading, known = 7.0 - over, {"LowerCaution": {"Reading": -0.05}}
        if not path.endswith(self.field):
            reading = 50.0 if path.endswith("TEMP_0") else 30.0
        kind = {"@odata.type": "#Sensor.v1_7_0.Sensor", "ReadingType": "Temperature", "ReadingUnits": "Cel"}
        return {
            "@odata.id": path,
            "Name": path[-12:],
            "Reading": reading,
            "Thresholds": known,
            "Status": {"State": "Enabled"},
            **kind,
        }

    async def ask(self, to: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> Any:
        await asyncio.sleep(0)
        assert to == "t03.bmc"
        if self.clock.now_s >= self.silent_s:
            raise TrayError("t03.bmc: no answer")
        if args["paths"] == [CHASSIS]:
            names = ["BMC_0", "HGX_CPU_0", *(f"HGX_GPU_{i}" for i in range(self.gpus))]
            return {CHASSIS: {"Members": [{"@odata.id": f"{CHASSIS}/{name}"} for name in names]}}
        if verb == "whole":
            (home,) = args["paths"]
            name = home.split("/")[-2]
            return {f"{home}/{name}_{field}": self._sensor(f"{home}/{name}_{field}") for field in ("TEMP_0", "TEMP_1")}
        return {path: self._sensor(path) for path in args["paths"]}


def run(bmc: Bmc, clock: Clock, ends_s: float) -> tuple[Answer, float]:
    """What becomes of a program that would end by itself at `ends_s`, and when it ended."""
    told = asyncio.Event()

    async def program() -> Answer:
        while clock.now_s < ends_s and not told.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        return Answer(PROGRAM, True, {"exit": 0, "ended": "ended by order" if told.is_set() else ""})

    async def end() -> None:
        told.set()

    async def both() -> Answer:
        heat = alone.Heat(bmc.ask, "t03", 4, clock)
        await heat.find()
        return await alone.watched(heat, program(), end)

    return asyncio.run(both()), clock.now_s


@pytest.mark.parametrize("field", ["TEMP_0", "TEMP_1"])
def test_a_gpu_beyond_its_own_threshold_ends_the_program(field: str) -> None:
    clock = Clock()
    answer, ended_s = run(Bmc(clock, hot_s=30.0, field=field), clock, 3600.0)
    assert "GPU_2" in answer.body["ended"] and "beyond" in answer.body["ended"]
    assert 40.0 <= ended_s <= 50.0, "12 s from 80 to 87 Cel, and two looks"


def test_a_cool_one_goes_on_to_its_end() -> None:
    clock = Clock()
    answer, _ = run(Bmc(clock), clock, 600.0)
    assert answer.body == {"exit": 0, "ended": ""}


def test_a_bmc_that_falls_silent_ends_it_and_a_short_silence_does_not() -> None:
    clock = Clock()
    answer, ended_s = run(Bmc(clock, silent_s=100.0), clock, 3600.0)
    assert "not read for" in answer.body["ended"] and ended_s <= 100.0 + alone.BLIND_S + 2 * alone.LOOK_S


@pytest.mark.parametrize("bmc", [{"silent_s": 0.0}, {"gpus": 3}, {"hot_s": -1000.0}])
def test_it_does_not_begin_where_nobody_reads_them_or_they_are_hot_already(bmc: dict[str, Any]) -> None:
    clock = Clock()
    with pytest.raises(TrayError):
        run(Bmc(clock, **bmc), clock, 600.0)


def test_only_a_named_person_lets_it_run_unseen() -> None:
    profile, today = load_profile("gb300-nvl72"), dt.date(2026, 11, 21)
    waiver = {"interlock": "gpu_margin", "by": "A. Person", "why": "its own tool watches", "until": dt.date(2026, 11, 30)}
    assert alone.wanted(profile, build.rack(), today)
    assert not alone.wanted(profile, build.rack(waive=[waiver]), today)
    assert alone.wanted(profile, build.rack(waive=[waiver]), dt.date(2026, 12, 1))
