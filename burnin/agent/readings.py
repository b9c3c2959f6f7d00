"""What is read of a tray while it is tested: the tables, who reads them, and who hears of each reading."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from burnin.agent.grip import HUNG, GroupSource, Handles
from burnin.agent.guards import Guards
from burnin.agent.host import Roots

if TYPE_CHECKING:
    from burnin.agent.load import Loads
    from burnin.agent.sampler import Raw, Sample, Sampler, Source, Table

TRANSIENT, PROOF = 3, 4
"""Numbers of the tables that are read only when asked, and only after a halt: power, for guards alone."""
PROOF_NS, PROVED_NS = 100_000_000, 5_000_000_000
"""How often, and for how long."""
SETTLE_NS = 1_500_000_000
"""How long readings that come many times a second may wait until they are taken apart and recorded, together. The next record of
another kind takes them along, and there is one each second."""


class Readings:
    """`deliver(what, urgent)` runs it in the holder's turn, whichever thread has it; there `tell` appends a record, `keep` a
    sample. `watched` is true while limits are looked at with each reading."""

    def __init__(
        self,
        at: Roots,
        handles: Handles,
        guards: Guards,
        deliver: Callable[[Callable[[], None], bool], None],
        tell: Callable[..., None],
        keep: Callable[[int, int, list[float | None]], None],
        now_ns: Callable[[], int],
        watched: Callable[[], bool],
    ) -> None:
        self._watched = watched
        self._waiting: deque[Sample] = deque()
        self._settling = False
        self._settled_ns = now_ns()
        self._at, self._handles, self._guards, self._tell, self._now_ns = at, handles, guards, tell, now_ns
        self._deliver, self._keep = deliver, keep
        self._sampler: Sampler | None = None
        self._loads: Loads | None = None
        self._margins: dict[int, list[tuple[int, str]]] = {}
        """Of the tables that guards hear of: the columns that hold a GPU's T.Limit margin."""
        self._absent: dict[int, dict[int, str]] = {}
        self._trouble: str | None = None
        self.devices: dict[str, str] = {}
        """The kernel's name of a device -> its part."""

    @property
    def begun(self) -> bool:
        """True once GPUs are read: without it nothing may be heated."""
        return self._sampler is not None and self._loads is not None

    @property
    def columns(self) -> list[tuple[tuple[str, str], ...]]:
        """(part, metric) of each table's columns."""
        return [table.columns for table in self._sampler.tables[:PROOF]] if self._sampler else []

    @property
    def hung(self) -> set[str]:
        """Sources whose reading has not come back."""
        return self._sampler.hung if self._sampler else set()

    def begin(self, loads: Loads | None, fast_s: float, slow_s: float, links_s: float) -> dict[str, Any]:
        """The order `sample`. Without NVML the host is read all the same. Raises ValueError while NVML may still come."""
        who = self._handles
        if who.nvml is None and who.reason == HUNG:
            raise ValueError(f"nothing can be sampled: NVML is {HUNG}")
        if self._sampler is None:
            from burnin.agent import hostdata  # what a start need not wait for is imported where it is needed
            from burnin.agent.cost import TABLES, Cost
            from burnin.agent.load import SENSOR_LOST_NS, LoadSource
            from burnin.agent.sampler import Sampler, Table

            cost = Cost(self._now_ns)
            self._loads = loads if who.nvml is not None else None
            gpus = list(who.gpus) if self._loads is not None else []
            bdfs = {bdf: gpu for gpu, bdf in who.bdfs.items() if bdf}
            self.devices = hostdata.names(self._at, bdfs)
            told = {"fast": cost.answered}
            every = {each: [GroupSource(gpu, each, who.gpus, who.grip, told.get(each)) for gpu in gpus] for each in TABLES}
            counts = [LoadSource(gpu, self._loads) for gpu in gpus] if self._loads is not None else []
            host: list[Source | Raw] = [*hostdata.sources(self._at, bdfs), cost]
            tables = [
                Table("fast", [*every["fast"], *counts], int(fast_s * 1e9), SENSOR_LOST_NS // 2),  # load wants its margins read
                Table("slow", [*every["slow"], *host], int(slow_s * 1e9)),
                Table("links", every["links"], int(links_s * 1e9)),
                Table("transient", every["transient"], 0),
                Table("proof", every["transient"], 0),
            ]
            cost.tables = tables[:PROOF]
            margins = [[(i, gpu) for i, (gpu, metric) in enumerate(t.columns) if metric == "gpu.tlimit"] for t in tables]
            self._margins = {number: found for number, found in enumerate(margins) if found or number == PROOF}
            gc.freeze()  # what is there by now stays: no use in looking through it again and again
            sampler = Sampler(tables, self._emit, self._now_ns, paced=self._paced)
            sampler.start()  # where there is no room for its thread nothing has begun, and nothing may be heated
            self._sampler = sampler
        return {"tables": self.columns}

    def transient(self, period_s: float, seconds: float) -> dict[str, Any]:
        """Read what changes within a second so often, for so long; then no more."""
        if self._sampler is None or not self.begun:
            raise ValueError("nothing is sampled yet")
        if not 0.05 <= period_s <= 10 or not 0 <= seconds <= 86400:
            raise ValueError(f"a reading every {period_s:g} s for {seconds:g} s: 0.05 to 10 s, and a day at most")
        now = self._now_ns()
        self._sampler.tables[TRANSIENT].order(int(period_s * 1e9), now + int(seconds * 1e9))
        self._sampler.nudge()
        return {"period_s": period_s, "seconds": seconds}

    def prove(self) -> None:
        """Let guards see at once, whatever the suite's cadence, that power falls."""
        if self._sampler is not None:
            self._sampler.tables[PROOF].order(PROOF_NS, self._now_ns() + PROVED_NS)
            self._sampler.nudge()

    # ---- from the sampler's thread

    def _emit(self, sample: Sample) -> None:
        """What may wait does: not what limits or a guard look at. Bursts of power are nobody's limit."""
        self._waiting.append(sample)
        urgent = sample.table != TRANSIENT
        watched = urgent and sample.table in self._margins and (self._guards.there or self._watched())
        if not sample.lazy or watched or sample.taken_ns - self._settled_ns >= SETTLE_NS:
            self._deliver(self.settle, urgent)

    def _paced(self, table: Table, took_ns: int) -> None:
        pace = table.pace
        if pace is not None:
            every, asked = pace.period_ns / 1e9, pace.ordered_ns / 1e9
            took = f"table {table.name}: its reading took {took_ns / 1e9:.3g} s"
            text = f"{took}; it is read every {every:g} s now, {asked:g} s were asked"
            self._deliver(lambda: self._tell("note", text=text), False)

    # ---- from the holder's

    def settle(self) -> None:
        """Take apart and keep what has waited."""
        if self._settling:  # told of by itself: what waits comes after it
            return
        self._settled_ns, self._settling = self._now_ns(), True
        try:
            while self._waiting:
                self._settle(self._waiting.popleft())
        finally:
            self._settling = False

    def _settle(self, sample: Sample) -> None:
        values, absent = sample.readings()
        if sample.table != PROOF:
            if absent != self._absent.get(sample.table, {}):
                self._absent[sample.table] = absent
                self._tell("absent", c=sample.table, why={str(i): why for i, why in absent.items()})
            self._keep(sample.table, sample.taken_ns, values)
        if self._sampler is not None and sample.table in self._margins:
            self._guards.read(self._sampler.tables[sample.table].columns, values, sample.taken_ns)
        for i, gpu in self._margins.get(sample.table, ()):
            value = values[i]
            if value is not None and self._loads is not None:
                self._loads.margin(gpu, value, sample.taken_ns)

    @property
    def late(self) -> bool:
        """True while a driver call has been out for so long that it may hang."""
        return self._sampler is not None and self._sampler.late

    def check(self) -> None:
        """Once a tick: what hangs, and what went wrong."""
        sampler = self._sampler
        if sampler is None:
            return
        hung = sampler.check()
        if hung:
            self._tell("note", text=f"{hung}: a driver call has not come back for {sampler.hang_s:g} s")
        if sampler.trouble != self._trouble:  # of each reading for days, it would fill the log
            self._trouble = sampler.trouble
            self._tell("note", text=self._trouble)

    def stop(self) -> None:
        """Ask the sampler's threads to end."""
        if self._sampler is not None:
            self._sampler.stop()
