"""Load that a guard ended, and that stays off until a person starts a run anew; also the halt that needs no channel.

That one is a file in the agent's directory, which a shell writes (burnin.transport.halt), so no Python has to start. The answer
is another file, written when nothing is loaded any more. The kernel says when a file comes (inotify), so nobody looks for it ten
times a second; where it cannot say so, somebody does.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

_CLOSE_WRITE, _MOVED_TO = 0x8, 0x80
HALT, HALTED = "halt", "halted"
"""Files in the agent's directory: RUN and the reason; how many GPUs were loaded, once none is."""


class Halts:
    """`halt(why)` ends everything and gives the GPUs that were loaded."""

    def __init__(self, folder: str, run: str, halt: Callable[[str, list[str] | None], list[str]]) -> None:
        self._ask, self._answer, self._run, self._halt = os.path.join(folder, HALT), os.path.join(folder, HALTED), run, halt
        self.news = _told_of_files(folder or ".")
        """Can be read when there may be one; -1 where it has to be looked for."""
        self.why: dict[str, str] = {}
        """GPU, or * for all -> the reason."""
        self._paper: list[str] | None = None
        """GPUs that a halt by file found loaded, until it is answered."""

    @property
    def asked(self) -> bool:
        """True while a halt by file waits for its answer."""
        return self._paper is not None

    def read(self, loaded: Callable[[], list[str]]) -> str:
        """Once a tick: obey and answer a halt by file. What went wrong, in words; then the channel is asked next."""
        try:
            if os.path.exists(self._ask):
                with open(self._ask, encoding="utf-8", errors="replace") as file:
                    run, _, why = file.read(400).partition("\n")
                os.unlink(self._ask)
                if run == self._run:
                    self._paper = self._halt(why.strip() or "by a file", None)
                else:
                    self._say("another run's")
            if self._paper is not None and not loaded():
                self._say(str(len(self._paper)))
                self._paper = None
        except OSError as error:  # a disk that is full
            self._paper = None
            return f"a halt by file was not answered: {error}"
        return ""

    def _say(self, text: str) -> None:
        with open(self._answer + ".new", "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(self._answer + ".new", self._answer)


def _told_of_files(folder: str) -> int:
    try:
        libc = ctypes.CDLL(None)
        news = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if news >= 0 and libc.inotify_add_watch(news, os.fsencode(folder), _CLOSE_WRITE | _MOVED_TO) >= 0:
            return news
        if news >= 0:
            os.close(news)
    except (OSError, AttributeError):
        pass
    return -1
