"""Do the IMEX daemons of all trays see one another, so that GPUs may map memory across the rack?

Each tray is asked for its own daemon and for the domain as it sees it. A tray is blamed for its own daemon only: that another
node cannot be reached names a pair and a network, and is the rack's.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tooling import ToolArgs, read, worst
from burnin.checks.tools import PARSERS
from burnin.checks.tools.reading import Outcome
from burnin.events import Measurement, Result

LOCAL = Quantity(
    "imex.local",
    "1",
    "state of this tray's own daemon",
    action="look at nvidia-imex on this tray: its log, its node list, its port",
)
DOMAIN = Quantity(
    "imex.domain",
    "1",
    "the domain as every tray sees it: UP, with as many nodes as trays",
    action="look at the nodes that are named",
)
_PARSE = PARSERS["nvidia-imex-ctl"]
_LIMITS = {"local": "= READY", "domain": "= UP"}


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Every tray, twice: its own daemon, then the domain."""
    if len(answers) > 1:
        return []
    name = shlex.quote(ToolArgs.model_validate(dict(context.args)).program or "nvidia-imex-ctl")
    words = "-q" if not answers else "-N -j"
    return [Order(tray, "script", {"script": f"LC_ALL=C {name} {words}"}, "shell", 60.0) for tray in context.trays]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Each tray's daemon, and the domain once for the rack."""
    rounds = [{a.order.to: a for a in given} for given in evidence.answers] + [{}, {}]
    local = [_local(tray, rounds[0].get(tray)) for tray in context.trays]
    domain = [one for tray in context.trays for one in _domain(context, tray, rounds[1].get(tray))]
    return local + list(worst(domain or [DOMAIN.unknown(RACK, "missing", "no tray was asked")]))


def _local(tray: str, answer: Answer | None) -> Measurement:
    limit = _LIMITS["local"]
    if answer is None or not answer.ok:
        return LOCAL.unknown(tray, "lost", str(answer.body) if answer else "it was not asked", limit)
    body: Mapping[str, Any] = answer.body
    reading, reason = read(_PARSE, body)
    word = str(body.get("stdout", "")).strip().split("\n")[-1].strip()
    if word == "READY" and body.get("exit") == 0 and reading.outcome is not Outcome.ERROR:
        return Measurement(LOCAL.name, tray, word, "1", limit, Result.PASS)
    if reading.outcome is Outcome.FAIL:
        return Measurement(LOCAL.name, tray, word[:40], "1", limit, Result.FAIL, None, "; ".join(reading.whys[:3]))
    return LOCAL.unknown(tray, reason, "; ".join(reading.whys[:3]) or "not READY", limit)


def _domain(context: Context, tray: str, answer: Answer | None) -> list[Measurement]:
    limit = _LIMITS["domain"]
    if answer is None or not answer.ok:
        return [DOMAIN.unknown(RACK, "lost", f"{tray}: {answer.body if answer else 'it was not asked'}", limit)]
    reading, reason = read(_PARSE, answer.body)
    why = f"{tray} says: {'; '.join(reading.whys[:4])}"
    nodes = sum(row.name == "node" for row in reading.rows)
    if reading.outcome is Outcome.FAIL:
        state = next((str(row.value) for row in reading.rows if row.name == "domain"), "?")
        return [Measurement(DOMAIN.name, RACK, state, "1", limit, Result.FAIL, None, why)]
    if reading.outcome is not Outcome.PASS:
        return [DOMAIN.unknown(RACK, reason, why, limit)]
    want = context.profile.topology.compute_trays
    if nodes != want:
        return [DOMAIN.unknown(RACK, "missing", f"{tray}: the domain has {nodes} nodes, the rack {want} trays", limit)]
    return [Measurement(DOMAIN.name, RACK, "UP", "1", limit, Result.PASS)]


CHECK = Check(
    name="imex",
    about="the IMEX daemons of all trays are ready and see one another",
    quantities=(LOCAL, DOMAIN),
    judge=judge,
    orders=orders,
    scope="rack",
    args=ToolArgs,
    equipment=("nvidia-imex-ctl",),
)
