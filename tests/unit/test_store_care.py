"""Looking after the file: check, backup, export, making room; and old files of every released schema come forward."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import zstandard

from burnin.cli import run as burnin
from burnin.errors import InputError, StoreError
from burnin.events import LogLine, Result, StageBegan, StageEnded, Status, Tick
from burnin.rack.load import load_catalogue
from burnin.rack.parts import is_part
from burnin.run import sockets
from burnin.run.lock import Process
from burnin.store import Attempt, Evidence, RunStart, Session, care, open_store
from burnin.store.tables import REVISIONS
from burnin.telemetry import directory

GOLDEN = Path(__file__).parents[1] / "golden"
COLUMNS = (("t00.g0", "gpu.temp"), ("t00.g0", "gpu.power"))
CONFIG = {
    "rack": {"trays": {"t00": {"host": "192.0.2.1"}}},
    "plan": {"trays": ["t00"], "only": []},
    "suite": {"stages": [{"stage": "idle", "settle": "0 s"}]},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with one ended run of two minutes."""
    file = tmp_path / "burnin.db"
    with closing(open_store(file)) as store:
        store.begin_run(RunStart("r1", "R-1", "gb300-nvl72", "s", False, True, "ann", "2026-01-01T00:00:00Z", CONFIG))
        store.keep([StageBegan(0, "idle", "idle", 120.0, 0.0), LogLine("t00.g0", 3.0, "xid", "79", "gone", "kmsg", 5)])
        store.keep([Tick("t00", float(s), COLUMNS, (40.0, None if s == 7 else s / 8)) for s in range(120)])
        done = Attempt("idle", "ecc", "t00", 1, Status.COMPLETE, Result.PASS, 0.0, 1.0)
        store.end_attempt(done, [Evidence("idle", "ecc", "t00", 1, 0, "a", "b")])
        store.keep([StageEnded(0, "idle", 120.0, Status.COMPLETE)])
        store.end_run("r1", "2026-01-01T00:02:00Z", "COMPLETE")
    return file


def db(*words: str | Path) -> int:
    return burnin(["db", *map(str, words)])


# ---------------------------------------------------------------- check


