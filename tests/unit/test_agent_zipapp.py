"""The agent as it travels: one file, the same bytes every time, small, and at home on every Python from 3.9 on."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Container
from functools import cache
from pathlib import Path
from typing import Any

import pynvml
import pytest

from burnin.transport import package

AGENT = Path(package.__file__).parents[1] / "agent"
MODULES = [path.name for path in AGENT.glob("*.py")]
KERNELS = [path.name for path in (AGENT / "kernels").glob("*.ptx")]


@cache
def pythons() -> list[str]:
    """Every Python from 3.9 on that this machine has, one per minor version; its own at least."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for minor in range(9, 16):
        places = [shutil.which(f"python3.{minor}"), *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))]
        for place in places:
            if place and subprocess.run([place, "-c", "import ctypes"], capture_output=True, check=False).returncode == 0:
                found.setdefault(f"3.{minor}", place)
    return [found[version] for version in sorted(found, key=lambda v: int(v.split(".")[1]))]


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / package.build().name
    path.write_bytes(package.build().data)
    return path


def test_it_is_small_and_named_by_its_content() -> None:
    agent = package.build()
    assert len(agent.data) <= 150_000
    assert agent.name == f"agent-{hashlib.sha256(agent.data).hexdigest()[:16]}.pyz"


def test_it_is_the_same_bytes_in_another_process() -> None:
    code = "from burnin.transport.package import build; print(build().sha256)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == package.build().sha256


def test_it_carries_the_agent_pynvml_and_the_kernels_and_nothing_else() -> None:
    names = zipfile.ZipFile(io.BytesIO(package.build().data)).namelist()
    bytecode = [name for name in names if name.endswith(".pyc")]
    assert {"pynvml.pyc", "burnin/agent/holder.pyc"} <= set(bytecode) and {name[:-1] for name in bytecode} < set(names)
    assert sorted(set(names) - set(bytecode)) == sorted(
        [
            "__main__.py", "pynvml.py", "burnin/__init__.py", "burnin/errors.py", "burnin/wire.py",
            *(f"burnin/agent/{name}" for name in MODULES), *(f"burnin/agent/kernels/{name}" for name in KERNELS),
        ]
    )  # fmt: skip
    assert {"holder.py", "work.py", "nvml.py"} < set(MODULES)
    assert "burn.ptx" in KERNELS


def top(text: bytes) -> dict[str, ast.stmt]:
    """Top-level names of a module and what makes them."""
    out: dict[str, ast.stmt] = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            out[node.name] = node
        elif isinstance(node, ast.Assign):
            out.update({ast.unparse(target): node for target in node.targets})
        elif isinstance(node, ast.ImportFrom) and len(node.names) == 1:
            out[node.names[0].name] = node
    return out


def gone(travels: bytes) -> set[str]:
    """What of pynvml did not travel: nothing that the rest of it or the agent names, and no error."""
    whole, rest = top(Path(pynvml.__file__).read_bytes()), top(travels)
    names = set(whole) - set(rest)
    ours = "\n".join((AGENT / name).read_text() for name in MODULES)
    assert not names & set(re.findall(r"\w+", travels.decode() + ours))
    assert len(names) > 1800 and not any(name.startswith(("NVML_ERROR_", "NVMLError")) for name in names)
    return names


def bare(source: bytes, without: Container[str] = ()) -> str:
    """A program's syntax tree, without docstrings and places, and without some of its top-level names."""
    tree = ast.parse(source)
    tree.body = [
        n for n in tree.body
        if not (isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) in without)
        and not (isinstance(n, ast.ImportFrom) and n.names[0].name in without)
        and not (isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in without)
    ]  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            said = (
                isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
                for n in node.body
            )
            node.body = [n for n, only in zip(node.body, said, strict=True) if not only]
    return ast.dump(tree)


def test_what_travels_is_the_same_program_on_the_same_lines() -> None:
    archive = zipfile.ZipFile(io.BytesIO(package.build().data))
    there = {"pynvml.py": Path(pynvml.__file__), **{f"burnin/agent/{name}": AGENT / name for name in MODULES}}
    for name, path in there.items():
        travels, source = archive.read(name), path.read_bytes()
        assert bare(travels) == (bare(source) if name != "pynvml.py" else bare(source, without=gone(travels))), name
        assert travels.count(b"\n") == source.count(b"\n"), name
    assert b"NVIDIA Corporation" in archive.read("pynvml.py"), "its licence travels with it"


