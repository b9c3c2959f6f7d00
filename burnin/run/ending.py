"""Who wants a run to end before its end: a signal, somebody at the live channel, the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Stop:
    """One run's. `asked` is set by whoever wants it to end; only a signal makes it interrupted."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.interrupted = False
        self.gentle = True
        """False once anything but a planned stop was asked for."""
        self.say: Callable[[str], None] = lambda by: None
        """Keeps who asked for a planned stop."""

    def interrupt(self) -> None:
        """SIGINT or SIGTERM."""
        self.interrupted = True
        self.hard()

    def hard(self) -> None:
        """The guard, or that nothing can be kept: load off at once."""
        self.gentle = False
        self.asked.set()

    def planned(self, by: str) -> None:
        """`burnin stop`."""
        self.say(by)
        self.asked.set()
