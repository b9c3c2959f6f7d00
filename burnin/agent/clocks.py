"""SM clocks held at one frequency while a stage wants it, and let go whatever happens to its controller.

NVML cannot tell whether a clock is held, so a note in the agent's directory does: a holder that finds one of a dead
holder's lets those clocks go before anything else. A hold that the site itself had made cannot be seen, and is lost.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

from burnin.agent.nvml import Gpu

NOTE = "clocks.json"
_HELD = "held"


class ClockLocks:
    """`gpus`: name -> GPU. Calls the driver: not from the holder's own loop. One caller at a time."""

    def __init__(self, gpus: dict[str, Gpu], note: str, tell: Callable[[str], None]) -> None:
        self._gpus, self._note, self._tell = gpus, note, tell
        self._lock = threading.Lock()
        self.held: set[str] = set()

    def take_over(self) -> None:
        """Let go of what a dead holder held."""
        try:
            with open(self._note, encoding="utf-8") as file:
                left = json.load(file)
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            left = list(self._gpus)  # cut short: it may have been any of them
        self.held = {name for name in left if name in self._gpus}
        freed = self.free()
        self._tell(f"clocks held by an agent that died were let go: {json.dumps(freed)}")

    def hold(self, wanted: dict[str, int]) -> dict[str, str]:
        """Hold SM clocks (gpu -> MHz): gpu -> held, or the reason why it is not."""
        with self._lock:
            self.held |= {gpu for gpu in wanted if gpu in self._gpus}
            self._write()  # before the first is held: a note too many costs nothing
            out = {}
            for gpu, mhz in wanted.items():
                why = self._gpus[gpu].hold_clock(mhz) if gpu in self._gpus else "missing"
                out[gpu] = why or _HELD
                if why:
                    self.held.discard(gpu)
            self._write()
            return out

    def free(self) -> dict[str, str]:
        """Let all of them go: gpu -> free, or why it is still held."""
        with self._lock:
            out = {}
            for gpu in sorted(self.held):
                why = self._gpus[gpu].free_clock()
                out[gpu] = why or "free"
                if not why:
                    self.held.discard(gpu)
            self._write()
            return out

    def _write(self) -> None:
        if self.held:
            fresh = f"{self._note}.new"
            with open(fresh, "w", encoding="utf-8") as file:
                json.dump(sorted(self.held), file)
            os.replace(fresh, self._note)
        elif os.path.exists(self._note):
            os.unlink(self._note)


def order(locks: ClockLocks, mhz: dict[str, int]) -> dict[str, Any]:
    """The order `clocks`: hold these, or let all go when none is named. Raises ValueError for what is no frequency."""
    for gpu, value in mhz.items():
        if not isinstance(value, int) or not 100 <= value <= 10_000:
            raise ValueError(f"{value!r} is no clock in MHz for {gpu}")
    return locks.hold(mhz) if mhz else locks.free()
