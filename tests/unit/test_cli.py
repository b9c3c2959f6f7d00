"""The command line: exit codes that scripts rely on, one clear sentence for what is wrong, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import burnin
from burnin.cli import run
from burnin.cli.app import command
from burnin.errors import InputError, NotReady, StoreError

RACK = """rack: R-1
profile: gb300-nvl72
ssh: {known_hosts: known_hosts}
trays:
  t[00-17]: {host: "192.0.2.[11-28]"}
"""
SUITE = """suite: mine
about: mine
stages:
  - {stage: audit, steps: [inventory]}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rack.yaml").write_text(RACK)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "known_hosts").write_text("")
    monkeypatch.delenv("BURNIN_DB", raising=False)


COMMANDS = {
    "run": ["run", "suite.yaml", "rack.yaml"],
    "watch": ["watch"],
    "stop": ["stop", "last"],
    "runs": ["runs"],
    "show": ["show", "last"],
    "links": ["links", "last"],
    "compare": ["compare", "first", "last"],
    "judge": ["judge", "last"],
    "gate": ["gate", "R-1"],
    "baseline": ["baseline", "show", "base.json"],
    "doctor": ["doctor", "rack.yaml"],
    "enroll": ["enroll", "rack.yaml"],
    "lint": ["lint", "rack.yaml"],
    "checks": ["checks"],
    "suites": ["suites"],
    "signatures": ["signatures"],
    "expect": ["expect", "import", "record.csv", "rack.yaml"],
    "demo": ["demo"],
    "db check": ["db", "check"],
    "db backup": ["db", "backup", "copy.db"],
    "db export": ["db", "export", "last", "-o", "out"],
    "db vacuum": ["db", "vacuum"],
    "twin up": ["twin", "up", "--inventory", "twin.yaml"],
    "twin record": ["twin", "record", "-o", "racks"],
    "twin faults": ["twin", "faults"],
}
INSIDE = {
    "run": "burnin.rack.load.load_catalogue",
    "watch": "burnin.run.sockets.connect",
    "stop": "burnin.run.sockets.connect",
    "runs": "burnin.store.open_store",
    "show": "burnin.store.open_store",
    "links": "burnin.store.open_store",
    "compare": "burnin.store.open_store",
    "judge": "burnin.store.open_store",
    "gate": "burnin.rack.load.load_site",
    "baseline": "burnin.assess.baseline.load",
    "doctor": "burnin.rack.load.load_rack",
    "enroll": "burnin.rack.load.load_rack",
    "lint": "burnin.suites.lint.lint",
    "checks": "burnin.cli.files.console",
    "suites": "burnin.rack.load.load_catalogue",
    "signatures": "burnin.rack.load.load_catalogue",
    "expect": "burnin.rack.build_record.import_expect",
    "demo": "burnin.twin.faults.parse",
    "db check": "burnin.store.care.check",
    "db backup": "burnin.store.care.backup",
    "db export": "burnin.store.open_store",
    "db vacuum": "burnin.store.open_store",
    "twin up": "burnin.twin.up.serve",
    "twin record": "burnin.rack.load.load_catalogue",
    "twin faults": "burnin.cli.twin.console",
}


