"""Which controller commands this tray: one at a time, and none that was replaced by a newer one.

Whoever comes first gets a token, one higher than any given before, and is known by name. While its lease lives another is
refused, and told who holds the tray; unless it says that this very process is gone, which only somebody on the same machine
can know. Who comes back with an older token was replaced meanwhile, and is refused for good. Tokens survive the holder: the
last one is in a file beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

FILE = "claim"


class Claims:
    """See the module. `who` of a controller: {id, host, pid, since, run}; `id` is that process's for all time."""

    def __init__(self, path: str = FILE) -> None:
        self._path = path
        self.token = 0
        self.who: dict[str, Any] = {}
        self._mine = False
        with contextlib.suppress(OSError, ValueError, TypeError):
            with open(path, encoding="utf-8") as file:
                token, who = json.load(file)
            if type(token) is int and isinstance(who, dict):
                self.token, self.who = token, who

    @property
    def unclaimed(self) -> bool:
        """True while nobody has been given this holder."""
        return not self._mine

    def take(self, claim: dict[str, Any], living: bool) -> str | None:
        """None: it commands from now on. Else why not: `busy` while another's lease lives, `fenced` for a token that is old.

        `claim`: {who, token: of an earlier attachment or null, gone: id of a controller that is known to be gone, or null}.
        """
        who, token = claim.get("who"), claim.get("token")
        if not isinstance(who, dict) or not who.get("id"):
            return "busy"
        same = who["id"] == self.who.get("id")
        if token is not None and self.who and not (same and token == self.token):
            return "fenced"
        if not same:
            if living and claim.get("gone") != self.who.get("id"):
                return "busy"
            # a tray that was rebooted and lost its file goes on from the token that its controller shows
            self.token, self.who = max(self.token + 1, token or 0), who
            self._keep()
        self._mine = True
        return None

    def _keep(self) -> None:
        """Whole or not at all. A tray without room for a line still obeys the controller that it knows."""
        with contextlib.suppress(OSError):
            with open(self._path + ".new", "w", encoding="utf-8") as file:
                json.dump([self.token, self.who], file)
            os.replace(self._path + ".new", self._path)
