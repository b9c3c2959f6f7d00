"""`burnin judge DIR`: telemetry that burnin did not record, whole, cut, gapped and hostile."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnin.assess import recorded
from burnin.cli import run
from burnin.errors import InputError
from burnin.events import LogLine, Severity, Word
from burnin.telemetry import directory, table
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import racks

YAML = 'rack: R-1\nprofile: gb300-nvl72\ntrays:\n  t[00-17]: {host: "192.0.2.[11-28]"}\n'
HEAD = "time_s,phase,part,metric,value\n"


def healthy(seed: int = 3, **change: float) -> Telemetry:
    one = racks.rack(seed)
    for name, factor in change.items():
        getattr(one, name)[racks.cell("t07.g2")] *= factor
    return racks.telemetry(one)


def kept(folder: Path, telemetry: Telemetry, parquet: bool = True, log: list[LogLine] | None = None) -> Path:
    with directory.Writer(folder, YAML, parquet) as out:
        out.telemetry(telemetry)
    if log is not None:
        out.events(log)
    return folder


def only(telemetry: Telemetry, keep: Callable[[str, str], bool]) -> Telemetry:
    return Telemetry({key: one for key, one in telemetry.series.items() if keep(*key)}, telemetry.stretches)


def judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run(["judge", str(folder), "--json", "-"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("parquet", [True, False])
def test_what_is_written_is_read_again(tmp_path: Path, parquet: bool) -> None:
    t = np.arange(0.3, 30.0, 1.0)
    hole = np.where(t > 20, np.nan, 40 + t)
    stretches = (Stretch("idle", "idle", 0, 10), Stretch("load", "load@1500", 12, 30))
    telemetry = Telemetry({("t00.g0", "gpu.temp"): Series(t, hole), ("cdu", "coolant.flow"): Series(t[:3], t[:3])}, stretches)
    log = [LogLine("t00.g0", 3.25, "xid", "79", 'off, the "bus"\nof it', "nvml")]
    folder = kept(tmp_path / "d", telemetry, parquet, log)
    back = directory.read(folder, {"gpu.temp", "coolant.flow"}, lambda part: True)
    for key, one in telemetry.series.items():
        np.testing.assert_array_equal(back.telemetry.series[key].t_s, one.t_s)
        np.testing.assert_array_equal(back.telemetry.series[key].v, one.v)
    assert [(s.phase, s.t0_s) for s in back.telemetry.stretches] == [("idle", 0.3), ("between", 10.3), ("load@1500", 12.3)]
    assert back.counts["t00.g0", "gpu.temp", "load@1500"] == 8  # 12.3 ... 19.3; the ten after them are null
    assert back.log == (LogLine("t00.g0", 3.25, "xid", "79", 'off, the "bus"\nof it', "events.csv"),)


def test_a_phase_that_recurs_has_its_windows_even_where_a_part_missed_what_lay_between() -> None:
    t = np.arange(0.0, 60.0, 1.0)
    phase = np.array([0] * 10 + [1] * 20 + [0] * 10 + [1] * 20, np.uint16)
    whole = table.Course(t, phase, ["idle", "load"], frozenset({"t00"}))
    keep = (t < 30) | (t >= 40)
    lost = table.Course(t[keep], phase[keep], ["idle", "load"], frozenset({"t00"}))
    slow = table.Course(t[::7], phase[::7], ["idle", "load"])
    for courses in ([whole, lost, slow], [slow, lost, whole]):
        found = table.stretches(courses)
        assert [(s.stage, s.phase, s.t0_s, s.t1_s) for s in found] == [
            ("idle", "idle", 0, 10), ("load", "load", 10, 30), ("idle (2)", "idle", 30, 40), ("load (2)", "load", 40, 60),
        ]  # fmt: skip
        assert [s.settle_s for s in found] == [2.5, 5, 2.5, 5]


def test_rows_in_any_order_are_one_series(tmp_path: Path) -> None:
    folder = kept(tmp_path / "d", healthy(), parquet=False)
    path = folder / "telemetry.csv"
    lines = path.read_text().splitlines(keepends=True)
    first = recorded.judge(recorded.load(folder))
    order = np.random.default_rng(1).permutation(len(lines) - 1) + 1
    path.write_text(lines[0] + "".join(lines[i] for i in order))
    assert recorded.judge(recorded.load(folder)) == first


def test_a_healthy_rack_passes_and_ships_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = judged(kept(tmp_path / "d", healthy()), capsys)
    assert (code, said["verdict"], said["suite"], said["ships"], said["started"]) == (0, "PASS", None, False, None)
    assert said["coverage"]["required"] == said["coverage"]["measured"] == 72 * 9 * 3


def test_a_weak_gpu_fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = judged(kept(tmp_path / "d", healthy(tim=3.0)), capsys)
    assert (code, said["verdict"]) == (1, "FAIL")
    assert {f["part"] for f in said["findings"] if f["severity"] == "FAIL"} == {"t07.g2"}


def test_a_part_that_its_peers_outnumber_is_a_hole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = only(healthy(), lambda part, metric: (part, metric) != ("t07.g2", "gpu.temp"))
    code, said = judged(kept(tmp_path / "d", absent), capsys)
    assert (code, said["coverage"]["missing"]) == (3, [f"t07.g2 gpu.temp {phase}" for phase in ("idle", "load", "load-2")])
    assert [(h["kind"], h["part"]) for h in said["holds"]] == [("unmeasured", "t07.g2")]


@pytest.mark.parametrize("lacks", ["gpu.power", "idle"])
def test_a_weak_gpu_that_nothing_could_tell_does_not_pass(lacks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loads alone, or temperatures alone, say nothing of a cold plate: a void of +200 % was PASS."""
    one = healthy(tim=3.0)
    loads = tuple(s for s in one.stretches if s.phase.startswith("load"))
    left = Telemetry({k: s.between(loads[0].t0_s, 1e9) for k, s in one.series.items()}, loads)
    cut = left if lacks == "idle" else only(one, lambda part, metric: metric != lacks)
    code, said = judged(kept(tmp_path / "d", cut), capsys)
    assert (code, said["coverage"]["missing"]) == (3, [])
    assert any("thermal resistance" in hold["why"] and hold["part"] == "rack" for hold in said["holds"])


