"""What one rank does in its group: operations timed by CUDA events, and what arrived compared with what was sent.

Bus bandwidth is that of nccl-tests: bytes / time x 2(n-1)/n (all_reduce), (n-1)/n (all_gather, reduce_scatter, alltoall),
1 (sendrecv, pairs). `bytes` is the larger of the two buffers, as there. Every word says who sent it to whom, sums are of integers
and so exact; ends, middle and further places of each piece are read back (`checked` words), the rest is not looked at.

`pairs` is the group's matrix: every ordered pair by itself, in steps in which each rank has at most one partner and one
direction, so that both ends report the same transfer: rows [step, source, target, ms, gbps, wrong] (wrong null at the source).
"""

from __future__ import annotations

import ctypes as c
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from burnin.agent.cuda import CudaError
from burnin.agent.nccl_group import SUM, UINT32, Group, NcclError

_VOID, _PTR = c.c_void_p, c.c_uint64
_POISON = 0xDEADBEEF
_BATCH_MS = 100.0
"""No more is queued at once: what is queued cannot be called back."""
_SAMPLE, _PLACES = 64, 192
EASE = 20
"""Operations before the first that is timed, and after the last, where power has to come and go slowly."""
CHUNKED = ("all_gather", "reduce_scatter", "alltoall")
OPS = ("all_reduce", "sendrecv", "pairs", *CHUNKED)


class Shape(NamedTuple):
    """What one rank's buffers hold: a word for each piece of the send buffer, and for each piece that should arrive."""

    sends: list[int]
    expects: list[int]
    factor: float


def _word(base: int, source: int, target: int) -> int:
    return (base + 1031 * source + target) & 0xFFFFFFFF


def _total(base: int, target: int, ranks: int) -> int:
    return sum(_word(base, source, target) for source in range(ranks)) & 0xFFFFFFFF


def shape(op: str, rank: int, ranks: int, base: int) -> Shape:
    """The pieces of one operation, and the factor of its bus bandwidth."""
    everyone = range(ranks)
    if op == "all_reduce":
        return Shape([_word(base, rank, 0)], [_total(base, 0, ranks)], 2 * (ranks - 1) / ranks)
    if op == "all_gather":
        return Shape([_word(base, rank, 0)], [_word(base, source, 0) for source in everyone], (ranks - 1) / ranks)
    if op == "reduce_scatter":
        return Shape([_word(base, rank, to) for to in everyone], [_total(base, rank, ranks)], (ranks - 1) / ranks)
    if op == "alltoall":
        expects = [_word(base, source, rank) for source in everyone]
        return Shape([_word(base, rank, to) for to in everyone], expects, (ranks - 1) / ranks)
    return Shape([_word(base, rank, 0)], [_word(base, (rank - 1) % ranks, 0)], 1.0)


