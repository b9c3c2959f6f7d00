"""Programs that have the GPUs for themselves: NVML is let go before one begins, and taken again when it has ended."""

from __future__ import annotations

import time
from _thread import start_new_thread
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from burnin.agent.grip import Handles

if TYPE_CHECKING:
    from burnin.agent.load import Loads
    from burnin.agent.program import Programs


class Alone:
    """`answer` and `post` are the holder's; `busy` says why NVML cannot be let go, and is empty where it can."""

    def __init__(
        self,
        handles: Handles,
        answer: Callable[..., None],
        post: Callable[..., None],
        busy: Callable[[], str],
        now_ns: Callable[[], int],
    ) -> None:
        self._handles, self._answer, self._post, self._busy, self._now_ns = handles, answer, post, busy, now_ns
        self.orders: set[str] = set()
        """Those that are not answered yet."""
        self.loads: Loads | None = None
        """What comes next wants their margins read."""

    def start(self, ident: str, programs: Programs, args: dict[str, Any]) -> None:
        """Let NVML go, which may hang, and then start."""
        start_new_thread(self._release, (ident, programs, args))
        self.orders.add(ident)

    def _release(self, ident: str, programs: Programs, args: dict[str, Any]) -> None:
        try:
            self._handles.release(self._busy)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._post(lambda: self.ended(ident, error=text))
            return

        def begin() -> None:
            try:
                programs.start(ident, set(), **args)
            except (OSError, TypeError, ValueError) as error:
                self.ended(ident, error=str(error))

        self._post(begin)

    def ended(self, ident: str, result: Any = None, error: str | None = None) -> None:
        """Take NVML again, then answer, once margins were read."""
        self.orders.discard(ident)

        def take() -> None:
            try:
                since, taken = self._now_ns(), dict[str, Any](self._handles.take())
                for _ in range(50):
                    if self.loads is None or self.loads.read_since(since, set(self._handles.gpus)):
                        break
                    time.sleep(0.1)
            except Exception as failed:
                taken = {"failed": f"NVML was not taken again: {failed}"}
            self._post(lambda: self._answer(ident, None if error else {**result, "taken": taken}, error))

        try:
            start_new_thread(take, ())
        except (MemoryError, RuntimeError) as none:  # no room for a thread
            self._answer(ident, error=f"NVML was not taken again: {none}")
