"""Every error burnin raises on purpose, and what a run does about it.

    BurninError
    ├── InputError        a file or flag is wrong        -> one sentence per mistake, exit 2, nothing started
    ├── NotReady          an interlock or lock said no    -> no load, no power action; the run ends HOLD
    ├── TrayError         one tray cannot take part       -> that tray is LOST or in trouble; the others go on
    │   ├── Unreachable       no TCP, no banner, or it took too long
    │   ├── HostKeyError      unknown or changed host key: never spoken to again until enrolled
    │   ├── LoginRefused      the tray knows us not
    │   ├── LinkLost          the link was up and is gone (SSH exit status None is this, never success)
    │   ├── TrayUnfit         no python3, no ctypes, no room, sudo refused
    │   ├── AgentBusy         another controller holds this tray: the run is refused
    │   │   └── Superseded    a newer one took it over: this run stops, and commands nothing more
    │   └── ProtocolError     bytes that are not our protocol
    └── StoreError        evidence cannot be kept         -> the run stops safely; burnin's own failure, exit 4

Anything else that escapes is a defect of burnin's: exit 4, never 1 (1 is FAIL, a verdict on hardware).
This file travels to the trays: standard library only, Python 3.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class BurninError(Exception):
    """Base of all errors raised on purpose; its text is one clear sentence for a person."""


class Problem(NamedTuple):
    """One mistake in one place of a file, as `where: what (value), what was expected`."""

    file: str
    line: int | None
    column: int | None
    what: str
    expected: str = ""

    def __str__(self) -> str:
        place = ":".join(str(x) for x in (self.file, self.line, self.column) if x is not None)
        tail = f"; expected {self.expected}" if self.expected else ""
        return f"{place}: {self.what}{tail}"


class InputError(BurninError):
    """Files or flags that are wrong; carries every mistake found, not only the first."""

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        self.problems: list[Problem] = [] if isinstance(problems, str) else list(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, self.problems)))


class NotReady(BurninError):
    """An interlock, a lock or a missing permission forbids what was asked."""


class TrayError(BurninError):
    """One tray cannot take part, for a reason that can be said in a sentence."""


class Unreachable(TrayError):
    """No connection within the time allowed."""


class HostKeyError(TrayError):
    """The tray's host key is unknown, or is not the one that was enrolled."""


class LoginRefused(TrayError):
    """None of our keys is accepted for this user."""


class LinkLost(TrayError):
    """The link was up and is gone."""


class TrayUnfit(TrayError):
    """The tray answers but cannot run the agent."""


class AgentBusy(TrayError):
    """Another controller holds the tray's agent under a living lease."""


class Superseded(AgentBusy):
    """A newer controller has taken the tray over; its agent obeys this one no more."""


class ProtocolError(TrayError):
    """The bytes on the channel are not burnin's protocol, or of a version this side does not speak."""


class StoreError(BurninError):
    """The database cannot keep what must be kept."""
