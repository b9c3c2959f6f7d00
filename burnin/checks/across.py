"""Tools that load many trays from one: DCGM's mndiag, and nccl-tests through the site's own launcher (mpirun, srun).

The agent of the tray that starts them (`on`) holds their launcher by lease, time and stop. What the launcher started elsewhere is
not below any agent: the run watches the margins of all GPUs meanwhile and ends the launcher, and trusts it to end the rest. So
the rack file must allow it (`allow: [other_trays]`). Without a launcher, `collective` does the same operations under every lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from burnin.checks import asked
from burnin.checks.base import RACK, Answer, Check, Context, Evidence, Order, Quantity, not_allowed
from burnin.checks.tooling import ToolArgs, leashed, limited, names, part_of, read, worst
from burnin.checks.tools import PARSERS, Outcome, Reading
from burnin.checks.tools.reading import Unreadable, items, load_json
from burnin.checks.tools.reading import part_of as mapping
from burnin.events import Measurement

LEAVE: Literal["other_trays"] = "other_trays"
_AGAIN = "run the same on half of the trays, and so on; then the single-tray tools on those that are left"
MNDIAG = Quantity("mndiag.verdict", "1", "what mndiag's own rows say, GPU by GPU of every host", action=_AGAIN)
NCCL = Quantity("nccl-across.verdict", "1", "wrong results, or ranks that did not all run on this rack's GPUs", action=_AGAIN)
BUSBW = Quantity("nccl-across.busbw", "GB/s", "bus bandwidth at the largest size over all ranks", action=_AGAIN)
_LIMIT = "= PASS"


class MndiagArgs(ToolArgs):
    """`with: {on: t00, hosts: {t00: node00, t01: "node01:5555"}}`"""

    on: str = Field(default="", pattern=r"^(t\d\d)?$", description="the tray that starts it; the first where it is left out")
    hosts: dict[str, str] = Field(default={}, description="tray -> its host engine as the others reach it; else its address")


class NcclArgs(ToolArgs):
    """`with: {launch: [mpirun, -np, "72", --hostfile, /path/hosts], op: all_reduce}`; one rank a GPU."""

    on: str = Field(default="", pattern=r"^(t\d\d)?$")
    launch: list[str] = Field(min_length=1, max_length=64, description="the site's launcher and its words, before the program")
    op: Literal["all_reduce", "all_gather", "reduce_scatter", "alltoall"] = "all_reduce"
    bytes: int = Field(default=16 << 30, ge=1 << 30, le=1 << 36)
    iterations: int = Field(default=20, ge=1, le=10_000)


def _orders(
    context: Context, answers: Sequence[Sequence[Answer]], job: str, words: Sequence[str], longest_s: float
) -> list[Order]:
    """Who all of them are, then the launcher on one tray."""
    if refused(context) or len(answers) > 1 or not context.trays:
        return []
    if not answers:
        return [Order(tray, "identify") for tray in context.trays]
    if any(isinstance(one, str) for one in _who(context, answers).values()):
        return []
    head = str(context.args.get("on") or context.trays[0])
    return [leashed(replace(context, tray=head, trays=()), job, words, longest_s, others=context.gpus)]


def refused(context: Context) -> str:
    """Why it is not begun; empty where it may."""
    return "" if LEAVE in context.rack.allow else not_allowed(LEAVE)


def _who(context: Context, answers: Sequence[Sequence[Answer]]) -> dict[str, Mapping[str, Any] | str]:
    """Tray -> its identity, or why there is none."""
    found = {a.order.to: a for given in answers for a in given if a.order.verb == "identify"}
    out = dict[str, Mapping[str, Any] | str]()
    for tray in context.trays:
        one = found.get(tray)
        out[tray] = (
            one.body if one is not None and one.ok and isinstance(one.body, Mapping) else str(one.body if one else "not asked")
        )
    return out


def _output(context: Context, evidence: Evidence, quantity: Quantity) -> Mapping[str, Any] | Measurement:
    """What the launcher printed; else why there is nothing to be read."""
    if why := refused(context):
        return quantity.unknown(RACK, "no_permission", why)
    said = [a for given in evidence.answers for a in given if a.order.verb == "program"]
    if said and said[-1].ok and isinstance(said[-1].body, Mapping):
        return said[-1].body
    silent = (f"{tray}: {one}" for tray, one in _who(context, evidence.answers).items() if isinstance(one, str))
    why = str(said[-1].body) if said else next(silent, "it was not run")
    return quantity.unknown(RACK, "lost" if evidence.lost else "missing", why, _LIMIT)


def _names(context: Context, evidence: Evidence) -> dict[str, str]:
    """Host name -> tray, as the trays call themselves."""
    who = _who(context, evidence.answers)
    return {str(one["host"].get("host")): tray for tray, one in who.items() if not isinstance(one, str) and one.get("host")}


def _parts(context: Context, evidence: Evidence, tray: str) -> dict[str, str]:
    one = _who(context, evidence.answers)[tray]
    return {} if isinstance(one, str) else names(tray, one)


# ---------------------------------------------------------------- mndiag


def _hosts(context: Context) -> dict[str, str]:
    stated = MndiagArgs.model_validate(dict(context.args)).hosts
    return {tray: stated.get(tray) or context.rack.trays[tray].host for tray in context.trays}


def _mndiag_orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    args = MndiagArgs.model_validate(dict(context.args))
    words = [args.program or "dcgmi", "mndiag", "--hostList", ";".join(_hosts(context).values()), "--run", "mnubergemm", "-j"]
    return _orders(context, answers, "mndiag", words, args.longest or 3600.0)


def _mndiag(context: Context, evidence: Evidence) -> list[Measurement]:
    body = _output(context, evidence, MNDIAG)
    if isinstance(body, Measurement):
        return [body]
    reading, reason = read(PARSERS["dcgmi mndiag"], body)
    trays = _trays_of(context, evidence, str(body.get("stdout", "")))
    return list(worst(_rows(context, evidence, reading, reason, trays)))


def _rows(context: Context, evidence: Evidence, reading: Reading, reason: str, trays: Mapping[str, str]) -> Iterator[Measurement]:
    """One row for each GPU, each bad host, and the rack."""
    seen = set[str]()
    for row in reading.rows:
        words = row.part.split()
        tray = trays.get(words[1]) if words[:1] == ["host"] and len(words) > 1 else None
        part = part_of(" ".join(words[2:]), _parts(context, evidence, tray)) if tray is not None and len(words) > 2 else tray
        seen |= {part} if part is not None and row.result is Outcome.PASS else set()
        text = f"{row.name} ({row.part or 'all'}): {row.value if row.value is not None else row.result}: {row.why}"[:300]
        if row.result is Outcome.FAIL:
            yield asked.bad(MNDIAG, part or RACK, "FAIL", text, _LIMIT)
        elif row.result in (Outcome.ERROR, Outcome.UNKNOWN):
            yield MNDIAG.unknown(part or RACK, "missing", text, _LIMIT)
    if reading.outcome in (Outcome.ERROR, Outcome.UNKNOWN):
        yield MNDIAG.unknown(RACK, reason, "; ".join(reading.whys[:4]) or "it showed nothing", _LIMIT)
    silent = [gpu for gpu in context.gpus if gpu not in seen]
    for gpu in context.gpus if reading.outcome is not Outcome.ERROR else ():
        yield (
            MNDIAG.unknown(gpu, "missing", "no row names it", _LIMIT)
            if gpu in silent
            else asked.good(MNDIAG, gpu, "PASS", _LIMIT)
        )
    if not silent and reading.outcome is Outcome.PASS:
        yield asked.good(MNDIAG, RACK, "PASS", _LIMIT)


def _trays_of(context: Context, evidence: Evidence, text: str) -> dict[str, str]:
    """mndiag's number of a host -> tray, by the name that it gives that host."""
    try:
        hosts = [mapping(one) for one in items(load_json(text).root.get("hosts"))]
    except Unreadable:
        return {}
    known = {**_names(context, evidence), **{spec.partition("=")[0]: tray for tray, spec in _hosts(context).items()}}
    known |= {spec.partition(":")[0]: tray for spec, tray in list(known.items())}
    said = {str(host.get("host_id")): known.get(str(host.get("hostname"))) for host in hosts}
    return {number: tray for number, tray in said.items() if tray is not None}


