"""How a tray's monotonic clock stands to ours, from round trips: the fastest of several bounds the error by half its time."""

from __future__ import annotations

from typing import Any, Protocol

from burnin.errors import TrayError
from burnin.run.placing import Tie, between
from burnin.run.tray import Clock

ROUNDS = 9
"""Round trips that are timed; the fastest counts, so a busy moment of either side costs nothing."""


class Asked(Protocol):
    """What is needed of a tray's session."""

    async def order(self, verb: str, timeout_s: float = ..., **args: Any) -> Any:
        """Give an order and wait."""
        ...


async def tie(session: Asked, clock: Clock) -> Tie:
    """Ask a tray for its clock. Raises TrayError when it does not say."""
    best: Tie | None = None
    for _ in range(ROUNDS):
        sent = clock.now()
        said = await session.order("clock", timeout_s=5.0)
        got = clock.now()
        mono_ns = said.get("mono_ns") if isinstance(said, dict) else None
        if not isinstance(mono_ns, int):
            raise TrayError(f"its agent answered {said!r}")
        if best is None or got - sent < 2 * best.within_s:
            best = between(sent, got, mono_ns / 1e9)
    assert best is not None
    return best
