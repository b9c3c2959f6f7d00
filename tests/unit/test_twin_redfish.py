"""The twin's Redfish: sessions, queries, what each service shows, what it tells, and how it behaves when it behaves badly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.twin import identity
from burnin.twin.addresses import bound
from burnin.twin.model import load
from burnin.twin.redfish import http
from burnin.twin.redfish.certs import Authority
from burnin.twin.redfish.process import listen
from burnin.twin.redfish.service import BREATH_S, MOST_SESSIONS, SESSION_S
from tests.unit.twin_rack import PASSWORD, USER, Ward, ward

ROOT = "/redfish/v1"
DETECTORS = f"{ROOT}/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors"
POLICY = f"{ROOT}/Chassis/Chassis_0/Oem/Nvidia/Policies/LeakDetectionPolicy"
SESSIONS = f"{ROOT}/SessionService/Sessions"
SUPPLIES = f"{ROOT}/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies"
SEL = f"{ROOT}/Systems/System_0/LogServices/SEL"
CAPTURES = Path(os.environ.get("BURNIN_CAPTURES") or Path(__file__).parents[2] / "../shared/captures").resolve()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(tmp_path_factory.mktemp("rack"))


def links(body: Any) -> Iterator[str]:
    """Every link in a body."""
    if isinstance(body, dict):
        for key, value in body.items():
            if key in ("@odata.id", "DataSourceUri", "target", "ServerSentEventUri", "@odata.nextLink"):
                yield value
            else:
                yield from links(value)
    elif isinstance(body, list):
        for item in body:
            yield from links(item)


# ---------------------------------------------------------------- who may ask


def test_only_the_root_is_shown_to_strangers(healthy: Ward) -> None:
    assert json.loads(healthy.ask("t00.bmc", ROOT, accept="*").body)["RedfishVersion"]
    assert json.loads(healthy.ask("t00.bmc", "/redfish", accept="*").body) == {"v1": "/redfish/v1/"}
    for headers in ({"accept": "*"}, {"authorization": "Basic !!"}, {"authorization": "Basic eDp5"}, {"x_auth_token": "guess"}):
        answer = healthy.ask("t00.bmc", f"{ROOT}/Systems", **headers)
        assert answer.status == 401
        assert "@Message.ExtendedInfo" in json.loads(answer.body)["error"]


def test_a_session_lives_until_it_is_ended_or_old(tmp_path: Path) -> None:
    rack = ward(tmp_path)
    login = {"UserName": USER, "Password": PASSWORD}
    made = rack.ask("cdu", SESSIONS, "POST", login, accept="*")
    assert made.status == 201
    token, at = made.headers["X-Auth-Token"], made.headers["Location"]
    assert rack.ask("cdu", f"{ROOT}/Managers", x_auth_token=token).status == 200
    assert [member["@odata.id"] for member in rack.get("cdu", SESSIONS)["Members"]] == [at]
    assert PASSWORD not in rack.ask("cdu", at).body.decode() and token not in rack.ask("cdu", at).body.decode()
    assert rack.ask("cdu", at, "DELETE", x_auth_token=token).status == 204
    assert rack.ask("cdu", f"{ROOT}/Managers", x_auth_token=token).status == 401
    old = rack.ask("cdu", SESSIONS, "POST", login, accept="*").headers["X-Auth-Token"]
    rack.clock.now_ns += (SESSION_S + 1) * 10**9
    assert rack.ask("cdu", f"{ROOT}/Managers", x_auth_token=old).status == 401


def test_a_wrong_password_and_too_many_sessions_are_refused(tmp_path: Path) -> None:
    rack = ward(tmp_path)
    assert rack.ask("p0", SESSIONS, "POST", {"UserName": USER, "Password": "x"}, accept="*").status == 401
    assert rack.ask("p0", SESSIONS, "POST", {"UserName": USER}, accept="*").status == 400
    login = {"UserName": USER, "Password": PASSWORD}
    statuses = [rack.ask("p0", SESSIONS, "POST", login, accept="*").status for _ in range(MOST_SESSIONS + 1)]
    assert statuses == [201] * MOST_SESSIONS + [503]
    rack.clock.now_ns += (SESSION_S + 1) * 10**9
    assert rack.ask("p0", SESSIONS, "POST", login, accept="*").status == 201


# ---------------------------------------------------------------- what is there


@pytest.mark.parametrize("part", ["t00.bmc", "s3.bmc", "p4", "cdu"])
def test_every_link_of_a_service_leads_somewhere(healthy: Ward, part: str) -> None:
    tree = healthy.services[part].service.tree
    seen, todo = {ROOT}, [ROOT]
    while todo:
        for link in links(healthy.get(part, todo.pop())):
            if link not in seen and link not in tree.acts and not link.endswith("/SSE"):
                seen.add(link)
                todo.append(link)
    bodies = [healthy.get(part, path) for path in tree.paths()]
    assert set(tree.paths()) <= seen
    assert all({"@odata.id", "@odata.type", "Name"} <= set(body) for body in bodies)


def test_a_tray_says_who_it_is_and_where_it_sits(healthy: Ward) -> None:
    rack = identity.build(load("gb300-nvl72"), 1)
    for part in ("t00", "t17"):
        tray = rack.trays[part]
        system = healthy.get(f"{part}.bmc", f"{ROOT}/Systems/System_0")
        assert (system["SerialNumber"], system["Model"]) == (tray.serial, "HG634N_V2")
        cartridge = healthy.get(f"{part}.bmc", f"{ROOT}/Chassis/CBC_0")
        assert cartridge["Oem"]["Nvidia"]["ComputeTrayIndex"] == tray.index
        gpus = [healthy.get(f"{part}.bmc", f"{ROOT}/Systems/HGX_Baseboard_0/Processors/GPU_{i}") for i in range(4)]
        assert [f"GPU-{gpu['UUID']}" for gpu in gpus] == [gpu.uuid for gpu in tray.gpus]


def test_a_bmc_shows_what_the_silicon_shows(healthy: Ward) -> None:
    row = healthy.gpus.gpus[2]
    sensors = {s["Id"]: s for s in healthy.get("t00.bmc", f"{ROOT}/Chassis/HGX_GPU_2/Sensors?$expand=.")["Members"]}
    assert sensors["HGX_GPU_2_TEMP_0"]["Reading"] == row["temp_c"]
    assert sensors["HGX_GPU_2_TEMP_1"]["Reading"] == row["margin_c"] == 87 - row["temp_c"]
    assert sensors["HGX_GPU_2_Power_0"]["Reading"] == pytest.approx(row["power_mw"] / 1000)
    total = healthy.get("t00.bmc", f"{ROOT}/Chassis/Chassis_0/Sensors/Chassis_0_TotalHSC_Power_0")["Reading"]
    assert total == pytest.approx(1355, rel=0.05)  # captured, of an idle tray


def test_a_dark_trays_bmc_still_answers_and_makes_nothing_up(healthy: Ward) -> None:
    """t01 has no silicon here: off, no readings, and that is no fault of its own."""
    system = healthy.get("t01.bmc", f"{ROOT}/Systems/System_0")
    assert (system["PowerState"], system["Status"]["State"]) == ("Off", "Disabled")
    sensor = healthy.get("t01.bmc", f"{ROOT}/Chassis/HGX_GPU_0/Sensors/HGX_GPU_0_TEMP_0")
    assert sensor["Reading"] is None
    assert sensor["Status"]["State"] == "UnavailableOffline"
    detector = healthy.get("t01.bmc", f"{DETECTORS}/Chassis_0_LeakDetector_0_ColdPlate")
    assert detector["DetectorState"] == "OK"


def test_an_empty_bay_reads_critical_and_absent(healthy: Ward) -> None:
    bay = healthy.get("t00.bmc", f"{ROOT}/Chassis/StorageBackplane_1/Sensors/StorageBackplane_1_SSD_0_Temp_0")
    assert (bay["Reading"], bay["Status"]["Health"], bay["Status"]["State"]) == (None, "Critical", "Absent")


@pytest.mark.skipif(not (CAPTURES / "redfish/gb300_supermicro_full").is_dir(), reason="no captures beside the project")
@pytest.mark.parametrize(
    "path",
    [
        "Chassis/Chassis_0/ThermalSubsystem", "Chassis/Chassis_0/ThermalSubsystem/LeakDetection",
        "Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors/Chassis_0_LeakDetector_0_ColdPlate",
        "Chassis/Chassis_0/Oem/Nvidia/Policies/LeakDetectionPolicy",
        "Chassis/Chassis_0/Sensors/Chassis_0_LeakDetector_1_Manifold",
        "Chassis/Chassis_0/Sensors/Chassis_0_TotalHSC_Power_0", "Chassis/HGX_GPU_0/Sensors/HGX_GPU_0_TEMP_1",
        "Chassis/HGX_CPU_0/Sensors/ProcessorModule_0_CPU_0_TempLimit_0", "Chassis/Chassis_0/PowerSubsystem", "SessionService",
    ],
)  # fmt: skip
def test_bodies_have_the_shape_of_a_real_tray(healthy: Ward, path: str) -> None:
    """Every property that we show is one that the real tray shows there, of the same kind; thresholds are the same."""
    real = json.loads((CAPTURES / "redfish/gb300_supermicro_full" / f"_redfish_v1_{path.replace('/', '_')}.json").read_text())
    ours = healthy.get("t00.bmc", f"{ROOT}/{path}")
    added = {"ReadingRangeMin", "ReadingRangeMax", "PhysicalContext"}  # our power sensor has the range of another of that tray
    assert set(ours) - set(real) <= added
    assert ours.get("Thresholds") == real.get("Thresholds")
    assert ours["@odata.type"] == real["@odata.type"]
    assert {k: type(v).__name__.replace("int", "float") for k, v in ours.items() if k in real} == {
        k: type(real[k]).__name__.replace("int", "float") for k in ours if k in real
    }


# ---------------------------------------------------------------- queries


def test_expand_puts_members_in_their_place(healthy: Ward) -> None:
    plain = healthy.get("t00.bmc", DETECTORS)
    assert [set(member) for member in plain["Members"]] == [{"@odata.id"}] * 4
    whole = healthy.get("t00.bmc", f"{DETECTORS}?$expand=.($levels=1)")
    assert [member["DetectorState"] for member in whole["Members"]] == ["OK"] * 4
    deep = healthy.get("t00.bmc", f"{ROOT}/Chassis?$expand=.($levels=4)")
    chassis = next(member for member in deep["Members"] if member["Id"] == "Chassis_0")
    assert len(chassis["Sensors"]["Members"]) == 14
    assert chassis["ThermalSubsystem"]["LeakDetection"]["LeakDetectors"]["@odata.id"] == DETECTORS
    assert set(chassis["Links"]["ManagedBy"][0]) == {"@odata.id"}
    for wrong in ("$expand=x", "$expand=.($levels=9)", "$top=x", "$skip=-1"):
        assert healthy.ask("t00.bmc", f"{DETECTORS}?{wrong}").status == 400


def test_a_shelf_offers_no_expand_and_needs_none(healthy: Ward) -> None:
    assert "ExpandQuery" not in healthy.get("p0", ROOT)["ProtocolFeaturesSupported"]
    assert healthy.ask("p0", f"{SUPPLIES}?$expand=.").status == 400
    supplies = healthy.get("p0", SUPPLIES)["Members"]
    assert [supply["Status"]["State"] for supply in supplies] == ["Enabled"] * 6
    assert supplies[0]["PowerCapacityWatts"] == 5500


def test_long_logs_come_in_pages(tmp_path: Path) -> None:
    rack = ward(tmp_path)
    entries = f"{SEL}/Entries"
    assert rack.get("t00.bmc", entries)["Members@odata.count"] == 0
    for i in range(120):
        _sel(rack).add("OK", "Test.1.0.Entry", [str(i)], f"entry {i}", SEL)
    page, found = rack.get("t00.bmc", entries), []
    while True:
        found += [entry["Message"] for entry in page["Members"]]
        if "Members@odata.nextLink" not in page:
            break
        page = rack.get("t00.bmc", page["Members@odata.nextLink"])
    assert found == [f"entry {i}" for i in range(120)]
    first = rack.get("t00.bmc", f"{entries}?$top=70")
    rest = rack.get("t00.bmc", first["Members@odata.nextLink"])
    assert (len(first["Members"]), len(rest["Members"]), "Members@odata.nextLink" in rest) == (50, 20, False)
    assert rack.ask("t00.bmc", f"{SEL}/Actions/LogService.ClearLog", "POST", {}).status == 204
    assert rack.get("t00.bmc", entries)["Members"] == []


def _sel(rack: Ward) -> Any:
    """The log behind the SEL, where tests may write."""
    beat: Any = rack.services["t00.bmc"].beat
    return beat.__self__.sel


def test_what_is_not_there_and_what_may_not_be_done(healthy: Ward) -> None:
    assert healthy.ask("t00.bmc", f"{ROOT}/Chassis/Chassis_9").status == 404
    assert healthy.ask("t00.bmc", f"{ROOT}/Chassis", "PATCH", {}).status == 405
    assert healthy.ask("t00.bmc", f"{ROOT}/Chassis", "PUT", {}).status == 405
    assert healthy.ask("t00.bmc", POLICY, "PATCH", {"PolicyEnabled": "yes"}).status == 400


# ---------------------------------------------------------------- leaks


def test_a_leak_is_a_voltage_a_state_and_a_log_entry(tmp_path: Path) -> None:
    rack = ward(tmp_path, "leak:t00:10")
    rack.run(10)
    states = [d["DetectorState"] for d in rack.get("t00.bmc", f"{DETECTORS}?$expand=.")["Members"]]
    assert sorted(states) == ["Critical", "OK", "OK", "OK"]
    wet = states.index("Critical")
    names = [f"Chassis_0_LeakDetector_{i}_{where}" for i in (0, 1) for where in ("ColdPlate", "Manifold")]
    volts = rack.get("t00.bmc", f"{ROOT}/Chassis/Chassis_0/Sensors/{names[wet]}")
    assert volts["Reading"] < 1.3
    assert volts["Status"]["Health"] == "Critical"
    entry = rack.get("t00.bmc", f"{SEL}/Entries/1")
    assert entry["Severity"] == "Critical" and names[wet] in entry["Message"]
    assert rack.get("t00.bmc", f"{ROOT}/Systems/System_0")["PowerState"] == "On"  # the policy is off, as delivered
    rack.run(20)
    states = [d["DetectorState"] for d in rack.get("t00.bmc", f"{DETECTORS}?$expand=.")["Members"]]
    assert states.count("Critical") == 2


def test_a_leak_under_an_enabled_policy_takes_the_trays_power(tmp_path: Path) -> None:
    rack = ward(tmp_path, "leak:t00:60")
    assert rack.get("t00.bmc", POLICY)["PolicyEnabled"] is False
    assert rack.ask("t00.bmc", POLICY, "PATCH", {"PolicyEnabled": True}).status == 204
    rack.run(4)
    assert not rack.lit
    assert rack.get("t00.bmc", f"{ROOT}/Systems/System_0")["PowerState"] == "Off"
    assert "power is off" in rack.get("t00.bmc", f"{SEL}/Entries/2")["Message"]


def test_a_bmc_that_lies_denies_its_leak_and_one_that_is_stale_says_what_it_said(tmp_path: Path) -> None:
    rack = ward(tmp_path, "leak:t00:60")
    sensors = f"{ROOT}/Chassis/Chassis_0/Sensors"

    def told() -> tuple[set[str], float]:
        states = {d["DetectorState"] for d in rack.get("t00.bmc", f"{DETECTORS}?$expand=.")["Members"]}
        names = [f"Chassis_0_LeakDetector_{i}_{where}" for i in (0, 1) for where in ("ColdPlate", "Manifold")]
        return states, min(rack.get("t00.bmc", f"{sensors}/{name}")["Reading"] for name in names)

    manners = rack.services["t00.bmc"].service.manners
    assert told()[0] == {"OK"} and told()[1] > 1.3
    manners.stale = True
    dry = told()
    rack.run(10)
    assert told() == dry, "nothing moves"
    manners.stale = False
    assert "Critical" in told()[0]
    manners.lies = True
    states, volts = told()
    assert states == {"OK"} and volts < 1.3, "its sensor says it still"


def test_the_hgx_log_keeps_what_the_driver_told(tmp_path: Path) -> None:
    rack = ward(tmp_path, "xid:t00.g2:79")
    entries = f"{ROOT}/Systems/HGX_Baseboard_0/LogServices/EventLog/Entries"
    assert rack.get("t00.bmc", entries)["Members"] == []
    rack.load(1.0, os.getpid())
    rack.run(6)
    (entry,) = rack.get("t00.bmc", entries)["Members"]
    assert entry["MessageArgs"] == ["GPU_2 Driver Event Message", "XID 79"]
    assert entry["Links"]["OriginOfCondition"]["@odata.id"].endswith("/Processors/GPU_2")
    rack.run(5)
    assert rack.get("t00.bmc", entries)["Members@odata.count"] == 1


# ---------------------------------------------------------------- over TLS, with clients that are not ours


@contextlib.asynccontextmanager
async def served(rack: Ward, where: Path, part: str) -> AsyncIterator[tuple[str, Path]]:
    """A service on a real socket with real TLS: its URL, and its CA's file."""
    authority, sock = Authority("test"), bound("127.0.0.1", 0)
    port = sock.getsockname()[1]
    (where / "ca.pem").write_bytes(authority.pem())
    (where / "own.pem").write_bytes(authority.issue("127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(where / "own.pem")
    server = await listen(rack.services[part], sock, context)
    try:
        yield f"https://127.0.0.1:{port}", where / "ca.pem"
    finally:
        server.close()
        rack.services[part].service.hang_up()
        await asyncio.sleep(0)


def client(ca: Path, url: str) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return httpx.AsyncClient(verify=context, base_url=url, trust_env=False, auth=(USER, PASSWORD))


async def test_tls_is_strict_and_a_connection_stays(tmp_path: Path) -> None:
    rack = await asyncio.to_thread(ward, tmp_path)
    async with served(rack, tmp_path, "t00.bmc") as (url, ca), client(ca, url) as one:
        for _ in range(3):
            answer = await one.get(DETECTORS)
            assert answer.status_code == 200
        assert len(rack.services["t00.bmc"].service.connections) == 1
        assert (await one.head(DETECTORS)).content == b""
        other = tmp_path / "other.pem"
        other.write_bytes(Authority("another").pem())
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            async with client(other, url) as stranger:
                await stranger.get(ROOT)


async def test_a_resource_that_breaks_is_500_and_nothing_else_breaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> dict[str, str]:
        raise KeyError("broken")

    rack = await asyncio.to_thread(ward, tmp_path)
    rack.services["p0"].service.tree.live(f"{ROOT}/Broken", "Chassis.v1_22_0.Chassis", broken)
    async with served(rack, tmp_path, "p0") as (url, ca), client(ca, url) as one:
        assert (await one.get(f"{ROOT}/Broken")).status_code == 500
        assert (await one.get(ROOT)).status_code == 200
    assert "KeyError" in capfd.readouterr().err


async def test_events_reach_who_listens(tmp_path: Path) -> None:
    rack = await asyncio.to_thread(ward, tmp_path)
    async with served(rack, tmp_path, "t00.bmc") as (url, ca), client(ca, url) as one:
        where = (await one.get(f"{ROOT}/EventService")).json()["ServerSentEventUri"]
        async with one.stream("GET", where, timeout=10) as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == ": here"
            rack.services["t00.bmc"].service.breathe(rack.clock.now_ns / 1e9 + BREATH_S)
            assert (await anext(lines), await anext(lines)) == ("", ": here")
            _sel(rack).add("Critical", "Test.1.0.Leak", ["x"], "a leak", DETECTORS)
            async for line in lines:
                if line.startswith("data: "):
                    break
        event = json.loads(line.removeprefix("data: "))["Events"][0]
        assert (event["Severity"], event["Message"], event["OriginOfCondition"]["@odata.id"]) == ("Critical", "a leak", DETECTORS)
        assert (await one.get(event["LogEntry"]["@odata.id"])).status_code == 200


async def test_bad_manners_are_slowness_and_503(tmp_path: Path) -> None:
    rack = await asyncio.to_thread(ward, tmp_path)
    manners = rack.services["cdu"].service.manners
    async with served(rack, tmp_path, "cdu") as (url, ca), client(ca, url) as one:
        manners.errors = 0.5
        statuses = [(await one.get(ROOT)).status_code for _ in range(40)]
        assert 8 <= statuses.count(503) <= 32 and set(statuses) == {200, 503}
        manners.errors, manners.slow_s = 0.0, 5.0
        with pytest.raises(httpx.ReadTimeout):
            await one.get(ROOT, timeout=0.1)


@pytest.mark.parametrize(
    "sent",
    [b"\x00" * 40_000, b"GET / SPDY/3\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
     b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET /" + b"a" * 20_000],
)  # fmt: skip
async def test_garbage_ends_its_own_connection_only(tmp_path: Path, sent: bytes) -> None:
    rack = await asyncio.to_thread(ward, tmp_path)
    async with served(rack, tmp_path, "p0") as (url, ca), client(ca, url) as one:
        port = int(url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context(cafile=str(ca)))
        writer.write(sent)
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")
        writer.close()
        assert (await one.get(ROOT)).status_code == 200


@given(st.binary(max_size=300) | st.text(max_size=80).map(lambda text: f"GET {text} HTTP/1.1\r\n\r\n".encode()))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        request = http.parse(buffer)
    except ValueError:
        return
    assert request is None or (request.path and len(buffer) < len(data))


def test_a_request_may_come_in_pieces_and_two_at_once() -> None:
    whole = b"POST /a/?q=1 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\r\n\r\n"
    buffer = bytearray()
    found = []
    for byte in whole:
        buffer.append(byte)
        if (request := http.parse(buffer)) is not None:
            found.append((request.method, request.path, request.query, request.body))
    assert found == [("POST", "/a", "q=1", b"hi"), ("GET", "/b", "", b"")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
async def test_curl_talks_to_it(tmp_path: Path) -> None:
    rack = await asyncio.to_thread(ward, tmp_path)
    async with served(rack, tmp_path, "cdu") as (url, ca):
        words = ["curl", "-sS", "--noproxy", "*", "--cacert", str(ca), "-u", f"{USER}:{PASSWORD}"]
        path = f"{url}{ROOT}/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/1"
        process = await asyncio.create_subprocess_exec(*words, path, stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 10)
    assert json.loads(out)["FlowLitersPerMinute"]["Reading"] == pytest.approx(173.7, rel=0.05)


def test_a_poll_is_cheap(healthy: Ward) -> None:
    """18 BMCs at 4 Hz in 15 % of a core leave 2 ms for a poll of four detectors; without TLS it takes a tenth of that."""
    service = healthy.services["t00.bmc"].service
    headers = {"authorization": "Basic YnVybmluOm5vdC1hLXNlY3JldA=="}
    request = http.Request("GET", DETECTORS, "$expand=.", headers, b"")

    async def many() -> float:
        began = time.process_time()
        for _ in range(300):
            assert (await service.answer(request)).status == 200
        return (time.process_time() - began) / 300

    assert asyncio.run(many()) < 1e-3
