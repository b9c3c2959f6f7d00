"""`burnin run` against real OpenSSH servers on a machine without a GPU: HOLD, because nothing of a GPU was measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.conftest import RealSshd
from tests.sampled import some

SUITE = """
suite: short
about: a few seconds against real servers
lease: 5 s
coverage: {metrics: [gpu.temp]}
stages:
  - {stage: audit, steps: [inventory]}
  - {stage: idle, phase: idle, for: 4 s, steps: [idle-baseline, ecc, xid]}
  - {stage: load, phase: load, for: 5 s, load: {}, steps: [gpu-load, thermal-margin]}
  - {stage: cool, phase: cool, for: 3 s, steps: [ecc]}
"""
needs_no_gpu = pytest.mark.skipif(
    os.path.exists("/dev/nvidiactl"), reason="this machine has an NVIDIA GPU: the run would measure it"
)


def rack_file(servers: list[RealSshd], place: Path, **ssh: str) -> Path:
    """A rack of one or two trays on these servers."""
    known = "".join(server.known_hosts.read_text() for server in servers)
    (place / "known_hosts").write_text(known)
    settings = {"user": servers[0].user, "known_hosts": "known_hosts", "dir": str(place / "private" / "agent"), **ssh}
    trays = {f"t{i:02}": {"host": "127.0.0.1", "port": s.port, "key": str(s.root / "client")} for i, s in enumerate(servers)}
    path = place / "rack.yaml"
    profile = "h200-1gpu" if len(servers) == 1 else "gb300-nvl72"
    path.write_text(json.dumps({"rack": "R-REAL", "profile": profile, "ssh": settings, "trays": trays}))
    return path


def burnin(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "burnin", *words], capture_output=True, text=True, timeout=100, cwd=cwd)


@needs_no_gpu
@pytest.mark.parametrize("become", some(["sudo", "none"], 2))
def test_a_host_without_nvml_is_hold(sshd: RealSshd, tmp_path: Path, become: str) -> None:
    if become == "sudo" and (shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], check=False).returncode):
        pytest.skip("no passwordless sudo here")
    (tmp_path / "short.yaml").write_text(SUITE)
    rack = rack_file([sshd], tmp_path, **({"become": "sudo"} if become == "sudo" else {}))
    done = burnin("run", "short.yaml", str(rack), "--db", "b.db", "--json", "v.json", "--plain", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    document = json.loads((tmp_path / "v.json").read_text())
    assert document["verdict"] == "HOLD"
    assert [f for f in document["findings"] if f["severity"] == "FAIL"] == []
    assert any("no libnvidia-ml.so.1" in h["why"] for h in document["holds"])
    assert document["coverage"]["measured"] == 0
    judged = burnin("judge", "last", "--db", "b.db", "--json", "again.json", cwd=tmp_path)
    assert judged.returncode == 3
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "v.json").read_bytes()
    assert list((tmp_path / "private/agent").glob("agent-*.pyz")), "the agent was pushed"

    tidy = burnin("doctor", str(rack), "--clean", cwd=tmp_path)
    assert tidy.returncode == 3
    assert "NVML: no libnvidia-ml.so.1" in " ".join(tidy.stdout.split())
    assert not (tmp_path / "private/agent").exists(), "removed on request"


def test_a_changed_host_key_is_refused_with_the_way_out(
    sshd: RealSshd, start_sshd: Callable[[], RealSshd], tmp_path: Path
) -> None:
    other = start_sshd()
    rack = rack_file([sshd], tmp_path)
    stranger = other.known_hosts.read_text().split(None, 1)[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {stranger}")
    (tmp_path / "short.yaml").write_text(SUITE)
    done = burnin("run", "short.yaml", str(rack), "--db", "b.db", "--json", "v.json", "--plain", cwd=tmp_path)
    assert done.returncode == 3
    document = json.loads((tmp_path / "v.json").read_text())
    (refused,) = (f for f in document["findings"] if f["signature"] == "tray.refused")
    assert f"enroll {rack} --part t00 --replaces SERIAL" in refused["why"]
    assert refused["why"].count("SHA256:") == 2, "the key that is shown and the one that is enrolled"
    assert not (tmp_path / "private").exists(), "nothing was said to a stranger"


def test_enroll_shows_fingerprints_records_them_and_replaces_only_by_name(
    sshd: RealSshd, start_sshd: Callable[[], RealSshd], tmp_path: Path
) -> None:
    other = start_sshd()
    rack = rack_file([sshd, other], tmp_path)
    truth = (tmp_path / "known_hosts").read_text()
    (tmp_path / "known_hosts").unlink()
    missing = burnin("doctor", str(rack), cwd=tmp_path)
    assert missing.returncode == 2
    assert "burnin enroll" in missing.stderr

    refused = subprocess.run(
        [sys.executable, "-m", "burnin", "enroll", str(rack), "--db", "b.db"],
        input="n\n", capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 2
    assert not (tmp_path / "known_hosts").exists()

    done = burnin("enroll", str(rack), "--yes", "--db", "b.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fingerprints = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "known_hosts")], capture_output=True, text=True, check=True
    ).stdout
    for line in fingerprints.splitlines():
        assert line.split()[1] in done.stdout
    assert sorted(line.split()[:3] for line in (tmp_path / "known_hosts").read_text().splitlines()) == sorted(
        line.split()[:3] for line in truth.splitlines()
    )

    again = burnin("enroll", str(rack), "--yes", "--db", "b.db", cwd=tmp_path)
    assert "0 recorded" in again.stdout
    assert "2 were known" in again.stdout

    swapped = (tmp_path / "known_hosts").read_text().replace(truth.split()[2], other.known_hosts.read_text().split()[2])
    (tmp_path / "known_hosts").write_text(swapped)
    replaced = burnin("enroll", str(rack), "--part", "t00", "--replaces", "J-OLD", "--yes", "--db", "b.db", cwd=tmp_path)
    assert replaced.returncode == 0, replaced.stderr
    assert "replaces SHA256:" in replaced.stdout
    out = subprocess.run(
        ["sqlite3", "b.db", "select part, replaced_serial, old_fingerprint is not null from enrollment order by id"],
        capture_output=True, text=True, cwd=tmp_path,
    ) if shutil.which("sqlite3") else None  # fmt: skip
    if out is not None:
        assert out.stdout.split() == ["t00||0", "t01||0", "t00|J-OLD|1"]


def test_a_key_nobody_accepts_is_refused_in_a_sentence(
    sshd: RealSshd, start_sshd: Callable[[], RealSshd], tmp_path: Path
) -> None:
    other = start_sshd()
    rack = rack_file([sshd], tmp_path)
    text = rack.read_text().replace(str(sshd.root / "client"), str(other.root / "client"))
    rack.write_text(text)
    done = burnin("doctor", str(rack), cwd=tmp_path)
    assert done.returncode == 3
    assert "none of our keys is accepted" in " ".join(done.stdout.split())
