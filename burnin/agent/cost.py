"""What the agent itself costs, and how long the driver takes to answer: told like any other reading, of the tray.

CPU is the holder process's, as shares of one core since the last reading; a table's share has the driver's own in it.
Latency is the wall time of reading one GPU's fast table: one call for all field values and one for each metric that has none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from burnin.agent.fields import Reading
from burnin.agent.sampler import Table

TABLES = ("fast", "slow", "links", "transient")


class Cost:
    """A source: it is itself read with the slow table."""

    name = "agent"
    columns: tuple[tuple[str, str], ...] = (
        ("", "agent.cpu"),
        *(("", f"agent.cpu_{table}") for table in TABLES),
        ("", "agent.stretch"),
        ("", "nvml.latency"),
        ("", "nvml.latency_max"),
    )

    def __init__(self, now_ns: Callable[[], int], cpu_ns: Callable[[], int] = time.process_time_ns) -> None:
        self.tables: Sequence[Table] = ()
        self._now_ns, self._cpu_ns = now_ns, cpu_ns
        self._last: dict[str, int] = {}
        self._took_ns: deque[int] = deque()

    def answered(self, took_ns: int) -> None:
        """The driver has answered for one GPU's fast table."""
        self._took_ns.append(took_ns)

    def read(self) -> list[Reading]:
        """Shares of a core, the longest stretch of a table's period (1: as ordered), median and longest latency in ms."""
        now = {"wall": self._now_ns(), "": self._cpu_ns(), **{table.name: table.cpu_ns for table in self.tables}}
        last, self._last = self._last, now
        took = [self._took_ns.popleft() for _ in range(len(self._took_ns))]
        wall = now["wall"] - last.get("wall", now["wall"])
        names = ("", *TABLES)
        if wall > 0:
            out: list[Reading] = [round((now[n] - last[n]) / wall, 6) if n in now else "missing" for n in names]
        else:
            out = ["missing"] * len(names)  # nothing to compare with yet
        out.append(max((t.pace.stretch for t in self.tables if t.pace is not None), default="missing"))
        if took:
            return [*out, round(_median(took) / 1e6, 3), round(max(took) / 1e6, 3)]
        return [*out, "missing", "missing"]


def _median(values: list[int]) -> float:
    """The statistics module would cost the agent's start 8 ms."""
    ordered, middle = sorted(values), len(values) // 2
    return (ordered[middle] + ordered[~middle]) / 2
