"""The Redfish client against a server of the standard library: sessions, trust, trouble, collections, walks, events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError, PasswordSetError

from burnin.errors import InputError, LoginRefused, TrayError, Unreachable
from burnin.transport import https, redfish
from burnin.transport.https import RedfishEndpoint, RedfishError
from burnin.transport.redfish import Redfish, links_of
from burnin.transport.secret import Secret, read_secret
from tests.redfish_files import PASSWORD, Body, Service, needs_captures, serving, tree

ROOT = "/redfish/v1"
EXPANDS = {"ProtocolFeaturesSupported": {"ExpandQuery": {"NoLinks": True, "Levels": True}}}


def small(**root: Any) -> dict[str, Body]:
    """A service with a collection of five things, one of which leads on."""
    rows = [f"{ROOT}/Things/{i}" for i in range(5)]
    bodies: dict[str, Body] = {path: {"@odata.id": path, "Id": path[-1], "Reading": int(path[-1])} for path in rows}
    bodies[rows[0]]["Deeper"] = {"@odata.id": f"{ROOT}/Deep"}
    bodies[f"{ROOT}/Deep"] = {"@odata.id": f"{ROOT}/Deep", "Id": "Deep"}
    members = [{"@odata.id": path} for path in rows]
    bodies[f"{ROOT}/Things"] = {"@odata.id": f"{ROOT}/Things", "Members": members, "Members@odata.count": 5}
    bodies[ROOT] = {"@odata.id": ROOT, "Things": {"@odata.id": f"{ROOT}/Things"}, **root}
    return bodies


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "bmc", small()) as service:
        yield service


@asynccontextmanager
async def client(service: Service, timeout_s: float = 5.0, **at: Any) -> AsyncIterator[Redfish]:
    one = Redfish(service.at(**at), timeout_s)
    try:
        yield one
    finally:
        await one.close()


# ---------------------------------------------------------------- session and trust


async def test_logs_in_once_and_out_at_the_end(service: Service) -> None:
    async with client(service) as bmc:
        await asyncio.gather(*(bmc.get(ROOT) for _ in range(6)))
        assert len(service.tokens) == 1
    assert [line.split("/Sessions")[0] for line in service.asked if "Sessions" in line] == [
        f"POST {ROOT}/SessionService",
        f"DELETE {ROOT}/SessionService",
    ]
    assert not service.tokens


async def test_a_session_that_ended_is_made_anew_once(service: Service) -> None:
    async with client(service) as bmc:
        await bmc.get(ROOT)
        service.tokens.clear()
        assert (await bmc.get(ROOT))["@odata.id"] == ROOT
        service.trouble[ROOT] = [401, 401, 401]
        with pytest.raises(LoginRefused, match="HTTP 401"):
            await bmc.get(ROOT)


async def test_basic_authentication_where_there_are_no_sessions(service: Service) -> None:
    service.sessions = False
    async with client(service) as bmc:
        assert (await bmc.get(ROOT))["@odata.id"] == ROOT


@pytest.mark.parametrize(
    "full",
    [
        (503, {"error": {"code": "Base.1.8.SessionLimitExceeded", "message": "There are too many sessions."}}),
        (400, {"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.1.CreateLimitReachedForResource"}]}}),
        (429, {}),
    ],
    ids=["503", "400", "429"],
)
async def test_a_service_full_of_the_sessions_of_killed_controllers_is_read_all_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch, full: tuple[int, Body]
) -> None:
    service.full = full
    async with client(service) as bmc:
        for _ in range(3):
            assert (await bmc.get(ROOT))["@odata.id"] == ROOT
        assert len([line for line in service.asked if "Sessions" in line]) == 1, "not asked for a session with every question"
        service.full = None
        monkeypatch.setattr(https, "FULL_S", 0.0)
        await bmc.get(ROOT)
        assert len(service.tokens) == 1, "a session as soon as there is room"
    assert not service.tokens


async def test_a_400_that_does_not_speak_of_sessions_is_a_refused_login(service: Service) -> None:
    service.full = (400, {"error": {"code": "Base.1.8.PropertyValueError", "message": "UserName"}})
    async with client(service) as bmc:
        with pytest.raises(LoginRefused, match="HTTP 400"):
            await bmc.get(ROOT)


async def test_a_wrong_password_is_said_and_not_shown(service: Service) -> None:
    async with client(service, password="another-Passw0rd") as bmc:
        with pytest.raises(LoginRefused, match="refuses the login of root") as caught:
            await bmc.get(ROOT)
        with pytest.raises(LoginRefused, match="refuses the login of root"):
            await bmc.get(ROOT)
    assert len(service.asked) == 1, "asked once: BMCs lock accounts out"
    assert "another-Passw0rd" not in "".join(traceback.format_exception(caught.value))


async def test_a_certificate_of_another_ca_is_not_believed_and_nothing_is_sent(service: Service, tmp_path: Path) -> None:
    with serving(tmp_path / "other", {}) as other:
        stranger = RedfishEndpoint("t07.bmc", service.url, other.ca, Secret(PASSWORD))
        bmc = Redfish(stranger, 5.0)
        with pytest.raises(RedfishError, match=r"shows a certificate that .* does not vouch for"):
            await bmc.get(ROOT)
        await bmc.close()
    assert service.asked == []


async def test_a_ca_file_that_is_not_there(service: Service) -> None:
    with pytest.raises(RedfishError, match="CA file"):
        Redfish(RedfishEndpoint("t07.bmc", service.url, Path("/nowhere/ca.pem"), Secret("x")))


async def test_no_proxy_of_the_environment_is_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with client(service) as bmc:
        assert await bmc.get(ROOT)


# ---------------------------------------------------------------- trouble


async def test_busy_dropped_and_late_answers_are_asked_for_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "RETRY_S", (0.0, 0.0))
    async with client(service) as bmc:
        troubles: list[list[str | int]] = [[503, 500], ["drop"], ["drop", 503]]
        for trouble in troubles:
            service.trouble[ROOT] = trouble
            assert (await bmc.get(ROOT))["@odata.id"] == ROOT


@pytest.mark.parametrize(
    ("trouble", "says", "status"),
    [
        ([503] * 9, "answers HTTP 503", 503),
        ([404], "answers HTTP 404", 404),
        ([403], "answers HTTP 403", 403),
        ([302], "answers HTTP 302", 302),
        (["garbage"], "is not JSON", 200),
        (["big"], "more than 16 MiB", 200),
        (["drop"] * 9, "t07.bmc: ", None),
    ],
)
async def test_what_goes_wrong_is_one_sentence(
    service: Service, monkeypatch: pytest.MonkeyPatch, trouble: list[str | int], says: str, status: int | None
) -> None:
    monkeypatch.setattr(https, "RETRY_S", (0.0, 0.0))
    service.trouble[ROOT] = trouble
    async with client(service, 60.0) as bmc:
        with pytest.raises(RedfishError, match=says) as caught:
            await bmc.get(ROOT)
    assert caught.value.status == status and "\n" not in str(caught.value)


async def test_a_service_that_never_answers_costs_the_time_allowed(service: Service) -> None:
    service.trouble[f"{ROOT}/Deep"] = ["hang"]
    async with client(service) as bmc:
        begin = time.monotonic()
        with pytest.raises(RedfishError, match=r"not answered within 0\.3 s"):
            await bmc.get(f"{ROOT}/Deep", timeout_s=0.3)
        assert time.monotonic() - begin < 20
        assert await bmc.get(ROOT)  # and the others are still asked
        service.released.set()


async def test_nobody_there() -> None:
    here = Path(os.devnull)
    at = RedfishEndpoint("t07.bmc", "https://127.0.0.1:9", here, Secret("x"))
    with pytest.raises(TrayError):
        bmc = Redfish(at)  # an empty CA file: nobody would be believed
        await bmc.get(ROOT)


async def test_a_port_that_nobody_listens_on(service: Service) -> None:
    at = RedfishEndpoint("t07.bmc", "https://127.0.0.1:9", service.ca, Secret("x"))
    bmc = Redfish(at, 2.0)
    with pytest.raises(Unreachable, match="does not answer"):
        await bmc.get(ROOT)
    await bmc.close()


@pytest.mark.parametrize("link", ["https://example.com/redfish/v1", "//example.com/x", "/\\example.com", "redfish/v1", ""])
async def test_a_link_to_another_place_is_not_followed(service: Service, link: str) -> None:
    async with client(service) as bmc:
        with pytest.raises(RedfishError, match="not followed"):
            await bmc.get(link)
    assert service.asked == []


async def test_what_acts_is_sent_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "RETRY_S", (0.0, 0.0))
    path = f"{ROOT}/Systems/1/Actions/ComputerSystem.Reset"
    async with client(service) as bmc:
        assert await bmc.act("POST", path, {"ResetType": "On"}) == {"done": True}
        service.trouble[path] = [503, 503]
        with pytest.raises(RedfishError, match="503"):
            await bmc.act("POST", path, {"ResetType": "On"})
    assert service.bodies == [{"ResetType": "On"}]
    assert service.asked.count(f"POST {path}") == 2


# ---------------------------------------------------------------- collections and walks


@pytest.mark.parametrize("root", [{}, EXPANDS, {"ProtocolFeaturesSupported": {"ExpandQuery": {"ExpandAll": True}}}])
@pytest.mark.parametrize("page", [0, 2])
@pytest.mark.parametrize("expands", [True, False])
async def test_members_come_whole_however_they_are_served(tmp_path: Path, root: Body, page: int, expands: bool) -> None:
    with serving(tmp_path, small(**root), page=page, expands=expands) as service:
        async with client(service) as bmc:
            assert [row["Reading"] for row in await bmc.members(f"{ROOT}/Things")] == [0, 1, 2, 3, 4]
        one_by_one = sum("/Things/" in line for line in service.asked)
        assert one_by_one == (0 if root and expands else 5)


@pytest.mark.parametrize("status", [400, 501, 500])
async def test_a_service_that_says_it_expands_and_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(https, "RETRY_S", ())
    with serving(tmp_path, small(**EXPANDS)) as service:
        service.trouble[f"{ROOT}/Things"] = [status]
        async with client(service) as bmc:
            assert len(await bmc.members(f"{ROOT}/Things")) == 5


async def test_a_service_whose_root_is_broken_still_gives_what_stands_below_it(tmp_path: Path) -> None:
    with serving(tmp_path, small(), trouble={ROOT: [404] * 50}) as service:
        async with client(service) as bmc:
            found = await bmc.members(f"{ROOT}/Things")
    assert [row["Reading"] for row in found] == list(range(5))


async def test_a_broken_root_is_left_alone_for_a_while_so_that_polls_keep_their_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, small(**EXPANDS), trouble={ROOT: [500, 500, 500]}) as service:
        async with client(service) as bmc:
            for _ in range(4):
                assert len(await bmc.members(f"{ROOT}/Things")) == 5
            asked = service.asked.count(f"GET {ROOT}")
            assert asked == len(https.RETRY_S) + 1
            assert not any("expand" in line for line in service.asked)
            monkeypatch.setattr(redfish, "ROOT_AGAIN_S", 0.0)
            assert len(await bmc.members(f"{ROOT}/Things")) == 5
            assert any("expand" in line for line in service.asked)


async def test_a_member_that_cannot_be_read_stands_in_the_list(service: Service) -> None:
    del service.tree[f"{ROOT}/Things/3"]
    async with client(service) as bmc:
        rows = await bmc.members(f"{ROOT}/Things")
    assert [row.get("Reading") for row in rows] == [0, 1, 2, None, 4]
    assert rows[3]["status"] == 404 and "404" in rows[3]["failed"] and rows[3]["@odata.id"] == f"{ROOT}/Things/3"


async def test_a_collection_that_is_cut_short_says_so(service: Service) -> None:
    service.tree[f"{ROOT}/Things"]["Members@odata.count"] = 7
    async with client(service) as bmc:
        rows = await bmc.members(f"{ROOT}/Things")
    assert len(rows) == 6 and "says 7 members, and gives 5" in rows[5]["failed"]


async def test_pages_that_lead_in_circles_end(service: Service) -> None:
    service.tree[f"{ROOT}/Things"]["Members@odata.nextLink"] = f"{ROOT}/Things"
    async with client(service) as bmc:
        rows = await bmc.members(f"{ROOT}/Things")
    assert "does not end" in rows[-1]["failed"]


async def test_a_body_that_is_no_collection(service: Service) -> None:
    service.tree[f"{ROOT}/Things"]["Members"] = {"0": "x"}
    async with client(service) as bmc:
        with pytest.raises(RedfishError, match="not a collection"):
            await bmc.members(f"{ROOT}/Things")


async def test_a_walk_follows_the_links_it_was_given_so_far_and_says_what_it_missed(service: Service) -> None:
    del service.tree[f"{ROOT}/Things/4"]
    async with client(service) as bmc:
        near = await bmc.walk(ROOT, 1, ["Things"])
        far = await bmc.walk(ROOT, 2, ["Things", "Deeper"])
        nowhere = await bmc.walk(f"{ROOT}/Nothing", 2, ["Things"])
    assert f"{ROOT}/Deep" not in near and far[f"{ROOT}/Deep"]["Id"] == "Deep"
    assert set(far) == {ROOT, f"{ROOT}/Things", *(f"{ROOT}/Things/{i}" for i in range(5)), f"{ROOT}/Deep"}
    assert far[f"{ROOT}/Things/4"]["status"] == 404
    assert nowhere == {f"{ROOT}/Nothing": {"failed": f"t07.bmc: {ROOT}/Nothing answers HTTP 404", "status": 404}}


async def test_a_walk_is_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redfish, "WALK_MAX", 4)
    async with client(service) as bmc:
        found = await bmc.walk(ROOT, 3, ["Things", "Deeper"])
    assert "more than 4 resources" in found[ROOT]["failed"]


def test_links_are_found_wherever_they_stand() -> None:
    body = {"A": {"@odata.id": "/a", "B": {"@odata.id": "/b"}}, "L": [{"B": {"@odata.id": "/c"}}], "B": [{"@odata.id": "/d"}]}
    assert sorted(links_of(body, ["B"])) == ["/b", "/c", "/d"]
    assert list(links_of(body, ["A"])) == ["/a"]


@needs_captures
async def test_the_tree_of_a_real_tray_is_walked(tmp_path: Path) -> None:
    bodies = tree()
    with serving(tmp_path, bodies) as service:
        async with client(service, timeout_s=30) as bmc:
            names = ("Chassis", "Sensors", "ThermalSubsystem", "LeakDetection", "LeakDetectors")
            found = await bmc.walk(ROOT, 5, names)
    sensors = [path for path in bodies if "/Sensors/" in path]
    detectors = [path for path in bodies if "/LeakDetectors/" in path]
    assert len(sensors) > 200 and set(sensors) <= set(found) and len(detectors) == 4 and set(detectors) <= set(found)
    assert [path for path, body in found.items() if "failed" in body] == []


# ---------------------------------------------------------------- events


async def heard(bmc: Redfish) -> tuple[list[Any], str]:
    out: list[Any] = []
    try:
        async for event in bmc.events(2.0):
            out += [event]
    except RedfishError as error:
        return out, str(error)
    raise AssertionError("a stream that ends must say so")


async def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    bodies = small(EventService={"@odata.id": f"{ROOT}/EventService"})
    bodies[f"{ROOT}/EventService"] = {"ServerSentEventUri": f"{ROOT}/EventService/SSE", "ServiceEnabled": True}
    lines = [
        b": hello\n\n",
        b'id: 1\r\ndata: {"Events":\r\ndata: [1]}\r\n\r\n',
        b"data: garbage\n\n",
        b'data: {"n": 2}\n\n',
        b"data: {",
    ]
    with serving(tmp_path, bodies, events=lines) as service:
        async with client(service) as bmc:
            assert await heard(bmc) == ([{"Events": [1]}, {"n": 2}], "t07.bmc: the event stream ended")


async def test_no_stream_is_offered(service: Service) -> None:
    service.tree[f"{ROOT}/EventService"] = {"ServiceEnabled": True}
    async with client(service) as bmc:
        assert await heard(bmc) == ([], "t07.bmc: no event stream is offered")


async def test_an_event_without_end_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "EVENT_MAX", 1000)
    bodies = small()
    bodies[f"{ROOT}/EventService"] = {"ServerSentEventUri": f"{ROOT}/EventService/SSE"}
    with serving(tmp_path, bodies, events=[b"data: " + b"x" * 5000]) as service:
        async with client(service) as bmc:
            assert "an event of more than" in (await heard(bmc))[1]


# ---------------------------------------------------------------- secrets


def test_secrets_come_from_environment_or_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", PASSWORD)
    assert read_secret("env:A_SECRET", Path).reveal() == PASSWORD
    file = tmp_path / "secret"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    assert read_secret("file:secret", lambda name: tmp_path / name).reveal() == PASSWORD
    file.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600") as caught:
        read_secret("file:secret", lambda name: tmp_path / name)
    assert PASSWORD not in str(caught.value)


class Drawer(KeyringBackend):
    """A keyring with one entry, behind the real library."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        if service == "locked":
            raise KeyringLocked("a person said no to " + PASSWORD)
        return PASSWORD if (service, username) == ("R-1", "bmc") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise PasswordSetError

    def delete_password(self, service: str, username: str) -> None:
        raise PasswordDeleteError


