"""How NVML is read in bulk: field values of a GPU in one preallocated call, 29 times cheaper than pynvml's wrapper (measured on
pynvml 13.615); the rest are calls of their own. What cannot be read is a reason, never 0.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Union

Reading = Union[float, str]
"""A number, or the reason why there is none: not_supported | no_permission | lost | missing."""

REASONS = {
    3: "not_supported",
    13: "not_supported",
    25: "not_supported",
    26: "not_supported",
    4: "no_permission",
    15: "lost",
    16: "lost",
}
"""NVML return codes that say why; any other is `missing`."""

_UNKNOWN = 999
NO_ID = 0
"""Of a field that the driver's branch does not have: asked all the same, another branch's number would answer something else."""
_HEAD = "24xQ"
"""nvmlFieldValue_t up to its value: id, scope, timestamp, latency; type (lower half) and return code (upper) are read as one."""
_AS = {0: "d", 1: "I4x", 4: "q", 5: "i4x", 6: "H6x"}
"""nvmlValueType_t -> what its eight bytes hold; Q where it is none of these."""


class Unread(Exception):
    """A call found a reason why there is no value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Field(NamedTuple):
    """A metric that is an NVML field value; `id` may depend on the driver branch.

    `scope` is NVML's (a link, or 1 for the module), `sub` the part of the GPU it belongs to (l13), `of` turns the raw value
    into the metric's, where that is more than a scale.
    """

    metric: str
    id: int
    scale: float
    digits: int
    scope: int = 0
    sub: str = ""
    of: Union[Callable[[float], float], None] = None


class Call(NamedTuple):
    """A metric, or several, that come from one NVML call of their own."""

    metrics: tuple[str, ...]
    read: Callable[[Any, Any], Sequence[Reading]]


class Number(NamedTuple):
    """A metric that one NVML call of its own writes as eight bytes behind its last argument: `function(handle, *words, bytes)`.

    `form` is what of the bytes is the value (struct's letters), `per` what it is divided by, `version` what a struct begins with.
    """

    metric: str
    function: str
    words: tuple[int, ...] = ()
    form: str = "I4x"
    per: int = 0
    version: int = 0


