"""Where a tray's monotonic clock stands to ours, from what was asked and what was heard. Pure.

Whatever is heard was said before: our time at its receipt, less the tray's at its making, is too much by the way it took, and by
however long a busy controller let it lie. An answer to a question lies between two of our own times: half the time it took
bounds the error to both sides. So the quickest answer counts, and what is heard later may only take away.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

DRIFT = 2e-4
"""Seconds that two clocks may part in a second: crystals of servers are within 100 ppm (estimated, each)."""
_HEARD = 64
"""Live records that the least delay is taken over: about half a minute, so that it follows drifting clocks."""


@dataclass(frozen=True, slots=True)
class Tie:
    """`offset_s`: tray's monotonic seconds less ours. `within_s`: it is off by no more."""

    offset_s: float
    within_s: float

    def mono_ns(self, ours_s: float) -> int:
        """A moment of our clock in the tray's own nanoseconds."""
        return round((ours_s + self.offset_s) * 1e9)


def between(sent_s: float, got_s: float, theirs_s: float) -> Tie:
    """Of a question sent and answered at our times, with the tray's clock as the answer says it."""
    return Tie(theirs_s - (sent_s + got_s) / 2, (got_s - sent_s) / 2)


class Placing:
    """One tray's clock, as long as it is the same agent's. All times in seconds."""

    def __init__(self) -> None:
        self._tie: Tie | None = None
        self._tied_s = 0.0
        self._heard: deque[float] = deque(maxlen=_HEARD)

    def heard(self, ours_s: float, theirs_s: float) -> None:
        """Something made at `theirs_s` was taken at `ours_s`."""
        self._heard.append(ours_s - theirs_s)

    def asked(self, sent_s: float, got_s: float, theirs_s: float) -> None:
        """A question was answered. The tighter answer counts, with the older one's drift; one that it contradicts is over: a
        machine that stood still for a while has another clock."""
        new, old_s = between(sent_s, got_s, theirs_s), self.within_s(got_s)
        apart_s = abs(new.offset_s - self._tie.offset_s) if self._tie is not None else 0.0
        if apart_s > new.within_s + old_s:
            self._heard.clear()
        if new.within_s <= old_s or apart_s > new.within_s + old_s:
            self._tie, self._tied_s = new, got_s

    def within_s(self, ours_s: float) -> float:
        """By how much a place may be wrong at most, now; infinite where nothing was answered."""
        return float("inf") if self._tie is None else self._tie.within_s + DRIFT * max(0.0, ours_s - self._tied_s)

    def ours_s(self, theirs_s: float) -> float:
        """A moment of the tray's clock in ours. Something must have been heard or answered."""
        return theirs_s + min(self._heard if self._tie is None else (-self._tie.offset_s, *self._heard))
