"""How long load may go on without its controller: what the suite asks for, or less where nobody else minds a leak meanwhile.

A long lease lets a soak live through a cut of the management network. While it lasts, a tray is left to its local limits (which
know of heat, not of water) and to its BMC's own leak policy. Where that is not known to be enabled, the lease is short.

A stage that is detached has a lease of minutes or hours, on trays whose policy was read as enabled: a waiver reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from burnin.events import LogLine
from burnin.rack.parts import fold
from burnin.telemetry.bmc import leak_policy
from burnin.telemetry.watched import Said

UNMINDED_S = 5.0
"""Where the profile wants a leak policy, and it is off or was not read."""
WAIVED_S = 15.0
"""Where the policy is waived by name, or the profile knows of none (no water in the tray)."""
UNNAMED = Said(0.0, {}, "the rack file names no BMC (bmc:)")


@dataclass(frozen=True, slots=True)
class Detached:
    """A stage whose load may go on without a controller for `for_s`, and not beyond its end. Until run second `trusted_s` what an
    earlier session read of the policies holds where they were not read again yet: without this session it would have, too."""

    stage: str
    for_s: float
    end_s: float
    trusted_s: float = float("-inf")


class Leases:
    """`asked_s`: the suite's. `wanted`: the profile wants the policy, and nobody waived it. `said`: what a BMC says now."""

    def __init__(
        self,
        asked_s: float,
        wanted: bool,
        said: Callable[[str], Said],
        emit: Callable[[LogLine], None],
        now_s: Callable[[], float],
    ) -> None:
        self._asked_s, self._wanted, self._said, self._emit, self._now_s = asked_s, wanted, said, emit, now_s
        self._seen: dict[str, tuple[Any, str]] = {}
        """Tray -> what its BMC said when last looked at, and why its policy is not known to be enabled (empty: it is)."""
        self._told: dict[str, bool] = {}
        self.detached: Detached | None = None
        """The stage that goes on without a controller; None while none does."""

    def of(self, tray: str) -> float:
        """Seconds, of this tray, now. A change of what it is without a detached stage is told."""
        return max(self._attached(tray), self._detached(tray))

    def stage(self, tray: str) -> str:
        """The detached stage that the lease of this tray covers; empty where it covers none."""
        return self.detached.stage if self.detached is not None and self._detached(tray) > 0 else ""

    def _detached(self, tray: str) -> float:
        left, now = self.detached, self._now_s()
        if left is None:
            return 0.0
        allowed_s = left.for_s if not self._why_short(tray) else left.trusted_s - now if self._said(tray).why else 0.0
        return min(allowed_s, left.for_s, left.end_s - now)

    def refusal(self, stage: str, trays: Iterable[str]) -> str | None:
        """Why a stage may not be detached with these trays loaded; None where it may."""
        whys: dict[str, list[str]] = {}
        for tray in trays:
            if why := self._why_short(tray):
                whys.setdefault(why.replace(tray, "\0"), []).append(tray)
        if not whys:
            return None
        said = "; ".join(f"{fold(them)}: {why.replace(chr(0), fold(them))}" for why, them in whys.items())
        need = f"stage {stage} may be left without controller and guard only where each tray's BMC was read to mind leaks itself"
        return f"{need} ({said}); enable the policy on these BMCs and name them under bmc:, or take `detach` out of the stage"

    def _attached(self, tray: str) -> float:
        why = self._why_short(tray) if self._wanted else ""
        given_s = min(self._asked_s, UNMINDED_S if why else self._asked_s if self._wanted else WAIVED_S)
        short = given_s < self._asked_s
        if short != self._told.get(tray, False):
            self._told[tray] = short
            why = why or "its leak policy is waived, or not asked for"
            text = f"load of {tray} ends {given_s:g} s after its controller, not {self._asked_s:g} s"
            said = f"{text}: {why}" if short else f"{text.split(' ends ')[0]} ends {given_s:g} s after its controller from now on"
            self._emit(LogLine(tray, self._now_s(), "lease", f"{given_s:g}", said, "controller"))
        return given_s

    def _why_short(self, tray: str) -> str:
        said, before = self._said(tray), self._seen.get(tray)
        if said.why:
            return said.why
        if before is None or before[0] is not said.bodies:  # a walk through some hundred bodies: once a reading is enough
            policy = leak_policy(said.bodies)
            self._seen[tray] = before = (said.bodies, "" if policy.enabled else policy.why)
        return before[1]
