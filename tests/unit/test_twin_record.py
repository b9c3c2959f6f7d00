"""Racks that are written down: what a judge reads of them is what was computed, and the truth lies apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from burnin.assess import recorded
from burnin.cli import run
from burnin.errors import InputError
from burnin.rack.load import load_catalogue
from burnin.rack.parts import is_part
from burnin.signatures import find
from burnin.telemetry import directory
from burnin.twin.batch import simulate
from burnin.twin.faults import KINDS, LIVE, RECORDED, Plant, parse
from burnin.twin.model import load
from burnin.twin.plan import plan
from burnin.twin.record import TRUTH, as_read, record
from burnin.twin.scenario import every_part, plants_of, read_scenario
from tests.unit.test_twin_batch import two_hours

PLANTS = {1: (), 2: (parse("tim_void:t07.g2:3"), parse("link_margin:t03.g1.l4:4.5"), parse("xid:t11.g0:48"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded")
    record("gb300-nvl72", two_hours(), [1, 2], out, PLANTS.__getitem__)
    return out


@pytest.mark.long
def test_what_is_written_judges_as_what_was_computed(folder: Path) -> None:
    """The batch path and its signatures find exactly what the files and theirs do: part, signature, numbers, words."""
    when = as_read(plan(load("gb300-nvl72"), two_hours()))
    for one in simulate("gb300-nvl72", two_hours(), [1, 2], PLANTS.__getitem__, stretches=lambda _: when):
        kept = recorded.load(folder / f"TWIN-GB300-NVL72-{one.seed:04}")
        assert kept.telemetry.stretches == when
        topology, rows = kept.file.profile.topology, kept.catalogue.signatures
        judged = find(kept.telemetry, topology, rows, {}, kept.log)
        assert judged == find(one, topology, rows, {}, one.log)
        named = {finding.part for finding in recorded.judge(kept).findings if finding.severity != "WATCH"}
        assert named == {plant.part for plant in PLANTS[one.seed]}


@pytest.mark.long
def test_every_reading_comes_back(folder: Path) -> None:
    (one,) = simulate("gb300-nvl72", two_hours(), [2], PLANTS.__getitem__)
    kept = directory.read(folder / "TWIN-GB300-NVL72-0002", load_catalogue().metrics, is_part)
    assert set(kept.telemetry.series) == set(one.series) and kept.log is not None
    assert [(x.part, x.t_s, x.code) for x in kept.log] == [(x.part, x.t_s, x.code) for x in one.log]
    for key, series in one.series.items():
        again = kept.telemetry.series[key]
        assert np.array_equal(again.t_s, series.t_s) and np.array_equal(again.v, series.v), key


def test_the_truth_lies_beside_the_racks_and_in_none(folder: Path) -> None:
    truth = json.loads((folder / TRUTH).read_text())
    assert [one["part"] for one in truth["TWIN-GB300-NVL72-0002"]["plants"]] == ["t07.g2", "t03.g1.l4", "t11.g0"]
    assert truth["TWIN-GB300-NVL72-0001"]["plants"] == []
    for rack in truth:
        assert sorted(file.name for file in (folder / rack).iterdir()) == ["events.csv", "rack.yaml", "telemetry.parquet"]
        assert "tim_void" not in (folder / rack / "rack.yaml").read_text() + (folder / rack / "events.csv").read_text()


def test_the_command_writes_what_judge_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "twin",
        "record",
        "--suite",
        "demo",
        "--hours",
        "1",
        "--seed",
        "7",
        "--plant",
        "tray_dead:t04:900",
        "-o",
        str(tmp_path),
    ]
    assert run(words) == 0
    rack = tmp_path / "TWIN-GB300-NVL72-0007"
    assert capsys.readouterr().out.strip() == str(rack)
    assert run(["judge", str(rack), "--json", "-"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert {hold["part"].split(".")[0] for hold in said["holds"]} == {"t04"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--plant", "bmc_dead:t00.bmc"], "bmc_dead happens in live racks only"),
        (["--plant", "tim_void:t19.g0"], "has no t19.g0"),
        (["--tails", "fat"], "neither normal nor t5"),
        (["--scenario", "nowhere.yaml"], "nowhere.yaml"),
        (["--profile", "gb900"], "there is no twin of 'gb900'"),
    ],
)
def test_what_cannot_be_recorded_is_said_before_anything_is_written(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["twin", "record", "--hours", "1", *words, "-o", str(tmp_path / "out")]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- scenarios


def test_a_scenario_has_times_and_growth(tmp_path: Path) -> None:
    file = tmp_path / "late.yaml"
    file.write_text(
        "scenario: late\nabout: two\nfaults:\n"
        '  - {plant: "tray_flow:t09:0.4", at: 3 h}\n'
        '  - {plant: "tim_void:t07.g2:2", at: 1 h, growth: linear, over: 6 h}\n'
    )
    assert plants_of("gb300-nvl72", ["xid:t00.g0"], file)(5) == (
        Plant("xid", "t00.g0", 95),
        Plant("tray_flow", "t09", 0.4, 10800.0),
        Plant("tim_void", "t07.g2", 2.0, 3600.0, "linear", 21600.0),
    )
    with pytest.raises(InputError, match="begins late or grows in recorded racks only"):
        plants_of("gb300-nvl72", [], file, seam=LIVE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("draw: {faulty: 0.3, kinds: {melt: {weight: 1}}}", "there is no fault 'melt'"),
        ("draw: {faulty: 0.3, kinds: {tim_void: {weight: 1, severity: [0.1, 99]}}}", "are not within 0.05 to 20"),
        ("draw: {faulty: 0.3, kinds: {shelf_lost: {weight: 1, severity: [1, 2]}}}", "takes no severity"),
        ("draw: {faulty: 1.3, kinds: {tim_void: {weight: 1}}}", "faulty"),
        ('faults: [{plant: "tim_void:t07.g2:2", at: soon}]', "soon"),
    ],
)
def test_a_mistake_in_a_scenario_is_said_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"scenario: wrong\n{text}\n")
    with pytest.raises(InputError) as caught:
        plants_of("gb300-nvl72", [], file)
    assert says in str(caught.value) and "wrong.yaml:2" in str(caught.value)


def test_the_shipped_scenario_draws_as_its_priors_say() -> None:
    """A seed is one draw; a third of the racks has something; every kind comes; what is drawn can be typed, and exists."""
    prior = read_scenario(Path("field")).draw
    assert prior is not None
    draw = plants_of("gb300-nvl72", [], Path("field"), hours=48)
    racks = [draw(seed) for seed in range(3000)]
    assert racks[:50] == [draw(seed) for seed in range(50)]
    faulty = [plants for plants in racks if plants]
    assert len(faulty) / len(racks) == pytest.approx(prior.faulty, abs=0.03)
    assert sum(map(len, faulty)) / len(faulty) == pytest.approx(1 + prior.more, abs=0.1)
    seen = [plant for plants in faulty for plant in plants]
    assert len({plant.kind for plant in seen}) > 25
    total = sum(one.weight for one in prior.kinds.values())
    share = sum(plant.kind == "gpu_off_bus" for plant in seen) / len(seen)
    assert share == pytest.approx(prior.kinds["gpu_off_bus"].weight / total, abs=0.04)
    there = {what: set(every_part(load("gb300-nvl72"), what)) for kind in KINDS.values() for what in kind.parts}
    for plant in seen:
        kind = KINDS[plant.kind]
        assert RECORDED in kind.seams and kind.least <= plant.severity <= kind.most
        assert any(plant.part in there[what] for what in kind.parts)


def test_live_racks_draw_only_what_lives() -> None:
    draw = plants_of("gb300-nvl72", [], Path("field"), seam=LIVE, hours=1)
    seen = [plant for seed in range(400) for plant in draw(seed)]
    assert seen and all(LIVE in KINDS[p.kind].seams for p in seen)
    assert all(p.start_s is None or KINDS[p.kind].starts for p in seen)
