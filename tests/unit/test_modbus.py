"""A CDU over Modbus, against a real pymodbus server: the same check and guard as over Redfish; a row's flow is not the rack's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence
from burnin.errors import TrayError
from burnin.events import Measurement, Result
from burnin.rack.load import RackFile, load_profile
from burnin.rack.schema import Rack
from burnin.run.guard_redfish import Coolant
from burnin.run.guard_rules import Seen
from burnin.telemetry import facility, watched
from burnin.transport.bmcs import CDU, Bmcs, services
from burnin.transport.modbus import ModbusEndpoint
from burnin.transport.redfish import Redfish
from tests import build

pytest.importorskip("pymodbus", reason="Modbus needs the extra burnin[facility]")
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

MAP: dict[str, Any] = {
    "flow": {"register": 10, "type": "uint16", "scale": 0.1, "unit": "m3/h"},
    "supply_temp": {"register": 20, "type": "int16", "scale": 0.01, "unit": "Cel", "invalid": [-32768]},
    "return_temp": {"register": 22, "type": "float32", "unit": "[degF]"},
    "dp": {"register": 30, "type": "int32", "words": "little", "scale": 0.001, "unit": "bar"},
    "pressure": {"register": 40, "type": "uint16", "unit": "kPa"},
    "pump_speed": {"register": 50, "type": "uint16", "unit": "1/min"},
    "alarm": {"register": 60, "type": "uint16", "unit": "1"},
}
"""As no vendor has it: every type, word order and unit."""


def words(flow: int = 108, supply: int = 2550, alarm: int = 0, pressure: int = 250) -> list[SimData]:
    """18.0 m3/h would be 300 L/min: 10.8 m3/h is 180 L/min; 113 degF is 45 Cel; 0.62 bar is 62 kPa."""
    return [
        SimData(10, values=flow, datatype=DataType.UINT16),
        SimData(20, values=supply, datatype=DataType.INT16),
        SimData(22, values=113.0, datatype=DataType.FLOAT32),
        SimData(30, values=[620, 0], datatype=DataType.UINT16),
        SimData(40, values=pressure, datatype=DataType.UINT16),
        SimData(50, values=2400, datatype=DataType.UINT16),
        SimData(60, values=alarm, datatype=DataType.UINT16),
    ]


@contextlib.asynccontextmanager
async def serving(data: list[SimData]) -> AsyncIterator[int]:
    """A device on loopback: its port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    server = ModbusTcpServer(SimDevice(1, simdata=data), address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield port
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


def file(port: int, scope: str = "rack", registers: dict[str, Any] | None = None, device: int = 1) -> RackFile:
    modbus = {"host": "127.0.0.1", "port": port, "device": device, "registers": MAP if registers is None else registers}
    coolant = {"modbus": modbus, "scope": scope}
    known = {"rack": "R-1", "profile": "gb300-nvl72", "trays": {"t00": {"host": "h"}}, "coolant": coolant}
    return RackFile(Path("rack.yaml"), Rack.model_validate(known), load_profile("gb300-nvl72"))


async def judged(at: RackFile) -> dict[str, Measurement]:
    """The check coolant through the run's own door."""
    bmcs, suite = Bmcs(services(at)), build.suite()
    context = Context("rack", at.rack, at.profile, suite, suite.stages[0], build.catalogue(), {}, ("t00",))
    (order,) = CHECKS["coolant"].orders(context, [])
    try:
        answer = Answer(order, True, await bmcs.order(order.to, order.verb, order.args, 20.0))
    except TrayError as error:
        answer = Answer(order, False, str(error))
    await bmcs.close()
    return {m.name: m for m in CHECKS["coolant"].judge(context, Evidence(answers=[(answer,)]))}


async def test_registers_become_the_racks_coolant() -> None:
    async with serving(words()) as port:
        got = await judged(file(port))
    assert {name: m.value for name, m in got.items()} == {
        "coolant.flow": 180.0, "coolant.supply_temp": 25.5, "coolant.return_temp": 45.0, "coolant.dp": 62.0,
        "coolant.pressure": 250.0, "cdu.health": "OK",
    }  # fmt: skip
    assert {m.result for m in got.values()} == {Result.PASS}


async def test_too_little_flow_fails_and_an_alarm_holds() -> None:
    async with serving(words(flow=20, alarm=4)) as port:
        got = await judged(file(port))
    assert got["coolant.flow"].result is Result.FAIL and got["coolant.flow"].value == pytest.approx(33.3333, rel=1e-4)
    assert got["cdu.health"].result is Result.UNKNOWN and "Critical" in got["cdu.health"].why


async def test_a_rows_flow_is_not_the_racks() -> None:
    async with serving(words()) as port:
        got = await judged(file(port, scope="row"))
        seen = await guarded(file(port, scope="row"))
    assert {name for name, m in got.items() if m.reason == "not_supported"} == {
        "coolant.flow",
        "coolant.return_temp",
        "coolant.dp",
    }
    assert got["coolant.supply_temp"].part == "cdu" and seen["coolant_flow"] is None and seen["coolant_rise"] is None


@pytest.mark.parametrize("change", [{"supply_temp": {**MAP["supply_temp"], "register": 900}}, {"supply_temp": None}])
async def test_a_register_that_is_refused_or_not_mapped_is_unknown(change: dict[str, Any]) -> None:
    known = {name: one for name, one in {**MAP, **change}.items() if one is not None}
    async with serving(words()) as port:
        got = await judged(file(port, registers=known))
    assert got["coolant.supply_temp"].result is Result.UNKNOWN


async def test_a_value_that_says_there_is_none_and_a_map_without_alarm_are_unknown() -> None:
    known = {name: one for name, one in MAP.items() if name != "alarm"}
    async with serving(words(supply=-32768)) as port:
        got = await judged(file(port, registers=known))
    assert got["coolant.supply_temp"].result is Result.UNKNOWN and got["coolant.flow"].result is Result.PASS
    assert (got["cdu.health"].result, got["cdu.health"].reason) == (Result.UNKNOWN, "not_supported")


async def test_a_device_that_is_gone_or_another_one_is_unknown() -> None:
    async with serving(words()) as port:
        other = await judged(file(port, device=7))
    gone = await judged(file(port))
    for got in (other, gone):
        assert {m.result for m in got.values()} == {Result.UNKNOWN}


async def guarded(at: RackFile) -> dict[str, Any]:
    """What the guard sees of it."""
    seen: list[Seen] = []
    source = Coolant(services(at)[CDU], seen.append, lambda: None, at)
    task = asyncio.ensure_future(source.live())
    async with asyncio.timeout(10):
        while len(seen) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    task.cancel()
    await source.close()
    return {one.name: one.value for one in seen}


async def test_the_guard_sees_flow_supply_and_rise() -> None:
    async with serving(words()) as port:
        assert await guarded(file(port)) == {"coolant_flow": 180.0, "coolant_supply": 25.5, "coolant_rise": 19.5}


async def test_telemetry_beside_the_tests_and_nothing_is_ever_written() -> None:
    async with serving(words()) as port:
        at = file(port)
        bmcs = Bmcs(services(at))
        bodies = await bmcs.order(CDU, "walk", watched.begin(CDU), 20.0)
        values = watched.readings(CDU, bodies, "rack", "R-1")
        with pytest.raises(TrayError, match="nothing is written"):
            await bmcs.order(CDU, "patch", {"path": "/redfish/v1/ThermalEquipment/CDUs/1", "body": {}}, 5.0)
        await bmcs.close()
    assert values["rack"]["rack", "coolant.flow"] == 180.0 and values["cdu"]["cdu", "pump.speed"] == 2400.0
    assert isinstance(facility.loop(bodies, "rack"), facility.RackLoop)


async def test_what_does_not_exist_and_events_are_refused() -> None:
    endpoint = services(file(9))[CDU]
    assert isinstance(endpoint, ModbusEndpoint)
    client = Redfish(endpoint, 1.0)
    with pytest.raises(TrayError, match="does not exist"):
        await client.get("/redfish/v1/Systems")
    with pytest.raises(TrayError, match="port 9 does not take"):
        await client.get("/redfish/v1/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/1")
    await client.close()


@pytest.mark.parametrize(
    ("coolant", "says"),
    [
        ({"scope": "rack"}, "read in one way"),
        ({"redfish": "https://h", "scope": "rack"}, "redfish needs ca and secret"),
        ({"modbus": {"host": "h", "registers": {"flow": {"register": 1, "unit": "Cel"}}}, "scope": "rack"}, "flow is not in Cel"),
        ({"modbus": {"host": "h", "registers": {}}, "scope": "rack"}, "at least 1"),
        ({"modbus": {"host": "h", "registers": MAP}}, "scope"),
    ],
)
def test_a_map_that_cannot_be_is_refused(coolant: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Rack.model_validate({"rack": "R-1", "profile": "gb300-nvl72", "trays": {"t00": {"host": "h"}}, "coolant": coolant})
