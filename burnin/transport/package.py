"""The agent as one file: a zipapp of `burnin.agent`, `wire`, `errors` and pynvml, the same bytes every time.

pynvml travels twice: as source, and as bytecode of this Python without line tables, which halves the start of a holder
on a tray with the same Python (80 ms of CPU instead of 160); every other Python from 3.9 on falls back to the source.
Comments, docstrings and what of pynvml nobody names stay at home, licences excepted; every line keeps its number, so that
tracebacks are true.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import re
import types
import zipfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

_MAIN = b"import sys\nfrom burnin.agent.main import main\nsys.exit(main(sys.argv[0], sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CONSTANT = re.compile(rb"^([A-Z][A-Z0-9_]+) *= *[^(=\n]*$", re.M)
_BY_PREFIX = b"NVML_ERROR_"
"""Constants that pynvml itself finds by dir(): it makes its exceptions of them."""
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
    """A module without the functions, and the constants of one line, that neither it nor its users name: of pynvml 60 of
    440 functions stay, and 100 of 1500 constants."""
    source = _without_functions(source, set(re.findall(rb"\w+", users)))
    used = Counter(re.findall(rb"\w+", source))
    used.update(re.findall(rb"\w+", users))
    return _CONSTANT.sub(lambda one: one[0] if used[one[1]] > 1 or one[1].startswith(_BY_PREFIX) else b"", source)


def _without_functions(source: bytes, wanted: set[bytes]) -> bytes:
    """Empty lines for functions at top level that nothing wanted comes to by name, in code or in text."""
    lines = source.split(b"\n")
    starts = [i for i, line in enumerate(lines) if line[:1] not in (b"", b" ", b"\t", b")", b"#")]
    spans: dict[bytes, list[tuple[int, int]]] = {}
    rest = set(wanted)
    begin: int | None = None
    for at, after in zip(starts, [*starts[1:], len(lines)], strict=True):
        begin = at if begin is None else begin
        if lines[at][:1] == b"@":
            continue
        found = re.match(rb"def (\w+)", lines[at])
        if found is not None:
            spans.setdefault(found[1], []).append((begin, after))
        else:
            rest |= set(re.findall(rb"\w+", b"\n".join(lines[begin:after])))
        begin = None
    new = rest & spans.keys()
    while new:
        inside = {word for name in new for a, b in spans.pop(name) for word in re.findall(rb"\w+", b"\n".join(lines[a:b]))}
        new = inside & spans.keys()
    for a, b in (span for each in spans.values() for span in each):
        lines[a:b] = [b""] * (b - a)
    return b"\n".join(lines)


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
    return importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source) + marshal.dumps(code)


@cache
def build() -> Agent:
    """Make the zipapp; about 0.1 s of CPU the first time in a process. RuntimeError when pynvml is not installed."""
    entries = _sources()
    entries["pynvml.pyc"] = _bytecode("pynvml.py", entries["pynvml.py"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), entries[name], zipfile.ZIP_DEFLATED, 7)
    return Agent(out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest())
