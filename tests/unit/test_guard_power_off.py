"""Redfish power-off of a tray that leaks: that tray's alone, where the site enabled it, and never for what is only not known."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from burnin.errors import TrayError
from burnin.rack.load import RackFile
from burnin.run import guard_process
from burnin.run.guard import configuration
from burnin.run.guard_process import GuardProcess
from burnin.run.guard_redfish import Leaks
from burnin.run.guard_rules import Seen
from tests import build


class Wet(Leaks):
    """A tray's detectors, of which only the switch is asked."""

    def __init__(self, part: str, does: bool = True) -> None:
        self.part, self.does, self.asked = part, does, 0

    async def power_off(self) -> str:
        self.asked += 1
        if not self.does:
            raise TrayError(f"{self.part}: no answer")
        return f"{self.part} was switched off"


async def after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allow: list[str], sources: list[Wet], *seen: Seen) -> list[Any]:
    """What the guard of a rack with two trays says when it has seen this."""
    monkeypatch.setattr(guard_process, "CONFIRM_S", 0.05)
    (tmp_path / "known_hosts").touch()
    rack = build.rack(2).model_copy(update={"allow": allow})
    told = configuration(RackFile(tmp_path / "rack.yaml", rack, build.profile(2)), "r1", tmp_path / "b.db", [], 60.0, [])
    said: list[Any] = []
    one = GuardProcess(told, cast("asyncio.StreamWriter", None))
    one._sources = list(sources)
    monkeypatch.setattr(one, "_say", said.append)
    if not {"leak", "leaking_trays"} <= set(one.watch.rules):
        from burnin.rack.load import load_profile

        one.watch.rules = load_profile("gb300-nvl72").guard
    for reading in seen:
        one.see(reading)
    while one._halting:
        await asyncio.wait(list(one._halting))
    return said


def wet(part: str, at_s: float = 10.0) -> Seen:
    return Seen("leak", part, "wet: a detector says Critical", at_s, at_s)


def notes(said: list[Any]) -> list[str]:
    return [one["note"]["text"] for one in said if "note" in one]


async def test_only_the_tray_that_leaks_is_switched_off_and_only_where_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trays = [Wet("t00"), Wet("t01")]
    said = await after(tmp_path, monkeypatch, ["power_off_on_leak"], trays, wet("t01"))
    assert ([one.asked for one in trays], notes(said)) == ([0, 1], ["t01 was switched off"])
    words = [next(iter(one)) for one in said]
    assert words.index("trip") < words.index("note"), "the load's end is ordered and said first"
    trays = [Wet("t00"), Wet("t01")]
    said = await after(tmp_path, monkeypatch, [], trays, wet("t01"))
    assert ([one.asked for one in trays], notes(said)) == ([0, 0], [])


async def test_a_second_leak_is_the_racks_and_switches_off_its_own_tray_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trays = [Wet("t00"), Wet("t01")]
    said = await after(tmp_path, monkeypatch, ["power_off_on_leak"], trays, wet("t01"), wet("t00", 11.0), wet("t00", 12.0))
    assert [one.asked for one in trays] == [1, 1]
    assert [one["trip"]["name"] for one in said if "trip" in one] == ["leak", "leak", "leaking_trays"]


async def test_what_is_not_known_or_not_a_leak_switches_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trays = [Wet("t00"), Wet("t01")]
    stale = Seen("bmc_stale", "t01.bmc", 500.0, 10.0, 0.0)
    said = await after(tmp_path, monkeypatch, ["power_off_on_leak"], trays, stale, Seen("leak", "t00", None, 10.0, 10.0, "503"))
    assert [one["trip"]["name"] for one in said if "trip" in one] == ["bmc_stale"]
    assert [one.asked for one in trays] == [0, 0]


async def test_a_bmc_that_does_not_do_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await after(tmp_path, monkeypatch, ["power_off_on_leak"], [Wet("t01", does=False)], wet("t01"))
    assert notes(said) == ["t01 could not be switched off: t01: no answer"]
