"""How NVML is read in bulk: field values of a GPU in one preallocated call, 29 times cheaper than pynvml's wrapper (measured on
pynvml 13.615); the rest are calls of their own. What cannot be read is a reason, never 0.
"""

from __future__ import annotations

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

NO_ID = 0
"""Of a field that the driver's branch does not have: asked all the same, another branch's number would answer something else."""
_HEAD = "24xII"
"""nvmlFieldValue_t up to its value: id, scope, timestamp, latency; type and return code are read."""
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


class Group:
    """One GPU's metrics of one cadence: `metrics` (sub-part, metric) in order, `read()` their values in the same order."""

    def __init__(self, nvml: Any, handle: Any, fields: Sequence[Field], calls: Sequence[Call]) -> None:
        self._nvml, self._handle, self._calls = nvml, handle, calls
        asked, unasked = [f for f in fields if f.id != NO_ID], [f for f in fields if f.id == NO_ID]
        self._fields, self._unasked = asked, ["not_supported"] * len(unasked)
        self.metrics = tuple((f.sub, f.metric) for f in asked + unasked) + tuple(("", m) for c in calls for m in c.metrics)
        self._scales = [(f.scale, f.digits, f.of) for f in asked]
        self._form = struct.Struct("<" + f"{_HEAD}Q" * len(asked))
        self._kinds: tuple[int, ...] = ()
        self._array = (nvml.c_nvmlFieldValue_t * max(len(asked), 1))()
        for slot, field in zip(self._array, asked):
            slot.fieldId, slot.scopeId = field.id, field.scope

    def read(self) -> list[Reading]:
        """One pass over the table; a call that fails costs its own metrics only."""
        out: list[Reading] = self._read_fields() if self._fields else []
        out += self._unasked
        for call in self._calls:
            try:
                out += call.read(self._nvml, self._handle)
            except self._nvml.NVMLError as error:
                out += [REASONS.get(error.value, "missing")] * len(call.metrics)
            except Unread as error:
                out += [error.reason] * len(call.metrics)
        return out

    def _read_fields(self) -> list[Reading]:
        try:
            read = self._nvml._nvmlGetFunctionPointer("nvmlDeviceGetFieldValues")
            code = read(self._handle, len(self._fields), self._array)
        except self._nvml.NVMLError as error:
            code = error.value
        if code:
            return [REASONS.get(code, "missing")] * len(self._fields)
        raw = bytes(self._array)
        flat = self._form.unpack(raw)
        if flat[0::3] != self._kinds:  # at first, and when the driver changes its mind: what each value's bytes are
            self._kinds = flat[0::3]
            self._form = struct.Struct("<" + "".join(_HEAD + _AS.get(kind, "Q") for kind in self._kinds))
            flat = self._form.unpack(raw)
        failed = flat[1::3]
        out: list[Reading] = [
            round(value * scale, digits) if of is None else of(value)
            for value, (scale, digits, of) in zip(flat[2::3], self._scales)
        ]
        if any(failed):
            out = [REASONS.get(why, "missing") if why else value for value, why in zip(out, failed)]
        return out
