"""A CDU that speaks Modbus TCP, told in the words of a Redfish CDU: checks, interlocks and guard know one kind of coolant.

Which register holds what is the site's to say (rack file, `coolant: {modbus: ...}`): no map is public. Nothing is ever written.
A register that cannot be read, or holds one of its `invalid` values, is not in the answer; a device that does not answer is a
failed resource. Modbus has neither login nor encryption: the network must be one that only the controller reaches.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from burnin.errors import Unreachable
from burnin.rack.schema import Modbus, Register
from burnin.transport.https import RedfishError

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusTcpClient

ROOT = "/redfish/v1"
UNIT = f"{ROOT}/ThermalEquipment/CDUs/1"
_CONNECTORS, _PUMPS = f"{UNIT}/SecondaryCoolantConnectors", f"{UNIT}/Pumps"
_SAYS = {
    "flow": "FlowLitersPerMinute", "supply_temp": "SupplyTemperatureCelsius", "return_temp": "ReturnTemperatureCelsius",
    "dp": "DeltaPressurekPa", "pressure": "SupplyPressurekPa",
}  # fmt: skip
_TO = {
    "L/min": (1.0, 0.0), "m3/h": (1000 / 60, 0.0), "[gal_us]/min": (3.785411784, 0.0), "Cel": (1.0, 0.0),
    "[degF]": (5 / 9, -160 / 9), "kPa": (1.0, 0.0), "bar": (100.0, 0.0), "[psi]": (6.894757293, 0.0),
    "1/min": (1.0, 0.0), "1": (1.0, 0.0),
}  # fmt: skip
"""Unit of a register -> factor and offset to ours (L/min, Cel, kPa, 1/min)."""


@dataclass(frozen=True)
class ModbusEndpoint:
    """One device: the part it speaks for, and how it is read."""

    part: str
    how: Modbus


class ModbusService:
    """Answers `ask` as a Redfish service would (burnin.transport.https.Service)."""

    def __init__(self, at: ModbusEndpoint, timeout_s: float) -> None:
        """`timeout_s`: for one resource. Raises RedfishError where pymodbus is not installed."""
        self.at, self._timeout_s = at, timeout_s
        try:
            from pymodbus.client import AsyncModbusTcpClient
        except ImportError:
            raise RedfishError(f"{at.part}: Modbus needs pymodbus: pip install 'burnin[facility]'") from None
        self._make = AsyncModbusTcpClient
        self._client: AsyncModbusTcpClient | None = None
        self._turn = asyncio.Lock()

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> Any:
        """One resource. Raises RedfishError (404: no such one), Unreachable."""
        where = path.partition("?")[0].rstrip("/")
        if method != "GET":
            raise RedfishError(f"{self.at.part}: nothing is written over Modbus", 405)
        if where in (fixed := _tree(self.at.how)):
            return fixed[where]
        if where not in (f"{_CONNECTORS}/1", f"{_PUMPS}/1"):
            raise RedfishError(f"{self.at.part}: {where} does not exist in a CDU that speaks Modbus", 404)
        async with self._turn:
            try:
                async with asyncio.timeout(timeout_s or self._timeout_s):
                    return await (self._connector() if where.startswith(_CONNECTORS) else self._pump())
            except TimeoutError:
                self._drop()
                raise RedfishError(f"{self.at.part}: Modbus was not answered in time") from None

    def events(self, path: str, silent_s: float) -> AsyncIterator[Any]:
        """There are none: RedfishError."""
        raise RedfishError(f"{self.at.part}: Modbus has no events", 404)

    async def close(self) -> None:
        """Hang up."""
        self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _connector(self) -> dict[str, Any]:
        values = {name: await self._value(name, one) for name, one in self.at.how.registers.items() if name != "pump_speed"}
        alarm = values.pop("alarm", None)
        status = {"State": "Enabled"} | ({} if alarm is None else {"Health": "Critical" if alarm else "OK"})
        said = {_SAYS[name]: {"Reading": value} for name, value in values.items() if value is not None}
        return {"@odata.id": f"{_CONNECTORS}/1", "Name": "over Modbus", **said, "Status": status}

    async def _pump(self) -> dict[str, Any]:
        rpm = await self._value("pump_speed", self.at.how.registers["pump_speed"])
        said = {} if rpm is None else {"PumpSpeedPercent": {"SpeedRPM": rpm}}
        return {"@odata.id": f"{_PUMPS}/1", **said, "Status": {"State": "Enabled"}}

    async def _value(self, name: str, one: Register) -> float | None:
        """In our unit; None where the device says that it has no value."""
        client = await self._connected()
        kind = client.DATATYPE[one.type.upper()]
        read = client.read_holding_registers if one.table == "holding" else client.read_input_registers
        from pymodbus.exceptions import ModbusException

        try:
            answer = await read(one.address, count=2 if one.type.endswith("32") else 1, device_id=self.at.how.device)
            if answer.isError():
                raise RedfishError(f"{self.at.part}: register {one.address} ({name}) is refused: {answer}")
            raw = client.convert_from_registers(answer.registers, kind, word_order=one.words)
        except (ModbusException, OSError) as error:
            self._drop()
            raise Unreachable(f"{self.at.part}: Modbus: {error}") from None
        if not isinstance(raw, int | float) or not math.isfinite(raw) or raw in one.invalid:
            return None
        factor, offset = _TO[one.unit]
        return float(f"{(raw * one.scale + one.offset) * factor + offset:.9g}")

    async def _connected(self) -> AsyncModbusTcpClient:
        how = self.at.how
        if self._client is None:
            self._client = self._make(how.host, port=how.port, timeout=self._timeout_s, retries=1, reconnect_delay=0)
        if not self._client.connected and not await self._client.connect():
            self._drop()
            raise Unreachable(f"{self.at.part}: {how.host} port {how.port} does not take a Modbus connection")
        return self._client


def _tree(how: Modbus) -> dict[str, dict[str, Any]]:
    """What stands still: the way from the root to the connector."""
    equipment = f"{ROOT}/ThermalEquipment"

    def link(path: str) -> dict[str, str]:
        return {"@odata.id": path}

    pumps = {"Pumps": link(_PUMPS)} if "pump_speed" in how.registers else {}
    unit = {**link(UNIT), "Name": "CDU over Modbus", "SecondaryCoolantConnectors": link(_CONNECTORS), **pumps}
    tree: dict[str, dict[str, Any]] = {
        ROOT: {"ThermalEquipment": link(equipment)},
        equipment: {"CDUs": link(f"{equipment}/CDUs")},
        f"{equipment}/CDUs": {"Members": [link(UNIT)]},
        UNIT: {**unit, "Status": {"State": "Enabled"}},
        _CONNECTORS: {"Members": [link(f"{_CONNECTORS}/1")]},
    }
    return tree | ({_PUMPS: {"Members": [link(f"{_PUMPS}/1")]}} if pumps else {})
