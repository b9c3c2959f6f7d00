"""libnccl.so.2 through ctypes, and one rank of a group: every wait in it ends.

Communicators are non-blocking (NCCL 2.14 and newer), so that joining and launching can be watched, and aborted.
"""

from __future__ import annotations

import ctypes as c
import hashlib
import os
import re
import time
from collections.abc import Callable
from typing import Any, Union

from burnin.agent.cuda import Cuda

_P, _VOID, _SIZE, _INT = c.POINTER, c.c_void_p, c.c_size_t, c.c_int
UINT32, SUM = 3, 0
_IN_PROGRESS = 7
_MAGIC, _VERSION = 0xCAFEBEEF, 21400
"""Of the configuration struct as NCCL 2.14 had it; later libraries take their own defaults for what it lacks."""


class Id(c.Structure):
    """ncclUniqueId; NCCL takes it by value."""

    _fields_ = [("internal", c.c_byte * 128)]


class Config(c.Structure):
    """ncclConfig_t of 2.14."""

    _fields_ = [("size", _SIZE), ("magic", c.c_uint), ("version", c.c_uint), ("blocking", _INT)]


SYMBOLS: dict[str, tuple[Any, ...]] = {
    "ncclGetVersion": (_P(_INT),),
    "ncclGetUniqueId": (_P(Id),),
    "ncclCommInitRankConfig": (_P(_VOID), _INT, Id, _INT, _P(Config)),
    "ncclCommGetAsyncError": (_VOID, _P(_INT)),
    "ncclCommAbort": (_VOID,),
    "ncclCommDestroy": (_VOID,),
    "ncclGroupStart": (),
    "ncclGroupEnd": (),
    "ncclAllReduce": (_VOID, _VOID, _SIZE, _INT, _INT, _VOID, _VOID),
    "ncclAllGather": (_VOID, _VOID, _SIZE, _INT, _VOID, _VOID),
    "ncclReduceScatter": (_VOID, _VOID, _SIZE, _INT, _INT, _VOID, _VOID),
    "ncclSend": (_VOID, _SIZE, _INT, _INT, _VOID, _VOID),
    "ncclRecv": (_VOID, _SIZE, _INT, _INT, _VOID, _VOID),
}


class NcclError(RuntimeError):
    """The library is not there, lacks a symbol, refused a call, or did not come back in time. The text is a sentence."""


def open_library(path: str | None) -> Any:
    """libnccl.so.2 as the loader finds it, or the site's own. Raises NcclError."""
    try:
        return c.CDLL(path or "libnccl.so.2")
    except OSError as error:
        hint = "" if path else "; to do: install it, or name the site's own (`nccl:` in the rack file)"
        raise NcclError(f"no NCCL library: {error}{hint}") from None


def payload(wanted: dict[str, str], machine: str, folder: str) -> Union[str, None]:
    """The site's library for this machine, as the controller put it into the agent's directory: its path; None where the site
    has none for it. `wanted`: machine -> SHA-256. Raises NcclError where it is not there, or not what it should be."""
    sha256 = wanted.get(machine)
    if sha256 is None:
        return None
    if not re.match(r"[0-9a-f]{64}$", sha256):
        raise NcclError(f"{sha256[:80]!r} is no SHA-256")
    path, digest = os.path.join(folder, f"nccl-{sha256}.so"), hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise NcclError(f"the site's NCCL library {sha256[:16]} for {machine} is not on this tray: {error.strerror}") from None
    if digest.hexdigest() != sha256:
        raise NcclError(f"the site's NCCL library {sha256[:16]} for {machine} has another content on this tray: it is not loaded")
    return path