NAMED = b'''# licence
from a.b import wanted
from a.b import unwanted
A_USED = wanted
B_OURS = 2
C_GONE = 0x10
NVML_ERROR_X = 3
D_CALL = f(4)
lower = 5
lower_gone = c_uint
@decorated
def ours(a,
         b):
    return helps(A_USED)

def helps(x):
    text = """
def inside():
"""
    return x
def calls_itself():
    # gone
    return calls_itself()

class Gone(Kept):
    x = 1

    def f(self): pass
class Kept:
    pass
Kept.y = lower
'''


def test_what_somebody_names_travels_and_every_line_keeps_its_number() -> None:
    gone = (
        b"from a.b import unwanted",
        b"C_GONE = 0x10",
        b"lower_gone = c_uint",
        b"def calls_itself():\n    # gone\n    return calls_itself()\n",
        b"class Gone(Kept):\n    x = 1\n\n    def f(self): pass",
    )
    wanted = NAMED
    for text in gone:
        assert text in wanted
        wanted = wanted.replace(text, b"\n" * text.count(b"\n"))
    assert package.named_only(NAMED, b"x.B_OURS; getattr(x, 'ours')") == wanted


def test_pynvml_as_it_travels_has_what_the_agent_uses(zipapp: Path) -> None:
    used = set(re.findall(r"\bnvml\.((?:nvml|NVML)\w+)|_nvml\.((?:nvml|NVML)\w+)", "".join(
        (AGENT / name).read_text() for name in MODULES
    )))  # fmt: skip
    names = sorted(a or b for a, b in used)
    assert len(names) > 10
    code = f"import sys; sys.path.insert(0, {str(zipapp)!r}); import pynvml; assert pynvml.__file__.startswith(sys.path[0])\n"
    code += f"print([n for n in {names} if not hasattr(pynvml, n)], issubclass(pynvml.NVMLError_GpuIsLost, pynvml.NVMLError))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


TRICKY = b'''# licence
"""Doc
# not a comment
"""
x = """
# kept
""" + "y"
def f():
    # goes
    """Doc."""
    """one""" + """two"""
    x   = y  # goes
    return "#  in", x  # stays
'''


def test_only_comments_and_docstrings_stay_at_home() -> None:
    assert package.lean(TRICKY) == (
        b'# licence\n""\n\n\nx = """\n# kept\n""" + "y"\ndef f():\n\n    ""\n    """one""" + """two"""\n'
        b'    x = y\n    return "#  in", x  # stays\n'
    )


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path)
def test_every_module_imports_on_a_bare_python(python: str, zipapp: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(zipapp)!r})\n" + "\n".join(
        f"import burnin.agent.{name[:-3]}" for name in MODULES if name != "__init__.py"
    )
    code += "\nimport pynvml; assert pynvml.__file__.startswith(sys.path[0]); print('ok')"
    done = subprocess.run([python, "-I", "-S", "-W", "error", "-c", code], capture_output=True, text=True, check=False, env={})
    assert (done.stdout.strip(), done.stderr) == ("ok", "")


def serve(python: str, zipapp: Path, where: Path, user: int | None = None, **env: str) -> dict[str, Any]:
    """A channel's whole life in `where`: what `identify` and an order that nobody knows are answered, and hello."""
    orders = b'["lease",5,-1]\n["order","1","identify",{}]\n["order","2","nonsense",{}]\n'
    channel = subprocess.Popen(
        [python, "-I", "-S", str(zipapp), "channel", "run-1", "-", "0"], cwd=where, user=user, group=user,
        extra_groups=None if user is None else [], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **env},
    )  # fmt: skip
    assert channel.stdin is not None and channel.stdout is not None and channel.stderr is not None
    channel.stdin.write(orders)
    channel.stdin.flush()
    said: dict[str, Any] = {}
    while not {"1", "2"} <= set(said):
        line = channel.stdout.readline()
        assert line, channel.stderr.read()
        if line.startswith(b"["):
            kind, _, _, _, body = json.loads(line)
            said.update({"hello": body} if kind == "hello" else {body["id"]: body} if kind == "reply" else {})
    channel.stdin.write(b'["order","3","bye",{}]\n')
    channel.stdin.flush()
    rest = channel.stdout.read()
    channel.stdin.close()
    assert channel.wait(20) == 0
    assert b'"result":"bye"' in rest
    assert channel.stderr.read() == b""
    channel.stdout.close()
    channel.stderr.close()
    assert (where / "holder.log").read_bytes() == b"", "nothing was printed where nobody reads it"
    assert not (where / "holder.sock").exists()
    return said


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path)
def test_it_serves_a_channel_on_every_python(python: str, zipapp: Path, tmp_path: Path) -> None:
    said = serve(python, zipapp, tmp_path)
    version = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:3], sep='.')"], capture_output=True, check=True)
    assert said["1"]["result"]["host"]["python"] == version.stdout.decode().strip()
    assert said["2"]["error"] == "unknown order 'nonsense'"


