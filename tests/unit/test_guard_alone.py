"""A guard whose run is gone: it ends load at once, or watches on where a stage is detached, until its successor relieves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from burnin.rack.load import RackFile
from burnin.run import guard_process, sockets
from burnin.run.guard import configuration
from burnin.run.guard_process import GuardProcess
from tests import build


class Out:
    """The pipe to its run."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        self.said.append(orjson.loads(line))

    def words(self) -> set[str]:
        return {word for one in self.said for word in one}


class Guarding:
    """One guard (that watches no tray, unless some are named), in this process, and its run's end of the pipes."""

    def __init__(self, db: Path, lease_s: float = 60.0, trays: Sequence[str] = ()) -> None:
        file = RackFile(db.parent / "rack.yaml", build.rack(1), build.profile(1))
        self.out, self.run = Out(), asyncio.StreamReader()
        self.one = GuardProcess(configuration(file, "r1", db, trays, lease_s, []), cast("asyncio.StreamWriter", self.out))
        self.life = asyncio.ensure_future(self.one.run(self.run))

    def tell(self, **body: Any) -> None:
        self.run.feed_data(orjson.dumps(body) + b"\n")

    def trips(self) -> list[str]:
        return [name for name, _ in self.one.watch.tripped]


@asynccontextmanager
async def guarding(db: Path, **how: Any) -> AsyncIterator[Guarding]:
    made = Guarding(db, **how)
    try:
        yield made
    finally:
        made.one._over.set()
        await soon(made)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").touch()
    for name in ("TICK_S", "OVERLAP_S", "CONFIRM_S"):
        monkeypatch.setattr(guard_process, name, 0.01)


async def soon(one: Guarding) -> None:
    await asyncio.wait_for(asyncio.shield(one.life), 10)


async def test_a_run_that_ends_without_a_word_ends_the_load(tmp_path: Path) -> None:
    async with guarding(tmp_path / "runs.db") as one:
        one.run.feed_eof()
        await soon(one)
        assert one.trips() == ["controller"]


async def test_in_a_detached_stage_it_does_not_and_it_says_nothing_into_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    async with guarding(tmp_path / "runs.db") as one:
        one.tell(detached=600)
        one.run.feed_eof()
        await asyncio.wait_for(one.one._gone.wait(), 10)
        assert (one.trips(), one.life.done()) == ([], False)
        said = len(one.out.said)
        one.one._say({"beat": 1})
        assert len(one.out.said) == said


async def test_a_detached_stage_that_is_over_is_as_ever(tmp_path: Path) -> None:
    async with guarding(tmp_path / "runs.db") as one:
        one.tell(detached=600)
        one.tell(detached=0)
        one.run.feed_eof()
        await soon(one)
        assert one.trips() == ["controller"]


@pytest.mark.parametrize(
    ("loaded", "silent_s", "trips", "over"),
    [
        ({"t00.g0"}, 599, [], False),
        ({"t00.g0"}, 601, ["controller"], True),
        (set(), 59, [], False),
        (set(), 61, [], True),
    ],
)
async def test_alone_it_stays_until_the_time_or_the_load_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: set[str], silent_s: float, trips: list[str], over: bool
) -> None:
    async with guarding(tmp_path / "runs.db") as one:
        one.tell(detached=600)
        one.run.feed_eof()
        await asyncio.wait_for(one.one._gone.wait(), 10)
        tray = {"loaded": loaded, "watching": False, "there": asyncio.Event(), "tray": "t00", "heard_s": one.one._heard_s}
        one.one.trays["t00"] = cast("Any", type("Tray", (), tray))
        monkeypatch.setattr(one.one, "trip", lambda trip: None)
        one.one._look(one.one._heard_s + silent_s)
        assert (one.trips(), one.one._over.is_set()) == (trips, over)
        del one.one.trays["t00"]


async def test_it_makes_way_for_the_guard_of_the_next_session_and_for_no_other(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    async with guarding(db) as first:
        first.tell(detached=600)
        first.run.feed_eof()
        await asyncio.wait_for(first.one._gone.wait(), 10)
        reader, writer = await sockets.connect(sockets.guard(db), "run r1")
        await reader.readline()
        writer.write(orjson.dumps({"do": "relieve", "run": "r2"}) + b"\n")
        async with guarding(db) as second:
            await soon(first)
            assert first.trips() == []
            await asyncio.wait_for(second.one._begun.wait(), 10)
            assert "relieved" in second.out.words()
            assert "emergency stop" not in second.one.blind
            assert not second.life.done()
        writer.close()


async def test_a_guard_whose_run_lives_makes_way_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_process, "RELIEVE_S", 0.05)
    monkeypatch.setattr(guard_process, "ANSWER_S", 0.05)
    db = tmp_path / "runs.db"
    async with guarding(db) as first:
        first.tell(detached=600)
        async with guarding(db) as second:
            await asyncio.wait_for(second.one._begun.wait(), 10)
            assert "emergency stop" in second.one.blind
            assert "relieved" not in second.out.words()
            assert not first.life.done()


async def test_a_tray_that_did_not_answer_is_not_said_to_be_cold(tmp_path: Path) -> None:
    async with guarding(tmp_path / "runs.db", trays=["t00"]) as one:
        one.run.feed_eof()
        await soon(one)
    (outcome,) = [said["outcome"] for said in one.out.said if said.get("outcome", {}).get("name") == "controller"]
    assert (outcome["answered"], list(outcome["unanswered"]), outcome["cold_s"]) == (0, ["t00"], None)
