"""One attached channel, seen from the holder: orders in, spool lines out, at the pace the socket takes them."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any, Protocol

from burnin import wire
from burnin.agent.claims import Claims
from burnin.agent.spool import Spool
from burnin.errors import ProtocolError

_ATTACH_S = 0.5
_FINISH_S = 2.0


class Owner(Protocol):
    """What an attachment needs of the holder."""

    run: str
    ident: str
    spool: Spool
    claims: Claims

    @property
    def leased(self) -> bool:
        """True while the controller was heard in time."""
        ...

    @property
    def detached(self) -> str:
        """The detached stage that is loaded; empty where none is."""
        ...

    @property
    def busy(self) -> bool:
        """True while the run that owns this holder has a living lease or a load."""
        ...

    def hello(self) -> bytes:
        """The hello record."""
        ...

    def hear(self, down: wire.Down) -> None:
        """One line from the controller."""
        ...

    def clock(self, ident: str) -> bytes:
        """The reply to a `clock` order, out of the sequence."""
        ...

    def end(self) -> None:
        """Unload and leave."""
        ...


class Attachment:
    """A channel's socket. The first line is `["attach", run, holder, from_seq, claim]`, the answer `["ok"]`, `["stale", run]`, or
    `["busy" | "fenced", run, who]`. Without a claim (it may be left out) a channel commands nobody away and may be sent away.

    A guard's says `guard` in place of `attach`; it is `busy` for every run but this one.
    `from_seq` counts the records of `holder`; another holder's, which this may be, are sent from its first.
    """

    def __init__(self, owner: Owner, connection: socket.socket) -> None:
        self.socket = connection
        self._owner = owner
        self._lines = wire.Lines()
        self._out = b""
        self._seq = 0
        self._flows = self.guard = False

    def attach(self) -> bool:
        """Answer the attach line; False when this channel may not stay, and was told why.

        A holder of another run is `busy` while that run lives; when it does not, or its controller is known to be gone and left
        no detached stage, the holder ends itself (`stale`) and the channel starts a fresh one. Of controllers of one run see
        `Claims`.
        """
        owner = self._owner
        self.socket.settimeout(_ATTACH_S)
        try:
            word, run, holder, seq, *rest = json.loads(self._first_line())
            claim = rest[0] if rest and isinstance(rest[0], dict) else None
            if word not in ("attach", "guard") or not isinstance(seq, int):
                return False
            self.guard = word == "guard"
            answer = self._refusal(run, claim)
            if answer is not None:
                who = {**owner.claims.who, "stage": owner.detached} if owner.detached else owner.claims.who
                self.socket.sendall(json.dumps([answer, owner.run, who]).encode() + b"\n")
                if answer == "stale" or (answer == "fenced" and owner.claims.unclaimed):
                    owner.end()
                return False
            self.socket.sendall(b'["ok"]\n' + owner.hello())
        except (OSError, ValueError):
            return False
        self._seq = seq if holder == owner.ident else 0
        self.socket.setblocking(False)
        return True

    def _refusal(self, run: str, claim: dict[str, Any] | None) -> str | None:
        owner = self._owner
        if self.guard:
            return "busy" if run != owner.run else None
        if run != owner.run:
            gone = claim is not None and claim.get("gone") is not None and claim["gone"] == owner.claims.who.get("id")
            return "busy" if self.guard or (owner.busy and not (gone and not owner.detached)) else "stale"
        return owner.claims.take(claim, owner.leased) if claim is not None else None

    def _first_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and len(line) < 4096:
            data = self.socket.recv(1)
            if not data:
                break
            line += data
        return line

    def receive(self) -> bool:
        """Take what came; False when the channel is gone or talks nonsense."""
        try:
            data = self.socket.recv(65536)
            for line in self._lines.feed(data):
                down = wire.read_down(line)
                if isinstance(down, wire.Order) and down.verb == "clock":
                    self._out += self._owner.clock(down.id)  # what is out are whole lines, or the end of some
                    continue
                self._flows |= not isinstance(down, wire.Lease) or down.stored_seq != wire.HELD_BACK
                self._owner.hear(down)
        except BlockingIOError:
            return True
        except (OSError, ProtocolError):
            return False
        return bool(data)

    def send(self) -> bool:
        """Give what the socket takes; False when the channel is gone."""
        try:
            while True:
                if not self._out and self._flows:
                    self._out, self._seq = self._owner.spool.lines(self._seq)
                if not self._out:
                    return True
                self._out = self._out[self.socket.send(self._out) :]
        except BlockingIOError:
            return True
        except OSError:
            return False

    @property
    def stuck(self) -> bool:
        """True while the socket has not taken all that it was given."""
        return bool(self._out)

    @property
    def owes(self) -> bool:
        """True while not all that was recorded went out."""
        return self.stuck or self._seq < self._owner.spool.next

    def finish(self) -> None:
        """Send the rest, within a bounded time, then close."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(_FINISH_S)
            rest, self._seq = self._owner.spool.lines(self._seq, most=1 << 30)
            self.socket.sendall(self._out + rest)
        self.socket.close()
