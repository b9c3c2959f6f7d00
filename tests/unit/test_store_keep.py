"""What is kept comes back exactly, each run's own, whatever happened in between."""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burnin.errors import InputError, StoreError
from burnin.events import (
    Attached,
    Coverage,
    Finding,
    Hold,
    LogLine,
    Measurement,
    Result,
    Severity,
    StageBegan,
    StageEnded,
    Status,
    Step,
    Tick,
    TrayState,
    Verdict,
    Word,
)
from burnin.store import Attempt, Enrollment, Evidence, RunStart, Store, Tray, Voided, open_store
from burnin.store.hot import WINDOW_MS
from burnin.telemetry.rollup import Rollup
from burnin.telemetry.series import Stretch, gather

COLUMNS = (("t00.g0", "gpu.temp"), ("t00.g0", "gpu.power"))
OTHER = (("t00.g1", "gpu.temp"), ("t00", "tray.power"), ("t00.g0", "gpu.temp"))
WINDOW_S = WINDOW_MS // 1000
SUITE = {"stages": [{"stage": "base", "settle": "5.000 s"}, {"stage": "soak"}, {"stage": "again"}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "burnin.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    one = open_store(path, clock=lambda: "2026-11-21T15:00:00Z")
    yield one
    one.close()


def start(run: str = "r1", rack: str = "R-1", suite: str | None = "demo", **config: Any) -> RunStart:
    return RunStart(run, rack, "gb300-nvl72", suite, True, False, "ann", "2026-11-21T12:00:00Z", config, host="line1", pid=7)


def ask(path: Path, query: str) -> list[Any]:
    """As a person would, with a plain sqlite3."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


# ---------------------------------------------------------------- readings

VALUES = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(0, 2000).map(lambda n: n / 10), st.just(-0.0))


@st.composite
def ticks(draw: st.DrawFn) -> Tick:
    columns = draw(st.sampled_from((COLUMNS, OTHER)))
    t_ms = draw(st.one_of(st.integers(0, 3 * WINDOW_MS), st.sampled_from((0, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1))))
    return Tick("t00", t_ms / 1000, columns, tuple(draw(VALUES) for _ in columns))


STEPS = st.lists(st.one_of(st.lists(ticks(), max_size=6), st.sampled_from(("flush", "late"))), max_size=8)
numbers = count()


def bits(values: np.ndarray) -> list[int | None]:
    return [None if math.isnan(v) else int(b) for v, b in zip(values, values.view(np.int64), strict=True)]


@given(STEPS, st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_readings_come_back_bit_for_bit(store: Store, steps: list[list[Tick] | str], end: bool) -> None:
    """In any order, over any windows, before and after compaction, beside all the runs of the other examples."""
    run = f"p{next(numbers)}"
    store.begin_run(start(run))
    rows: list[tuple[str, str, float, float | None]] = []
    for step in steps:
        if step == "flush":
            store.flush()
        elif step == "late":  # so late that every window is over
            last = Tick("t01", 10.0 * WINDOW_S + next(numbers), (("t01", "tray.power"),), (1.0,))
            store.keep([last])
            rows.append(("t01", "tray.power", last.t_s, 1.0))
        else:
            assert isinstance(step, list)
            store.keep(step)
            rows += [(*key, tick.t_s, v) for tick in step for key, v in zip(tick.columns, tick.values, strict=True)]
    if end:
        store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")
    else:
        store.flush()
    got, expected = store.telemetry(run).series, gather(rows)
    assert set(got) == set(expected)
    for key, one in expected.items():
        # Readings of the same millisecond keep their order within a group of columns, not between two.
        pairs = sorted(zip(got[key].t_s.tolist(), bits(got[key].v), strict=True), key=repr)
        assert pairs == sorted(zip(one.t_s.tolist(), bits(one.v), strict=True), key=repr)
        assert (np.diff(got[key].t_s) >= 0).all()
    store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")


def test_an_hour_and_more_becomes_blocks_and_rollups_while_it_runs(path: Path, store: Store) -> None:
    store.begin_run(start())
    for s in range(0, 2 * WINDOW_S + 100, 10):
        store.keep([Tick("t00", s, COLUMNS, (40.0 if s < 60 else 41.0, s / 10))])
    blocks = ask(path, "SELECT tray, t0_ms, t1_ms FROM telemetry_block ORDER BY t0_ms")
    assert blocks == [("t00", 0, WINDOW_MS), ("t00", WINDOW_MS, 2 * WINDOW_MS)]
    assert ask(path, "SELECT min(t0_ms) FROM telemetry_frame") == [(2 * WINDOW_MS,)]
    assert ask(path, "SELECT t0_s, t1_s, n, min, mean, max FROM rollup WHERE metric = 'gpu.temp'") == [
        (0, 60, 6, 40.0, 40.0, 40.0),
        (60, WINDOW_S, 6 * (WINDOW_S // 60 - 1), 41.0, 41.0, 41.0),
        (WINDOW_S, 2 * WINDOW_S, 6 * WINDOW_S // 60, 41.0, 41.0, 41.0),
    ]
    assert ask(path, "SELECT t0_s, n, min, mean, max FROM rollup WHERE metric = 'gpu.power' LIMIT 2") == [
        (0, 6, 0.0, 2.5, 5.0),
        (60, 6, 6.0, 8.5, 11.0),
    ]
    store.end_run("r1", "2026-11-21T13:00:00Z", "COMPLETE")
    assert ask(path, "SELECT count(*) FROM telemetry_frame") == [(0,)]
    assert store.telemetry("r1").of("t00.g0", "gpu.power").v.tolist() == [s / 10 for s in range(0, 2 * WINDOW_S + 100, 10)]


def test_what_comes_after_its_window_was_compacted_still_counts(path: Path, store: Store) -> None:
    """A tray that was away replays what its agent kept."""
    store.begin_run(start())
    store.keep([Tick("t00", 30.0, COLUMNS, (40.0, 1.0))])
    store.keep([Tick("t01", WINDOW_S + 100.0, (("t01", "tray.power"),), (9.0,))])
    assert store.rollups("r1", "gpu.temp") == {"t00.g0": [Rollup(0, 1, 1, 40.0, 40.0, 40.0)]}
    store.keep([Tick("t00", 10.0, COLUMNS, (30.0, 2.0)), Tick("t00", 70.0, COLUMNS, (35.0, 3.0))])
    store.end_run("r1", "2026-11-21T13:00:00Z", "COMPLETE")
    assert ask(path, "SELECT count(*) FROM telemetry_block WHERE tray = 't00'") == [(1,)]
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").t_s.tolist() == [10.0, 30.0, 70.0]
    assert store.rollups("r1", "gpu.temp", "t00.g0")["t00.g0"] == [
        Rollup(0, 1, 2, 30.0, 70.0, 40.0),
        Rollup(60, 1, 1, 35.0, 35.0, 35.0),
    ]


def test_at_most_ten_seconds_of_ticks_wait_in_memory(store: Store) -> None:
    store.begin_run(start())
    for s in range(100):
        store.keep([Tick("t00", float(s), COLUMNS, (1.0, 2.0))])
        kept = store.telemetry("r1").of("t00.g0", "gpu.temp").t_s
        assert s - (kept[-1] if kept.size else -1) <= 10


def test_times_are_kept_to_the_millisecond(store: Store) -> None:
    store.begin_run(start())
    store.keep([Tick("t00", 1.2344996, COLUMNS, (1.0, 2.0)), Tick("t00", 2.0006, COLUMNS, (1.0, 2.0))])
    store.flush()
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").t_s.tolist() == [1.234, 2.001]


def test_one_series_of_one_tray_is_read_alone(store: Store) -> None:
    store.begin_run(start())
    store.keep(
        [Tick("t00", 1.0, COLUMNS, (40.0, 2.0)), Tick("rack", 1.0, (("p4.u2", "psu.power"), ("cdu", "coolant.flow")), (5.0, 6.0))]
    )
    store.end_run("r1", "2026-11-21T13:00:00Z", "COMPLETE")
    assert set(store.telemetry("r1", metrics=("gpu.power",)).series) == {("t00.g0", "gpu.power")}
    assert set(store.telemetry("r1", parts=("p4.u2",)).series) == {("p4.u2", "psu.power")}
    assert set(store.telemetry("r1", ("cdu", "t00.g0"), ("gpu.temp", "coolant.flow")).series) == {
        COLUMNS[0],
        ("cdu", "coolant.flow"),
    }


def test_why_a_reading_is_null_is_what_was_said_last(store: Store) -> None:
    store.begin_run(start())
    store.keep([Tick("t00", 1.0, COLUMNS, (None, 2.0), {0: "not_supported"})])
    store.keep([Tick("t00", 2.0, COLUMNS, (None, None), {0: "hung", 1: "hung"}), Tick("t00", 3.0, COLUMNS, (1.0, 1.0))])
    store.flush()
    assert store.telemetry("r1").absent == {COLUMNS[0]: "hung", COLUMNS[1]: "hung"}
    assert np.isnan(store.telemetry("r1").of("t00.g0", "gpu.temp").v).tolist() == [True, True, False]
    store.keep([Tick("t00", 4.0, COLUMNS, (None, 1.0), {0: "lost"})])
    store.flush()
    assert store.telemetry("r1").absent == {COLUMNS[0]: "lost", COLUMNS[1]: "hung"}


@pytest.mark.parametrize(
    ("tick", "why"),
    [
        (Tick("t00", 1.0, COLUMNS, (1.0,)), "1 values in 2 columns"),
        (Tick("t01", 1.0, COLUMNS, (1.0, 2.0)), "readings of other parts"),
        (Tick("t00", math.nan, COLUMNS, (1.0, 2.0)), "NaN"),
    ],
)
def test_a_tick_that_contradicts_itself_is_refused_and_the_others_are_kept(store: Store, tick: Tick, why: str) -> None:
    store.begin_run(start())
    store.keep([Tick("t00", 0.5, COLUMNS, (1.0, 2.0))])
    with pytest.raises(ValueError, match=why):
        store.keep([tick])
    store.flush()
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").t_s.tolist() == [0.5]


# ---------------------------------------------------------------- stages, log, trays


def test_stretches_are_the_stages_that_ended_and_had_a_phase(store: Store) -> None:
    store.begin_run(_with_suite())
    store.keep([StageBegan(0, "base", "idle", 60.0, 1.5), StageEnded(0, "base", 61.25, Status.COMPLETE)])
    store.keep([StageEnded(2, "again", 61.5, Status.SKIPPED, "nobody is under suspicion")])
    store.keep(
        [
            StageBegan(1, "soak", "", 10.0, 62.0),
            StageEnded(1, "soak", 70.0, Status.COMPLETE),
            StageBegan(2, "again", "load-2", 5.0, 71.0),
        ]
    )
    assert store.telemetry("r1").stretches == (Stretch("base", "idle", 1.5, 61.25, 5.0),)
    assert [(s.name, s.phase, s.planned_s, s.t0_s, s.t1_s, s.status, s.why) for s in store.stages("r1")] == [
        ("base", "idle", 60.0, 1.5, 61.25, Status.COMPLETE, ""),
        ("again", None, 0.0, 61.5, 61.5, Status.SKIPPED, "nobody is under suspicion"),
        ("soak", None, 10.0, 62.0, 70.0, Status.COMPLETE, ""),
        ("again", "load-2", 5.0, 71.0, None, None, ""),
    ]
    store.keep([StageEnded(2, "again", 73.0, Status.ABORTED, "stopped")])
    assert store.telemetry("r1").stretches[-1] == Stretch("again", "load-2", 71.0, 73.0, 0.0)


def _with_suite() -> RunStart:
    return RunStart("r1", "R-1", "p", "demo", True, True, "ann", "2026-11-21T12:00:00Z", {"suite": SUITE})


def test_a_stage_that_the_suite_does_not_have_is_a_failure(store: Store) -> None:
    store.begin_run(_with_suite())
    with pytest.raises(StoreError, match="'sook' that its suite does not have"):
        store.keep([StageBegan(0, "sook", "load", 60.0, 0.0)])


TEXT = st.text(st.characters(codec=None), max_size=20)


@given(TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_the_log_takes_any_text(store: Store, text: str) -> None:
    run = f"p{next(numbers)}"
    store.begin_run(start(run))
    store.keep([LogLine("t07.g2", 2.5, "kernel", "", text, "kmsg"), LogLine("t07", 1.25, "xid", "79", "gone", "nvml")])
    store.keep([TrayState("t07", 0.5, "LOST", text)])
    second, first = reversed(store.log(run))
    assert first == LogLine("t07", 1.25, "xid", "79", "gone", "nvml")
    assert second.text == text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    assert store.states(run)[0].why == second.text
    store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")


def test_trays_are_as_last_known(store: Store) -> None:
    store.begin_run(start())
    tray = Tray("t07", "10.1.1.18:22", "SHA256:abc", "1650", {"gpus": [{"serial": "\udc80", "slot": 3}]})
    store.keep_tray(Tray("t07", "10.1.1.18:22"))
    store.keep_tray(Tray("t01", "10.1.1.12:22"))
    store.keep_tray(tray)
    assert store.trays("r1") == [Tray("t01", "10.1.1.12:22"), tray]


# ---------------------------------------------------------------- steps and evidence


def test_every_attempt_is_kept_once(store: Store) -> None:
    store.begin_run(start())
    first = Attempt("base", "ecc", "t07", 1, Status.ERROR, Result.UNKNOWN, 1.0, 2.5, "link was lost")
    second = Attempt("base", "ecc", "t07", 2, Status.COMPLETE, Result.PASS, 3.0, 4.125)
    store.end_attempt(first)
    store.end_attempt(second)
    with pytest.raises(StoreError, match="does not take what it is given"):
        store.end_attempt(second)
    assert store.attempts("r1") == [first, second]


BODIES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(BODIES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_evidence_comes_back_as_it_was(store: Store, body: Any) -> None:
    run = f"p{next(numbers)}"
    store.begin_run(start(run))
    one = Evidence("base", "audit", "t07", 1, 0, "identify", body)
    store.keep_evidence(one)
    assert store.evidence(run) == [one]
    store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")


def test_evidence_keeps_what_json_cannot_say(store: Store) -> None:
    store.begin_run(start())
    store.keep_evidence(Evidence("base", "audit", "t07", 1, 0, "nan", {"v": [math.nan, -0.0, math.inf]}))
    (back,) = store.evidence("r1")
    assert math.isnan(back.body["v"][0]) and math.copysign(1, back.body["v"][1]) == -1 and back.body["v"][2] == math.inf


# ---------------------------------------------------------------- verdict

VERDICT = Verdict(
    run="r1",
    rack="R-1",
    profile="p",
    suite="demo",
    ships=True,
    whole=True,
    word=Word.FAIL,
    started="2026-11-21T12:00:00Z",
    ended="2026-11-21T13:00:00Z",
    coverage=Coverage(2, 1, (("t03.g0", "gpu.temp", "load"),)),
    findings=(
        Finding(
            "t07.g2", "thermal.rth", Severity.FAIL, 0.0412, 0.03, "K/W", "hot", "replace", "board", "165", "7", 9.1, {"z": 9.1}
        ),
    ),
    holds=(Hold("unmeasured", "t03", "no answer", "look at its link"),),
    steps=(
        Step(
            "thermal",
            "soak",
            "t07",
            Status.COMPLETE,
            Result.FAIL,
            1,
            (
                Measurement("margin", "t07.g2", 3.25, "Cel", ">= 5 Cel", Result.FAIL),
                Measurement("vbios", "t07.g0", "97.00.52", "1", "= 97.00.52", Result.PASS),
                Measurement("margin", "t07.g1", None, "Cel", ">= 5 Cel", Result.UNKNOWN, "hung", "did not answer"),
            ),
        ),
    ),
)


def test_a_verdict_comes_back_letter_for_letter_and_its_parts_are_rows(path: Path, store: Store) -> None:
    store.begin_run(start())
    store.end_run("r1", "2026-11-21T13:00:00Z", "COMPLETE")
    assert store.verdict("r1") is None
    store.keep_verdict(VERDICT, '{"verdict": "FAIL",  "π": 1}\n')
    assert store.verdict("r1") == '{"verdict": "FAIL",  "π": 1}\n'
    assert store.run("r1").word == "FAIL"
    assert ask(path, "SELECT word, derived_at FROM verdict") == [("FAIL", "2026-11-21T15:00:00Z")]
    assert ask(path, "SELECT rack, stage, step, name, part, value, text, bound, result, reason, why FROM v_measurements") == [
        ("R-1", "soak", "thermal", "margin", "t07.g2", 3.25, None, ">= 5 Cel", "FAIL", None, ""),
        ("R-1", "soak", "thermal", "vbios", "t07.g0", None, "97.00.52", "= 97.00.52", "PASS", None, ""),
        ("R-1", "soak", "thermal", "margin", "t07.g1", None, None, ">= 5 Cel", "UNKNOWN", "hung", "did not answer"),
    ]
    finding = ask(
        path, "SELECT part, signature, severity, value, bound, unit, fru, serial, slot, statistic, evidence FROM finding"
    )
    assert finding == [("t07.g2", "thermal.rth", "FAIL", 0.0412, 0.03, "K/W", "board", "165", "7", 9.1, '{"z":9.1}')]
    assert ask(path, "SELECT kind, part, why, next FROM hold") == [("unmeasured", "t03", "no answer", "look at its link")]


def test_a_later_verdict_takes_the_place_of_the_run_s_earlier_one_only(path: Path, store: Store) -> None:
    for run in ("r1", "r2"):
        store.begin_run(start(run))
        store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")
        store.keep_verdict(Verdict(**{**_fields(VERDICT), "run": run}), "{}")
    store.keep_verdict(Verdict(**{**_fields(VERDICT), "word": Word.PASS, "findings": (), "holds": (), "steps": ()}), '{"a":1}')
    for table, left in (("measurement", 3), ("finding", 1), ("hold", 1)):
        assert ask(path, f"SELECT run, count(*) FROM {table} GROUP BY run") == [("r2", left)]
    assert (store.verdict("r1"), store.verdict("r2")) == ('{"a":1}', "{}")


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in Verdict.__slots__}


# ---------------------------------------------------------------- runs


def test_a_run_carries_its_own_copy_of_what_it_was_judged_with(path: Path, store: Store) -> None:
    begun = RunStart(
        "r1", "R-1", "p", None, True, False, "ann", "2026-11-21T12:00:00Z", {"b": [1.5, None], "a": {"x": "ü"}},
        ({"interlock": "leak", "by": "ann"},), "line1", 7,
    )  # fmt: skip
    store.begin_run(begun)
    run = store.run("r1")
    assert (run.suite, run.ships, run.whole, run.status, run.ended, run.pid) == (None, True, False, "RUNNING", None, 7)
    assert run.waivers == ({"interlock": "leak", "by": "ann"},)
    assert store.config("r1") == {"b": [1.5, None], "a": {"x": "ü"}}
    assert ask(path, "SELECT config FROM run") == [('{"a":{"x":"\\u00fc"},"b":[1.5,null]}',)]
    store.end_run("r1", "2026-11-21T13:00:00Z", "ABORTED")
    assert (store.run("r1").status, store.run("r1").ended) == ("ABORTED", "2026-11-21T13:00:00Z")


def test_two_runs_at_once_in_one_database_do_not_mix(path: Path, store: Store) -> None:
    other = open_store(path)
    store.begin_run(start("r1"))
    other.begin_run(start("r2", rack="R-2"))
    for s in range(30):
        for one, value in ((store, 1.0), (other, 2.0)):
            one.keep([Tick("t00", float(s), COLUMNS, (value, value)), LogLine("t00", float(s), "note", "", f"{value}", "agent")])
    for one, run, value in ((store, "r1", 1.0), (other, "r2", 2.0)):
        one.end_attempt(Attempt("base", "ecc", "t00", 1, Status.COMPLETE, Result.PASS, 0.0, 1.0, run))
        one.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")
        assert store.telemetry(run).of("t00.g0", "gpu.temp").v.tolist() == [value] * 30
        assert {line.text for line in store.log(run)} == {f"{value}"}
        assert [attempt.why for attempt in store.attempts(run)] == [run]
        assert store.rollups(run, "gpu.temp") == {"t00.g0": [Rollup(0, 1, 30, value, 30 * value, value)]}
    other.close()


def test_a_run_is_found_by_its_beginning(store: Store) -> None:
    with pytest.raises(InputError, match="holds no runs yet"):
        store.run("last")
    for run in ("20261121-1200-ab", "20261121-1200-cd", "20261121-1200", "x%_"):
        store.begin_run(start(run))
        store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")
    assert store.run("20261121-1200-a").id == "20261121-1200-ab"
    assert store.run("20261121-1200").id == "20261121-1200"
    assert store.run("last").id == store.run("x%").id == "x%_"
    for unknown in ("%", "_", "", "20261121-1200-AB", "y"):
        with pytest.raises(InputError, match="holds no run"):
            store.run(unknown)
    with pytest.raises(InputError, match=r"'2026' begins 3 runs \(.*20261121-1200-cd.*\): give more of it"):
        store.run("2026")
    assert [run.number for run in store.runs()] == [1, 2, 3, 4]


def test_the_last_run_of_a_rack_and_suite(store: Store) -> None:
    for run, rack, suite in (("r1", "A", "l11"), ("r2", "B", "l11"), ("r3", "A", "smoke"), ("r4", "A", None)):
        store.begin_run(start(run, rack, suite))
        store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")
    found = [store.last_run("A"), store.last_run("A", "l11"), store.last_run("B", "smoke"), store.last_run("C")]
    assert [run and run.id for run in found] == ["r4", "r1", None, None]


def test_a_run_begins_once_and_one_at_a_time(store: Store) -> None:
    with pytest.raises(StoreError, match="no run is being kept"):
        store.keep([])
    store.begin_run(start("r1"))
    with pytest.raises(StoreError, match="run r1 is still being kept: end it before r2 begins"):
        store.begin_run(start("r2"))
    store.end_run("r1", "2026-11-21T13:00:00Z", "COMPLETE")
    with pytest.raises(StoreError, match="does not take what it is given"):
        store.begin_run(start("r1"))


def test_a_run_that_another_process_left_behind_can_be_ended(path: Path, store: Store) -> None:
    dead = open_store(path)
    dead.begin_run(start())
    dead.keep([Tick("t00", float(s), COLUMNS, (40.0, 2.0)) for s in range(11)])
    dead.close()
    store.end_run("r1", "2026-11-21T13:00:00Z", "ABORTED")
    assert ask(
        path, "SELECT status, (SELECT count(*) FROM telemetry_frame), (SELECT count(*) FROM telemetry_block) FROM run"
    ) == [("ABORTED", 0, 1)]
    assert store.telemetry("r1").of("t00.g0", "gpu.temp").v.size == 11


def test_a_run_goes_with_all_that_was_its_own(path: Path, store: Store) -> None:
    for run in ("r1", "r2"):
        store.begin_run(start(run))
        store.keep(
            [
                Attached("t00", 0.0, "h1"),
                Tick("t00", 1.0, COLUMNS, (1.0, None), {1: "hung"}),
                LogLine("t00", 1.0, "note", "", "", "", 1),
                TrayState("t00", 0.0, "ready"),
            ]
        )
        store.keep([StageBegan(0, "base", "idle", 1.0, 0.0)])
        store.void([Voided("t00.g3", 0.5, "replaced")])
        store.keep_tray(Tray("t00", "10.1.1.11"))
        store.keep_evidence(Evidence("base", "ecc", "t00", 1, 0, "read", ""))
        store.end_attempt(Attempt("base", "ecc", "t00", 1, Status.COMPLETE, Result.PASS, 0.0, 1.0))
        store.end_run(run, "2026-11-21T13:00:00Z", "COMPLETE")
        store.keep_verdict(Verdict(**{**_fields(VERDICT), "run": run}), "{}")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM run WHERE id = 'r1'")
        db.commit()
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in tables:
            columns = [row[1] for row in db.execute(f"PRAGMA table_xinfo({name})")]
            if "run" in columns and name != "telemetry_frame":
                assert {run for (run,) in db.execute(f"SELECT run FROM {name}")} == {"r2"}, name
        assert db.execute("SELECT count(DISTINCT series), count(*) FROM rollup_row").fetchall() == [(1, 1)]


def test_accepted_host_keys_are_remembered(store: Store) -> None:
    first = Enrollment("2026-11-20T08:00:00Z", "R-1", "t07", "10.1.1.18", None, "SHA256:a", None, "ann", "line1")
    swap = Enrollment("2026-11-21T08:00:00Z", "R-1", "t07", "10.1.1.18", "SHA256:a", "SHA256:b", "165", "bob", "line1")
    for one in (
        first,
        swap,
        Enrollment("2026-11-21T08:00:00Z", "R-2", "t00", "10.2.1.11", None, "SHA256:c", None, "bob", "line1"),
    ):
        store.keep_enrollment(one)
    assert store.enrollments("R-1") == [first, swap]


def test_config_that_is_not_json_is_a_failure_and_no_run(store: Store) -> None:
    with pytest.raises(StoreError):
        store.begin_run(start("r1", limit=math.nan))
    assert store.runs() == []