def test_a_metric_that_nobody_has_is_not_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = only(healthy(), lambda part, metric: metric in ("gpu.temp", "gpu.power"))
    assert judged(kept(tmp_path / "d", few), capsys)[0] == 0


def test_gaps_are_allowed_and_half_a_window_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = healthy()
    rng = np.random.default_rng(2)
    gapped = {k: Series(s.t_s, np.where(rng.random(s.t_s.size) < 0.2, np.nan, s.v)) for k, s in whole.series.items()}
    assert judged(kept(tmp_path / "gaps", Telemetry(gapped, whole.stretches)), capsys)[0] == 0
    one = gapped["t03.g1", "gpu.power"]
    gapped["t03.g1", "gpu.power"] = Series(one.t_s, np.where((one.t_s > 22) & (one.t_s < 42), np.nan, one.v))
    code, said = judged(kept(tmp_path / "hole", Telemetry(gapped, whole.stretches)), capsys)
    assert (code, said["coverage"]["missing"]) == (3, ["t03.g1 gpu.power load"])


def test_few_trays_and_unloaded_racks_are_no_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept(tmp_path / "few", only(healthy(), lambda part, metric: part < "t02"))
    (folder / "rack.yaml").write_text('rack: R-1\nprofile: gb300-nvl72\ntrays:\n  t[00-01]: {host: "192.0.2.[11-12]"}\n')
    code, said = judged(folder, capsys)
    assert code == 3 and "no family" in said["holds"][0]["why"]
    idle = racks.telemetry(racks.rack(3), (racks.IDLE,))
    code, said = judged(kept(tmp_path / "idle", idle), capsys)
    assert code == 3 and "no loaded phase" in said["holds"][0]["why"]


def test_xids_weigh_what_the_catalogue_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = [LogLine("t07.g2", 30.0, "xid", "79", "fallen off the bus", ""), LogLine("t01.g0", 30.0, "xid", "43", "reset", "")]
    folder = kept(tmp_path / "d", healthy(), log=log)
    code, said = judged(folder, capsys)
    assert code == 1
    assert {(f["part"], f["signature"], f["severity"]) for f in said["findings"]} >= {("t07.g2", "xid.79", "FAIL")}


def test_what_follows_an_xid_within_seconds_points_at_the_first() -> None:
    lines = [("t05.g1", 2006.0, "74"), ("t05.g2", 2000.0, "48"), ("t05.g0", 2015.0, "74"), ("t01.g0", 2030.0, "43")]
    heads = recorded._heads([LogLine(part, t, "xid", code, "", "") for part, t, code in lines])
    assert {t: line.part for t, line in heads.items()} == {2000.0: "t05.g2", 2006.0: "t05.g2", 2015.0: "t05.g2", 2030.0: "t01.g0"}


