"""Clocks that are held: for as long as a stage wants, and not a moment longer than somebody is there to let them go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from burnin.agent.clocks import ClockLocks, order
from burnin.agent.nvml import Gpu


class Driver:
    """One GPU as ClockLocks sees it: its clock, and what it says."""

    def __init__(self, refuses: str = "") -> None:
        self.mhz: int | None = None
        self.refuses = refuses

    def hold_clock(self, mhz: int) -> str:
        self.mhz = self.mhz if self.refuses else mhz
        return self.refuses

    def free_clock(self) -> str:
        self.mhz = self.mhz if self.refuses else None
        return self.refuses


class Rig:
    def __init__(self, where: Path, **gpus: Driver) -> None:
        self.gpus, self.told = gpus, list[str]()
        self.note = where / "clocks.json"
        self.locks = ClockLocks(cast("dict[str, Gpu]", gpus), str(self.note), self.told.append)


def test_a_clock_is_held_until_it_is_let_go(tmp_path: Path) -> None:
    rig = Rig(tmp_path, g0=Driver(), g1=Driver())
    assert order(rig.locks, {"g0": 1500, "g1": 1500}) == {"g0": "held", "g1": "held"}
    assert [gpu.mhz for gpu in rig.gpus.values()] == [1500, 1500]
    assert json.loads(rig.note.read_text()) == ["g0", "g1"]
    assert order(rig.locks, {}) == {"g0": "free", "g1": "free"}
    assert [gpu.mhz for gpu in rig.gpus.values()] == [None, None]
    assert not rig.note.exists()


def test_what_is_refused_is_said_and_not_remembered(tmp_path: Path) -> None:
    rig = Rig(tmp_path, g0=Driver("no_permission"), g1=Driver())
    assert order(rig.locks, {"g0": 1500, "g1": 1500, "g2": 1500}) == {"g0": "no_permission", "g1": "held", "g2": "missing"}
    assert json.loads(rig.note.read_text()) == ["g1"]


@pytest.mark.parametrize("note", ['["g1"]', '["g0", "g1"', ""])
def test_a_holder_lets_go_of_what_a_dead_one_held_also_when_its_note_is_cut_short(tmp_path: Path, note: str) -> None:
    gpu = Driver()
    gpu.mhz = 1500
    rig = Rig(tmp_path, g0=Driver(), g1=gpu)
    rig.note.write_text(note)
    rig.locks.take_over()
    assert [gpu.mhz for gpu in rig.gpus.values()] == [None, None]
    assert not rig.note.exists()
    assert "died" in rig.told[0]


def test_a_clock_that_the_driver_does_not_let_go_stays_on_the_note(tmp_path: Path) -> None:
    rig = Rig(tmp_path, g0=Driver())
    order(rig.locks, {"g0": 1500})
    rig.gpus["g0"].refuses = "lost"
    assert order(rig.locks, {}) == {"g0": "lost"}
    assert json.loads(rig.note.read_text()) == ["g0"]


@pytest.mark.parametrize("mhz", [0, 99, 10_001, "1500", 1500.0, None])
def test_what_is_no_clock_is_refused(tmp_path: Path, mhz: object) -> None:
    rig = Rig(tmp_path, g0=Driver())
    with pytest.raises(ValueError, match="no clock in MHz"):
        order(rig.locks, {"g0": mhz})  # type: ignore[dict-item]
    assert rig.gpus["g0"].mhz is None
