"""Opening: new, older, newer, foreign, locked, damaged, not ours. The schema is the same however it came to be."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from burnin.errors import InputError, StoreError
from burnin.store import RunStart, open_store
from burnin.store.migrate import upgrade
from burnin.store.tables import REVISIONS, metadata

SCHEMA = Path(__file__).parents[2] / "docs" / "schema.md"
START = RunStart("20261121-120000-beef", "R-1", "gb300-nvl72", "demo", False, True, "op", "2026-11-21T12:00:00Z", {})


def migrated(path: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, revision)
    engine.dispose()


def schema(path: Path) -> dict[str, Any]:
    """Tables, columns, keys, indexes and views, however they are written."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as db:
        for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master WHERE type IN ('table', 'view')").fetchall():
            if kind == "view":
                found[name] = " ".join(sql.split())
                continue
            indexes = {}
            for _, index, unique, origin, partial in db.execute(f"PRAGMA index_list({name})").fetchall():
                columns = [column for _, _, column in db.execute(f"PRAGMA index_info({index})")]
                indexes[index if origin == "c" else tuple(columns)] = (columns, unique, origin, partial)
            found[name] = (
                [row[1:] for row in db.execute(f"PRAGMA table_xinfo({name})")],
                sorted(row[2:] for row in db.execute(f"PRAGMA foreign_key_list({name})")),
                indexes,
                "WITHOUT ROWID" in sql,
            )
    return found


# ---------------------------------------------------------------- schema


def test_created_and_migrated_are_the_same(tmp_path: Path) -> None:
    open_store(tmp_path / "new.db").close()
    migrated(tmp_path / "old.db", "head")
    new, old = schema(tmp_path / "new.db"), schema(tmp_path / "old.db")
    assert sorted(new) == sorted(old)
    for name in new:
        assert new[name] == old[name], name


def test_tables_say_what_the_database_has(tmp_path: Path) -> None:
    open_store(tmp_path / "new.db").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_revisions_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", "burnin.store:migrations")
    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(walked)) == REVISIONS


def test_the_drawn_schema_names_every_table_view_and_column(tmp_path: Path) -> None:
    """A section per table or view, and in it a row per column, no more and no fewer."""
    drawn: dict[str, list[str]] = {}
    for section in re.split(r"^### ", SCHEMA.read_text(), flags=re.MULTILINE)[1:]:
        names = re.findall(r"^\| `(\w+)` \|", section.split("\n## ")[0], flags=re.MULTILINE)
        drawn[section.split("\n", 1)[0].strip("` ")] = names
    open_store(tmp_path / "new.db").close()
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        real = {name: [row[1] for row in db.execute(f"PRAGMA table_xinfo({name})")] for name in tables}
    assert drawn == real


def test_the_queries_in_the_drawn_schema_run(tmp_path: Path) -> None:
    open_store(tmp_path / "new.db").close()
    queries = re.findall(r"```sql\n(.*?)```", SCHEMA.read_text(), flags=re.DOTALL)
    assert len(queries) >= 6
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        for query in queries:
            db.execute(query).fetchall()


# ---------------------------------------------------------------- a new file


def test_a_new_file_is_ours_alone_and_survives_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    store = open_store(path)
    store.begin_run(START)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("burnin.db-wal").stat().st_mode) == 0o600
    with store._writing() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    store.close()


def test_a_new_file_costs_no_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from burnin.store import open_store; "
        f"open_store({str(tmp_path / 'a.db')!r}); print('alembic' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "False\n"


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    path.touch()
    with pytest.raises(InputError, match="holds no runs yet"):
        open_store(path, create=False)
    open_store(path).close()
    open_store(path, create=False).close()