# ---------------------------------------------------------------- nccl-tests


def _nccl_orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    args = NcclArgs.model_validate(dict(context.args))
    sizes = ("-b", args.bytes // 16, "-e", args.bytes, "-f", 2, "-g", 1, "-n", args.iterations, "-c", 1)
    words = [*args.launch, args.program or f"{args.op}_perf", *map(str, sizes)]
    return _orders(context, answers, "nccl-across", words, args.longest or 1800.0)


def _nccl(context: Context, evidence: Evidence) -> list[Measurement]:
    args, body = NcclArgs.model_validate(dict(context.args)), _output(context, evidence, NCCL)
    if isinstance(body, Measurement):
        return [body]
    reading, reason = read(PARSERS["nccl-tests"], body)
    why = "; ".join(reading.whys[:4])
    if reading.outcome is Outcome.FAIL:
        return [asked.bad(NCCL, RACK, "FAIL", why or "its own rows say so", _LIMIT)]
    if reading.outcome is Outcome.ERROR:
        return [NCCL.unknown(RACK, reason, why or "it showed nothing", _LIMIT)]
    if strange := _strangers(context, evidence, reading):
        return [NCCL.unknown(RACK, "missing", strange, _LIMIT)]
    found = [
        r.value
        for r in reading.rows
        if r.name == "busbw" and r.part.startswith(f"{args.bytes} B ") and isinstance(r.value, float)
    ]
    ranks = len(context.gpus)
    text = f"{args.op} of {args.bytes} bytes over {ranks} GPUs of {len(context.trays)} trays"
    value = min(found) if found else None
    good = reading.outcome in (Outcome.PASS, Outcome.MEASURED)
    verdict = asked.good(NCCL, RACK, "PASS", _LIMIT) if good else NCCL.unknown(RACK, "missing", why, _LIMIT)
    return [verdict, limited(BUSBW, f"collective.{args.op}.{ranks}gpu.busbw", context, RACK, value, text)]


def _strangers(context: Context, evidence: Evidence, reading: Reading) -> str:
    """Why the ranks are not this rack's GPUs, each once; empty where they are."""
    hosts, seen = _names(context, evidence), list[str]()
    for row in reading.rows:
        if row.name != "rank":
            continue
        host, _, rest = str(row.value).partition(" device ")
        tray = hosts.get(host) or hosts.get(host.partition(".")[0])
        bdf = rest.partition("[")[2].partition("]")[0]
        gpu = part_of(bdf if "." in bdf else f"{bdf}.0", _parts(context, evidence, tray)) if tray is not None else None
        if gpu is None:
            return f"{row.part} ran on {row.value}, which is no GPU of a tray of this run"
        seen.append(gpu)
    if sorted(seen) != sorted(context.gpus):
        return f"{len(set(seen))} of {len(context.gpus)} GPUs took part with {len(seen)} ranks"
    return ""


def _check(name: str, about: str, quantities: Iterable[Quantity], **more: Any) -> Check:
    return Check(name=name, about=about, quantities=tuple(quantities), scope="rack", heats=True, acts=True, leave=LEAVE, **more)


CHECKS = (
    _check(
        "mndiag", "DCGM's diagnostic over all trays at once, through its host engines", (MNDIAG,), equipment=("dcgmi",),
        judge=_mndiag, orders=_mndiag_orders, args=MndiagArgs,
        seconds=lambda profile, said: float(MndiagArgs.model_validate(dict(said)).longest) or 1200.0,
    ),
    _check(
        "nccl-across", "nccl-tests over all trays by the site's launcher (mpirun, srun)", (NCCL, BUSBW),
        equipment=("nccl-tests", "mpirun"),
        judge=_nccl, orders=_nccl_orders, args=NcclArgs,
        seconds=lambda profile, said: float(NcclArgs.model_validate(dict(said)).longest or 300.0) if said else 300.0,
    ),
)  # fmt: skip
