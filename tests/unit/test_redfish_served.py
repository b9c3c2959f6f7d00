"""A rack's Redfish services that are not ours, over TLS with session login: a real GB300 tray, two makers' power shelves and
DMTF's coolant connector, as captured. The rack file, the secrets, the client and the checks are the product's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.errors import TrayError
from burnin.events import Measurement, Result
from burnin.rack.load import RackFile, load_rack
from burnin.transport import bmcs
from burnin.transport.bmcs import Bmcs, services
from tests import build
from tests.redfish_files import PASSWORD, Body, Service, capture, needs_captures, serving, tree
from tests.unit.test_checks_redfish import SERIAL, TRAY, bad, began, context, enabled, entries, logged, shelf

pytestmark = needs_captures
Bodies = dict[str, Body]
ALONE = ("bmc", "leak", "sel", "firmware")
AT = "/redfish/v1"
ROOT: Body = {"@odata.id": AT, "RedfishVersion": "1.17.0", "ProtocolFeaturesSupported": {"ExpandQuery": {"NoLinks": True}}}


def liteon() -> Bodies:
    """LiteOn's shelf as captured; the capture does not hold the bodies above its collections."""
    sensors, supplies = capture("powershelf_liteon_sensors.json"), capture("powershelf_liteon_psus.json")
    root, subsystem = f"{AT}/Chassis/powershelf", f"{AT}/Chassis/powershelf/PowerSubsystem"
    well = {"State": "Enabled", "Health": "OK"}
    return {
        f"{AT}/Chassis": {"Members": [{"@odata.id": root}]},
        root: {"@odata.id": root, "@odata.type": "#Chassis.v1_25_0.Chassis", "Status": well,
               "Sensors": {"@odata.id": sensors["@odata.id"]}, "PowerSubsystem": {"@odata.id": subsystem}},
        subsystem: {"@odata.id": subsystem, "@odata.type": "#PowerSubsystem.v1_1_0.PowerSubsystem", "Status": well,
                    "PowerSupplies": {"@odata.id": supplies["@odata.id"]}},
        sensors["@odata.id"]: sensors,
        supplies["@odata.id"]: supplies,
    }  # fmt: skip


def delta() -> Bodies:
    """Delta's shelf with the readings as captured (0.3 kW a supply)."""
    bodies = shelf()
    bodies[f"{AT}/Chassis/PowerShelf_0/Sensors"] = capture("powershelf_delta_sensors.json")
    return bodies


def mockup(**change: Any) -> Bodies:
    """DMTF's equipment and connector as published, with the bodies between them."""
    root, side = capture("dmtf_ThermalEquipment.json"), capture("dmtf_CoolantConnector.json")
    cdu = f"{AT}/ThermalEquipment/CDUs/1"
    return {
        root["@odata.id"]: root,
        f"{AT}/ThermalEquipment/CDUs": {"Members": [{"@odata.id": cdu}], "Members@odata.count": 1},
        cdu: {"@odata.id": cdu, "@odata.type": "#CoolingUnit.v1_1_0.CoolingUnit", "Status": {"State": "Enabled", "Health": "OK"},
              "SecondaryCoolantConnectors": {"@odata.id": f"{cdu}/SecondaryCoolantConnectors"}},
        f"{cdu}/SecondaryCoolantConnectors": {"Members": [{"@odata.id": side["@odata.id"]}], "Members@odata.count": 1},
        side["@odata.id"]: {**side, **change},
    }  # fmt: skip


@dataclass
class Rack:
    """What stands there, and how the product sees it."""

    file: RackFile
    served: Mapping[str, Service]

    def at(self, check: str) -> Context:
        """The stage that loads, in this rack."""
        return replace(context(check), rack=self.file.rack)


def healthy() -> dict[str, Bodies]:
    """One tray, eight loaded shelves, a CDU."""
    tray = logged(enabled(tree()), ("OK", "boot"), ("OK", "a login"))
    return {"t07": tray, "cdu": mockup(), **{f"p{i}": shelf() for i in range(8)}}