def test_every_command_is_looked_at_here() -> None:
    tree = command()
    names = {
        f"{name} {sub}" if name in ("twin", "db") else name
        for name, one in tree.commands.items()
        for sub in getattr(one, "commands", {name: None})
    }
    assert names == set(COMMANDS) == set(INSIDE)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("a defect"), 4),
        (KeyError("a defect"), 4),
        (SystemExit("a defect"), 4),
        (StoreError("the disk is full"), 4),
        (OSError(32, "Broken pipe"), 4),
        (AssertionError(), 4),
        (InputError("wrong file"), 2),
        (NotReady("an interlock"), 3),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failure_inside_a_command_is_never_a_verdict(
    name: str, error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(INSIDE[name], fail)
    assert run(COMMANDS[name]) == code
    said = capfd.readouterr().err
    assert "Traceback" not in said
    if isinstance(error, (RuntimeError, KeyError, AssertionError)):
        assert said.startswith("burnin failed by itself; this says nothing about the rack")
        details = Path(said.rsplit("details: ", 1)[1].strip().rstrip(")"))
        assert "Traceback" in details.read_text(), "whoever mends it finds everything there"
        details.unlink()


BAD = {
    "missing file": (["run", "suite.yaml", "none.yaml"], {}, ["none.yaml: there is no such file"]),
    "missing suite": (["run", "none.yaml", "rack.yaml"], {}, ["none.yaml: there is no such file"]),
    "suite by name": (["run", "smok", "rack.yaml"], {}, ["suite 'smok': does not exist", "did you mean smoke?"]),
    "a tab": (["lint", "suite.yaml"], {"suite.yaml": "suite: x\n\tabout: y\n"}, ["suite.yaml:2:1: a tab stands"]),
    "unknown key": (
        ["run", "suite.yaml", "rack.yaml"], {"rack.yaml": RACK + "known_host: x\n"},
        ["rack.yaml:6:1", "unknown key 'known_host'"],
    ),
    "misspelt check": (
        ["run", "suite.yaml", "rack.yaml"], {"suite.yaml": SUITE.replace("inventory", "inventry")},
        ["suite.yaml:4:28: check 'inventry' does not exist", "did you mean inventory?"],
    ),
    "duplicate tray": (
        ["run", "suite.yaml", "rack.yaml"], {"rack.yaml": RACK + "  t07: {host: 192.0.2.99}\n"},
        ["rack.yaml:6:15", "t07 is given twice, as 192.0.2.18 and as 192.0.2.99"],
    ),
    "unreachable key file": (
        ["run", "suite.yaml", "rack.yaml"], {"rack.yaml": RACK.replace("known_hosts}", "known_hosts, key: no.key}")},
        ["rack.yaml:3:38", "no.key does not exist", "ssh-agent"],
    ),
    "no steps": (
        ["run", "suite.yaml", "rack.yaml"], {"suite.yaml": SUITE.replace("[inventory]", "[]")},
        ["suite.yaml:4:27", "steps is an empty list"],
    ),
    "no profile": (
        ["run", "suite.yaml", "rack.yaml"], {"rack.yaml": RACK.replace("gb300", "gb900")},
        ["rack.yaml:2:10: profile 'gb900-nvl72' does not exist", "gb300-nvl72"],
    ),
    "no known_hosts": (
        ["run", "suite.yaml", "rack.yaml"], {"rack.yaml": RACK.replace("known_hosts: known_hosts", "known_hosts: nobody")},
        ["rack.yaml:3:20", "burnin enroll rack.yaml"],
    ),
    "json to nowhere": (
        ["run", "suite.yaml", "rack.yaml", "--json", "no/where.json"], {}, ["--json no/where.json", "there is no folder"],
    ),
    "no such check": (["run", "suite.yaml", "rack.yaml", "--only", "ecc"], {}, ["--only ecc: suite mine does not use it"]),
    "no such part": (["run", "suite.yaml", "rack.yaml", "--parts", "t18"], {}, ["--parts t18: t18 is no tray of rack R-1"]),
    "no database": (["runs"], {}, ["burnin.db"]),
    "not a database": (["runs", "--db", "rack.yaml"], {}, ["rack.yaml"]),
    "unknown fault": (["demo", "--plant", "gremlin:t07"], {}, ["gremlin", "tim_void"]),
    "contradiction": (["demo", "--healthy", "--plant", "xid:t07.g1"], {}, ["--healthy and --plant"]),
    "replaces without part": (["enroll", "rack.yaml", "--replaces", "J1"], {}, ["--part and --replaces go together"]),
    "no such signature": (["signatures", "thermal.x"], {}, ["there is no signature 'thermal.x'"]),
    "unknown option": (["run", "--fast"], {}, ["--fast"]),
    "no such command": (["burn"], {}, ["burn"]),
    "too few words": (["run", "suite.yaml"], {}, ["RACK.yaml"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_sentence_and_exit_2(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words, files, says = BAD[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert run(words) == 2
    said = capfd.readouterr()
    for text in says:
        assert text in said.err, said.err
    assert "Traceback" not in said.err
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before, "nothing lost, nothing half-written"


def test_every_mistake_of_a_file_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rack.yaml").write_text(RACK.replace("R-1", "R 1").replace("gb300", "gb900") + "allow: [everything]\n")
    assert run(["lint", "rack.yaml"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["rack.yaml:1:7", "rack.yaml:2:10", "rack.yaml:6:9"]


def test_a_dry_run_touches_nothing_and_says_what_would_be_done(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "known_hosts").unlink()
    assert run(["run", "demo", "rack.yaml", "--dry-run"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "72 GPUs, 101 kW, staggered" in said
    assert "load-again (if suspicious)" in said
    assert "interlocks before load: rack_identity" in said
    assert not (tmp_path / "burnin.db").exists()


def test_a_dry_run_shows_the_first_orders_of_checks_that_load_gpus_by_themselves(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "l10-tray", "rack.yaml", "--dry-run", "--parts", "t07"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "hbm: 4 GPUs" in said
    assert "hbm: 4 GPUs, up to 6 kW" in said
    assert "load stays within 107.1 kW of GPUs, and rises and falls by 20 kW/s after 0.0 s: load of t07.g0, 1.4 kW" in said
    assert (
        "memory, 1:03: hbm {'seconds': 60}: agent work {'kind': 'hbm', 'gpus': ['g0', 'g1', 'g2', 'g3'], 'args': {'seconds'"
        in said
    )
    assert said.count(" to t07") == 4, "copies, hbm, consensus, collective"


def test_a_dry_run_shows_what_tools_run_and_not_only_that_they_ask_who_is_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "post-repair", "rack.yaml", "--dry-run", "--parts", "t07"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert (
        "diagnostics, 10:00: dcgm {'level': 2}: agent identify; then agent program {'argv': ['dcgmi', 'diag', '-r', '2'" in said
    )
    assert "nvidia-smi (audit), t07: shell: CUDA_DEVICE_ORDER=PCI_BUS_ID LC_ALL=C nvidia-smi nvlink -s" in said


def test_pulses_that_no_way_leads_to_are_said_by_a_dry_run_and_refused_before_a_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = RACK + "power: {rack.power_rate: {max: %d, unit: kW/s, source: one breaker}}\n"
    (tmp_path / "rack.yaml").write_text(row % 50)
    assert run(["run", "l10-tray", "rack.yaml", "--dry-run"]) == 0
    assert "pulses: GPUs pulse in up to 10 groups, spread over the period" in capfd.readouterr().out, "the loop bears 20 kW/s"
    assert run(["run", "l10-tray", "rack.yaml", "--dry-run", "--parts", "t07"]) == 0
    assert "pulses: all GPUs pulse at once" in capfd.readouterr().out
    (tmp_path / "rack.yaml").write_text(row % 5)
    assert run(["run", "l10-tray", "rack.yaml", "--dry-run"]) == 0
    assert (
        "pulses: not pulsed, unless its GPUs idle high enough: pulses of 4 s swing faster than 5 kW/s" in capfd.readouterr().out
    )
    assert run(["run", "l10-tray", "rack.yaml", "--db", "new.db"]) == 2
    said = capfd.readouterr().err
    assert "stage pulses: pulses of 4 s swing faster than 5 kW/s, however they are spread: make them longer" in said


def test_a_dry_run_names_every_check_whole_and_shows_what_each_asks_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from burnin.checks import CHECKS

    more = (
        '  s[0-8]: {host: "10.1.2.[11-19]", user: admin}\n'
        'bmc:\n  t[00-17]: {url: "https://10.1.3.[11-28]", ca: known_hosts, secret: env:BMC}\n'
    )
    (tmp_path / "rack.yaml").write_text(RACK.rstrip("\n") + "\n" + more)
    assert run(["run", "l11-rack-24h", "rack.yaml", "--dry-run"]) == 0
    said = capfd.readouterr().out
    plan = said.partition("interlocks before load")[0]
    assert "…" not in said
    lines = plan.splitlines()
    column = lines[1].index("checks")
    words = {word for line in lines[2:] for word in line[column:].replace(",", " ").split()}
    assert words <= set(CHECKS), "a table that is too wide loses its last letters"
    asked = "inventory firmware configuration switch nmx bmc leak power coolant link-ends switch-ports thermal-margin collective"
    assert set(asked.split()) <= set(plan.replace(",", " ").split())
    assert "inventory (audit), t[00-17]: agent identify" in said
    assert (
        "switch (audit, soak-1, soak-2 and 3 more), s[0-8]: shell:\n" in said and "nv show platform environment leakage" in said
    )
    assert "leak (audit, soak-1, soak-2 and 3 more), t[00-17]: redfish walk" in said


def test_checks_and_faults_list_what_there_is(capfd: pytest.CaptureFixture[str]) -> None:
    from burnin.checks import CHECKS

    assert run(["checks"]) == 0
    said = capfd.readouterr().out
    assert all(f"\n{name} " in said for name in CHECKS)
    assert "hbm             tray    the GPUs to itself " in said and "consensus       rack " in said, "columns that can be read"
    assert "root, nvidia-smi, allow: [gpu_reset]" in said
    assert run(["checks", "--json"]) == 0
    for row, check in zip(json.loads(capfd.readouterr().out), CHECKS.values(), strict=True):
        assert row["check"] == check.name and [m["name"] for m in row["measures"]] == [q.name for q in check.quantities]
    assert run(["checks", "boot-cycle"]) == 0
    said = capfd.readouterr().out
    assert "rack" in said and "BMC, allow: [power_cycle]" in said and "45:00" in said and "boot.device" in said
    assert run(["checks", "nope"]) == 2
    assert "there is no check 'nope'" in capfd.readouterr().err
    assert run(["twin", "faults", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert {row["kind"] for row in rows} >= {"tim_void", "tray_flow", "clock_cap", "ecc_ue", "xid", "gpu_off_bus", "tray_dead"}
    assert all(set(row) == {"kind", "parts", "unit", "severity", "starts", "seams", "about"} for row in rows)


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capfd.readouterr().out.strip() == f"burnin {burnin.__version__}"
    for words in ([], *(name.split() for name in COMMANDS)):
        assert run([*words, "--help"]) == 0


def test_help_is_not_slow_because_nothing_heavy_is_imported() -> None:
    code = "import sys; from burnin.cli import run; run(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = out.splitlines()[-1]
    for heavy in ("asyncssh", "sqlalchemy", "numpy", "pydantic", "rich.live", "ruamel", "alembic", "ClusterShell"):
        assert f"'{heavy}'" not in loaded, heavy


def test_a_closed_pipe_is_not_a_fail() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "burnin", "checks"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr
