"""A planted BMC password is found nowhere: database, evidence, logs, reports, what is printed, what goes wrong, what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnin.assess.case import gather
from burnin.store import open_store
from tests.real.conftest import RealSshd
from tests.real.test_run_without_gpu import needs_no_gpu, rack_file
from tests.redfish_files import PASSWORD, USER, Body, serving
from tests.sampled import some

SUITE = """
suite: secrets
about: everything that asks a BMC
lease: 5 s
sample_slow: 1 s
coverage: {metrics: [tray.power]}
stages:
  - {stage: audit, steps: [bmc, leak, power, coolant, sel, firmware]}
  - {stage: idle, phase: idle, for: 4 s, steps: [bmc]}
"""
WRONG = "another-Passw0rd-91c2"


def bodies() -> dict[str, Body]:
    """A BMC that sends back what it was given, wherever it can."""
    at = "/redfish/v1"
    said = {"Name": f"user {USER} password {PASSWORD}", "Status": {"State": "Enabled", "Health": "Critical"}}
    sensor = {
        "@odata.type": "#Sensor.v1_7_0.Sensor",
        "Reading": 99,
        "ReadingUnits": "Cel",
        "Thresholds": {"UpperFatal": {"Reading": 9}},
    }
    return {
        at: {"Name": PASSWORD},
        f"{at}/Chassis": {"Members": [{"@odata.id": f"{at}/Chassis/A"}, {"@odata.id": f"{at}/Chassis/{PASSWORD}"}]},
        f"{at}/Chassis/A": {"ChassisType": "Shelf", **said, "Sensors": {"@odata.id": f"{at}/Chassis/A/Sensors"}},
        f"{at}/Chassis/A/Sensors": {"Members": [{"@odata.id": f"{at}/Chassis/A/Sensors/T"}]},
        f"{at}/Chassis/A/Sensors/T": {**said, **sensor},
        f"{at}/Systems": {"Members": [{"@odata.id": f"{at}/Systems/1"}]},
        f"{at}/Systems/1": {**said, "SerialNumber": PASSWORD},
    }


def everything(place: Path) -> str:
    """All bytes of all files that a run left, and all that its database holds, unpacked."""
    files = [path.read_bytes().decode("utf-8", "replace") for path in place.rglob("*") if path.is_file()]
    store = open_store(place / "b.db")
    rows = [repr(gather(store, run.id)) for run in store.runs()]
    store.close()
    return "\n".join((*files, *rows))


@needs_no_gpu
@pytest.mark.parametrize(("given", "right"), some([("file", True), ("env", False)], 2))
def test_a_planted_password_is_found_nowhere(sshd: RealSshd, tmp_path: Path, given: str, right: bool) -> None:
    place, away = tmp_path / "run", tmp_path / "away"
    place.mkdir()
    away.mkdir()
    with serving(tmp_path / "bmc", bodies()) as service:
        file = rack_file([sshd], place)
        secret = away / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o600)
        name = {"env": "env:PLANTED", "file": f"file:{secret}"}[given]
        how = {"url": service.url, "ca": str(service.ca), "secret": name}
        coolant = {"redfish": service.url, "ca": str(service.ca), "secret": name, "scope": "rack"}
        file.write_text(json.dumps({**json.loads(file.read_text()), "bmc": {"t00": how}, "coolant": coolant}))
        (place / "s.yaml").write_text(SUITE)
        own = {**os.environ, "PLANTED": PASSWORD if right else WRONG}
        words = ["run", "s.yaml", str(file), "--db", "b.db", "--json", "v.json", "--plain"]
        said = []
        for command in (
            words,
            ["show", "last", "--db", "b.db"],
            ["judge", "last", "--db", "b.db", "--json", "again.json"],
            ["runs", "--db", "b.db"],
        ):
            done = subprocess.run(
                [sys.executable, "-X", "dev", "-m", "burnin", *command],
                capture_output=True,
                text=True,
                timeout=100,
                cwd=place,
                env=own,
            )
            said.append(done.stdout + done.stderr)
        assert any("POST" in line and "Sessions" in line for line in service.asked), "the BMC was spoken to"
    found = everything(place) + "".join(said)
    assert "Traceback" not in "".join(said)
    assert ("refuses the login" in found) == (not right)
    assert ("beyond its own Fatal threshold" in found) == right, "evidence of the BMC is in it"
    for password in (PASSWORD, WRONG):
        assert password not in found
    assert "token-" not in found, "nor a session's token"
    key = (sshd.root / "client").read_text().splitlines()[1:-1]
    assert key and not any(line in found for line in key), "nor the private key that reached the tray"
