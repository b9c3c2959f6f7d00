"""Readings that wait to be taken apart together keep their order, whatever is told of them meanwhile."""

from __future__ import annotations

from typing import Any

from burnin.agent.grip import Handles
from burnin.agent.guards import Guards
from burnin.agent.host import Roots
from burnin.agent.readings import PROOF, Readings
from burnin.agent.sampler import Sample


class Gpu:
    """A source of one column."""

    name, columns = "g0", (("g0", "gpu.power"),)


def test_a_reason_that_changes_comes_between_the_readings_that_it_divides() -> None:
    kept: list[object] = []

    def tell(kind: str, **body: Any) -> None:
        readings.settle()  # as the spool does before it adds a record of another kind
        kept.append((kind, body["why"]))

    handles = Handles(lambda: None, lambda text: None, lambda gpu, code: None, lambda: False)
    guards = Guards(lambda kind, body: b"", lambda why, gpus: [])

    def keep(table: int, n: int, values: list[float | None]) -> None:
        kept.append(n)

    at = Roots("/proc", "/sys", "/dev")
    readings = Readings(at, handles, guards, lambda what, urgent: None, tell, keep, lambda: 0, lambda: False)
    for n, why in ((1, "missing"), (2, "hung")):
        sample = Sample(3, n, [Gpu()], [why], kept.append)  # type: ignore[list-item]
        sample.lazy = True
        readings._emit(sample)
    readings.settle()
    assert kept == [("absent", {"0": "missing"}), 1, ("absent", {"0": "hung"}), 2]
    readings._emit(Sample(PROOF, 3, [Gpu()], ["lost"], kept.append))  # type: ignore[list-item]
    readings.settle()
    assert kept[4:] == [], "what proves a halt to guards is no evidence of the run's"
