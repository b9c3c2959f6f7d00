"""The agent as one file: a zipapp of `burnin.agent`, `wire`, `errors` and pynvml, the same bytes every time.

pynvml and what a holder starts with travel twice: as source, and as bytecode of this Python without line tables, which halves the
start of a holder on a tray with the same Python (docs/benchmarks.md); every other Python from 3.9 on falls back to the source.
Comments, docstrings and whatever of pynvml nobody names stay at home, licences excepted; every line keeps its number,
so that tracebacks are true.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import re
import sys
import types
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

_MAIN = b"""import os, sys
kept = os.path.exists(f"{sys.argv[0]}.{sys.implementation.cache_tag}")
if kept:
    from burnin.agent.codes import use
    kept = use(sys.argv[0])
from burnin.agent.main import main
sys.exit(main(sys.argv[0], sys.argv[1:], kept))
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_WORD = re.compile(rb"\w+")
_DEFINED = re.compile(rb"(?:def|class) +(\w+)")
_CONSTANT = re.compile(rb"([A-Za-z_]\w*) *= *(?:[^(=\n]*|\(\d+ << \d+\) *|\( *)$")
_IMPORTED = re.compile(rb"from [\w.]+ import (\w+)$")
_BY_PREFIX = b"NVML_ERROR_"
"""Constants that pynvml itself finds by dir(): it makes its exceptions of them."""
_STARTS = ("pynvml.py", "burnin/wire.py", *(f"burnin/agent/{name}.py" for name in (
    "channel", "main", "holder", "nvml", "grip", "fields", "guards", "links", "host", "attachment", "clocks", "readings",
    "claims", "spool", "alone", "halts", "load", "sampler", "program", "jobs", "kernel_log", "cost", "lease",
)), "burnin/errors.py")  # fmt: skip
"""What a channel and a holder import, before and after they can be talked to."""
_ROOM, _LEVEL = 142_700, 7
"""Bytecode travels as long as the file stays below this (the house allows 150 kB, headers included)."""
_UNCHECKED_HASH = (1).to_bytes(4, "little")


@dataclass(frozen=True)
class Agent:
    """The zipapp and its name on the tray, which is its content's hash."""

    data: bytes
    sha256: str

    @property
    def name(self) -> str:
        """File name on the tray."""
        return f"agent-{self.sha256[:16]}.pyz"


def _sources() -> dict[str, bytes]:
    package = files("burnin")
    out = {f"burnin/{name}": package.joinpath(name).read_bytes() for name in ("__init__.py", "errors.py", "wire.py")}
    for entry in package.joinpath("agent").iterdir():
        if entry.name.endswith(".py"):
            out[f"burnin/agent/{entry.name}"] = entry.read_bytes()
    for entry in package.joinpath("agent/kernels").iterdir():
        if entry.name.endswith(".ptx"):
            out[f"burnin/agent/kernels/{entry.name}"] = entry.read_bytes()
    nvml = importlib.util.find_spec("pynvml")
    if nvml is None or nvml.origin is None:
        raise RuntimeError("nvidia-ml-py is not installed beside burnin")
    out["__main__.py"] = _MAIN
    out = {name: lean(data) if name.endswith(".py") else data for name, data in out.items()}
    ours = b"\n".join(data for name, data in out.items() if name.endswith(".py"))
    return {**out, "pynvml.py": named_only(lean(Path(nvml.origin).read_bytes()), ours)}


def named_only(source: bytes, users: bytes) -> bytes:
    """A module without the functions, classes, constants of one line and imported names that neither its users nor what stays of
    it name.

    Every line keeps its number. Of pynvml's 430 functions and 1500 constants the agent wants a tenth.
    """
    lines = source.split(b"\n")
    blocks = list(_blocks(lines))
    words = [set(_WORD.findall(b"\n".join(lines[begin:end]))) for _, begin, end in blocks]
    places: dict[bytes, list[int]] = {}
    for i, (name, _, _) in enumerate(blocks):
        places.setdefault(name, []).append(i)
    todo = set(_WORD.findall(users)).union(*(words[i] for i in places.get(b"", [])))
    kept = set(places.pop(b"", []))
    while todo:
        found = {i for word in todo for i in places.pop(word, [])}
        kept |= found
        todo = set().union(*(words[i] for i in found))
    for i, (_, begin, end) in enumerate(blocks):
        if i not in kept:
            lines[begin:end] = [b""] * (end - begin)
    names = Counter(_WORD.findall(b"\n".join(lines)))
    return b"\n".join(b"" if (one := _IMPORTED.match(line)) and names[one[1]] == 1 else line for line in lines)