@contextmanager
def standing(folder: Path, trees: Mapping[str, Bodies], **how: Any) -> Iterator[Rack]:
    """Each tree behind a server and a CA of its own, and the rack file that names them."""
    with ExitStack() as stack:
        whole = {part: {AT: ROOT, **bodies} for part, bodies in trees.items()}
        served = {part: stack.enter_context(serving(folder / part, bodies, **how)) for part, bodies in whole.items()}

        def named(part: str) -> str:
            return f'"{served[part].url}", ca: {part}/ca.pem, secret: env:SERVED_PASSWORD'

        lines = [f"  {part}: {{url: {named(part)}}}" for part in served if part != "cdu"]
        text = "rack: R-1\nprofile: gb300-nvl72\nssh: {known_hosts: known_hosts}\ntrays: {t07: {host: 192.0.2.8}}\n"
        text += f"expect: {{t07: {{serial: {SERIAL}}}}}\nbmc:\n" + "\n".join(lines) + "\n"
        text += f"coolant: {{redfish: {named('cdu')}, scope: rack}}\n" if "cdu" in served else ""
        (folder / "rack.yaml").write_text(text)
        yield Rack(load_rack(folder / "rack.yaml", need_known_hosts=False, need_keys=False), served)


@asynccontextmanager
async def door(rack: Rack) -> AsyncIterator[Bmcs]:
    """The product's clients; logged out at the end."""
    found = Bmcs(services(rack.file))
    try:
        yield found
    finally:
        await found.close()
    assert all(not one.tokens for one in rack.served.values()), "every session was ended"


async def judged(rack: Rack, through: Bmcs, check: str) -> list[Measurement]:
    """Rounds as a run makes them."""
    at, answers = rack.at(check), list[tuple[Answer, ...]]()

    async def one(order: Order) -> Answer:
        try:
            return Answer(order, True, await through.order(order.to, order.verb, order.args, 60))
        except TrayError as error:
            return Answer(order, False, str(error))

    while orders := CHECKS[check].orders(at, answers):
        answers.append(tuple([await one(order) for order in orders]))
    return CHECKS[check].judge(at, Evidence(answers=answers, stretch=build.LOAD, log=began(entries("1"))))


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVED_PASSWORD", PASSWORD)
    monkeypatch.setattr(bmcs, "REQUEST_S", 60.0)


@pytest.mark.parametrize(
    "how", [{}, {"page": 60}, {"sessions": False}, {"expands": False}], ids=["expands", "pages", "no sessions", "one by one"]
)
async def test_a_healthy_rack_of_others_services_is_read_without_a_change(tmp_path: Path, how: dict[str, Any]) -> None:
    trees = healthy()
    if how:  # once is enough of the tray's hundreds of requests
        del trees["t07"]
    with standing(tmp_path, trees, **how) as rack:
        async with door(rack) as through:
            for check in (*ALONE, "power") if "t07" in trees else ("power",):
                assert bad(await judged(rack, through, check)) == [], check
            loop = {m.name: m.value for m in await judged(rack, through, "coolant")}
        asked = [line for one in rack.served.values() for line in one.asked]
        assert PASSWORD not in " ".join(asked)
        logins = [line for line in asked if line.startswith("POST")]
        assert len(logins) == len(rack.served), "one login each, however often it is asked"
        assert any("expand" in line for line in asked) and (not how.get("page") or any("skip" in line for line in asked))
    assert (loop["coolant.flow"], loop["coolant.supply_temp"], loop["coolant.return_temp"]) == (24.3, 14.8, 38.2)
    assert (loop["coolant.pressure"], loop["coolant.dp"], loop["cdu.health"]) == (426.6, 31.7, "OK")


