"""The checks that ask Redfish, over TLS against a twin's BMCs, shelves and CDU: silent on health, each planted fault named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence
from burnin.errors import TrayError
from burnin.events import Measurement, Result
from burnin.rack.load import RackFile, load_catalogue, load_rack
from burnin.suites.schema import Suite
from burnin.transport.bmcs import Bmcs, services
from burnin.twin.faults import Plant
from burnin.twin.up import running

SUITE = Suite.model_validate({"suite": "s", "about": "a", "stages": [{"stage": "audit", "steps": ["bmc"]}]})
TRAYS = ("t00", "t01")


async def _ask(file: RackFile, door: Bmcs, name: str, part: str) -> list[Measurement]:
    check = CHECKS[name]
    at = Context(part, file.rack, file.profile, SUITE, SUITE.stages[0], load_catalogue(), {}, TRAYS)
    answers: list[tuple[Answer, ...]] = []
    while orders := check.orders(at, answers):
        given = []
        for order in orders:
            try:
                given.append(Answer(order, True, await door.order(order.to, order.verb, order.args, 60)))
            except TrayError as error:
                given.append(Answer(order, False, str(error)))
        answers.append(tuple(given))
    return check.judge(at, Evidence(answers=answers))


async def _all(file: RackFile, names: Sequence[str]) -> dict[tuple[str, str], Result]:
    """(part, measurement) -> result, of all that is not PASS."""
    door, out = Bmcs(services(file)), dict[tuple[str, str], Result]()
    try:
        for name in names:
            for part in TRAYS if CHECKS[name].scope == "tray" else ("rack",):
                for one in await _ask(file, door, name, part):
                    if one.result is not Result.PASS:
                        out[one.part, one.name] = one.result
    finally:
        await door.close()
    return out


def asked(
    place: Path, plants: Sequence[Plant], until: Mapping[tuple[str, str], Result] | None = None
) -> dict[tuple[str, str], Result]:
    """What is not PASS; asked again, 20 times at most, `until` it is there: drops take their time."""
    with running("gb300-nvl72", 11, plants, where=place, trays=2, switches=1) as twin:
        file = load_rack(twin.rack_file)
        for _ in range(20):
            got = asyncio.run(_all(file, ("bmc", "leak", "power", "coolant", "firmware")))
            if (until or {}).items() <= got.items():
                break
        return got


def test_a_healthy_rack_is_silent_but_for_its_policy(tmp_path: Path) -> None:
    """As delivered a BMC's leak policy is off (captured), and that is said."""
    assert asked(tmp_path, []) == {(tray, "leak.policy"): Result.UNKNOWN for tray in TRAYS}


@pytest.mark.parametrize(
    ("plants", "want", "never"),
    [
        (
            [Plant("leak", "t01", 30.0), Plant("shelf_lost", "p3", 1.0), Plant("supply_warm", "cdu", 25.0)],
            {("t01", "leak.state"): Result.FAIL, ("t01", "leak.voltage"): Result.FAIL, ("p3", "shelf.supplies"): Result.FAIL},
            {"t00", "p2", "p4"},
        ),
        (
            [Plant("bmc_dead", "t01.bmc", 1.0), Plant("leak", "t00", 40.0)],
            {("t01", "bmc.sensors"): Result.UNKNOWN, ("t00", "leak.state"): Result.FAIL, ("t01", "leak.state"): Result.UNKNOWN},
            {"p3", "cdu", "rack"},
        ),
    ],
)
def test_what_is_planted_is_named_and_nobody_else(
    tmp_path: Path, plants: list[Plant], want: dict[tuple[str, str], Result], never: set[str]
) -> None:
    got = asked(tmp_path, plants, want)
    assert {key: got.get(key) for key in want} == want
    blamed = {part.split(".")[0] for (part, name), result in got.items() if result is Result.FAIL}
    assert blamed & never == set() and blamed <= {plant.part for plant in plants} | {"rack"}
