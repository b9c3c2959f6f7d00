"""`burnin compare`: one rack before and after a repair, each part its own control."""

from __future__ import annotations

import json
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnin.assess import changes
from burnin.checks import OFFERS
from burnin.cli.app import command
from burnin.errors import InputError
from burnin.rack.load import load_catalogue, load_profile
from burnin.signatures.changed import CHANGED, QUANTITIES, Compared, compare
from burnin.signatures.readings import Readings
from burnin.store import Tray, open_store
from burnin.suites.load import load_suite
from burnin.telemetry.series import Telemetry
from burnin.twin.batch import simulate
from burnin.twin.faults import Plant
from tests.unit.test_assess import Story, _identity

ROW = load_catalogue().signatures[CHANGED]
TOPOLOGY = load_profile("gb300-nvl72").topology


@cache
def run(hours: float, *plants: Plant, seed: int = 21) -> Telemetry:
    """The same parts each time, but other readings: a run of another length draws its noise anew."""
    suite = load_suite("post-repair", checks=OFFERS, metrics=load_catalogue().metrics)
    return next(simulate("gb300-nvl72", suite, [seed], lambda _: plants, hours=hours))


def compared(before: Telemetry, after: Telemetry, *new: str) -> Compared:
    return compare(Readings(before, TOPOLOGY, {}), Readings(after, TOPOLOGY, {}), ROW, new)


def said(one: Compared) -> set[tuple[str, str, str]]:
    return {(f.part, str(f.evidence["quantity"]), str(f.severity)) for f in one.findings}


def test_a_rack_that_nobody_touched_has_not_changed() -> None:
    """Five racks, whose parts differ as healthy parts do: that falls out."""
    for seed in range(21, 26):
        one = compared(run(1.0, seed=seed), run(1.2, seed=seed))
        assert said(one) == set() and all(one.parts.values()) and one.missing == {}
        assert list(one.parts) == [what.said for what in QUANTITIES]


@pytest.mark.parametrize(
    ("plant", "part", "quantity"),
    [
        (Plant("tim_void", "t07.g2", 0.4), "t07.g2", "slope"),
        (Plant("tray_flow", "t07", 0.2), "t07", "slope"),
        (Plant("tsensor_off", "t07.g2", 3.0), "t07.g2", "idle"),
        (Plant("leaky_die", "t07.g2", 0.5), "t07.g2", "power"),
        (Plant("link_margin", "t07.g2.l13", 1.0), "t07.g2.l13", "margin"),
        (Plant("link_margin", "t07.g2", 0.6), "t07.g2", "margin"),
    ],
)
def test_what_one_run_cannot_tell_from_healthy_spread_a_pair_does(plant: Plant, part: str, quantity: str) -> None:
    """Worse after the repair is HOLD, better is WATCH; nobody who has nothing to do with it is named."""
    healthy, weak = run(1.0), run(1.2, plant)
    worse, better = said(compared(healthy, weak)), said(compared(weak, healthy))
    assert (part, quantity, "HOLD") in worse and (part, quantity, "WATCH") in better
    assert {name for name, _, _ in worse | better} <= {part, *(f"t07.g{i}" for i in range(4) if part == "t07")}


def test_what_moves_the_whole_rack_is_nobodys() -> None:
    warm = run(1.2, Plant("supply_warm", "cdu", 4.0))
    assert {f.part for f in compared(run(1.0), warm).findings} == set()


def test_a_part_that_was_replaced_has_no_before() -> None:
    weak = run(1.2, Plant("tim_void", "t07.g2", 1.0))
    one = compared(run(1.0), weak, "t07.g2")
    assert "t07.g2" not in {f.part for f in one.findings} and max(one.parts.values()) == 71 * 18
    assert min(compared(run(1.0), weak, "t07").parts.values()) == 68


def test_what_was_not_read_in_one_of_them_is_not_compared_and_said() -> None:
    before = run(1.0)
    some = Telemetry(
        {key: one for key, one in before.series.items() if key[1] not in ("nvlink.raw_ber", "gpu.clock_sm")}, before.stretches
    )
    parts = compared(some, run(1.2)).parts
    assert [what.key for what in QUANTITIES if not parts[what.said]] == ["clock", "margin"]
    none = compared(Telemetry({}, ()), run(1.2))
    assert not none.findings and not any(none.parts.values())


