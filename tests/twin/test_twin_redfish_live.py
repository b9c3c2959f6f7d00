"""A running twin's BMCs, shelves and CDU beside its trays: one rack, one loop, reached as a site reaches them."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from ruamel.yaml import YAML

from burnin.rack.schema import Rack
from burnin.twin import host
from burnin.twin.faults import parse
from burnin.twin.state import State
from burnin.twin.up import running

ROOT = "/redfish/v1"
DETECTORS = f"{ROOT}/Chassis/Chassis_0/ThermalSubsystem/LeakDetection/LeakDetectors?$expand=."
PATIENCE_S = 20.0


class Site:
    """What a site does with a rack file and the standard library."""

    def __init__(self, rack_file: Path) -> None:
        self.rack = Rack.model_validate(YAML(typ="safe").load(rack_file))
        self._folder = rack_file.parent

    def door(self, part: str) -> tuple[str, str, str, str]:
        """Address, CA file, user and password of a service."""
        coolant, bmc = self.rack.coolant, self.rack.bmc.get(part)
        how = bmc or coolant
        assert how is not None and coolant is not None and (bmc is not None or part == "cdu")
        url = bmc.url if bmc is not None else coolant.redfish
        assert url is not None and how.secret is not None and how.ca is not None
        secret = (self._folder / how.secret.removeprefix("file:")).read_text().strip()
        return str(url), str(self._folder / how.ca), str(how.user), secret

    def get(self, part: str, path: str, body: Any = None) -> Any:
        """GET, or POST of a body."""
        url, ca, user, secret = self.door(part)
        word = base64.b64encode(f"{user}:{secret}".encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, headers={"Authorization": f"Basic {word}"})
        context = ssl.create_default_context(cafile=ca)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(request, timeout=5) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def until(true: Callable[[], bool]) -> bool:
    """Ask every tenth of a second, for a while."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    plants = [parse(text) for text in ("leak:t00:60", "bmc_dead:t01.bmc", "shelf_lost:p2", "wrong_serial:s0.bmc")]
    with running("gb300-nvl72", 1, plants, where=tmp_path_factory.mktemp("rack"), trays=2, switches=1) as twin:
        yield Site(twin.rack_file)


def test_bmcs_of_the_trays_that_are_served_and_all_shelves(site: Site) -> None:
    assert sorted(site.rack.bmc) == [*(f"p{i}" for i in range(8)), "s0", "t00", "t01"]


@pytest.mark.parametrize("part", ["t00", "s0", "p0", "cdu"])
def test_the_client_of_the_dmtf_logs_in_and_walks(site: Site, part: str) -> None:
    """python-redfish-library, which is no dependency of ours: `pip install redfish` beside the tests runs this."""
    client = pytest.importorskip("redfish", reason="the DMTF's client (pip install redfish) is not installed")
    url, ca, user, secret = site.door(part)
    for auth in ("session", "basic"):
        one = client.redfish_client(base_url=url, username=user, password=secret, cafile=ca, timeout=5, max_retry=2)
        one.login(auth=auth)
        roots = [value["@odata.id"] for value in one.root.values() if isinstance(value, dict) and "@odata.id" in value]
        found = {path: one.get(path) for path in roots}
        assert len(found) > 3 and {answer.status for answer in found.values()} == {200}
        for member in (m for answer in found.values() for m in answer.dict.get("Members", [])):
            assert one.get(member["@odata.id"]).dict["Id"]
        assert one.get(f"{ROOT}/Managers/nobody").status == 404
        one.logout()
    wrong = client.redfish_client(base_url=url, username=user, password="no", cafile=ca, timeout=5, max_retry=2)
    with pytest.raises((client.rest.v1.SessionCreationError, client.rest.v1.InvalidCredentialsError)):
        wrong.login(auth="session")


def test_a_tray_that_drips_is_seen_by_its_bmc(site: Site) -> None:
    def wet() -> bool:
        return [d["DetectorState"] for d in site.get("t00", DETECTORS)["Members"]].count("Critical") >= 1

    assert until(wet)


def test_a_dead_bmc_refuses_and_its_neighbour_does_not(site: Site) -> None:
    def dead() -> bool:
        try:
            site.get("t01", ROOT)
        except urllib.error.URLError:
            return True
        return False

    assert until(dead)
    assert site.get("t00", ROOT)["RedfishVersion"]


def test_a_tray_tells_its_heat_and_gets_its_coolant(site: Site) -> None:
    power = f"{ROOT}/Chassis/Chassis_0/Sensors/Chassis_0_TotalHSC_Power_0"
    assert until(lambda: site.get("t00", power)["Reading"] is not None)
    assert site.get("t00", power)["Reading"] == pytest.approx(1355, rel=0.05)
    side = site.get("cdu", f"{ROOT}/ThermalEquipment/CDUs/1/SecondaryCoolantConnectors/1")
    assert side["FlowLitersPerMinute"]["Reading"] == pytest.approx(173.7, rel=0.05)
    # 18 idle trays of 0.94 kW and 9 switch trays of 0.9 kW; two temperature sensors of 0.15 K
    assert side["DeltaTemperatureCelsius"]["Reading"] == pytest.approx(25_000 / (173.7 * 66.3), abs=0.6)


