"""Where the ranks of one emulated NCCL group meet: a thread in the process that made the unique id, on loopback TCP.

It joins ranks, brings together what they send, and says how long it took: the slowest GPU decides. A rank that goes away is
told to all others; what waits for one that never comes waits for ever, as it would for real. Lines of JSON:

    rank -> hub   {join: rank, ranks, gpu, slow_ppm, deaf_to, network}     {op: number, kind, words, data}     {bye: rank}
                  {op: number, kind: "p2p", sends: [[peer, data]], receives: [[peer, words]]}
    hub -> rank   {joined: true}     {done: number, data | receives: [[peer, data]], ns}     {gone: rank}
"""

from __future__ import annotations

import json
import math
import selectors
import socket
import threading
from collections.abc import Mapping
from typing import Any

from .runs import Runs, added, sliced

FACTORS = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "alltoall": lambda n: (n - 1) / n,
}


def busbw_gbps(table: Mapping[Any, float], ranks: int) -> float:
    """Between the numbers given along the logarithm of the number of ranks; outside of them as at the nearest."""
    known = sorted((int(n), float(gbps)) for n, gbps in table.items())
    below = [p for p in known if p[0] <= ranks] or known[:1]
    above = [p for p in known if p[0] >= ranks] or known[-1:]
    (n0, low), (n1, high) = below[-1], above[0]
    return low if n0 >= n1 else low + (high - low) * math.log(ranks / n0) / math.log(n1 / n0)


class _Rank:
    """One rank's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer = sock, b""
        self.facts: dict[str, Any] = {}
        self.waiting: dict[str, Any] | None = None
        self.got: dict[int, list[Runs]] = {}
        self.missing: set[int] = set()
        self.over = False

    @property
    def rank(self) -> int:
        return int(self.facts.get("join", -1))

    def send(self, body: dict[str, Any]) -> None:
        """A line down; a rank that went away hears nothing."""
        try:
            self.sock.sendall(json.dumps(body, separators=(",", ":")).encode() + b"\n")
        except OSError:
            self.over = True


class Hub:
    """`facts`: the model's table of collectives. `port`: where ranks come in."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._ranks: dict[int, _Rank] = {}
        threading.Thread(target=self._serve, daemon=True, name="nccl").start()

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ, None)
        alive = True
        while alive:
            for key, _ in selector.select():
                if key.data is None:
                    sock = self._listener.accept()[0]
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_READ, _Rank(sock))
                elif not self._read(key.data):
                    selector.unregister(key.data.sock)
                    key.data.sock.close()
                    self._left(key.data)
            alive = len(selector.get_map()) > 1 or not self._ranks
        self._listener.close()
        selector.close()

    def _read(self, rank: _Rank) -> bool:
        try:
            data = rank.sock.recv(1 << 18)
        except OSError:
            data = b""
        *lines, rank.buffer = (rank.buffer + data).split(b"\n")
        for line in lines:
            self._hear(rank, json.loads(line))
        return bool(data)

    def _hear(self, rank: _Rank, body: dict[str, Any]) -> None:
        if "join" in body:
            rank.facts = body
            self._ranks[rank.rank] = rank
            if len(self._ranks) == body["ranks"]:
                for one in self._ranks.values():
                    one.send({"joined": True})
        elif "bye" in body:
            rank.over = True
        else:
            rank.waiting = body
            if body["kind"] == "p2p":
                self._meet(rank)
            else:
                self._together()

    def _left(self, rank: _Rank) -> None:
        """Gone without a word: the others are told. One that said bye is done."""
        if rank.rank < 0 or rank.over:
            return
        rank.over = True
        for one in self._ranks.values():
            if not one.over:
                one.send({"gone": rank.rank})

    # ---- what is brought together

    def _broken(self, source: int, target: int) -> bool:
        """Does nothing arrive from this rank at that one. Without NVLink the network carries it."""
        one, other = self._ranks[source].facts, self._ranks[target].facts
        return bool(other["deaf_to"] == one["gpu"] + 1 and not other["network"])

    def _ns(self, kind: str, size: int, ranks: list[int]) -> int:
        """How long `size` bytes take these ranks, all of the group deciding how fast it could be."""
        facts = [self._ranks[rank].facts for rank in ranks]
        if any(one["network"] for one in facts):
            gbps = float(self._facts["network_gbps"])
        else:
            gbps = busbw_gbps(self._facts["busbw"][kind], len(self._ranks))
        gbps *= 1 - max(one["slow_ppm"] for one in facts) / 1e6
        factor = FACTORS[kind](len(ranks)) if kind in FACTORS else 1.0
        return int(1000 * float(self._facts["latency_us"]) + size * factor / gbps)

    def _together(self) -> None:
        """An operation of all ranks, once the last one has come."""
        everyone = [self._ranks[rank] for rank in sorted(self._ranks)]
        asked = [one.waiting for one in everyone]
        first, n = asked[0], len(everyone)
        if first is None or any(
            a is None or (a["op"], a["kind"], a["words"]) != (first["op"], first["kind"], first["words"]) for a in asked
        ):
            return
        if any(self._broken(rank, (rank + 1) % n) for rank in range(n)):
            return
        kind, words, data = first["kind"], int(first["words"]), [a["data"] for a in asked if a is not None]
        results = [[run for runs in data for run in runs]] if kind == "all_gather" else [added(data)]
        size = 4 * words * (1 if kind == "all_reduce" else n)
        ns = self._ns(kind, size, list(range(n)))
        for number, one in enumerate(everyone):
            one.waiting = None
            mine = sliced(results[0], words * number, words) if kind == "reduce_scatter" else results[0]
            one.send({"done": first["op"], "data": mine, "ns": ns})

    def _meet(self, rank: _Rank) -> None:
        """Sends and receives of a group: each is done when its other side is there."""
        asked = rank.waiting or {}
        rank.missing = {peer for peer, _ in asked["receives"] if not rank.got.get(peer)}
        for peer, data in asked["sends"]:
            if not self._broken(rank.rank, peer):
                self._ranks[peer].got.setdefault(rank.rank, []).append(data)
                self._ranks[peer].missing.discard(rank.rank)
        for one in self._ranks.values():
            if one.waiting is not None and one.waiting["kind"] == "p2p" and not one.missing:
                self._try(one)

    def _try(self, one: _Rank) -> None:
        asked = one.waiting or {}
        sources = [peer for peer, _ in asked["receives"]]
        if not all(self._taken(one, peer) for peer, _ in asked["sends"]):
            return
        arrived = [[peer, one.got[peer].pop(0)] for peer in sources]
        size = 4 * max(sum(count for _, data in asked["sends"] for count, _ in data), sum(w for _, w in asked["receives"]))
        peers = sorted({one.rank, *sources, *(peer for peer, _ in asked["sends"])})
        kind = "alltoall" if len(peers) > 3 or len(sources) > 1 else "sendrecv"
        one.waiting = None
        one.send({"done": asked["op"], "receives": arrived, "ns": self._ns(kind, size, peers)})

    def _taken(self, one: _Rank, peer: int) -> bool:
        """Is the receiver there, or has it been: only then is a send done. What never arrives is never taken."""
        other = self._ranks[peer]
        if self._broken(one.rank, peer):
            return False
        waits = other.waiting is not None and any(source == one.rank for source, _ in other.waiting.get("receives", ()))
        return waits or not other.got.get(one.rank)