def piece_words(op: str, asked: int, ranks: int) -> int:
    """Words of one piece for a buffer of so many bytes: a multiple of 16 bytes, so the buffer may be a little smaller."""
    return max(asked // 4 // (ranks if op in CHUNKED else 1) // 4 * 4, 4)


def partners(ranks: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Steps of the pair matrix: (step, [(source, target), ...]), every ordered pair once, no rank twice in a step."""
    even = ranks + ranks % 2
    for turn in range(even - 1):
        two = [(turn, even - 1)] + [((turn + k) % (even - 1), (turn - k) % (even - 1)) for k in range(1, even // 2)]
        low = sorted((min(a, b), max(a, b)) for a, b in two if max(a, b) < ranks)
        yield 2 * turn, low
        yield 2 * turn + 1, [(b, a) for a, b in low]


class Bench:
    """Buffers and events of one rank, and the timing of what it launches."""

    def __init__(self, group: Group, send_words: int, receive_words: int, repeats: int) -> None:
        self.group, self.cuda = group, group.cuda
        self.send = self.cuda.get("cuMemAlloc_v2", _PTR, 4 * send_words)
        self.receive = self.cuda.get("cuMemAlloc_v2", _PTR, 4 * receive_words)
        self._events = [[_VOID(self.cuda.get("cuEventCreate", _VOID, 0)) for _ in range(2)] for _ in range(max(repeats, 1))]

    def free(self) -> None:
        """Give the buffers back."""
        for buffer in (self.send, self.receive):
            self.cuda.call("cuMemFree_v2", buffer)

    def fill(self, where: int, words: list[int], each: int) -> None:
        """Write one word over each piece."""
        for piece, word in enumerate(words):
            self.cuda.call("cuMemsetD32Async", _PTR(where + 4 * each * piece), word, each, self.group.stream)

    def timed(self, launch: Callable[[], None], count: int, what: str) -> list[float]:
        """Launch `count` times, never more than a batch in flight; milliseconds of each."""
        out: list[float] = []
        while len(out) < count:
            room = 1 if not out else max(1, int(_BATCH_MS / max(out[-1], 1e-3)))
            batch = self._events[: min(room, count - len(out))]
            for begin, end in batch:
                self.group.going()
                self.cuda.call("cuEventRecord", begin, self.group.stream)
                launch()
                self.group.settle(what)
                self.cuda.call("cuEventRecord", end, self.group.stream)
            self.group.finish(what)
            out += [float(self.cuda.get("cuEventElapsedTime", c.c_float, begin, end)) for begin, end in batch]
        return out

    def wrong(self, expects: list[int], each: int) -> tuple[int, int]:
        """(words that are wrong, words that were looked at) of what arrived."""
        bad = looked = 0
        size = min(_SAMPLE, each)
        places = max(3, _PLACES // len(expects)) if each > size else 1
        buffer = c.create_string_buffer(4 * size)
        for piece, word in enumerate(expects):
            for place in range(places):
                at = (each - size) * place // max(places - 1, 1)
                self.cuda.call("cuMemcpyDtoH_v2", buffer, _PTR(self.receive + 4 * (each * piece + at)), 4 * size)
                looked += size
                if buffer.raw != struct.pack("=I", word) * size:
                    bad += sum(got != word for got in struct.unpack(f"={size}I", buffer.raw))
        return bad, looked


def launcher(op: str, bench: Bench, each: int) -> Callable[[], None]:
    """What is launched for one operation."""
    group, send, receive = bench.group, bench.send, bench.receive
    nccl, comm, stream, rank, ranks = group.nccl, group.comm, group.stream, group.rank, group.ranks
    reduces = {"all_reduce": "ncclAllReduce", "reduce_scatter": "ncclReduceScatter"}
    if op in reduces:
        return lambda: nccl.call(reduces[op], send, receive, each, UINT32, SUM, comm, stream)
    if op == "all_gather":
        return lambda: nccl.call("ncclAllGather", send, receive, each, UINT32, comm, stream)
    if op == "alltoall":
        ways = [(send + 4 * each * peer, peer, receive + 4 * each * peer, peer) for peer in range(ranks)]
    else:
        ways = [(send, (rank + 1) % ranks, receive, (rank - 1) % ranks)]

    def launch() -> None:
        nccl.call("ncclGroupStart")
        for out, to, into, source in ways:
            nccl.call("ncclSend", out, each, UINT32, to, comm, stream)
            nccl.call("ncclRecv", into, each, UINT32, source, comm, stream)
        nccl.call("ncclGroupEnd")

    return launch


def ease(bench: Bench, launch: Callable[[], None], seconds: float, what: str, rising: bool) -> None:
    """EASE operations with ever shorter (or longer) pauses between them, so that the rack's power does not come in one step.

    Their number is fixed: all ranks must launch as many.
    """
    for number in range(EASE if seconds > 0 else 0):
        bench.timed(launch, 1, what)
        share = 1 - number / EASE if rising else (number + 1) / EASE
        bench.group.rest(2 * seconds / EASE * share)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _one_size(
    bench: Bench, op: str, asked: int, warmup: int, repeats: int, base: int, ease_s: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Any]:
    ranks, each = bench.group.ranks, piece_words(op, asked, bench.group.ranks)
    form = shape(op, bench.group.rank, ranks, base)
    size = 4 * each * max(len(form.sends), len(form.expects))
    what, launch = f"{op} of {size} bytes", launcher(op, bench, each)
    bench.fill(bench.send, form.sends, each)
    ease(bench, launch, ease_s[0], what, rising=True)
    bench.timed(launch, max(warmup, 1), what)
    taken = bench.timed(launch, repeats, what)
    bench.fill(bench.receive, [_POISON] * len(form.expects), each)
    bench.timed(launch, 1, what)
    ease(bench, launch, ease_s[1], what, rising=False)
    wrong, looked = bench.wrong(form.expects, each)
    ms = _median(taken)
    speed = size / ms / 1e6 if ms > 0 else 0.0
    return {
        "bytes": size, "ms": round(ms, 6), "ms_min": round(min(taken), 6), "ms_max": round(max(taken), 6),
        "algbw_gbps": round(speed, 3), "busbw_gbps": round(speed * form.factor, 3), "wrong": wrong, "checked": looked,
    }  # fmt: skip


def _pairs(bench: Bench, asked: int, repeats: int, told: dict[str, Any]) -> None:
    group, each = bench.group, piece_words("pairs", asked, bench.group.ranks)
    nccl, comm, stream = group.nccl, group.comm, group.stream
    told["bytes"], told["pairs"] = 4 * each, []
    bench.fill(bench.send, [_word(0, group.rank, 0)], each)
    for step, two in partners(group.ranks):
        mine = next((way for way in two if group.rank in way), None)
        if mine is None:
            continue
        told["at"], (source, target) = [step, *mine], mine
        what = f"step {step} ({source} > {target})"
        name, buffer, peer = ("ncclSend", bench.send, target) if group.rank == source else ("ncclRecv", bench.receive, source)
        if group.rank == target:
            bench.fill(bench.receive, [_POISON], each)
        launch = partial(nccl.call, name, buffer, each, UINT32, peer, comm, stream)
        ms = _median(bench.timed(launch, repeats, what))
        wrong = bench.wrong([_word(0, source, 0)], each)[0] if group.rank == target else None
        told["pairs"].append([step, source, target, round(ms, 6), round(4 * each / ms / 1e6, 3) if ms > 0 else 0.0, wrong])
    del told["at"]


def measure(group: Group, ident: bytes, rank: int, ranks: int, args: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Join, then every size: ({results: [...], pairs?, at?}, why it ended early or nothing)."""
    op, sizes, repeats = args["op"], [int(size) for size in args["sizes"]], max(int(args["repeats"]), 1)
    told: dict[str, Any] = {"results": []}
    try:
        if op not in OPS:
            raise NcclError(f"there is no operation {op!r}; there are {', '.join(OPS)}")
        group.join(ident, rank, ranks)
        most = max(piece_words(op, size, ranks) for size in sizes)
        form = shape(op, rank, ranks, 0)
        bench = Bench(group, most * len(form.sends), most * len(form.expects), repeats)
        if op == "pairs":
            _pairs(bench, sizes[-1], repeats, told)
        for number, size in enumerate(sizes if op != "pairs" else ()):
            slow = float(args.get("ease_s", 0.0))
            ends = (slow if number == 0 else 0.0, slow if number == len(sizes) - 1 else 0.0)
            done = _one_size(bench, op, size, int(args.get("warmup", 1)), repeats, 1_000_003 * (number + 1), ends)
            told["results"].append(done)
        bench.free()  # only here: where a group hangs, this would wait for it
    except (NcclError, CudaError) as error:
        return told, str(error)
    return told, ""