def test_a_lost_shelf_says_so(site: Site) -> None:
    supplies = f"{ROOT}/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies"
    assert {supply["Status"]["Health"] for supply in site.get("p2", supplies)["Members"]} == {"Critical"}
    assert {supply["Status"]["Health"] for supply in site.get("p3", supplies)["Members"]} == {"OK"}


# ---------------------------------------------------------------- power

SYSTEM = f"{ROOT}/Systems/System_0"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"
COUNT = """
import ctypes
nvml, count = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_uint()
nvml.nvmlInit_v2()
nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
print(count.value)
"""


def test_a_power_cycle_ends_a_tray_and_boots_it_and_a_device_may_be_missing(tmp_path: Path) -> None:
    plants = [parse("boot_intermittent:t00.g2:1"), parse("boot_intermittent:t00.n0:1")]
    with running("gb300-nvl72", 1, plants, where=tmp_path, trays=2, switches=0) as twin:
        site, tray = Site(twin.rack_file), twin.trays["t00"]

        def gpus() -> str:
            words = [str(tray.dir / "bin/python3"), "-c", COUNT]
            return subprocess.run(
                words, env=host.environment(tray.dir), capture_output=True, text=True, check=True
            ).stdout.strip()

        def boot() -> str:
            return str(site.get("t00", SYSTEM)["BootProgress"]["LastState"])

        assert until(lambda: boot() == "OSRunning")
        assert gpus() == "4"
        (tray.dir / "home/kept").write_text("x")
        before = (tray.dir / "root/proc/sys/kernel/random/boot_id").read_text()
        site.get("t00", RESET, {"ResetType": "PowerCycle"})
        assert boot() == "OSBootStarted"
        assert until(lambda: not Path(f"/proc/{tray.pid}").exists())
        assert site.get("t01", SYSTEM)["BootProgress"]["LastState"] == "OSRunning"
        assert until(lambda: boot() == "OSRunning")
        assert gpus() == "3"
        assert (tray.dir / "home/kept").read_text() == "x"
        assert (tray.dir / "root/proc/sys/kernel/random/boot_id").read_text() != before
        assert sorted(os.listdir(tray.dir / "root/sys/class/infiniband")) == ["mlx5_1", "mlx5_2", "mlx5_3"]
        processors = f"{ROOT}/Systems/HGX_Baseboard_0/Processors/GPU_"
        states = [site.get("t00", f"{processors}{i}")["Status"]["State"] for i in range(4)]
        assert states == ["Enabled", "Enabled", "Absent", "Enabled"]
        with socket.create_connection((tray.host, tray.port), 5) as link:
            assert link.recv(4) == b"SSH-"
        site.get("t00", RESET, {"ResetType": "ForceOff"})
        assert site.get("t00", SYSTEM)["PowerState"] == "Off"


def test_a_hung_tray_accepts_and_never_answers_until_its_bmc_restarts_it(tmp_path: Path) -> None:
    with running("gb300-nvl72", 1, [parse("tray_hang:t00:0")], where=tmp_path, trays=1, switches=0) as twin:
        site, tray = Site(twin.rack_file), twin.trays["t00"]
        assert until(lambda: bool(site.get("t00", SYSTEM)["BootProgress"]["LastState"] == "OSRunning"))
        state = State.open(str(tray.dir / "state"))  # as a process of the tray's would: work for GPU 0
        slot = state.take_slot(os.getpid(), 0)
        slot["activity_ppm"], slot["busy_ns"] = 1_000_000, int(60e9)
        slot["end_ns"] = time.monotonic_ns() + int(60e9)

        def banner() -> bytes:
            with socket.create_connection((tray.host, tray.port), 5) as link:
                link.settimeout(0.5)
                try:
                    return link.recv(4)
                except TimeoutError:
                    return b""

        assert until(lambda: banner() == b"")
        assert site.get("t00", SYSTEM)["PowerState"] == "On"
        site.get("t00", RESET, {"ResetType": "PowerCycle"})
        assert until(lambda: not Path(f"/proc/{tray.pid}").exists())

        def answers() -> bool:
            try:
                return banner() == b"SSH-"
            except OSError:
                return False

        assert until(answers)
        state.close()


async def test_a_slow_tray_and_one_with_another_key(tmp_path: Path) -> None:
    plants = [parse("slow_ssh:t00:1.5"), parse("wrong_host_key:t01")]
    with running("gb300-nvl72", 1, plants, where=tmp_path, trays=2, switches=0) as twin:
        how: dict[str, Any] = {
            "known_hosts": str(twin.rack_file.with_suffix(".known_hosts")),
            "client_keys": [str(twin.rack_file.with_suffix(".key"))],
            "username": "burnin",
            "config": None,
        }
        slow, wrong = twin.trays["t00"], twin.trays["t01"]
        async with asyncssh.connect(slow.host, slow.port, **how) as link:
            began = time.monotonic()
            answer = await link.run("cat", input="hello")
            assert (answer.stdout, answer.exit_status) == ("hello", 0)
            assert time.monotonic() - began > 1.4
        with pytest.raises(asyncssh.HostKeyNotVerifiable):
            await asyncssh.connect(wrong.host, wrong.port, **how)