class Nccl:
    """The library with its signatures. Raises NcclError for a missing symbol."""

    def __init__(self, library: Any) -> None:
        self._lib = library
        for name, args in SYMBOLS.items():
            symbol = getattr(library, name, None)
            if symbol is None:
                raise NcclError(f"libnccl.so.2 has no {name}: NCCL 2.14 or newer is needed")
            symbol.argtypes, symbol.restype = args, _INT
        for name in ("ncclGetErrorString", "ncclGetLastError"):
            symbol = getattr(library, name, None)
            if symbol is not None:
                symbol.argtypes, symbol.restype = (_INT if name == "ncclGetErrorString" else _VOID,), c.c_char_p

    def call(self, name: str, *args: Any) -> None:
        """One call; in progress is no error. Raises NcclError with NCCL's own words."""
        self.check(name, getattr(self._lib, name)(*args))

    def check(self, what: str, code: int) -> None:
        """Raises NcclError for any code but success and in progress."""
        if code not in (0, _IN_PROGRESS):
            words = [self._words("ncclGetErrorString", code), self._words("ncclGetLastError", None)]
            raise NcclError(f"{what} -> {code}" + "".join(f": {w}" for w in words if w))

    def _words(self, name: str, of: Any) -> str:
        symbol = getattr(self._lib, name, None)
        said = symbol(of) if symbol is not None else None
        return said.decode(errors="replace").strip()[:300] if said else ""

    def version(self) -> str:
        """`2.28.7`. Before 2.9 NCCL counted otherwise; those are refused for their missing symbols."""
        number = _INT()
        self.call("ncclGetVersion", c.byref(number))
        return f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"

    def make_id(self) -> bytes:
        """A unique id; this process then listens for those who join by it."""
        own = Id()
        self.call("ncclGetUniqueId", c.byref(own))
        return bytes(own.internal)

    def progress(self, comm: c.c_void_p) -> int:
        """What a communicator is at: 0 done, 7 in progress, else what went wrong."""
        code = _INT()
        self.call("ncclCommGetAsyncError", comm, c.byref(code))
        return code.value


class Group:
    """This rank in one group. Every wait ends: done, failed, after `timeout_s`, or when the time is over."""

    def __init__(
        self,
        nccl: Nccl,
        cuda: Cuda,
        going: Callable[[], bool],
        timeout_s: float,
        now_s: Callable[[], float] = time.monotonic,
        nap: Callable[[float], None] = time.sleep,
    ) -> None:
        self.nccl, self.cuda = nccl, cuda
        self._going, self._timeout_s, self._now_s, self._nap = going, timeout_s, now_s, nap
        self.comm = _VOID()
        self.stream = _VOID(cuda.get("cuStreamCreate", _VOID, 1))
        self.rank = self.ranks = 0

    def join(self, ident: bytes, rank: int, ranks: int) -> None:
        """Be this rank of a group of so many. Raises NcclError."""
        self.rank, self.ranks = rank, ranks
        config = Config(c.sizeof(Config), _MAGIC, _VERSION, 0)
        own = Id.from_buffer_copy(ident)
        self.nccl.call("ncclCommInitRankConfig", c.byref(self.comm), ranks, own, rank, c.byref(config))
        self.settle("joining")

    def settle(self, what: str) -> None:
        """Wait until the communicator has done what it was told. Raises NcclError."""
        self._wait(what, lambda: self._failed(what) == 0)

    def finish(self, what: str) -> None:
        """Wait until the stream has run dry. Raises NcclError when the group failed meanwhile."""
        self._wait(what, lambda: self._failed(what) == 0 and self.cuda.finished(self.stream))

    def _failed(self, what: str) -> int:
        code = self.nccl.progress(self.comm)
        self.nccl.check(what, code)
        return code

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        end, nap = self._now_s() + self._timeout_s, 0.0002
        while not done():
            if not self._going():
                raise NcclError(f"the time was over in {what}")
            if self._now_s() >= end:
                raise NcclError(f"timeout in {what} after {self._timeout_s:g} s")
            self._nap(nap)
            nap = min(nap * 1.5, 0.01)

    def going(self) -> None:
        """Before every launch. Raises NcclError once the time is over."""
        if not self._going():
            raise NcclError("the time was over before the next launch")

    def rest(self, seconds: float) -> None:
        """Launch nothing for a while. Raises NcclError when the time is over."""
        end_s = self._now_s() + seconds
        while (left_s := end_s - self._now_s()) > 0:
            self.going()
            self._nap(min(left_s, 0.1))

    def leave(self, whole: bool) -> None:
        """Give the communicator up: in good order, or as it stands."""
        if self.comm.value:
            self.nccl.call("ncclCommDestroy" if whole else "ncclCommAbort", self.comm)
            self.comm = _VOID()