def test_a_whole_database_is_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert db("check", "--db", path) == 0
    assert "is whole: 1 runs, 1 blocks of readings, 1 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ("UPDATE telemetry_block SET body = substr(body, 1, length(body) - 9)", "readings of t00 from 0 s of run r1"),
        ("UPDATE telemetry_block SET body = x'00'", "readings of t00 from 0 s of run r1"),
        ("UPDATE evidence SET body = x'28b52ffd00'", "evidence of ecc on t00 in idle of run r1"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM run", "belongs to no run"),
    ],
)
def test_damage_is_named_and_is_burnins_own_failure(
    path: Path, capsys: pytest.CaptureFixture[str], spoil: str, what: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(spoil)
    assert db("check", "--db", path) == 4
    said = capsys.readouterr().err
    assert what in said
    assert "is damaged" in said


def test_a_file_with_a_lost_page_is_damaged_and_no_traceback(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8192:12288] = os.urandom(4096)
    path.write_bytes(data)
    assert care.check(path).damage
    assert db("check", "--db", path) == 4


# ---------------------------------------------------------------- backup


def test_a_file_that_cannot_be_opened_is_not_called_damaged(path: Path) -> None:
    path.with_name(f"{path.name}-wal").mkdir()
    with pytest.raises(InputError, match="cannot be opened"):
        care.check(path)


def test_a_file_without_its_log_says_what_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "copied.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    with pytest.raises(InputError, match=r"copied\.db holds no runs yet: .* the -wal file beside it is part of it"):
        care.check(path)


def test_a_backup_from_a_disk_that_is_read_only(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    care.backup(path, tmp_path / "copy.db")
    monkeypatch.undo()
    assert care.check(tmp_path / "copy.db").runs > 0


def test_a_backup_is_whole_ours_alone_and_takes_nobodys_place(path: Path, tmp_path: Path) -> None:
    to = tmp_path / "copy.db"
    with closing(open_store(path)) as store:  # in use, and with something in its WAL
        store.begin_run(RunStart("r2", "R-1", "p", None, False, True, "ann", "2026-01-02T00:00:00Z", {}))
        assert db("backup", to, "--db", path) == 0
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    with closing(open_store(to, create=False)) as copy:
        assert [run.id for run in copy.runs()] == ["r1", "r2"]
    before = to.read_bytes()
    assert db("backup", to, "--db", path) == 2
    assert to.read_bytes() == before
    assert db("backup", tmp_path / "no" / "such.db", "--db", path) == 2
    assert sorted(p.name for p in tmp_path.iterdir() if "copy" in p.name) == ["copy.db"]


def test_a_backup_onto_a_full_disk_is_a_sentence_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk to be had: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StoreError, match="has no room left on its disk"):
            care.backup(path, disk / "copy.db")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


# ---------------------------------------------------------------- export


@pytest.mark.parametrize("words", [[], ["--csv"]])
def test_an_export_is_read_by_anyone(path: Path, tmp_path: Path, words: list[str]) -> None:
    to = tmp_path / "out"
    assert db("export", "last", "-o", to, "--db", path, *words) == 0
    read = directory.read(to, set(load_catalogue().metrics), is_part)
    power = read.telemetry.of("t00.g0", "gpu.power")
    expected = np.arange(120) / 8
    expected[7] = np.nan
    np.testing.assert_array_equal(power.v, expected)
    np.testing.assert_array_equal(power.t_s, np.arange(120.0))
    assert read.log is not None and [(line.part, line.code) for line in read.log] == [("t00.g0", "79")]
    with (to / "stage.csv").open() as file:
        assert [(row["name"], row["status"]) for row in csv.DictReader(file)] == [("idle", "COMPLETE")]
    assert json.loads((to / "evidence.jsonl").read_text())["body"] == "b"
    assert json.loads((to / "run.json").read_text())["config"] == CONFIG
    assert db("export", "last", "-o", to, "--db", path) == 2, "nothing is overwritten"


# ---------------------------------------------------------------- room


def test_dropped_readings_leave_minutes_and_say_so(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert db("vacuum", "--drop-readings", "30", "--db", path) == 0
    assert "run r1: readings dropped" in capsys.readouterr().out
    with closing(open_store(path)) as store:
        assert store.telemetry("r1").series == {}
        assert [row.n for row in store.rollups("r1", "gpu.power")["t00.g0"]] == [59, 60]
        assert [line.code for line in store.log("r1")] == ["79", "dropped"]
        assert len(store.attempts("r1")) == 1
    assert care.forget_readings(path, "2030-01-01T00:00:00Z") == {}


def test_young_runs_keep_their_readings(path: Path) -> None:
    assert care.forget_readings(path, "2026-01-01T00:02:00Z") == {}


def test_nothing_is_vacuumed_under_a_living_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    me = Process.me()
    of_me = Session(me.host, me.boot, me.pid, me.started, "ann", "2026-01-02T00:00:00Z", 0.0, 0.0)
    with closing(open_store(path)) as store:
        store.begin_run(RunStart("r2", "R-1", "p", None, False, True, "ann", "2026-01-02T00:00:00Z", {}), of_me)
        assert db("vacuum", "--db", path) == 3
        assert f"run r2 is being kept in {path} (process {me.pid}" in capsys.readouterr().err
        store.end_run("r2", "2026-01-02T00:00:01Z", "COMPLETE")
    assert db("vacuum", "--db", path) == 0


async def test_a_run_of_who_knows_whom_keeps_nobody_from_its_database_unless_it_is_in_use(path: Path) -> None:
    """It came with a copy, or from a container: that its process is gone is not known here, but that nobody uses the file."""
    with closing(open_store(path)) as store:
        of = Session("elsewhere", "b.1.2", 1, "1", "ann", "2026-01-02T00:00:00Z", 0.0, 0.0)
        store.begin_run(RunStart("r2", "R-1", "p", None, False, True, "ann", "2026-01-02T00:00:00Z", {}), of)
    listening = await sockets.listen(sockets.live(path), cast("sockets.Serve", None), "run r2 (pid 1)")
    assert sockets.kept_by(path) == "run r2 (pid 1)"
    assert db("vacuum", "--db", path) == 3
    await listening.close()
    assert sockets.kept_by(path) == ""
    assert db("vacuum", "--db", path) == 0


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    for words in (["check"], ["backup", str(tmp_path / "to")], ["export", "last", "-o", str(tmp_path / "x")], ["vacuum"]):
        assert db(*words, "--db", tmp_path / "none.db") == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="does not exist"):
        care.vacuum(tmp_path / "none.db")


# ---------------------------------------------------------------- old files


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_stored_file_of_every_released_schema_comes_forward_with_all_it_holds(tmp_path: Path, revision: str) -> None:
    """The files were written by the burnin of that schema (see tests/golden/README.md)."""
    path = tmp_path / "burnin.db"
    path.write_bytes(zstandard.ZstdDecompressor().decompress((GOLDEN / f"burnin-{revision}.db.zst").read_bytes()))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
    with closing(open_store(path, create=False)) as store:
        assert [(run.id, run.status, run.word) for run in store.runs()] == [
            ("20261120-120000-0ld1", "COMPLETE", "PASS"),
            ("20261120-140000-0ld2", "RUNNING", None),
        ]
        run = "20261120-120000-0ld1"
        power = store.telemetry(run).of("t00.g0", "gpu.power")
        assert power.v.tolist() == [190.125 + i for i in range(60)]
        assert [(line.part, line.code, line.seq) for line in store.log(run)] == [("t00.g1", "94", None)]
        assert [(stage.name, stage.status, stage.trays) for stage in store.stages(run)] == [("idle", Status.COMPLETE, None)]
        assert store.evidence(run)[0].body == {"ok": True, "body": {"n": 1}, "to": "t00"}
        assert store.verdict(run) == '{"verdict": "PASS"}\n'
        assert store.sessions(run) == []
        last_s = store.continue_run("20261120-140000-0ld2", Session("h", "b", 1, "1", "ann", "now", 0.0, 30.0), CONFIG)
        assert last_s == 20.0
        assert [(s.name, s.status, s.t1_s) for s in store.stages("20261120-140000-0ld2")] == [("idle", Status.ABORTED, 20.0)]
        store.end_run("20261120-140000-0ld2", "2026-11-21T00:00:00Z", "COMPLETE")
    assert care.check(path).damage == ()


def test_every_released_schema_has_its_file() -> None:
    assert sorted(p.name for p in GOLDEN.glob("burnin-*.db.zst")) == [f"burnin-{r}.db.zst" for r in REVISIONS[:-1]]


def test_importing_the_store_does_not_import_pyarrow() -> None:
    code = "import sys, burnin.store.care; print('pyarrow' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"
