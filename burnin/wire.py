r"""The words between controller and agent: one JSON array per line, in both directions.

Down (controller -> agent)        ["order", id, verb, {arguments}]      idempotent: the same id is answered, not done, again
                                  ["lease", seconds, stored_seq]        keeps the load alive; records up to stored_seq may go
                                  ["lease", seconds, stored_seq, stage] the same of a detached stage: nobody else's meanwhile
A channel is sent what was recorded from its first order or lease on, but for `clock` and for a lease with HELD_BACK; `clock` is
answered out of the sequence, at once.
Up (agent -> controller)          [kind, boot_id, seq, mono_ns, {body}]

`seq` counts a holder's records from 0 without gaps; `mono_ns` is the tray's CLOCK_MONOTONIC; a changed `boot_id` means
that the tray was rebooted. A channel's first line is MARK; whatever a login shell prints before it is not ours and is skipped.

Pure: bytes in, records out. Travels to the trays: standard library only, Python 3.9, and little of that: dataclasses would
cost every process of the agent 10 ms.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Union

from burnin.errors import ProtocolError

PROTOCOL = 1
HELD_BACK = -2
"""`stored_seq` of a lease that leaves what was recorded where it is: first the clock is asked for, on a quiet channel."""
MARK = b"burnin-agent-stream\n"
LET_GO = "let go by order"
"""Why NVML, and its XID events, are not watched while a reset or a program has the driver for itself."""
MAX_LINE = 1 << 20
MAX_NOISE = 1 << 16
"""Bytes of login-shell chatter tolerated before MARK, and of one line after it."""


class Record(NamedTuple):
    """One thing the agent said. `body` depends on `kind`; see `burnin.agent.holder`."""

    kind: str
    boot_id: str
    seq: int
    mono_ns: int
    body: dict[str, Any]


class Order(NamedTuple):
    """One thing the agent shall do, at most once per `id`."""

    id: str
    verb: str
    args: dict[str, Any]


class Lease(NamedTuple):
    """Load may go on for `seconds` from receipt; records up to `stored_seq` are safe with the controller. `stage`: the load is
    that detached stage's, and goes on also when its controller is known to be gone."""

    seconds: float
    stored_seq: int = -1
    stage: str = ""


Down = Union[Order, Lease]


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode(item: Union[Record, Order, Lease]) -> bytes:
    """One line, newline included. Raises ValueError for NaN or infinity: absence is null, with a reason."""
    if isinstance(item, Record):
        row: tuple[Any, ...] = (item.kind, item.boot_id, item.seq, item.mono_ns, item.body)
    elif isinstance(item, Order):
        row = ("order", item.id, item.verb, item.args)
    else:
        row = ("lease", item.seconds, item.stored_seq, *([item.stage] if item.stage else ()))
    return _encode(row).encode() + b"\n"


def encode_sample(boot_id: str, seq: int, mono_ns: int, table: int, taken_ns: int, values: list[Union[float, None]]) -> bytes:
    """The line of a record `sample` {c, n, v}, as `encode` makes it, for half the price. Raises ValueError as that does."""
    text = repr(values).replace("None", "null").replace(" ", "")
    if "na" in text or "inf" in text:
        raise ValueError(f"not JSON: {text[:80]}")
    return f'["sample",{_encode(boot_id)},{seq},{mono_ns},{{"c":{table},"n":{taken_ns},"v":{text}}}]\n'.encode()


class Lines:
    """Cuts a byte stream into lines, whatever the sizes of the pieces it arrives in."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._rest = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Complete lines without their newline. Raises ProtocolError when one grows beyond the limit."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        if len(rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise ProtocolError(f"a line longer than {self._limit} bytes")
        return [bytes(line) for line in lines]


class Decoder:
    """Controller's side: bytes of one channel -> records. `loads` may be a faster JSON reader."""

    def __init__(self, loads: Callable[[bytes], Any] = json.loads) -> None:
        self._loads = loads
        self._lines = Lines()
        self._noise = bytearray()
        self._marked = False

    @property
    def noise(self) -> str:
        """What came before MARK: a login shell's chatter, or the sentence of a python3 that could not start."""
        return bytes(self._noise).decode("utf-8", "replace").strip()

    def feed(self, data: bytes) -> list[Record]:
        """Records completed by these bytes. Raises ProtocolError, after which the channel is of no use."""
        if not self._marked:
            self._noise += data
            at = self._noise.find(MARK)
            if at < 0:
                if len(self._noise) > MAX_NOISE:
                    raise ProtocolError(f"{MAX_NOISE} bytes and no agent: {self.noise[:80]!r}")
                return []
            data, self._marked = bytes(self._noise[at + len(MARK) :]), True
            del self._noise[at:]
        return [_record(line, self._loads) for line in self._lines.feed(data) if line]


def _record(line: bytes, loads: Callable[[bytes], Any]) -> Record:
    try:
        kind, boot_id, seq, mono_ns, body = loads(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a record: {line[:80]!r}") from error
    if not (
        isinstance(kind, str)
        and isinstance(boot_id, str)
        and type(seq) is int
        and type(mono_ns) is int
        and isinstance(body, dict)
    ):
        raise ProtocolError(f"not a record: {line[:80]!r}")
    return Record(kind, boot_id, seq, mono_ns, body)


def read_down(line: bytes) -> Down:
    """Agent's side: one line -> Order or Lease. Raises ProtocolError."""
    try:
        row = json.loads(line)
        if isinstance(row, list) and len(row) == 4 and row[0] == "order":
            _, ident, verb, args = row
            if isinstance(ident, str) and isinstance(verb, str) and isinstance(args, dict):
                return Order(ident, verb, args)
        if isinstance(row, list) and len(row) in (3, 4) and row[0] == "lease":
            seconds, stored, stage = float(row[1]), int(row[2]), "".join(row[3:])
            if 0 <= seconds <= 14400:
                return Lease(seconds, stored, stage)
    except (ValueError, TypeError, RecursionError):
        pass
    raise ProtocolError(f"not an order: {line[:80]!r}")
