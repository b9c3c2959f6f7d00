"""Memory contents as runs: [[words, value], ...], each a stretch of one 32-bit word. What is large and uniform stays small."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

Runs = list[list[int]]
MOST = 8192
"""Runs that one buffer may have; contents with more are not made of patterns, and are not moved."""


class Patterns:
    """The words written to one large allocation, as sorted stretches (first byte, last byte + 1, word)."""

    def __init__(self) -> None:
        self._stretches: list[tuple[int, int, int]] = []

    def _touching(self, begin: int, end: int) -> slice:
        """The stretches that share a byte with this range."""
        first = bisect.bisect_left(self._stretches, (begin, 0, 0))
        first -= first > 0 and self._stretches[first - 1][1] > begin
        return slice(first, bisect.bisect_left(self._stretches, (end, 0, 0)))

    def fill(self, begin: int, count: int, value: int) -> None:
        """`count` words from this address on."""
        end = begin + 4 * count
        under = self._touching(begin, end)
        kept = [
            (a, b, word)
            for low, high, word in self._stretches[under]
            for a, b in ((low, min(high, begin)), (max(low, end), high))
            if a < b
        ]
        self._stretches[under] = sorted([*kept, (begin, end, value)])

    def runs(self, begin: int, size: int) -> Runs:
        """What lies there; zeros where nothing was written."""
        out: Runs = []
        at, end = begin, begin + size
        for low, high, word in self._stretches[self._touching(begin, end)]:
            out += [[(low - at) // 4, 0]] if low > at else []
            out.append([(min(high, end) - max(low, at)) // 4, word])
            at = min(high, end)
        return out + ([[(end - at) // 4, 0]] if at < end else [])


def of_bytes(data: bytes) -> Runs:
    """Runs of real bytes. Raises ValueError for more than MOST."""
    out: Runs = []
    at, words = 0, len(data) // 4
    while at < words:
        word, step = data[4 * at : 4 * at + 4], 1
        while step < words - at and data[4 * at : 4 * (at + 2 * step)] == word * min(2 * step, words - at):
            step *= 2
        low, high = min(step, words - at), min(2 * step, words - at)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if data[4 * at : 4 * (at + middle)] == word * middle else (low, middle - 1)
        out.append([low, int.from_bytes(word, "little")])
        at += low
        if len(out) > MOST:
            raise ValueError("these contents are not made of patterns")
    return out


def to_bytes(runs: Iterable[Sequence[int]]) -> bytes:
    """The real bytes of runs."""
    return b"".join(value.to_bytes(4, "little") * count for count, value in runs)


def added(many: Sequence[Runs]) -> Runs:
    """Word by word sums, modulo 2^32, of contents of one length."""
    out: Runs = []
    places = [[0, runs[0][0]] for runs in many]
    while places[0][0] < len(many[0]):
        step = min(left for _, left in places)
        out.append([step, sum(runs[at][1] for runs, (at, _) in zip(many, places)) & 0xFFFFFFFF])
        for runs, place in zip(many, places):
            place[1] -= step
            if not place[1]:
                place[0] += 1
                place[1] = runs[place[0]][0] if place[0] < len(runs) else 1 << 62
    return out


def sliced(runs: Runs, first: int, count: int) -> Runs:
    """`count` words from word `first` on."""
    out: Runs = []
    at = 0
    for words, value in runs:
        take = min(at + words, first + count) - max(at, first)
        out += [[take, value]] if take > 0 else []
        at += words
    return out
