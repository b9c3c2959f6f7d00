"""How a tray's monotonic clock stands to ours, from round trips: the fastest of several bounds the error by half its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from burnin.errors import TrayError
from burnin.run.tray import Clock

ROUNDS = 9
"""Round trips that are timed; the fastest counts, so a busy moment of either side costs nothing."""


class Asked(Protocol):
    """What is needed of a tray's session."""

    async def order(self, verb: str, timeout_s: float = ..., **args: Any) -> Any:
        """Give an order and wait."""
        ...


@dataclass(frozen=True, slots=True)
class Tie:
    """`offset_s`: tray's monotonic seconds less ours. `within_s`: it is off by no more."""

    offset_s: float
    within_s: float

    def mono_ns(self, ours_s: float) -> int:
        """A moment of our clock in the tray's own nanoseconds."""
        return round((ours_s + self.offset_s) * 1e9)


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
            best = Tie(mono_ns / 1e9 - (sent + got) / 2, (got - sent) / 2)
    assert best is not None
    return best