def test_more_than_one_python_was_met() -> None:
    """Which ones: the names of the cases above."""
    if len(pythons()) == 1:
        pytest.skip(f"{sys.executable} is the only Python from 3.9 on that was found here")
    assert len({python.rsplit("/", 2)[0] for python in pythons()}) == len(pythons())


def test_a_host_without_a_kernel_log_is_served_and_says_so(zipapp: Path, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    said = serve(sys.executable, zipapp, tmp_path, HOST_DEV=str(tmp_path / "dev"))
    assert said["1"]["result"]["kmsg"] == "missing"
    (tmp_path / "dev/kmsg").write_text("6,1,1,-;hello\n")
    assert serve(sys.executable, zipapp, tmp_path, HOST_DEV=str(tmp_path / "dev"))["1"]["result"]["kmsg"] is None


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: the plain user's case is every other test here, root's cannot be shown")
@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "a plain user"])
def test_root_and_a_plain_user_are_served(zipapp: Path, user: int) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own are closed to others
        where = Path(folder) / "private"
        where.mkdir(mode=0o700)
        os.chmod(folder, 0o755)
        shutil.copy(zipapp, where)
        os.chown(where, user, user)
        os.chown(where / zipapp.name, user, user)
        (where / "dev").mkdir()
        (where / "dev/kmsg").write_text("6,1,1,-;hello\n")
        (where / "dev/kmsg").chmod(0o600)
        os.chown(where / "dev", user, user)
        code = "import ctypes, sys; sys.exit(sys.version_info < (3, 9))"
        for python in (*pythons(), "/usr/bin/python3", "/usr/local/bin/python3"):
            with contextlib.suppress(OSError):
                words = [python, "-I", "-S", "-c", code]
                if subprocess.run(words, user=user, group=user, cwd="/", capture_output=True, check=False).returncode == 0:
                    break
        else:
            pytest.skip("no Python here that a plain user may run")
        said = serve(python, where / zipapp.name, where, user, HOST_DEV=str(where / "dev"))
        assert said["1"]["result"]["host"]["uid"] == said["hello"]["uid"] == user
        assert said["1"]["result"]["kmsg"] == ("no_permission" if user else None)


def test_a_python_without_ctypes_is_said_in_a_sentence(zipapp: Path, tmp_path: Path) -> None:
    poor = tmp_path / "python3"
    poor.write_text(
        f'#!/bin/sh\nexec {sys.executable} -I -S -c \'import sys\nsys.modules["_ctypes"] = None\nsys.executable = "{poor}"\n'
        'sys.argv = sys.argv[3:]\nimport runpy\nrunpy.run_path(sys.argv[0], run_name="__main__")\' "$@"\n'
    )
    poor.chmod(0o755)
    done = subprocess.run(
        [str(poor), "-I", "-S", str(zipapp), "channel", "run-1", "-", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6
    assert "this python has no ctypes" in done.stderr


def test_the_agents_sources_stay_with_the_standard_library() -> None:
    """Every import of the agent's files is of its own package, pynvml, or what Python 3.9 itself brings."""
    root = Path(package.__file__).parents[1]
    for path in [root / "wire.py", root / "errors.py", *(root / "agent").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                ours = name == "burnin" or name.startswith(("burnin.agent", "burnin.wire", "burnin.errors"))
                assert ours or name == "pynvml" or name.split(".")[0] in sys.stdlib_module_names, f"{path.name}: {name}"
