"""An emulated libnccl.so.2: real ranks that meet over loopback (nccl_hub), and data that arrives where it is small or uniform.

`library(facts, state)` gives what `ctypes.CDLL` would. Communicators are as NCCL's non-blocking ones: a call returns at once,
ncclCommGetAsyncError says when it is done. An operation takes the time of its model on the GPU's queue, from when all ranks
are there: an event that was recorded before it waits for them too, so that a busy host's delays are not the fabric's.
"""

from __future__ import annotations

import ctypes as c
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..state import State
from .abi import Library, Refuse, address, number, put
from .cuda_core import OPENED, Context, Cuda, Event
from .nccl_hub import Hub
from .runs import Runs

SYSTEM, INTERNAL, INVALID_ARGUMENT, INVALID_USAGE, REMOTE, IN_PROGRESS = 2, 3, 4, 5, 6, 7
NAMES = {
    0: b"no error",
    2: b"unhandled system error (run with NCCL_DEBUG=INFO for details)",
    3: b"internal error - please report this issue to the NCCL developers",
    4: b"invalid argument (run with NCCL_DEBUG=WARN for details)",
    5: b"invalid usage (run with NCCL_DEBUG=WARN for details)",
    6: b"remote process exited or there was a network error",
    7: b"NCCL operation in progress",
}
HANGS, DIES, SUMS_WRONG = 1, 2, 3
"""state.nccl_fault: what a GPU does at its next operation."""
_MAGIC = 0xCAFEBEEF
_POLL_MS = 20
_WEIGHT = 0.4
"""Activity of a GPU in a collective (assumption)."""


class _Config(c.Structure):
    _fields_ = [("size", c.c_size_t), ("magic", c.c_uint), ("version", c.c_uint), ("blocking", c.c_int)]


