"""The agent as it travels: one file, the same bytes every time, small, and at home on every Python from 3.9 on."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Container
from pathlib import Path

import pynvml
import pytest

from burnin.transport import package

AGENT = Path(package.__file__).parents[1] / "agent"
MODULES = [path.name for path in AGENT.glob("*.py")]
KERNELS = [path.name for path in (AGENT / "kernels").glob("*.ptx")]


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
    assert sorted(names) == sorted(
        [
            "__main__.py", "pynvml.py", "pynvml.pyc", "burnin/__init__.py", "burnin/errors.py", "burnin/wire.py",
            *(f"burnin/agent/{name}" for name in MODULES), *(f"burnin/agent/kernels/{name}" for name in KERNELS),
        ]
    )  # fmt: skip
    assert {"holder.py", "work.py", "nvml.py"} < set(MODULES)
    assert "burn.ptx" in KERNELS


def named(node: ast.stmt) -> list[str]:
    """What a statement at top level gives a name to."""
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets]
    return [node.name] if isinstance(node, ast.FunctionDef) else []


def gone(travels: bytes) -> set[str]:
    """The constants and functions of pynvml that did not travel: none that pynvml or the agent names, and no error's."""
    both = (Path(pynvml.__file__).read_bytes(), travels)
    whole, rest = ({name for node in ast.parse(text).body for name in named(node)} for text in both)
    names = whole - rest
    ours = "\n".join((AGENT / name).read_text() for name in MODULES)
    assert not names & set(re.findall(r"\w+", travels.decode() + ours))
    assert len(names) > 1000 and not any(name.startswith("NVML_ERROR_") for name in names)
    return names


def bare(source: bytes, without: Container[str] = ()) -> str:
    """A program's syntax tree, without docstrings and places, and without what it gives some names to."""
    tree = ast.parse(source)
    tree.body = [n for n in tree.body if not (named(n) and named(n)[0] in without)]
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


def test_constants_that_somebody_names_travel() -> None:
    source = b"A_USED = 1\nB_OURS = 2\nC_GONE = 0x10\nNVML_ERROR_X = 3\nD_CALL = f(4)\nlower = 5\n    E_IN = 6\nprint(A_USED)\n"
    assert package.named_only(source, b"x.B_OURS") == source.replace(b"C_GONE = 0x10", b"")


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


def test_functions_that_nobody_comes_to_stay_at_home() -> None:
    kept = b"def a():\n    return b()\n\ndef b():\n    return 'c'\n@d\ndef c():\n    pass\ndef d(f):\n    return f\n"
    source = kept + b"def e():\n    x()\n\n    y()\nz = 1\n"
    assert package.named_only(source, b"nvml.a z") == kept + b"\n\n\n\nz = 1\n"
    assert package.named_only(source, b"z") == b"\n" * 14 + b"z = 1\n"


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path)
def test_every_module_imports_on_a_bare_python(python: str, zipapp: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(zipapp)!r})\n" + "\n".join(
        f"import burnin.agent.{name[:-3]}" for name in MODULES if name != "__init__.py"
    )
    code += "\nimport pynvml; assert pynvml.__file__.startswith(sys.path[0]); print('ok')"
    done = subprocess.run([python, "-I", "-S", "-W", "error", "-c", code], capture_output=True, text=True, check=False, env={})
    assert (done.stdout.strip(), done.stderr) == ("ok", "")


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path)
def test_it_serves_a_channel_on_every_python(python: str, zipapp: Path, tmp_path: Path) -> None:
    orders = b'["lease",5,-1]\n["order","1","identify",{}]\n["order","2","nonsense",{}]\n'
    channel = subprocess.Popen(
        [python, "-I", "-S", str(zipapp), "channel", "run-1", "-", "0"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert channel.stdin is not None and channel.stdout is not None
    channel.stdin.write(orders)
    channel.stdin.flush()
    seen = b""
    while b'"id":"1"' not in seen or b'"id":"2"' not in seen:
        line = channel.stdout.readline()
        assert line, channel.stderr.read() if channel.stderr else b""
        seen += line
    channel.stdin.write(b'["order","3","bye",{}]\n')
    channel.stdin.flush()
    rest = channel.stdout.read()
    channel.stdin.close()
    assert channel.wait(20) == 0
    assert b'"result":"bye"' in rest
    assert channel.stderr is not None
    assert channel.stderr.read() == b""
    channel.stdout.close()
    channel.stderr.close()
    assert b"unknown order 'nonsense'" in seen
    assert (tmp_path / "holder.log").read_bytes() == b"", "nothing was printed where nobody reads it"
    assert not (tmp_path / "holder.sock").exists()


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
