"""Every fault of a live rack at its seams: it moves its signals, on its parts, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from burnin.rack.parts import tray_of, within
from burnin.twin.faults import KINDS, LIVE
from tests.sampled import some
from tests.unit.fault_signals import LIVE as SIGNALS
from tests.unit.fault_signals import LOGGED_LIVE, NVML, PROCESSES
from tests.unit.twin_seams import Seen, moved, seen

WHOLE = {"psu.power", "tray.return_temp", "tray.power"}
"""What other trays of the rack may show too: shelves share, coolant is shared, switch trays work for all."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return seen(tmp_path_factory.mktemp("signals") / "healthy")


def test_two_healthy_racks_of_one_seed_are_one_rack(healthy: Seen, tmp_path: Path) -> None:
    assert moved(seen(tmp_path / "again"), healthy) == {}
    assert len(healthy) > 2000


@pytest.mark.parametrize("kind", some(sorted(SIGNALS)))
def test_a_fault_moves_its_signals_and_no_others(healthy: Seen, tmp_path: Path, kind: str) -> None:
    planted, expected = SIGNALS[kind]
    part = planted.partition(":")[0]
    found = moved(seen(tmp_path / "faulty", f"{kind}:{planted}"), healthy)
    assert bool(found.pop("kernel log", set())) == (kind in LOGGED_LIVE)
    if expected == {"everything"}:
        assert "t00" in found["runs"]
        return
    if expected >= NVML:
        own = {
            signal
            for (name, signal) in healthy
            if within(name, part) and signal not in ("serial", "versions", "resets") and signal[:4] not in ("CUDA", "NCCL")
        }
        here = {signal for signal, names in found.items() if any(within(name, part) for name in names)}
        assert here >= own - {"NVML answers"} - {s for s in own if s.startswith("pcie.aer") or s.endswith("_max")}
        found = {signal: names for signal, names in found.items() if signal not in own}
        assert set(found) <= expected
        return
    assert set(found) == expected
    for signal, names in found.items():
        if part.startswith("t") and signal not in WHOLE and not signal.startswith(("coolant", "pump")):
            assert {tray_of(name) for name in names} == {"t00"}, signal
            beside = {"t00", "t00.g3"} if part.startswith("t00.g2") else set()  # same module, next in its loop
            assert all(within(name, part) or name in beside for name in names), (signal, names)


def test_every_live_kind_is_here_or_shown_by_a_test_that_exists() -> None:
    assert {kind.kind for kind in KINDS.values() if LIVE in kind.seams} == SIGNALS.keys() | PROCESSES.keys()
    tests = "".join(path.read_text() for path in Path(__file__).parents[1].glob("*/test_*.py"))
    for _, name in PROCESSES.values():
        assert re.search(rf"def {name}\(", tests), name