class Comm:
    """One communicator of this process. `code`: what it is at, as ncclCommGetAsyncError says."""

    def __init__(self, sock: socket.socket, context: Context, cuda: Cuda, rank: int, ranks: int) -> None:
        self.sock, self.context, self.cuda, self.rank, self.ranks = sock, context, cuda, rank, ranks
        self._ready = select.poll()
        self._ready.register(sock, select.POLLIN)
        self.code, self.number, self.buffer = IN_PROGRESS, 0, b""
        self.pending: dict[Any, int] = {}
        self.began: Event | None = None
        self.end_ns = 0
        self.seen: dict[int, int | None] = {}

    def send(self, body: dict[str, Any]) -> None:
        """A line to the hub."""
        try:
            self.sock.sendall(json.dumps(body, separators=(",", ":")).encode() + b"\n")
        except OSError:
            self.code = REMOTE

    def _recorded(self) -> list[Event]:
        """Events recorded since the last look, in their order, and look."""
        events = [thing for thing in self.cuda.things.values() if isinstance(thing, Event) and thing.at_ns is not None]
        fresh = [event for event in events if self.seen.get(id(event)) != event.at_ns]
        self.seen = {id(event): event.at_ns for event in events}
        return sorted(fresh, key=lambda event: event.at_ns or 0)

    def _on_time(self, ended: list[Event]) -> None:
        """What was recorded behind the last operation is when that ended, however late a busy host came to record it."""
        for event in ended:
            event.at_ns = self.seen[id(event)] = self.end_ns or event.at_ns

    def poll(self) -> int:
        """Hear what the hub says; blocks a little while something is in progress."""
        if self.code == 0:
            self._on_time(self._recorded())
        if self.code in (0, IN_PROGRESS) and self._ready.poll(_POLL_MS if self.code else 0):
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                data = b""
            *lines, self.buffer = (self.buffer + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
            if not data and self.code in (0, IN_PROGRESS):
                self.code = REMOTE
        return self.code

    def _hear(self, body: dict[str, Any]) -> None:
        if "joined" in body:
            self.code = 0
        elif "gone" in body:
            self.code = REMOTE
        elif body.get("done") == self.number:
            memory = self.context.memory
            for peer, runs in body.get("receives", [["", body.get("data", [])]]):
                at = self.pending[peer]
                for count, value in runs:
                    memory.fill(at, value.to_bytes(4, "little"), count)
                    at += 4 * count
            slot, now = self.context.slot, time.monotonic_ns()
            start = max(slot["end_ns"], now)
            if self.began is not None:
                self.began.at_ns = self.seen[id(self.began)] = start
            slot["activity_ppm"] = int(1e6 * _WEIGHT)
            slot["end_ns"] = self.end_ns = self.context.held_ns = start + body["ns"]
            slot["busy_ns"] += body["ns"]
            self.code = 0

    def begin(self, body: dict[str, Any], pending: dict[Any, int]) -> int:
        """Hand an operation to the hub; what was recorded on the idle queue just before it begins when the operation does."""
        fault = self.context.device.row["nccl_fault"]
        if fault == DIES:
            os._exit(9)
        while fault == HANGS:
            time.sleep(0.05)
        self.context.check()
        recorded = self._recorded()
        self.began = recorded.pop() if recorded else None
        self._on_time(recorded)
        if self.code:
            raise Refuse(self.code if self.code != IN_PROGRESS else INVALID_USAGE)
        self.number += 1
        self.pending, self.code = pending, IN_PROGRESS
        self.send({"op": self.number, **body})
        return self.code


class Nccl:
    """The library's state in one process."""

    def __init__(self, facts: Mapping[str, Any], state: State) -> None:
        self.facts, self.state = facts, state
        self.hubs: list[Hub] = []
        self.comms: dict[int, Comm] = {}
        self.depth = 0
        self.queued: list[tuple[Comm, str, int, int, int]] = []
        self.texts = {code: c.create_string_buffer(text) for code, text in NAMES.items()}
        self._handle = 0x77770000

    def keep(self, comm: Comm) -> int:
        """A handle for it."""
        self._handle += 16
        self.comms[self._handle] = comm
        return self._handle

    def comm(self, handle: Any) -> Comm:
        """What a handle stands for. Refuses with INVALID_ARGUMENT."""
        if address(handle) not in self.comms:
            raise Refuse(INVALID_ARGUMENT)
        return self.comms[address(handle)]


def library(facts: Mapping[str, Any], state: State, name: str = "libnccl.so.2") -> Library:
    """The library, as `ctypes.CDLL(name)` would give it. `facts` is what burnin.twin.identity.for_emulation wrote."""
    nccl = Nccl(facts, state)

    def bind(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: function(nccl, *args)

    return Library(name, {symbol: bind(function) for symbol, function in _API.items()})


# ---------------------------------------------------------------- communicators


def _version(nccl: Nccl, out: Any) -> None:
    put(c.c_int, nccl.facts["nccl"]["version"], out)


def _unique_id(nccl: Nccl, out: Any) -> None:
    hub = Hub(nccl.facts["nccl"])
    nccl.hubs.append(hub)
    door = struct.pack("<QH", _MAGIC, socket.AF_INET) + struct.pack(">H4s", hub.port, bytes([127, 0, 0, 1]))
    c.memmove(address(out, 128), door.ljust(128, b"\0"), 128)


def _current() -> tuple[Cuda, Context]:
    """This thread's CUDA context."""
    for cuda in OPENED:
        if isinstance(getattr(cuda.here, "context", None), Context):
            return cuda, cuda.context()
    raise Refuse(INVALID_USAGE)


def _off(environ: Mapping[str, str]) -> bool:
    """NVLink is switched off: all goes over the network."""
    return environ.get("NCCL_P2P_DISABLE") == "1" or environ.get("NCCL_MNNVL_ENABLE") == "0"


def _slow_ppm(nccl: Nccl, context: Context) -> int:
    """Share of its speed that this GPU lacks: its own slowness, and links that are down."""
    count = int(context.device.facts["nvlinks"])
    down = sum(bool(link["down"]) for link in nccl.state.links[context.device.own["position"]][:count])
    return round(1e6 - (1e6 - context.device.row["slow_ppm"]) * (1 - down / max(count, 1)))


def _init(nccl: Nccl, out: Any, ranks: Any, ident: Any, rank: Any, config: Any) -> int:
    asked = _Config.from_address(address(config, c.sizeof(_Config)))
    magic, family = struct.unpack_from("<QH", bytes(ident))
    if asked.magic != _MAGIC or not 0 <= number(rank) < number(ranks):
        raise Refuse(INVALID_ARGUMENT)
    if (magic, family) != (_MAGIC, socket.AF_INET):
        raise Refuse(INVALID_ARGUMENT)
    cuda, context = _current()
    port, host = struct.unpack_from(">H4s", bytes(ident), 10)
    try:
        sock = socket.create_connection((socket.inet_ntoa(host), port), timeout=10)
    except OSError:
        raise Refuse(SYSTEM) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    comm = Comm(sock, context, cuda, number(rank), number(ranks))
    row, place = context.device.row, nccl.facts["tray_index"] * len(nccl.facts["gpus"]) + context.device.own["position"]
    comm.send(
        {
            "join": comm.rank, "ranks": comm.ranks, "gpu": place, "slow_ppm": _slow_ppm(nccl, context), "deaf_to": row["deaf_to"],
            "network": _off(os.environ),
        }
    )  # fmt: skip
    put(c.c_size_t, nccl.keep(comm), out)
    while asked.blocking and comm.poll() == IN_PROGRESS:
        pass
    return comm.code


def _async_error(nccl: Nccl, handle: Any, out: Any) -> None:
    put(c.c_int, nccl.comm(handle).poll(), out)


def _abort(nccl: Nccl, handle: Any) -> None:
    nccl.comm(handle).sock.close()
    del nccl.comms[address(handle)]


def _destroy(nccl: Nccl, handle: Any) -> None:
    comm = nccl.comm(handle)
    comm.send({"bye": comm.rank})
    _abort(nccl, handle)


def _count(nccl: Nccl, handle: Any, out: Any) -> None:
    put(c.c_int, nccl.comm(handle).ranks, out)


def _user_rank(nccl: Nccl, handle: Any, out: Any) -> None:
    put(c.c_int, nccl.comm(handle).rank, out)


# ---------------------------------------------------------------- operations


def _words(comm: Comm, at: int, words: int) -> Runs:
    """What lies there, as runs."""
    if not comm.context.memory.holds(at, 4 * words):
        raise Refuse(INVALID_ARGUMENT)
    try:
        runs = comm.context.memory.runs(at, 4 * words)
    except ValueError:
        raise Refuse(INTERNAL) from None
    wrong = comm.context.device.row["nccl_fault"] == SUMS_WRONG
    return [[count, value ^ 1] if wrong and not i else [count, value] for i, (count, value) in enumerate(runs)]


def _collective(
    kind: str, sends: Callable[[int, int], int], receives: Callable[[int, int], int], reduces: bool
) -> Callable[..., int]:
    """An operation of all ranks; `sends` and `receives` say how many words each buffer has of (count, ranks)."""

    def call(nccl: Nccl, send: Any, receive: Any, count: Any, dtype: Any, *rest: Any) -> int:
        comm, words = nccl.comm(rest[1] if reduces else rest[0]), number(count)
        if number(dtype) not in (2, 3) or (reduces and number(rest[0]) != 0) or words < 1:
            raise Refuse(INVALID_ARGUMENT)
        if not comm.context.memory.holds(address(receive), 4 * receives(words, comm.ranks)):
            raise Refuse(INVALID_ARGUMENT)
        data = _words(comm, address(send), sends(words, comm.ranks))
        return comm.begin({"kind": kind, "words": words, "data": data}, {"": address(receive)})

    return call


def _one(count: int, ranks: int) -> int:
    return count


def _each(count: int, ranks: int) -> int:
    return count * ranks


def _p2p(way: str) -> Callable[..., Any]:
    def call(nccl: Nccl, buffer: Any, count: Any, dtype: Any, peer: Any, handle: Any, stream: Any) -> Any:
        comm = nccl.comm(handle)
        if number(dtype) not in (2, 3) or not 0 <= number(peer) < comm.ranks:
            raise Refuse(INVALID_ARGUMENT)
        if not comm.context.memory.holds(address(buffer), 4 * number(count)):
            raise Refuse(INVALID_ARGUMENT)
        nccl.queued.append((comm, way, address(buffer), number(count), number(peer)))
        return _flush(nccl) if not nccl.depth else 0

    return call


def _group_start(nccl: Nccl) -> None:
    nccl.depth += 1


def _group_end(nccl: Nccl) -> int:
    nccl.depth = max(nccl.depth - 1, 0)
    return _flush(nccl) if not nccl.depth else 0


def _flush(nccl: Nccl) -> int:
    """Begin what was gathered since the group began."""
    queued, nccl.queued = nccl.queued, []
    code = 0
    for comm in {id(entry[0]): entry[0] for entry in queued}.values():
        mine = [entry for entry in queued if entry[0] is comm]
        sends = [[peer, _words(comm, at, count)] for _, way, at, count, peer in mine if way == "send"]
        receives = [[peer, count] for _, way, _, count, peer in mine if way == "receive"]
        where: dict[Any, int] = {peer: at for _, way, at, _, peer in mine if way == "receive"}
        code = comm.begin({"kind": "p2p", "sends": sends, "receives": receives}, where) or code
    return code


def _text(nccl: Nccl, code: Any) -> bytes:
    return NAMES.get(number(code), b"unknown result code")


def _last_error(nccl: Nccl, handle: Any) -> bytes:
    return b""


_API: dict[str, Callable[..., Any]] = {
    "ncclGetVersion": _version,
    "ncclGetUniqueId": _unique_id,
    "ncclCommInitRankConfig": _init,
    "ncclCommGetAsyncError": _async_error,
    "ncclCommAbort": _abort,
    "ncclCommDestroy": _destroy,
    "ncclCommCount": _count,
    "ncclCommUserRank": _user_rank,
    "ncclGroupStart": _group_start,
    "ncclGroupEnd": _group_end,
    "ncclAllReduce": _collective("all_reduce", _one, _one, reduces=True),
    "ncclAllGather": _collective("all_gather", _one, _each, reduces=False),
    "ncclReduceScatter": _collective("reduce_scatter", _each, _one, reduces=True),
    "ncclSend": _p2p("send"),
    "ncclRecv": _p2p("receive"),
    "ncclGetErrorString": _text,
    "ncclGetLastError": _last_error,
}