class Group:
    """One GPU's metrics of one cadence: `metrics` (sub-part, metric) in order, `read()` their values in the same order.

    Fields and numbers are written by the driver into one piece of memory, and taken out of it at once.
    """

    def __init__(
        self, nvml: Any, handle: Any, fields: Sequence[Field], calls: Sequence[Call], numbers: Sequence[Number] = ()
    ) -> None:
        self._nvml, self._handle, self._calls = nvml, handle, calls
        asked, unasked = [f for f in fields if f.id != NO_ID], [f for f in fields if f.id == NO_ID]
        self._count, self._unasked = len(asked), ["not_supported"] * len(unasked)
        self.metrics = (
            *((f.sub, f.metric) for f in asked), *(("", n.metric) for n in numbers),
            *((f.sub, f.metric) for f in unasked), *(("", m) for c in calls for m in c.metrics),
        )  # fmt: skip
        self._ways = [*map(_way, asked), *((n.per, None) for n in numbers)]
        self._tail = "".join(n.form for n in numbers)
        self._form = struct.Struct("<" + f"{_HEAD}Q" * len(asked) + self._tail)
        self._heads: tuple[int, ...] = ()
        """Type and return code of each field, as last seen."""
        self._failed: tuple[int, ...] = ()
        """Return code of each field; empty while none has failed."""
        self._doubles: list[int] = []
        """Fields that come as doubles, the only ones that can be no number."""
        kind = nvml.c_nvmlFieldValue_t * len(asked)
        begin = ctypes.sizeof(kind)
        self._memory = bytearray(begin + 8 * len(numbers))
        array = kind.from_buffer(self._memory)
        for slot, field in zip(array, asked):
            slot.fieldId, slot.scopeId = field.id, field.scope
        self._asks = [(self._find("nvmlDeviceGetFieldValues"), (handle, len(asked), array))] if asked else []
        self._asks += [self._single(n, begin + 8 * i) for i, n in enumerate(numbers)]

    def _single(self, number: Number, at: int) -> tuple[Callable[..., int], tuple[Any, ...]]:
        place = (ctypes.c_uint * 2).from_buffer(self._memory, at)
        place[0] = number.version
        return self._find(number.function), (self._handle, *map(ctypes.c_uint, number.words), place)

    def _find(self, function: str) -> Callable[..., int]:
        try:
            found: Callable[..., int] = self._nvml._nvmlGetFunctionPointer(function)
        except self._nvml.NVMLError as error:
            code = int(error.value)  # an old driver has no such call
            return lambda *_: code
        return found

    def read(self) -> list[Reading]:
        """One pass over the table; a call that fails costs its own metrics only."""
        return self.told(self.ask())

    def ask(self) -> tuple[bytes, list[int], list[Reading]]:
        """The driver's part of it: its bytes, the return codes of fields and numbers, and what calls brought."""
        codes = [ask(*args) for ask, args in self._asks]
        return bytes(self._memory), codes, self._ask_calls() if self._calls else []

    def told(self, asked: tuple[bytes, list[int], list[Reading]]) -> list[Reading]:
        """What the driver said, taken apart."""
        memory, codes, called = asked
        ends = 2 * self._count
        flat = self._form.unpack_from(memory)
        if flat[0:ends:2] != self._heads:  # at first, and when the driver changes its mind
            flat = self._look_again(flat[0:ends:2], memory)
        failing = self._failed
        if self._doubles:
            flat, failing = self._finite(flat)
        out: list[Reading] = [
            value / per if per else of(value) if of else value
            for value, (per, of) in zip(flat[1:ends:2] + flat[ends:], self._ways)
        ]
        if failing or any(codes):
            first = self._count and codes[0]
            failed = (first,) * self._count if first else failing or (0,) * self._count
            whys = (*failed, *codes[min(1, self._count) :])
            out = [REASONS.get(why, "missing") if why else value for value, why in zip(out, whys)]
        if self._unasked or called:
            out += self._unasked
            out += called
        return out

    def _look_again(self, heads: tuple[int, ...], memory: bytes) -> tuple[Any, ...]:
        """What each value's bytes are now, and which are none."""
        self._heads, failed = heads, tuple(head >> 32 for head in heads)
        self._failed = failed if any(failed) else ()
        kinds = ["Q" if head >> 32 else _AS.get(head & 0xFFFFFFFF, "Q") for head in heads]
        self._doubles = [i for i, kind in enumerate(kinds) if kind == "d"]
        self._form = struct.Struct("<" + "".join(_HEAD + kind for kind in kinds) + self._tail)
        return self._form.unpack_from(memory)

    def _finite(self, flat: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """NaN and infinity are no reading: they get a return code, and a 0 that nobody sees for what makes metrics of values."""
        values, failing = list(flat), list(self._failed or (0,) * self._count)
        for i in self._doubles:
            if not math.isfinite(values[2 * i + 1]):
                values[2 * i + 1], failing[i] = 0.0, _UNKNOWN
        return tuple(values), tuple(failing)

    def _ask_calls(self) -> list[Reading]:
        out: list[Reading] = []
        for call in self._calls:
            try:
                out += call.read(self._nvml, self._handle)
            except self._nvml.NVMLError as error:
                out += [REASONS.get(error.value, "missing")] * len(call.metrics)
            except Unread as error:
                out += [error.reason] * len(call.metrics)
        return out


def _way(field: Field) -> tuple[int, Union[Callable[[float], float], None]]:
    """What a field is divided by (0: nothing), or what else is done to it."""
    per, of, digits = round(1 / field.scale), field.of, field.digits
    if of is not None or per == 1:
        return 0, of
    if 10**digits < per:
        less = per // 10**digits  # in whole numbers: round() costs as much as the rest of a value
        return 0, lambda value: (value + less // 2) // less / 10**digits
    return per, None
