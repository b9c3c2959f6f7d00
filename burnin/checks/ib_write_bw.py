"""How fast do two trays write to each other over the network: `ib_write_bw` on both, one pair after the other.

The pairs are the step's. A slow pair is not pinned on either end: it is the rack's, and both ends are named.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity
from burnin.checks.tooling import ToolArgs, read
from burnin.checks.tools import PARSERS
from burnin.checks.tools.reading import Outcome
from burnin.events import Measurement, Result
from burnin.rack.data import Data

BANDWIDTH = Quantity(
    "ib-write-bw.bandwidth",
    "GB/s",
    "bandwidth of the slowest pair at its largest size; the pairs that were bad are named",
    action="swap one end of the pair that is named, and run it again",
)
_PARSE = PARSERS["ib_write_bw"]
_LONGEST_S, _FIRST_S = 120, 3


class Pair(Data):
    """`to` waits at `address`; `source` writes to it. Devices as `ibstat` names them."""

    source: str = Field(alias="from", pattern=r"^t\d\d$")
    to: str = Field(pattern=r"^t\d\d$")
    address: str = Field(pattern=r"^[\w.:-]{1,60}$")
    device: str = Field(default="mlx5_0", pattern=r"^\w{1,30}$")
    peer: str = Field(default="", pattern=r"^\w{0,30}$", description="the device at the other end, where it is another")


class Args(ToolArgs):
    """The pairs, in order."""

    pairs: list[Pair] = Field(min_length=1, max_length=64)
    port: int = Field(default=18515, ge=1024, le=65535)


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """One pair a round: its server and its client at once, the client a little later."""
    args = Args.model_validate(dict(context.args))
    if len(answers) >= len(args.pairs):
        return []
    pair, name = args.pairs[len(answers)], shlex.quote(args.program or "ib_write_bw")
    common = f"-p {args.port} --report_gbits -a -F"
    server = f"timeout {_LONGEST_S} {name} -d {pair.peer or pair.device} {common}"
    client = f"sleep {_FIRST_S}; timeout {_LONGEST_S} {name} -d {pair.device} {common} {pair.address}"
    wait_s = _LONGEST_S + _FIRST_S + 10.0
    return [
        Order(pair.to, "script", {"script": server}, "shell", wait_s),
        Order(pair.source, "script", {"script": client}, "shell", wait_s),
    ]


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """The slowest pair, and every pair that showed nothing."""
    args = Args.model_validate(dict(context.args))
    speeds: dict[str, float] = {}
    silent: list[str] = []
    failed: list[str] = []
    for number, pair in enumerate(args.pairs):
        said = f"{pair.source} > {pair.to}"
        client = evidence.answers[number][-1] if number < len(evidence.answers) else None
        if client is None or not client.ok:
            silent.append(f"{said}: {client.body if client else 'it was not run'}")
            continue
        reading, _ = read(_PARSE, client.body)
        rows = [row.value for row in reading.rows if row.name == "bandwidth" and isinstance(row.value, float)]
        if reading.outcome is Outcome.FAIL:
            failed.append(f"{said}: {'; '.join(reading.whys[:2])}")
        elif reading.outcome not in (Outcome.PASS, Outcome.MEASURED) or not rows:
            silent.append(f"{said}: {'; '.join(reading.whys[:2])}")
        else:
            speeds[said] = rows[-1]
    if failed:
        return [Measurement(BANDWIDTH.name, RACK, None, "GB/s", "none", Result.FAIL, None, "; ".join(failed))]
    slowest = min(speeds, key=lambda said: speeds[said]) if speeds else None
    one = BANDWIDTH.judge(RACK, speeds[slowest], context.limits) if slowest is not None else None
    if one is not None and (one.result is Result.FAIL or not silent):
        return [replace(one, why="; ".join(filter(None, (f"{slowest}: {speeds[str(slowest)]:g} GB/s", one.why))))]
    return [BANDWIDTH.unknown(RACK, "missing", "; ".join(silent[:6]) or "no pair was measured")]


CHECK = Check(
    name="ib-write-bw",
    about="pairs of trays write to each other over the network as fast as they should",
    quantities=(BANDWIDTH,),
    judge=judge,
    orders=orders,
    scope="rack",
    args=Args,
    equipment=("ib_write_bw",),
)
