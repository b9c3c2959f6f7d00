"""What the checks that ask Redfish services share: the questions, the bodies that came back, and what was not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from burnin.checks.base import TO_DO, Context, Evidence, Order, Quantity
from burnin.events import Measurement, Result
from burnin.telemetry.bmc import Bodies, failures

WALK_S = 180.0
"""A real BMC answers some requests a second, and a tray's tree is a few hundred."""


def walk(to: str, begin: Sequence[str], depth: int, names: Sequence[str], keep: Sequence[str] = ()) -> Order:
    """One walk through a service; `keep` thins what is stored of each resource."""
    args = {"from": list(begin), "depth": depth, "names": list(names), "keep": list(keep)}
    return Order(to, "walk", args, "redfish", WALK_S)


def bodies(evidence: Evidence, to: str | None = None) -> Bodies:
    """Everything that came back, of one service or of all."""
    answers = [answer for given in evidence.answers for answer in given if to is None or answer.order.to == to]
    return {path: body for answer in answers if answer.ok for path, body in answer.body.items()}


def refused(evidence: Evidence, to: str) -> str:
    """Why a service gave nothing; empty when it gave something."""
    answers = [answer for given in evidence.answers for answer in given if answer.order.to == to]
    if any(answer.ok for answer in answers):
        return ""
    return str(answers[0].body) if answers else f"{to} was not asked"


def unread(quantity: Quantity, part: str, found: Bodies) -> list[Measurement]:
    """One UNKNOWN for all resources that were not read; none when all were."""
    missed = failures(found)
    if not missed:
        return []
    first = next(iter(missed.values()))
    more = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    return [quantity.unknown(part, "missing", f"not read: {first}{more}")]


def hold(quantity: Quantity, part: str, value: float | str | None, why: str, limit: str = "none") -> Measurement:
    """Measured, and neither good nor bad: somebody must look."""
    said = f"{why}{TO_DO}{quantity.action}" if quantity.action else why
    return replace(quantity.unknown(part, "missing", said, limit), value=value)


def bad(quantity: Quantity, part: str, value: float | str, why: str, limit: str = "none") -> Measurement:
    """Measured, and bad."""
    return Measurement(quantity.name, part, value, quantity.unit, limit, Result.FAIL, None, why)


def good(quantity: Quantity, part: str, value: float | str, limit: str = "none") -> Measurement:
    """Measured, and good."""
    return Measurement(quantity.name, part, value, quantity.unit, limit, Result.PASS)


def bmc(context: Context) -> str:
    """The BMC of this tray."""
    return f"{context.tray}.bmc"