def _blocks(lines: list[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Top-level pieces (name, first line, line after the last): one definition or constant each; without a name: all else."""
    begin, name, decorated, quoted = 0, b"", False, False
    for i, line in enumerate(lines):
        top = not quoted and line[:1] not in (b"", b" ", b"\t", b")", b"]", b"}", b"#")
        quoted ^= line.count(b'"""') % 2 == 1
        if top and not decorated:
            if i > begin:
                yield name, begin, i
            begin, name = i, b""
        if top:
            defined, constant = _DEFINED.match(line), _CONSTANT.match(line)
            decorated = line[:1] == b"@"
            name = defined[1] if defined else constant[1] if constant and not line.startswith(_BY_PREFIX) else name
    yield name, begin, len(lines)


def lean(source: bytes) -> bytes:
    """The same program on the same lines, without comments (but those it begins with), docstrings and columns.

    Line by line: tokenizing pynvml would cost more CPU than connecting a rack. A test holds it against the syntax trees.
    """
    out: list[bytes] = []
    begun = False
    inside: bytes | None = None  # a string over several lines: what stands for its other lines, or None for themselves
    quoted = False
    for line in source.split(b"\n"):
        text = line.strip()
        begun = begun or bool(text and text[:1] != b"#")
        quotes = line.count(b'"""')
        if quoted:
            out.append(line if inside is None else inside)
        elif text[:3] == b'"""' and (quotes == 1 or (quotes == 2 and text[-3:] == b'"""')):
            inside = b""
            out.append(line[: line.index(b'"')] + b'""')
        else:
            inside = None
            out.append(line if not begun else b"" if text[:1] == b"#" else _tight(line))
        quoted ^= quotes % 2 == 1
    return b"\n".join(out)


def _tight(line: bytes) -> bytes:
    """A line that holds no string, without its comment and without the columns it is set in."""
    if b'"' in line or b"'" in line:
        return line
    line = line.partition(b"#")[0].rstrip()
    if b"  " not in line.lstrip():
        return line
    return line[: len(line) - len(line.lstrip())] + b" ".join(line.split())


def _bytecode(name: str, source: bytes) -> bytes:
    def bare(code: types.CodeType) -> types.CodeType:
        inner = tuple(bare(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
        return code.replace(co_consts=inner, co_linetable=b"")

    code = bare(compile(source, name, "exec", dont_inherit=True, optimize=2))
    # marshal marks strings that others hold, and that are interned; of those that a process shares, both tell what it imported.
    held = [sys.intern(one) if len(one) == 1 else one for one in _strings(code)]
    body = marshal.dumps(code)
    del held
    return importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source) + body


def _strings(value: object) -> Iterator[str]:
    """Every string that a code object holds, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple | frozenset):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, types.CodeType):
        names = (value.co_names, value.co_varnames, value.co_cellvars, value.co_freevars)
        yield from _strings((*names, value.co_consts, value.co_name, value.co_qualname, value.co_filename))


def _packed(data: bytes) -> bytes:
    return zlib.compress(data, _LEVEL)


@cache
def build() -> Agent:
    """Make the zipapp; about 0.1 s of CPU the first time in a process. RuntimeError when pynvml is not installed."""
    entries = _sources()
    size = sum(len(_packed(data)) for data in entries.values())
    for name in _STARTS:
        code = _bytecode(name, entries[name])
        if size + (packed := len(_packed(code))) <= _ROOM:
            size += packed
            entries[f"{name}c"] = code
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), entries[name], zipfile.ZIP_DEFLATED, _LEVEL)
    return Agent(out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest())
