"""NCCL groups across trays: what is asked of the agents, and what their ranks told. Pure.

One attempt is two rounds of orders: `work` starts a process per GPU, of which one per group makes the unique id; `tell` hands
the id and a rank to each. Every rank answers once, with what it measured or where it stood when its time ran out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from burnin.checks.base import Answer, Context, Order
from burnin.checks.bisection import Trays
from burnin.rack.data import Data
from burnin.rack.parts import fold

Op = Literal["all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv", "pairs"]
Asking = Generator[list[Order], Sequence[Answer], Any]
"""Yields the orders of a round, is sent its answers."""
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
NVLINK_OFF = {"NCCL_MNNVL_ENABLE": "0", "NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_NVLS_ENABLE": "0"}
"""NCCL's documented switches that leave only the network between GPUs."""


def _size(value: Any) -> Any:
    found = re.fullmatch(r"(\d{1,6}) ?(B|KiB|MiB|GiB)", str(value), re.ASCII)
    if found is None and isinstance(value, str):
        raise ValueError(f"{value!r} is no size; expected bytes, or as 16 GiB, 64 MiB, 4 KiB, 64 B")
    return int(found[1]) * _UNITS[found[2]] if found else value


Bytes = Annotated[int, BeforeValidator(_size), Field(ge=64, le=64 << 30)]


class Plan(Data):
    """What a suite may say of a collective: `gpus` of a group; sizes as `16 GiB`; nvlink off leaves only the network."""

    op: Op = "all_reduce"
    gpus: Literal[4, 8, 36, 72, "all"] = "all"
    sizes: list[Bytes] = Field(default=[16 << 30], min_length=1)
    warmup: int = Field(default=2, ge=1, le=100)
    repeats: int = Field(default=20, ge=1, le=1000)
    timeout_s: float = Field(default=60, gt=0, le=600, description="of joining, and of each step of an operation")
    max_s: float | None = Field(default=None, gt=0, le=3600, description="a rank's whole life; default twice timeout_s")
    start_s: float = Field(default=30, gt=0, le=300, description="starting a process and opening its GPU")
    nvlink: bool = True
    env: dict[Annotated[str, Field(pattern=r"^NCCL_[A-Z0-9_]+$")], str] = Field(default_factory=dict)
    socket_ifname: str | None = Field(
        default=None, pattern=r"^[\w.-]{1,15}$", description="the name of an interface; without it one that reaches all is taken"
    )
    library: str | None = Field(
        default=None, pattern=r"^/", description="a path from /; without it the rack file's nccl, else the trays' own"
    )

    @property
    def life_s(self) -> float:
        """Seconds after which a rank's process is ended, whatever it does."""
        return self.start_s + (self.max_s or 2 * self.timeout_s)

    def args(self, op: Op, ifname: str | None) -> dict[str, Any]:
        """What every rank's process is given."""
        env = {**({} if self.nvlink else NVLINK_OFF), **self.env}
        out: dict[str, Any] = {"op": op, "sizes": self.sizes, "warmup": self.warmup, "repeats": self.repeats}
        out |= {"timeout_s": self.timeout_s, "env": env}
        out |= {"library": self.library} if self.library else {}
        return out | ({"socket_ifname": ifname} if ifname else {})


@dataclass(frozen=True, slots=True)
class Told:
    """What one rank told. `silent`: it never did; why its process ended is then in `failed`. `at`: step, source, target."""

    part: str
    silent: bool
    failed: str
    bytes: int = 0
    ms: float = 0.0
    busbw_gbps: float = 0.0
    wrong: int = 0
    at: tuple[int, int, int] | None = None
    pairs: tuple[tuple[int, int, float, int], ...] = ()
    """Source, target, GB/s, wrong words: of this rank's own transfers."""


@dataclass(frozen=True, slots=True)
class Group:
    """One group and what its ranks told. `void`: trays that could not be asked, and why; then nothing was measured."""

    trays: Trays
    op: str
    told: tuple[Told, ...]
    void: Mapping[str, str]
    version: str = ""

    @property
    def failed(self) -> bool:
        """A rank did not come to the end."""
        return any(one.failed for one in self.told)

    @property
    def slowest(self) -> Told:
        """The rank with the least bandwidth: it is the group's."""
        return min(self.told, key=lambda one: (one.busbw_gbps, one.part))

    @property
    def wrong(self) -> dict[str, int]:
        """Words that arrived wrong, by GPU."""
        return {one.part: one.wrong for one in self.told if one.wrong}

    @property
    def dissent(self) -> dict[str, str]:
        """The ranks that behaved unlike the rest, with their words: who never answered, else who stood elsewhere than most."""
        silent = {one.part: one.failed for one in self.told if one.silent}
        if silent:
            return silent
        said = Counter(one.failed for one in self.told)
        most, count = said.most_common(1)[0]
        return {one.part: one.failed or "done" for one in self.told if one.failed != most} if count > len(self.told) / 2 else {}