def _directory(place: Path, telemetry: Telemetry, rack: str = "R-0001") -> Path:
    """A judge directory with a reading a minute."""
    place.mkdir()
    (place / "rack.yaml").write_text(f'rack: {rack}\nprofile: gb300-nvl72\ntrays:\n  t[00-17]: {{host: "10.1.1.[11-28]"}}\n')
    lines = ["time_s,phase,part,metric,value"]
    for (part, metric), one in telemetry.series.items():
        if metric in ("gpu.temp", "gpu.power"):
            for s in telemetry.stretches:
                for t, v in zip(one.t_s[::6].tolist(), one.v[::6].tolist(), strict=True):
                    if s.t0_s <= t < s.t1_s and v == v:
                        lines.append(f"{t:.1f},{s.phase},{part},{metric},{v}")
    (place / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return place


def test_directories_are_compared_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    healthy = _directory(tmp_path / "before", run(1.0))
    weak = _directory(tmp_path / "after", run(1.2, Plant("tim_void", "t07.g2", 0.8)))
    out = tmp_path / "told.json"
    with pytest.raises(SystemExit) as ended:
        command()(["compare", str(healthy), str(weak), "--json", str(out)])
    assert ended.value.code == 3
    text = capsys.readouterr().out
    assert "t07.g2: worse: thermal resistance" in text and "margin lost on its links: not compared" in text
    told = json.loads(out.read_text())
    assert told["compared"]["findings"][0]["part"] == "t07.g2" and told["new"] == []
    other = _directory(tmp_path / "other", run(1.0), "R-0002")
    with pytest.raises(InputError, match="only one rack is compared with itself"):
        changes.compare(str(healthy), str(other), None)
    with pytest.raises(InputError, match="given twice"):
        changes.compare(str(healthy), str(healthy), None)


def _stored(place: Path, after: dict[tuple[str, str], Any], other: str = "") -> Path:
    """Two runs of one rack in a database: r1, and r2 with other readings; `other` is a tray whose GPUs are others in it."""
    path = place / "burnin.db"
    for run_id, readings in (("r1", {}), ("r2", after)):
        with closing(open_store(path)) as store:
            Story(store, run=run_id, readings=readings, end=None).tell()
            if run_id == "r2" and other:
                one = _identity(other)
                gpus = [{**gpu, "serial": f"NEW{gpu['serial']}"} for gpu in one["gpus"]]
                store.keep_tray(Tray(other, "192.0.2.1:22", None, f"J{other}", {**one, "gpus": gpus}))
            store.end_run(run_id, "2026-11-21T10:01:00Z", "COMPLETE")
    return path


def test_two_runs_of_a_database_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _stored(tmp_path, {("t02.g1", "gpu.temp"): (35.0, 80.0)})
    with closing(open_store(path)) as store:
        told = changes.compare("r1", "r2", store)
        assert said(told.compared) == {("t02.g1", "slope", "HOLD")} and told.new == () and told.compared.missing == {}
        assert said(changes.compare("r2", "r1", store).compared) == {("t02.g1", "slope", "WATCH")}
        with pytest.raises(InputError, match="given twice"):
            changes.compare("r1", "r1", store)
        with pytest.raises(InputError):
            changes.compare("r1", "r9", store)
    with pytest.raises(SystemExit) as ended:
        command()(["compare", "r1", "r2", "--db", str(path)])
    assert ended.value.code == 3 and "t02.g1: worse: thermal resistance" in capsys.readouterr().out


def test_a_part_that_was_replaced_between_two_runs_is_known_by_its_serial(tmp_path: Path) -> None:
    with closing(open_store(_stored(tmp_path, {("t02.g1", "gpu.temp"): (35.0, 80.0)}, other="t02"))) as store:
        told = changes.compare("r1", "r2", store)
    assert told.new == tuple(f"t02.g{i}" for i in range(4))
    assert told.compared.findings == () and told.compared.missing == {}


def test_what_died_in_the_repair_is_no_better_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One GPU is not read any more: nobody got worse, and nothing is said to be well."""
    path = _stored(tmp_path, {("t03.g0", metric): None for metric in ("gpu.temp", "gpu.power")})
    with pytest.raises(SystemExit) as ended:
        command()(["compare", "r1", "r2", "--db", str(path)])
    assert ended.value.code == 3
    assert "temperature at idle against the rack: 23 parts compared, not t03.g0" in capsys.readouterr().out
    after = run(1.2)
    links = {key for key in after.series if key[0].startswith("t07.g2.l1") and key[1] == "nvlink.raw_ber"}
    rest = Telemetry({key: one for key, one in after.series.items() if key not in links}, after.stretches)
    one = compared(run(1.0), rest)
    assert one.missing == {"margin lost on its links": tuple(sorted({part for part, _ in links}, key=lambda p: int(p[8:])))}
    assert compared(run(1.0), rest, "t07.g2").missing == {} and len(links) == 9


def test_a_hostile_reading_names_nobody_else() -> None:
    after = run(1.2)
    broken = {
        key: type(one)(one.t_s, np.full(one.v.size, 1e300)) if key == ("t03.g1", "gpu.temp") else one
        for key, one in after.series.items()
    }
    assert {f.part for f in compared(run(1.0), Telemetry(broken, after.stretches)).findings} <= {"t03.g1", "t03"}
