"""Which network card of which tray sends to which, beside a load: each card to the same one of the next tray, in a ring.

Cards of one number hang on one rail, so that they should reach each other. Pure, but for asking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Ports = Mapping[str, Mapping[str, str]]
"""Card (n0 ...) -> {device, address}, or {why}: what the agent's order `ports` answers."""
Ways = dict[str, dict[str, dict[str, str]]]
"""Tray -> card -> {device, own, peer, source}: what its load is told."""


def ring(ports: Mapping[str, Ports | str], cards: Sequence[str]) -> tuple[Ways, dict[str, str]]:
    """The ways, and of each card (t07.n2) that has none, why. A tray whose ports are a sentence could not be asked."""
    ways: Ways = {tray: {} for tray in ports}
    silent: dict[str, str] = {}
    for card in cards:
        there = {}
        for tray, known in sorted(ports.items()):
            port = known if isinstance(known, str) else known.get(card, {"why": "there is no such card"})
            if not isinstance(port, str) and "address" in port:
                there[tray] = port
            else:
                silent[f"{tray}.{card}"] = port if isinstance(port, str) else str(port.get("why"))
        trays = list(there)
        if len(trays) == 1:
            silent[f"{trays[0]}.{card}"] = f"no other tray of this run has {card} on a network"
            continue
        for i, tray in enumerate(trays):
            own, source, peer = (there[trays[(i + by) % len(trays)]] for by in (0, -1, 1))
            ends = {"own": own["address"], "peer": peer["address"], "source": source["address"]}
            ways[tray][card] = {"device": own["device"], **ends}
    return ways, silent


def cards(wanted: bool | Sequence[str], count: int | None) -> list[str]:
    """The cards of each tray that a load asks for; `true` is all that the profile says a tray has."""
    return list(wanted) if not isinstance(wanted, bool) else [f"n{i}" for i in range(count or 0)] if wanted else []


def args(ways: Ways) -> dict[str, dict[str, Any]]:
    """What each tray's load order says of it."""
    return {tray: {"nic": own} for tray, own in ways.items() if own}
