"""Part ids: one grammar for every part of a rack, and the tree they form.

t07 compute tray 7      t07.g2 GPU at module position 2     t07.g2.l13 its NVLink 13    t07.c1 CPU    t07.n2 NIC
t07.d0 NVMe             t07.bmc                             s3 switch tray              s3.a1 ASIC    s3.a1.p44 port
x2 cable cartridge      p4.u2 power shelf 4, PSU 2          cdu   manifold   rack
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, product

from ClusterShell.NodeSet import NodeSet

_GRAMMAR = re.compile(
    r"rack|cdu|manifold"
    r"|t\d\d(?:\.(?:g\d(?:\.l\d{1,2})?|c\d|n\d|d\d|bmc))?"
    r"|s\d(?:\.(?:a\d(?:\.p\d{1,2})?|bmc))?"
    r"|x\d"
    r"|p\d(?:\.u\d)?",
    re.ASCII,
)
_KINDS = {
    "t": "compute tray", "s": "switch tray", "x": "cable cartridge", "p": "power shelf",
    "g": "GPU", "c": "CPU", "n": "NIC", "d": "NVMe", "l": "NVLink", "a": "NVSwitch", "u": "PSU", "bmc": "BMC",
}  # fmt: skip
KINDS = (*_KINDS.values(), "NVSwitch port", "cdu", "manifold", "rack")
"""Everything `kind` can answer."""

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?:/(\d+))?)?", re.ASCII)
_WORD = re.compile(r"(?:\[[^\[\]]*\]|[^\[\],])+")
_PIECE = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
MOST = 4096
"""Names that one folded word may stand for; more is a slip of the finger."""


def is_part(text: str) -> bool:
    """True when `text` is a part id."""
    return _GRAMMAR.fullmatch(text) is not None


def kind(part: str) -> str:
    """What it is: `compute tray`, `GPU`, `NVLink` ... `rack`. Raises ValueError for what is not a part id."""
    if not is_part(part):
        raise ValueError(f"{part!r} is not a part id")
    last = part.rsplit(".", 1)[-1]
    if last in ("rack", "cdu", "manifold"):
        return last
    if last.startswith("p") and "." in part:
        return "NVSwitch port"
    return _KINDS[last if last == "bmc" else last[0]]


def parent(part: str) -> str | None:
    """The part it sits in: GPU -> tray -> rack -> None."""
    if part == "rack":
        return None
    return part.rsplit(".", 1)[0] if "." in part else "rack"


def within(part: str, ancestor: str) -> bool:
    """True when `part` is `ancestor` or sits somewhere inside it."""
    return part == ancestor or ancestor == "rack" or part.startswith(ancestor + ".")


def related(one: str, other: str) -> bool:
    """Same part, ancestor or descendant of each other."""
    return within(one, other) or within(other, one)


def tray_of(part: str) -> str:
    """The tray (or shelf, cartridge ...) a part sits in: `t07.g2.l13` -> `t07`."""
    return part.split(".", 1)[0]


def fold(parts: Iterable[str]) -> str:
    """Many names in one word: t00.g2 ... t17.g2 -> `t[00-17].g2`."""
    return str(NodeSet(",".join(sorted(parts))))


def unfold(text: str) -> list[str]:
    """`t[00-02,05],s1` -> t00 t01 t02 t05 s1, in the order written: addresses are dealt out to trays in this order.

    `[0-16/2]` counts in steps; a leading zero keeps its width. Raises ValueError, with the reason, for anything else.
    """
    words = _WORD.findall(text)
    if not words or ",".join(words) != text:
        raise ValueError(f"{text!r} cannot be unfolded: a range is written [00-17] or [1,3,5-7]")
    names: list[str] = []
    for word in words:
        pieces = _PIECE.findall(word)
        choices = [[plain] if plain else list(islice(_numbers(inside, text), MOST + 1)) for inside, plain in pieces]
        for chosen in product(*choices):
            names.append("".join(chosen))
            if len(names) > MOST:
                raise ValueError(f"{text!r} stands for more than {MOST} names")
    return names


def _numbers(inside: str, text: str) -> Iterator[str]:
    for item in inside.split(","):
        found = _RANGE.fullmatch(item)
        if found is None:
            raise ValueError(f"{text!r} cannot be unfolded: {item!r} is not a number or a range")
        first, last, step = found[1], found[2] or found[1], found[3] or "1"
        if max(len(first), len(last), len(step)) > 9 or int(last) - int(first) >= MOST * max(int(step), 1):
            raise ValueError(f"{text!r} stands for more than {MOST} names")
        if int(first) > int(last) or int(step) == 0:
            raise ValueError(f"{text!r} cannot be unfolded: {item!r} runs from high to low, or stands still")
        width = len(first) if first.startswith("0") else 0
        yield from (f"{n:0{width}}" for n in range(int(first), int(last) + 1, int(step)))
