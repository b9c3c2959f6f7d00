"""Bytecode of the tray's own Python: made there by a holder that has lived a while, and what later starts run by.

One file beside the zipapp. It is run, so it is believed only as a plain file that belongs to this user and that nobody else may
read or write: a checksum beside it would prove nothing against somebody who may write there, and is kept against disks only.
What is not believed is as if it were not there. It is put in place whole.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
import sys
import zlib
from typing import Any

MOST = 8 << 20


def place(zipapp: str) -> str:
    """Where a zipapp's bytecode for this Python lies."""
    return f"{zipapp}.{sys.implementation.cache_tag}"


def _head(zipapp: str) -> bytes:
    return repr((os.path.basename(zipapp), sys.version)).encode("ascii", "replace") + b"\n"


def kept(zipapp: str) -> dict[str, bytes]:
    """Module -> its code, marshalled; empty where there is nothing to be believed."""
    try:
        with open(os.open(place(zipapp), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            about = os.fstat(file.fileno())
            ours = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
            data = file.read() if ours and about.st_size <= MOST else b""
    except OSError:
        return {}
    head = _head(zipapp)
    at = len(head) + 4
    whole = len(data) > at and data.startswith(head) and data[at - 4 : at] == zlib.crc32(data[at:]).to_bytes(4, "big")
    codes: dict[str, bytes] = marshal.loads(data[at:]) if whole else {}
    return codes


class Kept:
    """Imports what is kept; for all else of a loader it is the zipapp's own."""

    def __init__(self, zipapp: str, codes: dict[str, bytes], loader: Any) -> None:
        self._zipapp, self._codes, self._loader = zipapp, codes, loader

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """A module's, or None."""
        if name not in self._codes:
            return None
        loader: Any = self
        spec = type(sys.__spec__)(name, loader, origin=f"{self._zipapp}/{name.replace('.', '/')}.py")
        spec.has_location = True
        return spec

    def create_module(self, spec: Any) -> None:
        """As any other is."""

    def exec_module(self, module: Any) -> None:
        """Run it."""
        exec(marshal.loads(self._codes[module.__name__]), module.__dict__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def use(zipapp: str) -> bool:
    """Import from what is kept; False where there is nothing to be believed."""
    codes = kept(zipapp)
    if codes:
        sys.meta_path.insert(0, Kept(zipapp, codes, globals()["__loader__"]))
    return bool(codes)


def keep(zipapp: str) -> int:
    """Make it, at the lowest priority; exit status 1 where nothing can be written, or where the zipapp's name does not say what
    is in it: that may be something else tomorrow."""
    import re
    import zipfile

    if not re.fullmatch(r"agent-[0-9a-f]{16}\.pyz", os.path.basename(zipapp)):
        return 1
    os.nice(19)
    codes = {}
    with zipfile.ZipFile(zipapp) as archive:
        for name in archive.namelist():
            if name.endswith(".py") and "__" not in name:  # packages are there before this is
                code = compile(archive.read(name), f"{zipapp}/{name}", "exec", dont_inherit=True)
                codes[name[:-3].replace("/", ".")] = marshal.dumps(code)
    data = marshal.dumps(codes)
    fresh = f"{place(zipapp)}.{os.getpid()}"
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(_head(zipapp) + zlib.crc32(data).to_bytes(4, "big") + data)
        os.replace(fresh, place(zipapp))
    except OSError:  # a disk that is full or read-only: every start reads the zipapp, as this one did
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        return 1
    return 0
