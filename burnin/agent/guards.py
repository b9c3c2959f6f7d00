"""The guard's channels: beside the run's, told little and at once, and able to end load but not to keep it alive.

They see no spool and renew no lease. What they are told has no sequence number: who was not there, has missed it.

    watch   n: mono_ns of the reading, margin: {gpu: Cel | null}, power: {gpu: W | null}      with every reading of T.Limit;
            after a halt power alone, ten times a second
    beat    load: GPUs loaded                                       once a second, and whenever that changes
    reply   id, ok, result | error

Orders: halt {why, gpus}: ends load on these GPUs (null: all) and refuses it from then on, until the run that a person
starts next clears it. Idempotent.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from burnin import wire
from burnin.errors import ProtocolError

MOST = 4
"""Guards at once; a fifth pushes out the first."""
_MOST_BYTES = 1 << 20
"""What is kept for a guard that does not read; beyond it, it is dropped."""

Line = Callable[[str, "dict[str, Any]"], bytes]


class Guard:
    """One guard's socket; it blocks nobody."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._lines = wire.Lines()
        self._out = b""

    def orders(self) -> list[wire.Order] | None:
        """What came; None when the channel is gone or talks nonsense."""
        try:
            data = self.socket.recv(65536)
            heard = [wire.read_down(line) for line in self._lines.feed(data)]
        except BlockingIOError:
            return []
        except (OSError, ProtocolError):
            return None
        return [order for order in heard if isinstance(order, wire.Order)] if data else None

    def send(self, data: bytes) -> bool:
        """Give what the socket takes, keep the rest; False when the channel is gone or too far behind."""
        self._out += data
        try:
            while self._out:
                self._out = self._out[self.socket.send(self._out) :]
        except BlockingIOError:
            return len(self._out) <= _MOST_BYTES
        except OSError:
            return False
        return True


class Guards:
    """All of them. `line(kind, body)` makes a record without a place in the sequence; `halt(why, gpus)` ends load."""

    def __init__(self, line: Line, halt: Callable[[str, list[str] | None], list[str]]) -> None:
        self._line, self._halt = line, halt
        self._all: list[Guard] = []
        self._loaded: list[str] | None = None
        self.left: Callable[[Guard], None] = lambda guard: guard.socket.close()
        """Told of each guard that is no more; closes its socket."""

    def add(self, connection: socket.socket) -> Guard:
        """One more."""
        while len(self._all) >= MOST:
            self._drop(self._all[0])
        self._all.append(Guard(connection))
        return self._all[-1]

    def hear(self, guard: Guard) -> None:
        """Its socket can be read."""
        if guard not in self._all:
            return
        orders = guard.orders()
        for order in orders or ():
            if not guard.send(self._line("reply", self._answer(order))):
                orders = None
        if orders is None:
            self._drop(guard)

    def _answer(self, order: wire.Order) -> dict[str, Any]:
        if order.verb != "halt":
            return {"id": order.id, "ok": False, "error": f"a guard has no order {order.verb!r}"}
        gpus = order.args.get("gpus")
        return {"id": order.id, "ok": True, "result": self._halt(str(order.args.get("why", "")), gpus)}

    def tell(self, kind: str, body: dict[str, Any]) -> None:
        """To every guard; one that cannot be told is dropped."""
        if self._all:
            line = self._line(kind, body)
            for guard in [guard for guard in self._all if not guard.send(line)]:
                self._drop(guard)

    @property
    def there(self) -> bool:
        """True while one is there."""
        return bool(self._all)

    def read(self, columns: tuple[tuple[str, str], ...], values: list[float | None], taken_ns: int) -> None:
        """A table with margins or power was read: those go out at once, whatever else was in it."""
        if self._all:
            margin = {part: v for (part, metric), v in zip(columns, values) if metric == "gpu.tlimit"}
            power = {part: v for (part, metric), v in zip(columns, values) if metric in ("gpu.power", "transient.power")}
            self.tell("watch", {"n": taken_ns, "margin": margin, "power": power})

    def beat(self, loaded: list[str], due: bool) -> None:
        """Once a tick: tells when it is due, and when the GPUs under load are others than before."""
        if due or loaded != self._loaded:
            self._loaded = loaded
            self.tell("beat", {"load": loaded})

    def _drop(self, guard: Guard) -> None:
        if guard in self._all:
            self._all.remove(guard)
            self.left(guard)
