"""Bytecode that is kept beside the zipapp: made by every Python, run by, and never believed where it could be another's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from burnin.agent import codes
from burnin.transport import package
from tests.sampled import some
from tests.unit.test_agent_zipapp import NOBODY, pythons, serve

IMPORTS = """
import pkgutil, sys
sys.path.insert(0, sys.argv[1])
from burnin.agent import codes
assert codes.use(sys.argv[1])
import pynvml
from burnin.agent import holder, work, hostdata
for module in (pynvml, holder, work, hostdata):
    assert type(module.__loader__).__name__ == "Kept" and module.__file__.startswith(sys.argv[1]), module
assert b".visible .entry" in work.kernels("burn")
assert "class Holder" in holder.__loader__.get_source("burnin.agent.holder")
print(holder.Holder.serve.__code__.co_firstlineno)
"""


def put(where: Path) -> Path:
    """The zipapp under its name."""
    path = where / package.build().name
    path.write_bytes(package.build().data)
    return path


def made(zipapp: Path, python: str = sys.executable) -> Path:
    """What a Python keeps beside it."""
    before = set(zipapp.parent.iterdir())
    subprocess.run([python, "-I", "-S", str(zipapp), "codes"], check=True, env={}, capture_output=True)
    (kept,) = set(zipapp.parent.iterdir()) - before
    return kept


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path)
def test_every_python_keeps_its_own_and_runs_by_it(python: str, tmp_path: Path) -> None:
    zipapp = put(tmp_path)
    kept = made(zipapp, python)
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.name.startswith(f"{zipapp.name}.cpython-3")
    words = [python, "-I", "-S", "-W", "error", "-c", IMPORTS, str(zipapp)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={})
    lines = (Path(codes.__file__).parent / "holder.py").read_text().splitlines()
    assert done.stdout.strip() == str(1 + lines.index(next(line for line in lines if "def serve(" in line))), done.stderr
    (tmp_path / "run").mkdir()
    assert serve(python, zipapp, tmp_path / "run")["2"]["error"] == "unknown order 'nonsense'"


def _cut(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:-1])


def _flip(kept: Path) -> None:
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)


def _of_another_python(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes().replace(sys.version.split()[0].encode(), b"3.99.9", 1))


def _of_another_agent(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes().replace(package.build().name.encode(), b"agent-0123456789abcdef.pyz", 1))


def _linked(kept: Path) -> None:
    kept.rename(kept.with_suffix(".real"))
    kept.symlink_to(kept.with_suffix(".real"))


def _pipe(kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept, 0o600)


def _folder(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()


def _of_nobody(kept: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: a file cannot be given to another user")
    os.chown(kept, NOBODY, NOBODY)


def _huge(kept: Path) -> None:
    os.truncate(kept, codes.MOST + 1)


SPOILT: dict[str, Callable[[Path], None]] = {
    "cut short": _cut, "a bit flipped": _flip, "another Python's": _of_another_python, "another agent's": _of_another_agent,
    "a link": _linked, "a pipe": _pipe, "a folder": _folder, "another user's": _of_nobody, "too large": _huge,
    "empty": lambda kept: os.truncate(kept, 0),
    "others may write": lambda kept: kept.chmod(0o620), "others may read": lambda kept: kept.chmod(0o604),
}  # fmt: skip


@pytest.mark.parametrize("what", some(SPOILT))
def test_what_is_not_to_be_believed_is_as_if_it_were_not_there(what: str, tmp_path: Path) -> None:
    zipapp = put(tmp_path)
    kept = made(zipapp)
    assert codes.kept(str(zipapp)).keys() >= {"burnin.agent.holder", "burnin.wire", "pynvml"}
    SPOILT[what](kept)
    assert codes.kept(str(zipapp)) == {}
    (tmp_path / "run").mkdir()
    assert serve(sys.executable, zipapp, tmp_path / "run")["1"]["ok"]


def test_one_that_was_spoilt_is_made_anew(tmp_path: Path) -> None:
    zipapp = put(tmp_path)
    _flip(made(zipapp))
    subprocess.run([sys.executable, "-I", "-S", str(zipapp), "codes"], check=True)
    assert codes.kept(str(zipapp))


def test_a_zipapp_whose_name_says_nothing_keeps_nothing(tmp_path: Path) -> None:
    zipapp = put(tmp_path).rename(tmp_path / "agent.pyz")
    assert subprocess.run([sys.executable, "-I", "-S", str(zipapp), "codes"], check=False).returncode == 1
    assert list(tmp_path.iterdir()) == [zipapp]


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: a folder cannot be another user's")
def test_where_nothing_can_be_written_nothing_is_left_and_nothing_is_lost() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        zipapp = put(Path(folder))
        code = "import ctypes, sys; sys.exit(sys.version_info < (3, 9))"
        for python in filter(None, (shutil.which("python3", path="/usr/bin:/usr/local/bin"), sys.executable)):
            if subprocess.run([python, "-c", code], user=NOBODY, group=NOBODY, cwd="/", check=False).returncode == 0:
                break
        else:
            pytest.skip("no Python here that a plain user may run")
        words = [python, "-I", "-S", zipapp.name, "codes"]
        done = subprocess.run(words, user=NOBODY, group=NOBODY, cwd=folder, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
        assert list(Path(folder).iterdir()) == [zipapp]


def test_a_holder_that_lived_a_while_keeps_it_for_later_ones(tmp_path: Path) -> None:
    zipapp = put(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from burnin.agent import main; main.KEEP_AFTER_S = 0.01\n"
        "sys.exit(main.main(sys.argv[1], ['hold', 'run'], False))"
    )
    holder = subprocess.Popen([sys.executable, "-I", "-S", "-c", code, str(zipapp)], cwd=tmp_path, env={})
    try:
        end = time.monotonic() + 30
        while not codes.kept(str(zipapp)):
            assert time.monotonic() < end and holder.poll() is None
            time.sleep(0.02)
    finally:
        holder.terminate()
        assert holder.wait(20) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("agent-")) == sorted(
        [zipapp.name, Path(codes.place(str(zipapp))).name]
    )