def test_secrets_come_from_a_keyring() -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(Drawer())  # type: ignore[no-untyped-call]
    try:
        assert read_secret("keyring:R-1/bmc", Path).reveal() == PASSWORD
        for name, says in (("keyring:R-1/other", "no entry of R-1 for other"), ("keyring:locked/bmc", "cannot be read")):
            with pytest.raises(InputError, match=says) as caught:
                read_secret(name, Path)
            assert PASSWORD not in str(caught.value)
    finally:
        keyring.set_keyring(before)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", b"x" * 5000])
def test_what_is_no_secret(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(InputError, match="empty, too long or not text"):
        read_secret(f"file:{file}", Path)


@pytest.mark.parametrize("name", ["env:NOBODY_SET_THIS", "file:/nowhere/at/all", "file:/", "plain-Passw0rd"])
def test_a_secret_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_secret(name, Path)
    assert "plain-Passw0rd" not in str(caught.value)


def test_a_secret_does_not_print_and_is_not_stored() -> None:
    secret = Secret(PASSWORD)
    at = RedfishEndpoint("t07.bmc", "https://127.0.0.1", Path("ca"), secret)
    assert PASSWORD not in f"{secret} {secret!r} {at} {vars(type(secret))}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


async def test_a_client_whose_request_was_given_up_is_replaced_once_in_a_while(service: Service) -> None:
    """httpx may lose a connection for good when a request is cancelled while it is made: after five, nobody is asked again."""
    async with client(service, 5.0) as bmc:
        one: Any = bmc._service
        used = one._http
        with contextlib.suppress(TrayError):
            await one.ask("GET", ROOT, timeout_s=0.0001)
        fresh = one._http
        assert fresh is not used
        one._renew(used)
        one._renew(fresh)
        assert one._http is fresh, "not again within RENEW_S"
        assert (await bmc.get(ROOT))["@odata.id"] == ROOT
