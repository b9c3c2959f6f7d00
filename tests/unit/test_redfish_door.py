"""The door to Redfish services: what checks ask, and what they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from burnin.errors import TrayError
from burnin.transport.bmcs import Bmcs
from tests.redfish_files import PASSWORD, Body, Service, serving

ROOT = "/redfish/v1"
BODIES: dict[str, Body] = {
    ROOT: {"Name": "root"},
    f"{ROOT}/Chassis": {"Members": [{"@odata.id": f"{ROOT}/Chassis/A"}]},
    f"{ROOT}/Chassis/A": {"@odata.id": f"{ROOT}/Chassis/A", "Status": {"Health": "OK"}, "Model": "M", "Big": "x" * 100},
}


@asynccontextmanager
async def door(folder: Path, **how: Any) -> AsyncIterator[tuple[Bmcs, Service]]:
    with serving(folder, dict(BODIES), **how) as service:
        bmcs = Bmcs({"t07": service.at(), "cdu": service.at(part="cdu")})
        try:
            yield bmcs, service
        finally:
            await bmcs.close()


async def test_get_and_walk(tmp_path: Path) -> None:
    async with door(tmp_path) as (bmcs, service):
        got = await bmcs.order("t07.bmc", "get", {"paths": [ROOT, f"{ROOT}/Nothing"]}, 10)
        assert got[ROOT] == {"Name": "root"} and got[f"{ROOT}/Nothing"]["status"] == 404
        walked = await bmcs.order("t07", "walk", {"from": [f"{ROOT}/Chassis"], "depth": 1, "keep": ["Model"]}, 10)
        assert walked[f"{ROOT}/Chassis/A"] == {"@odata.id": f"{ROOT}/Chassis/A", "Status": {"Health": "OK"}, "Model": "M"}
        assert len(service.tokens) == 1, "t07 and t07.bmc are one service, one session"
    assert not service.tokens


async def test_what_acts_is_posted(tmp_path: Path) -> None:
    async with door(tmp_path) as (bmcs, service):
        assert await bmcs.order("t07.bmc", "post", {"path": f"{ROOT}/Do", "body": {"a": 1}}, 10) == {"done": True}
    assert service.bodies == [{"a": 1}]


async def test_a_service_that_nobody_named_and_one_that_gives_nothing(tmp_path: Path) -> None:
    async with door(tmp_path) as (bmcs, service):
        with pytest.raises(TrayError, match=r"t03\.bmc: the rack file names no Redfish service"):
            await bmcs.order("t03.bmc", "get", {"paths": [ROOT]}, 10)
        with pytest.raises(TrayError, match="HTTP 404"):
            await bmcs.order("cdu", "walk", {"from": f"{ROOT}/ThermalEquipment", "depth": 3}, 10)
        service.trouble[ROOT] = ["hang"]
        with pytest.raises(TrayError, match=r"did not answer all within 0\.2 s"):
            await bmcs.order("t07.bmc", "get", {"paths": [ROOT]}, 0.2)
        service.released.set()
    assert PASSWORD not in repr(bmcs.__dict__)
