"""What a site's pytest checks are given: `rack`, `tray`, `gpu`, `measure` (docs/write-a-check.md).

Loaded by `burnin run` (burnin.run.pytests), which names the rack file, the trays of the run and where the report goes. A test
with `tray` is done once per compute tray, one with `gpu` once per GPU. An assertion that does not hold is a FAIL; any other
exception says that nothing could be measured. SSH is paramiko's; a host key that is not the enrolled one is refused.
"""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as xml
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pytest

from burnin.errors import LinkLost, TrayError
from burnin.rack.load import RackFile, load_rack
from burnin.transport.rack import endpoints
from burnin.transport.ssh import Endpoint

OUTPUT_MAX = 4 << 20
"""Bytes of a command's output and of its errors that are kept."""
_KEY = pytest.StashKey["Report"]()


@dataclass(frozen=True)
class Done:
    """A command that came to its end."""

    exit: int
    stdout: str
    stderr: str


class Tray:
    """One compute tray. `name` is t07; `run` a shell command on it."""

    def __init__(self, endpoint: Endpoint, known_hosts: Path, jump: bool) -> None:
        self.name, self._at, self._known_hosts, self._jump = endpoint.part, endpoint, known_hosts, jump
        self._client: paramiko.SSHClient | None = None

    def _connect(self) -> paramiko.SSHClient:
        if self._client is None:
            if self._jump:
                raise TrayError(f"{self.name}: pytest checks do not go over a jump host")
            client, at = paramiko.SSHClient(), self._at
            client.load_host_keys(str(self._known_hosts))
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            key = str(at.key) if at.key is not None else None
            client.connect(at.host, at.port, at.user, key_filename=key, look_for_keys=key is None, timeout=20, banner_timeout=20)
            self._client = client
        return self._client

    def run(self, command: str, timeout_s: float = 60, become: bool = False) -> Done:
        """A POSIX shell command. Raises TrayError where it did not come to its end: that is never a FAIL."""
        words = ["sudo", "-n"] if become and self._at.become else []
        text = shlex.join([*words, "sh", "-c", command])
        try:
            _, out, err = self._connect().exec_command(text, timeout=timeout_s)
            stdout, stderr = out.read(OUTPUT_MAX), err.read(OUTPUT_MAX)
            if not out.channel.status_event.wait(timeout_s):
                raise TimeoutError
            status = out.channel.recv_exit_status()
        except TimeoutError:
            raise TrayError(f"{self.name}: no end after {timeout_s:g} s: {command[:60]}") from None
        except (OSError, paramiko.SSHException) as error:
            raise LinkLost(f"{self.name}: {error}") from None
        if status < 0:
            raise LinkLost(f"{self.name}: the link was lost, or a signal ended it: {command[:60]}")
        return Done(status, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"))

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()


@dataclass(frozen=True)
class Gpu:
    """One GPU: `part` is t07.g2, which is its place and not its index."""

    part: str
    tray: Tray

    def smi(self, field: str) -> str:
        """One field of `nvidia-smi --query-gpu`, without its unit. Raises TrayError where it is not said."""
        done = self.tray.run(f"nvidia-smi -i {self._index()} --query-gpu={shlex.quote(field)} --format=csv,noheader,nounits")
        said = done.stdout.strip()
        if done.exit != 0 or not said or said.strip("[]") in ("N/A", "Not Supported", "Unknown Error"):
            raise TrayError(f"{self.part}: {field} is not said: {said or done.stderr.strip()}"[:200])
        return said

    def _index(self) -> int:
        position = int(self.part.rpartition(".g")[2])
        text = self.tray.run("nvidia-smi -q -x").stdout
        try:
            found = [gpu.findtext("platformInfo/module_id", "").strip() for gpu in xml.fromstring(text).findall("gpu")]
        except xml.ParseError:
            found = []
        if str(position + 1) in found:
            return found.index(str(position + 1))
        if len(found) == 1 and position == 0:
            return 0
        raise TrayError(f"{self.part}: nvidia-smi shows no GPU with module ID {position + 1}")


class RackView:
    """The rack that is tested: `serial`, `profile`, `trays` by name."""

    def __init__(self, file: RackFile, trays: list[str]) -> None:
        ssh = file.rack.ssh
        known = file.known_hosts or Path()
        ends = endpoints(file)
        self.serial, self.profile = file.rack.rack, file.profile.profile
        self.trays = {name: Tray(ends[name], known, bool(ssh and ssh.jump)) for name in trays if name in ends}
        self.gpus = [Gpu(part, tray) for name, tray in self.trays.items() for part in file.profile.topology.gpus(name)]


class Report:
    """What becomes of each test."""

    def __init__(self, rack: RackView) -> None:
        self.rack = rack
        self.tests: dict[str, dict[str, Any]] = {}
        self.errors: list[str] = []

    def of(self, item: pytest.Item) -> dict[str, Any]:
        """A test's own record."""
        return self.tests.setdefault(
            f"{item.path.name}::{item.name}", {"part": "rack", "outcome": "not run", "why": "", "measurements": []}
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """`burnin run` gives these."""
    group = parser.getgroup("burnin")
    group.addoption("--burnin-rack", help="the rack file")
    group.addoption("--burnin-trays", default="", help="compute trays of the run: t00,t01")
    group.addoption("--burnin-report", help="where what became of each test is written, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Read the rack file."""
    named = config.getoption("--burnin-rack")
    if named:
        trays = [name for name in str(config.getoption("--burnin-trays")).split(",") if name]
        config.stash[_KEY] = Report(RackView(load_rack(Path(named)), trays))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Once per tray, or once per GPU."""
    report = metafunc.config.stash.get(_KEY, None)
    if report is not None and "gpu" in metafunc.fixturenames:
        metafunc.parametrize("gpu", report.rack.gpus, ids=[gpu.part for gpu in report.rack.gpus])
    elif report is not None and "tray" in metafunc.fixturenames:
        metafunc.parametrize("tray", list(report.rack.trays.values()), ids=list(report.rack.trays))


@pytest.fixture
def rack(request: pytest.FixtureRequest) -> RackView:
    """The rack."""
    return request.config.stash[_KEY].rack


@pytest.fixture
def tray(request: pytest.FixtureRequest) -> Tray:
    """The tray of `gpu`, in a test that takes both; `pytest_generate_tests` gives it otherwise."""
    gpu: Gpu = request.getfixturevalue("gpu")
    return gpu.tray


class Measure:
    """measure("nic.mtu", 9000, "By", equals=9000): kept, and judged by the limit given, else by the suite's of that name."""

    def __init__(self, into: list[dict[str, Any]]) -> None:
        self._into = into

    def __call__(
        self, name: str, value: float | str | None, unit: str = "1", *, min: float | None = None, max: float | None = None,
        equals: float | str | None = None, part: str | None = None, reason: str = "missing", why: str = "",
    ) -> None:  # fmt: skip
        """`value` None says that it was not read, and `reason` why."""
        said = {"name": name, "value": value, "unit": unit, "min": min, "max": max, "equals": equals, "part": part}
        self._into.append({**said, "reason": reason, "why": why})


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Iterator[Measure]:
    """See `Measure`."""
    record = request.config.stash[_KEY].of(request.node)
    yield Measure(record["measurements"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """passed; failed: an assertion did not hold; skipped; error: anything else."""
    made = yield
    report = item.config.stash.get(_KEY, None)
    if report is not None:
        record = report.of(item)
        params = getattr(getattr(item, "callspec", None), "params", {})
        record["part"] = params["gpu"].part if "gpu" in params else params["tray"].name if "tray" in params else "rack"
        asserted = call.excinfo is not None and call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
        if made.when == "call" and made.outcome == "failed":
            record["outcome"] = "failed" if asserted else "error"
        elif made.outcome == "failed":
            record["outcome"] = "error" if record["outcome"] != "failed" else "failed"
        elif made.outcome == "skipped" or made.when == "call":
            record["outcome"] = made.outcome
        if call.excinfo is not None:
            record["why"] = f"{record['why']}; {call.excinfo.exconly()}".strip("; ")[:1000]
    return made


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported is no test, and must not be forgotten."""
    if report.failed:
        _ERRORS.append(f"{report.nodeid}: {str(report.longrepr)[-300:]}")


_ERRORS: list[str] = []


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the report."""
    report, path = session.config.stash.get(_KEY, None), session.config.getoption("--burnin-report")
    if report is not None:
        for tray in report.rack.trays.values():
            tray.close()
        if path:
            tests = [{"id": name, **record} for name, record in report.tests.items()]
            Path(path).write_text(json.dumps({"tests": tests, "errors": _ERRORS, "collected": session.testscollected}))