async def test_two_makers_shelves_as_captured_are_read_alike_and_nothing_is_made_of_little_load(tmp_path: Path) -> None:
    """0.3 and 0.7 kW a supply: they work, and nobody can see how they share. LiteOn's collection names sensors that its capture
    does not hold: what was read is right, and what was not is said."""
    with standing(tmp_path, {f"p{i}": liteon() if i % 2 else delta() for i in range(8)}) as rack:
        async with door(rack) as through:
            got = await judged(rack, through, "power")
    assert [(m.name, m.value, m.result) for m in got if m.part == "rack"] == [("shelf.count", 8.0, Result.PASS)]
    supplies = {m.part: (m.value, m.result) for m in got if m.name == "shelf.supplies"}
    assert supplies == {f"p{i}": (6.0, Result.UNKNOWN if i % 2 else Result.PASS) for i in range(8)}
    assert all("answers HTTP 404" in m.why for m in got if m.name == "shelf.supplies" and m.result is Result.UNKNOWN)
    assert {(m.result, m.reason) for m in got if m.name == "psu.share"} == {(Result.UNKNOWN, "not_attained")}
    assert [m for m in got if m.result is Result.FAIL] == []


def hot(bodies: Bodies) -> None:
    one = next(path for path in sorted(bodies) if "/Sensors/" in path and "UpperCritical" in str(bodies[path]))
    bodies[one]["Reading"] = bodies[one]["Thresholds"]["UpperCritical"]["Reading"] + 1
    assert bodies[one].get("Status", {}).get("Health", "OK") == "OK", "the BMC says OK above a crossed threshold"


def wet(bodies: Bodies) -> None:
    one = next(path for path in sorted(bodies) if "/LeakDetectors/" in path)
    bodies[one]["DetectorState"] = "LeakDetected"


def gone(bodies: Bodies) -> None:
    bodies[f"{AT}/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies"]["Members"][2]["Status"] = {"State": "Absent"}


def dry(bodies: Bodies) -> None:
    bodies[f"{AT}/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/A"]["FlowLitersPerMinute"] = {"Reading": 3.0}


def noted(bodies: Bodies) -> None:
    logged(bodies, ("OK", "boot"))
    bodies.update(logged(bodies, ("OK", "boot"), ("Critical", "Bus Fatal Error")))


@pytest.mark.parametrize(
    ("part", "plant", "check", "says"),
    [
        ("t07", hot, "bmc", ("t07", "bmc.sensor")),
        ("t07", wet, "leak", ("t07", "leak.state")),
        ("t07", noted, "sel", ("t07", "sel.critical.growth")),
        ("p4", gone, "power", ("p4.u2", "psu.works")),
        ("cdu", dry, "coolant", ("rack", "coolant.flow")),
    ],
)
async def test_a_fault_is_seen_through_tls_as_it_is_in_memory(
    tmp_path: Path, part: str, plant: Any, check: str, says: tuple[str, str]
) -> None:
    trees = healthy()
    plant(trees[part])
    with standing(tmp_path, trees) as rack:
        async with door(rack) as through:
            got = await judged(rack, through, check)
    assert (*says, Result.FAIL) in bad(got)


@pytest.mark.parametrize("trouble", [["drop", 503], ["garbage"]])
async def test_a_service_that_stumbles_is_asked_again_and_one_that_stays_broken_is_unknown(
    tmp_path: Path, trouble: list[str | int]
) -> None:
    """Half of it broken: the rest is read, nothing of the broken half passes, nothing of it is condemned."""
    with standing(tmp_path, healthy()) as rack:
        rack.served["p2"].trouble[f"{AT}/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies"] = list(trouble)
        rack.served["p5"].trouble[f"{AT}/Chassis"] = [404] * 50
        rack.served["t07"].trouble[f"{TRAY}/Sensors"] = list(trouble)
        async with door(rack) as through:
            found = bad(await judged(rack, through, "power")) + bad(await judged(rack, through, "bmc"))
    assert {result for *_, result in found} == {Result.UNKNOWN}
    assert {part.partition(".")[0] for part, *_ in found} <= {"p2", "p5", "t07"} and "p5" in {part for part, *_ in found}
    if "garbage" not in trouble:
        assert {part for part, *_ in found} == {"p5"}, "one stumble is not the end"