def test_a_load_below_its_limit_proves_nothing(tmp_path: Path) -> None:
    telemetry = healthy()
    limit = {
        (p, "gpu.power_limit"): Series(s.t_s, np.full(s.t_s.size, 1400.0))
        for (p, m), s in telemetry.series.items()
        if m == "gpu.temp"
    }
    power = telemetry.series["t07.g2", "gpu.power"]
    weak = {("t07.g2", "gpu.power"): Series(power.t_s, power.v * 0.7)}
    verdict = recorded.judge(
        recorded.load(kept(tmp_path / "d", Telemetry({**telemetry.series, **limit, **weak}, telemetry.stretches)))
    )
    assert verdict.word is Word.HOLD
    assert [(f.part, f.severity) for f in verdict.findings if f.signature == "load.not_attained"] == [("t07.g2", Severity.HOLD)]


BAD = {
    "empty": "",
    "header only words": "hello\nworld\n",
    "a column is missing": "time_s,part,metric,value\n1,t00.g0,gpu.temp,3\n",
    "a word for a number": HEAD + "1,idle,t00.g0,gpu.temp,warm\n",
    "a word for a time": HEAD + "soon,idle,t00.g0,gpu.temp,3\n",
    "no time": HEAD + ",idle,t00.g0,gpu.temp,3\n",
    "infinite time": HEAD + "inf,idle,t00.g0,gpu.temp,3\n",
    "no phase": HEAD + "1,,t00.g0,gpu.temp,3\n",
    "no part": HEAD + "1,idle,,gpu.temp,3\n",
    "unknown metric": HEAD + "1,idle,t00.g0,gpu.tempp,3\n",
    "unknown part": HEAD + "1,idle,../../etc/passwd,gpu.temp,3\n",
    "a GPU too many": HEAD + "1,idle,t00.g4,gpu.temp,3\n",
    "a tray not in the rack": HEAD + "1,idle,t18,tray.power,3\n",
    "a row cut short": HEAD + "1,idle,t00.g0,gpu.temp,3\n2,idle,t00",
    "an endless phase": HEAD + f"1,{'x' * 500},t00.g0,gpu.temp,3\n",
    "binary": "\x00\x01\x02\xff" * 50,
    "milliseconds": HEAD + "1800000000000,idle,t00.g0,gpu.temp,3\n",
    "a column twice": "time_s,phase,part,metric,value,value\n1,idle,t00.g0,gpu.temp,3,4\n",
}
AT = {
    "a word for a number": ":2: column value: no number: 'warm'", "a word for a time": ":2: column time_s: ",
    "infinite time": ":2: time_s is not a number",
    "unknown metric": ":2: metric 'gpu.tempp'", "a row cut short": ":3: Expected 5",
    "a GPU too many": ":2: 't00.g4' is no part", "milliseconds": ":2: time_s is 1.8e+12",
    "a column twice": ":1: has the column value",
    "header only words": ":1: has no column time_s", "no phase": ":2: phase ''",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_table_is_one_sentence_and_exit_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rack.yaml").write_text(YAML)
    (tmp_path / "telemetry.csv").write_bytes(BAD[name].encode("latin-1"))
    assert run(["judge", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and f"telemetry.csv{AT.get(name, '')}" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "what"),
    [(gzip.compress(HEAD.encode()), "is compressed by gzip"), (HEAD.encode("utf-16"), "is UTF-16"), (b"PAR1", "is Parquet"),
     (HEAD.replace(",", ";").encode(), "has no column time_s, phase, part, metric, value in its first line ('time_s;phase;")],
    ids=["gzip", "UTF-16", "Parquet", "semicolons"],
)  # fmt: skip
def test_a_table_of_another_kind_is_told_by_its_kind(text: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "telemetry.csv").write_bytes(text)
    with pytest.raises(InputError, match=re.escape(f"telemetry.csv:1: {what}")):
        directory.read(tmp_path, {"gpu.temp"}, lambda part: True)


def test_phases_that_change_with_every_reading_are_not_judged_for_hours(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'idle' if i % 2 else 'load'},t00.g0,gpu.temp,40\n" for i in range(5000))
    (tmp_path / "telemetry.csv").write_text(HEAD + rows)
    with pytest.raises(InputError, match="its phase changes 5000 times"):
        directory.read(tmp_path, {"gpu.temp"}, lambda part: True)


@pytest.mark.parametrize("blank", ["9223372036854775792", "140737488355330", "2147483632", "18446744073709551615", "inf"])
def test_what_was_not_read_is_no_value_whoever_wrote_it(blank: str, tmp_path: Path) -> None:
    (tmp_path / "telemetry.csv").write_text(HEAD + f"1,idle,t00.g0,ecc.dram_ue,0\n2,idle,t00.g0,ecc.dram_ue,{blank}\n")
    back = directory.read(tmp_path, {"ecc.dram_ue"}, lambda part: True)
    assert back.telemetry.of("t00.g0", "ecc.dram_ue").known().tolist() == [0.0]
    assert back.counts == {("t00.g0", "ecc.dram_ue", "idle"): 1}


EVENTS = "time_s,part,kind,code,text\n"


@pytest.mark.parametrize(
    "text",
    ["", "time_s,part\n", EVENTS + "x,t00.g0,xid,79,\n", EVENTS + "1,nobody,xid,79,\n", EVENTS + "1,t00.g0,xid,seventy,\n",
     EVENTS + "1,t00.g0\n", EVENTS + "1,t00.g0,xid,79," + "x" * 200_000 + "\n"],
)  # fmt: skip
def test_hostile_events_are_one_sentence_and_exit_2(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept(tmp_path / "d", racks.telemetry(racks.rack(1), (racks.IDLE,)))
    (folder / "events.csv").write_text(text)
    assert run(["judge", str(folder)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "events.csv" in said


def test_directories_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["judge", str(tmp_path)]) == 2
    assert "rack.yaml" in capsys.readouterr().err
    (tmp_path / "rack.yaml").write_text(YAML)
    assert run(["judge", str(tmp_path)]) == 2
    assert "holds no telemetry" in capsys.readouterr().err
    (tmp_path / "telemetry.parquet").write_bytes(b"PAR1 and nothing more")
    assert run(["judge", str(tmp_path)]) == 2
    assert "cannot be read as parquet" in capsys.readouterr().err
    assert run(["judge", str(tmp_path / "nothing" / "here")]) == 2
    assert "there is no such" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such folder"):
        directory.read(tmp_path / "nothing", set(), lambda part: True)


def test_columns_of_other_kinds(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    words = {"phase": ["idle", "load"], "part": ["t00.g0"] * 2, "metric": ["gpu.temp"] * 2}
    good = {"time_s": pa.array([1, 2], pa.int32()), **words, "value": pa.array([40.5, 60.5], pa.float32()), "more": [1, 2]}
    parquet.write_table(pa.table(good), tmp_path / "telemetry.parquet")
    series = directory.read(tmp_path, {"gpu.temp"}, lambda part: True).telemetry.of("t00.g0", "gpu.temp")
    assert (series.t_s.tolist(), series.v.tolist()) == ([1, 2], [40.5, 60.5])
    for name, column in (("value", ["a", "b"]), ("part", [1, 2]), ("time_s", ["1", "2"]), ("metric", [["x"], ["y"]])):
        parquet.write_table(pa.table({**good, name: column}), tmp_path / "telemetry.parquet")
        with pytest.raises(InputError):
            directory.read(tmp_path, {"gpu.temp"}, lambda part: True)


def staggered(telemetry: Telemetry, late: Callable[[str], float]) -> dict[tuple[str, str], tuple[Any, Any]]:
    """(part, metric) -> times later by `late`, and the phases that they were read in."""
    out = {}
    for (part, metric), one in telemetry.series.items():
        names = np.full(one.t_s.size, "between", object)
        for stretch in telemetry.stretches:
            names[(one.t_s >= stretch.t0_s) & (one.t_s < stretch.t1_s)] = stretch.phase
        out[part, metric] = one.t_s + late(part), names
    return out


def written(folder: Path, telemetry: Telemetry, when: dict[tuple[str, str], tuple[Any, Any]]) -> Path:
    with directory.Writer(folder, YAML) as out:
        for key, (t, names) in when.items():
            for name in dict.fromkeys(names):
                out.series(name, *key, t[names == name], telemetry.series[key].v[names == name])
    return folder


@pytest.mark.parametrize(("late_s", "tim", "named"), [(3.0, 1.0, set()), (500.0, 3.0, {"t07.g2"})])
def test_trays_that_went_through_the_phases_one_after_the_other(
    late_s: float, tim: float, named: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Judged by one clock for all, the load of one would be the idle of the next: healthy ones held, weak ones passed."""
    one = healthy(tim=tim)
    folder = written(tmp_path / "d", one, staggered(one, lambda part: late_s * int(part[1:3])))
    code, said = judged(folder, capsys)
    assert (code, {f["part"] for f in said["findings"] if f["severity"] != "WATCH"}) == (len(named), named)


def test_gpus_of_one_tray_in_different_phases_are_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = healthy()
    folder = written(tmp_path / "d", one, staggered(one, lambda part: 20.0 * int(part[-1])))
    assert run(["judge", str(folder)]) == 2
    assert "the GPUs of t00 are in different phases at the same time" in capsys.readouterr().err
