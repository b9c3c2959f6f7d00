"""What the NVLinks at both ends of a copy counted while it ran: bytes, errors, recoveries. Through NVML, one pass per GPU.

Counters of NVLink 5, link in scopeId; an older GPU answers that it does not have them, and that is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

from burnin.agent import links
from burnin.agent.fields import REASONS, Field, Group, Reading

SENT, RECEIVED = "nvlink.tx_bytes", "nvlink.rx_bytes"
_WANTED = (
    SENT, RECEIVED, "nvlink.rx_errors", "nvlink.integrity_errors", "nvlink.recovery_ok", "nvlink.recovery_failed",
    "nvlink.effective_errors", "nvlink.symbol_errors",
)  # fmt: skip
_AGAIN, _AGAIN_S = 5, 0.2
"""How often, and how long apart, the counters are read again while they hold less than was copied: drivers may lag."""

Counts = Union[dict[tuple[str, str], Reading], str]
"""(link, metric) -> reading; or the reason why none of this GPU was read."""


class Ends:
    """The counters of this tray's GPUs. `uuids`: gpu -> UUID. What NVML refuses is a reason in what is told, never raised."""

    def __init__(self, nvml: Any, uuids: dict[str, str]) -> None:
        self._groups: dict[str, Group] = {}
        self._why: dict[str, str] = {}
        try:
            nvml.nvmlInit()
            driver = str(nvml.nvmlSystemGetDriverVersion())
        except nvml.NVMLError as error:
            self._why = dict.fromkeys(uuids, REASONS.get(error.value, "missing"))
            return
        for name, uuid in uuids.items():
            try:
                handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
                (count,) = Group(nvml, handle, (Field("", links.LINK_COUNT, 1.0, 0),), ()).read()
            except nvml.NVMLError as error:
                self._why[name] = REASONS.get(error.value, "missing")
                continue
            if isinstance(count, str) or count < 1:
                self._why[name] = count if isinstance(count, str) else "not_supported"
                continue
            wanted = [one for one in links.fields(int(count), driver) if one.metric in _WANTED]
            self._groups[name] = Group(nvml, handle, wanted, ())

    def read(self, name: str) -> Counts:
        """All counters of one GPU's links now."""
        group = self._groups.get(name)
        return self._why.get(name, "missing") if group is None else dict(zip(group.metrics, group.read()))

    def during(
        self, source: str, target: str, copy: Callable[[], dict[str, Any]], size: int, pause: Callable[[float], None]
    ) -> dict[str, Any]:
        """Do a copy of some of `size` bytes each; what it told, with `nvlink`: {copied (bytes, warming up included),
        from, to}, each end as `grown` gives it. Nothing is added to a copy that has no speed."""
        before = self.read(source), self.read(target)
        told = copy()
        if "gbps" not in told:
            return told
        copied = (told["copies"] + 2) * size  # the cold one, and the one that said how many make a timing
        for again in range(1 + _AGAIN):
            if again:
                pause(_AGAIN_S)
            ends = [grown(old, self.read(name)) for old, name in zip(before, (source, target))]
            if not any(end.get(way, copied) < copied for end, way in zip(ends, ("tx_bytes", "rx_bytes"))):
                break
        return {**told, "nvlink": {"copied": copied, "from": ends[0], "to": ends[1]}}


def grown(before: Counts, after: Counts) -> dict[str, Any]:
    """What the links of one GPU counted between two readings: {tx_bytes, rx_bytes (over all its links, absent where one link's
    were not read), errors {link: {metric: count}} (of those that grew), unread {metric: reason} (of any link)}. A counter that
    went back was reset meanwhile, and says nothing: `missing`."""
    if isinstance(before, str) or isinstance(after, str):
        reason = before if isinstance(before, str) else str(after)
        return {"unread": dict.fromkeys(_WANTED, reason), "errors": {}}
    total = {SENT: 0.0, RECEIVED: 0.0}
    errors: dict[str, dict[str, float]] = {}
    unread: dict[str, str] = {}
    for (link, metric), now in after.items():
        then = before.get((link, metric), "missing")
        if isinstance(now, str) or isinstance(then, str):
            unread[metric] = now if isinstance(now, str) else str(then)
        elif now < then:
            unread[metric] = "missing"
        elif metric in total:
            total[metric] += now - then
        elif now > then:
            errors.setdefault(link, {})[metric] = now - then
    moved = {metric.partition(".")[2]: value for metric, value in total.items() if metric not in unread}
    return {**moved, "errors": errors, "unread": unread}