_ENDED = re.compile(r"the time was over|ended by order|cut by a local limit: (lease|sensor|margin)")
"""A rank's words, or its agent's, that say nothing of the group: heat, a sensor, a lease or too little time ended it. One that
hangs and so lives to its end ("limit: time") is not among them."""


def told(part: str, rank: int, ranks: int, op: str, sizes: Sequence[int], body: Any) -> Told | str:
    """One rank's message: what it measured, or why it did not come to its end; a sentence where it is no such message."""
    failed = body.get("failed") if isinstance(body, dict) else None
    if failed and _ENDED.match(str(failed)):
        return f"it was ended on its tray: {failed}"
    if not isinstance(body, dict) or (body.get("rank"), body.get("ranks")) != (rank, ranks):
        own = f"it answers as rank {body['rank']} of {body.get('ranks')}" if isinstance(body, dict) and "rank" in body else ""
        said = own or "it told nothing that can be read"
        return Told(part, True, str(failed)) if failed and not own else f"{said}, asked as rank {rank} of {ranks}"
    try:
        at = body.get("at")
        place = (int(at[0]), int(at[1]), int(at[2])) if at is not None else None
        rows = tuple(_pair(rank, ranks, body["bytes"], row) for row in body.get("pairs", ()))
        results = [_result(op, ranks, result) for result in body["results"]]
        bad = sum(row[3] for row in rows) + sum(result[3] for result in results)
        if failed:
            return Told(part, False, str(failed), wrong=bad, at=place, pairs=rows)
        if op == "pairs":
            _must(_near(body["bytes"], sizes[-1], ranks), f"pairs of {body['bytes']} bytes")
            return Told(part, False, "", body["bytes"], 0.0, min(row[2] for row in rows), bad, None, rows)
        whole = len(results) == len(sizes) and all(map(_near, (one[0] for one in results), sizes, [ranks] * len(sizes)))
        _must(body.get("op") == op and whole, f"{body.get('op')} of {[one[0] for one in results]} bytes")
        size, ms, speed, _ = max(results)
        return Told(part, False, "", size, ms, speed, bad)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        return f"what it told cannot be: {error}" if isinstance(error, _NonsenseError) else "what it told cannot be read"


class _NonsenseError(ValueError):
    """A message whose numbers are none."""


def _must(so: bool, said: str) -> None:
    if not so:
        raise _NonsenseError(said[:200])


def _near(size: Any, asked: int, ranks: int) -> bool:
    """Pieces are whole blocks of 16 bytes, one a rank at the most."""
    return isinstance(size, int) and abs(size - asked) <= 16 * ranks


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _time(ms: Any) -> bool:
    return isinstance(ms, (int, float)) and not isinstance(ms, bool) and math.isfinite(ms) and ms > 0


def _follows(gbps: Any, size: int, ms: float, factor: float) -> bool:
    """A speed is that of its bytes and its time, as far as three decimals go."""
    due = size / ms / 1e6 * factor
    return isinstance(gbps, (int, float)) and abs(gbps - due) <= 0.01 * due + 0.002


def _result(op: str, ranks: int, result: Mapping[str, Any]) -> tuple[int, float, float, int]:
    """(bytes, ms, busbw, wrong words) of one size. The factors are nccl-tests' (PERFORMANCE.md)."""
    size, ms, speed, wrong = result["bytes"], result["ms"], result["busbw_gbps"], result["wrong"]
    factor = {"all_reduce": 2 * (ranks - 1) / ranks, "sendrecv": 1.0}.get(op, (ranks - 1) / ranks)
    _must(_count(size) and _time(ms), f"{size} bytes in {ms} ms")
    _must(_follows(speed, size, ms, factor), f"{speed} GB/s for {size} bytes in {ms} ms")
    _must(_count(wrong) and _count(result["checked"]) and wrong <= result["checked"] > 0, f"{wrong} wrong of {result['checked']}")
    return size, float(ms), float(speed), wrong


def _pair(rank: int, ranks: int, size: int, row: Sequence[Any]) -> tuple[int, int, float, int]:
    """(source, target, GB/s, wrong words) of one of a rank's own transfers; who receives has looked at what came."""
    _, source, target, ms, gbps, wrong = row
    _must(
        rank in (source, target) and source != target and {source, target} <= {*range(ranks)}, f"a transfer {source} > {target}"
    )
    _must(_count(size) and _time(ms) and _follows(gbps, size, ms, 1), f"{gbps} GB/s for {size} bytes in {ms} ms")
    _must(_count(wrong) if rank == target else wrong is None, f"{wrong} wrong words from {source} to {target}")
    return source, target, float(gbps), wrong or 0