def test_three_processes_may_make_it_at_once(tmp_path: Path) -> None:
    code = f"from burnin.store import open_store; input(); open_store({str(tmp_path / 'burnin.db')!r}).close()"
    many = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for one in many:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.flush()
    assert [one.communicate(timeout=60)[1].decode() for one in many] == ["", "", ""]
    assert [one.returncode for one in many] == [0, 0, 0]
    with closing(open_store(tmp_path / "burnin.db", create=False)) as store:
        assert store.runs() == []


# ---------------------------------------------------------------- an older or newer one


def test_an_older_one_is_brought_forward_after_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    migrated(path, REVISIONS[0])
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO run (id, rack, profile, ships, whole, operator, host, pid, started, status, waivers, config)"
            " VALUES ('r1', 'R-1', 'p', 1, 1, 'op', 'h', 1, '2026-01-01T00:00:00Z', 'COMPLETE', '[]', '{}')"
        )
        db.commit()
    store = open_store(path, create=False)
    assert [run.id for run in store.runs()] == ["r1"]
    store.close()
    open_store(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")
    copy = tmp_path / f"burnin.db.{REVISIONS[0]}.bak"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISIONS[0],)]
        assert db.execute("SELECT id FROM run").fetchall() == [("r1",)]


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    migrated(path, REVISIONS[0])
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE VIEW v_runs AS SELECT 1")  # in the way of the second of three statements
    before = schema(path)
    with pytest.raises(StoreError, match="v_runs"):
        open_store(path)
    assert schema(path) == before


def test_a_newer_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    open_store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE alembic_version SET version_num = '0999'")
        db.commit()
    with pytest.raises(StoreError, match=r"newer burnin \(schema 0999, this one knows 0003\): upgrade burnin"):
        open_store(path)


# ---------------------------------------------------------------- what is not ours


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE run (id)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="is a database, but not burnin's"):
        open_store(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.db"]


def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rack.yaml").write_text("rack: R-1\n" * 200)
    with pytest.raises(InputError, match="is not a SQLite database"):
        open_store(tmp_path / "rack.yaml")
    with pytest.raises(InputError, match="is a directory"):
        open_store(tmp_path)
    with pytest.raises(InputError, match="does not exist, so no run was kept there"):
        open_store(tmp_path / "none.db", create=False)
    with pytest.raises(InputError, match="cannot be reached or made: No such file or directory"):
        open_store(tmp_path / "none" / "burnin.db")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "sentence"),
    [
        (0o777, 0o444, "burnin.db cannot be written, "),
        (0o555, 0o666, "kept is read-only for you"),
        (0o700, 0o666, "burnin.db cannot be reached or made: Permission denied"),
    ],
)
def test_a_place_that_is_not_ours_is_refused(folder_mode: int, file_mode: int, sentence: str) -> None:
    """As a user who is not root: root may write everywhere."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "kept"
        folder.mkdir()
        path = folder / "burnin.db"
        open_store(path).close()
        Path(above).chmod(0o755)
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        code = f"""
import os
from burnin.errors import InputError
from burnin.store import open_store
os.chdir("/")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    open_store({str(path)!r})
except InputError as error:
    print(error)
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        assert sentence in ran.stdout


def test_a_lock_is_named(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    store = open_store(path, busy_s=0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another program"):
            store.begin_run(START)
        assert store.runs() == []
        other.execute("ROLLBACK")
    store.begin_run(START)
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="is locked by another program"):
            open_store(path, busy_s=0.05)


def test_a_run_waits_longer_for_a_lock_than_other_commands(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    store = open_store(path, busy_s=0.05, keep_s=30.0)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        let_go = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
        let_go.start()
        store.begin_run(START)
        let_go.join()
    assert [run.id for run in store.runs()] == [START.id]
    store.close()


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "burnin.db"
    store = open_store(path)
    store.begin_run(START)
    store.close()
    whole = bytearray(path.read_bytes())
    whole[4096:] = b"\x5a" * (len(whole) - 4096)
    path.write_bytes(whole)
    with pytest.raises(StoreError, match="is damaged"), closing(open_store(path)) as store:
        store.runs()