def names(context: Context) -> list[str]:
    """The GPUs of a tray, by the agent's names."""
    return [gpu.split(".")[1] for gpu in context.profile.topology.gpus("t00")]


def work(context: Context, plan: Plan, job: str, tray: str, op: Op, ifname: str | None, root: bool) -> Order:
    """Start one process per GPU of a tray; the first one of a group's first tray makes the unique id."""
    cutoff = context.limits.get("gpu.tlimit.cutoff")
    site = {} if plan.library else {arch: one.sha256 for arch, one in context.rack.nccl.items()}
    args = {
        "job": job,
        "kind": "nccl",
        "gpus": names(context),
        "args": {**plan.args(op, ifname), **({"payload": site} if site else {})},
        "args_of": {names(context)[0]: {"root": True}} if root else {},
        "cutoff_margin_c": cutoff.min if cutoff is not None and cutoff.min is not None else 0.0,
        "max_s": plan.life_s,
    }
    return Order(tray, "work", args, timeout_s=plan.start_s + 5)


def ask(orders: list[Order]) -> Generator[list[Order], Sequence[Answer], dict[str, Any]]:
    """One round, at most one order a tray: tray -> its answer's body, or the sentence (a str) that says why there is none."""
    if not orders:
        return {}
    answers = yield orders
    out: dict[str, Any] = dict.fromkeys((order.to for order in orders), "it was not asked")
    for answer in answers:
        fine = answer.ok and isinstance(answer.body, dict)
        out[answer.order.to] = answer.body if fine else str(answer.body or "no answer")
    return out


def unfit(context: Context, bodies: Any) -> str:
    """Why a tray's answer to `work` is not that of processes that are ready; nothing when it is."""
    if isinstance(bodies, str):
        return bodies
    bad = {
        gpu: bodies.get(gpu)
        for gpu in names(context)
        if not (isinstance(bodies.get(gpu), dict) and isinstance(bodies[gpu].get("version"), str))
    }
    alike: dict[str, list[str]] = {}
    for gpu, body in bad.items():
        alike.setdefault(str((body.get("failed") if isinstance(body, dict) else None) or "no answer"), []).append(gpu)
    return "; ".join(f"{fold(gpus)}: {why}" for why, gpus in alike.items())


def attempt(
    context: Context, plan: Plan, groups: Sequence[tuple[Trays, Op]], number: int, ifname: str
) -> Generator[list[Order], Sequence[Answer], list[Group]]:
    """Run these disjoint groups at once."""
    job = f"nccl-{number}"
    ready = yield from ask(
        [work(context, plan, job, tray, op, ifname, root=tray == trays[0]) for trays, op in groups for tray in trays]
    )
    started, orders = [], []
    for trays, op in groups:
        void = {tray: why for tray in trays if (why := unfit(context, ready[tray]))}
        first = {} if void else ready[trays[0]][names(context)[0]]
        ident = first.get("id")
        if not void and not (isinstance(ident, str) and re.fullmatch(r"[0-9a-f]{256}", ident)):
            void = {trays[0]: f"{names(context)[0]} made no unique id (128 bytes of NCCL's)"}
        versions = sorted({str(ready[tray][gpu]["version"]) for tray in trays for gpu in names(context)} if not void else ())
        started.append((trays, op, void, " and ".join(versions)))
        if not void:
            orders += _ranks(context, plan, job, trays, str(ident))
    answers = yield from ask(orders)
    return [_group(context, plan, *one, answers) for one in started]


def _ranks(context: Context, plan: Plan, job: str, trays: Trays, ident: str) -> list[Order]:
    gpus, out = names(context), []
    for place, tray in enumerate(trays):
        ranks = {gpu: {"id": ident, "rank": place * len(gpus) + i, "ranks": len(trays) * len(gpus)} for i, gpu in enumerate(gpus)}
        out.append(Order(tray, "tell", {"job": job, "bodies": ranks}, timeout_s=plan.life_s + 5))
    return out


def _group(
    context: Context, plan: Plan, trays: Trays, op: str, void: dict[str, str], version: str, answers: dict[str, Any]
) -> Group:
    lost = {tray: answers[tray] for tray in trays if not void and isinstance(answers[tray], str)}
    if void or lost:
        return Group(trays, op, (), void or lost, version)
    places = [(tray, gpu) for tray in trays for gpu in names(context)]
    ranks: list[Told] = []
    garbled: dict[str, list[str]] = {}
    for rank, (tray, gpu) in enumerate(places):
        one = told(f"{tray}.{gpu}", rank, len(places), op, plan.sizes, answers[tray].get(gpu))
        if isinstance(one, str):
            garbled.setdefault(tray, []).append(f"{gpu}: {one}")
        else:
            ranks.append(one)
    said = {tray: "; ".join(words) for tray, words in garbled.items()}
    return Group(trays, op, () if said else tuple(ranks), said, version)
