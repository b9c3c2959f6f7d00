"""Fleet baselines: what they learn, when they count, what they see that no comparison within a rack can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from burnin import signatures
from burnin.cli import run
from burnin.events import Finding, Severity
from burnin.rack.load import load_catalogue
from burnin.signatures import zones
from burnin.signatures.baseline import Baseline, Key, build, kind_of
from burnin.signatures.readings import Readings
from burnin.signatures.tails import GAUSS, UNKNOWN
from burnin.telemetry.series import Floats
from tests import racks
from tests.unit.test_judge_dir import kept

ROWS = load_catalogue().signatures
KEY = Key(profile="gb300-nvl72")


def learned(seeds: range) -> Baseline:
    many = {}
    for seed in seeds:
        readings = Readings(racks.telemetry(racks.rack(seed)), racks.topology(), {})
        signatures.look(readings, ROWS)
        many[str(seed)] = readings.learned
    return build(KEY, many)


@pytest.fixture(scope="module")
def ten() -> Baseline:
    return learned(range(900, 910))


def find(one: racks.Rack, baseline: Baseline | None, same: bool = True) -> list[Finding]:
    return signatures.find(racks.telemetry(one), racks.topology(), ROWS, {}, (), baseline, same)


def test_places_and_spreads_are_learned_from_the_racks() -> None:
    rng = np.random.default_rng(1)
    slots, positions = np.array([-0.03, 0.01, 0.0, 0.05]), np.linspace(-0.04, 0.04, 18)

    def grid() -> Floats:
        own, trays, level = rng.normal(0, 0.02, (18, 4)), rng.normal(0, 0.01, 18), rng.normal(5, 0.1)
        return np.asarray(level + slots + (positions + trays)[:, None] + own)

    one = build(KEY, {str(i): {("x", "load"): [grid()]} for i in range(60)}).of("x", "load-2")
    assert one is not None
    assert np.array(one.slots) - np.median(one.slots) == pytest.approx(slots - np.median(slots), abs=0.004)
    assert one.positions == pytest.approx(positions, abs=0.008)
    assert (one.racks, one.parts, one.tail) == (60, 60 * 72, None)
    assert (one.within, one.level, one.levels) == pytest.approx((0.02, 5.0, 0.1), rel=0.3)


def test_heavy_tails_are_learned_where_there_are_enough_parts() -> None:
    rng = np.random.default_rng(2)
    many = {str(i): {("x", "load"): [rng.standard_t(5, (18, 4))]} for i in range(60)}
    one = build(KEY, many).of("x", "load")
    assert one is not None and one.tail is not None and 3.5 < one.tail < 8


def test_a_skewed_family_holds_its_far_side_from_further_out_and_not_the_other() -> None:
    rng = np.random.default_rng(3)
    grids = [np.asarray((rng.gamma(100, size=(18, 4)) - 100) / 10) for _ in range(151)]
    known = build(KEY, {str(i): {("x", "load"): [grid]} for i, grid in enumerate(grids[:150])})
    one = known.of("x", "load")
    assert one is not None and one.tail is None and one.skew == pytest.approx(0.2, abs=0.06)
    readings = Readings(racks.telemetry(racks.rack(33)), racks.topology(), {}, known)
    family, row = readings.family("x", "load", grids[150], 0.0), ROWS["power.leak"]
    usual = zones.held_from(row, 72, family.dof, family.tail)
    assert family.skew == one.skew and zones.held_from(row, 72, family.dof, family.tail, family.skew) > usual + 0.4
    assert zones.held_from(row, 72, family.dof, family.tail, -family.skew) == usual
    other = Readings(racks.telemetry(racks.rack(33)), racks.topology(), {}, known, same=False)
    assert other.family("x", "load", grids[150], 0.0).skew == 0.0, "other parts may lean another way"


def test_a_baseline_of_other_parts_does_not_tell_that_these_have_no_tail() -> None:
    """To know that it is another's must not hold more racks than to have none."""
    rng = np.random.default_rng(3)
    known = build(KEY, {str(i): {("x", "load"): [rng.standard_normal((18, 4))]} for i in range(150)})
    grid, row = rng.standard_normal((18, 4)), ROWS["perf.watt"]
    looks = [Readings(racks.telemetry(racks.rack(33)), racks.topology(), {}, known, same) for same in (True, False)]
    mine, other = (look.family("x", "load", grid, 0.0) for look in looks)
    alone = Readings(looks[0].telemetry, racks.topology(), {}).family("x", "load", grid, 0.0)
    assert mine.tail == GAUSS and other.tail == alone.tail == UNKNOWN
    edges = [zones.held_from(row, 72, one.dof, one.tail) * one.sigma for one in (mine, other, alone)]
    assert edges[0] < 0.7 * edges[1] and edges[1] > 0.95 * edges[2]


def test_a_baseline_that_was_built_before_skewness_was_learned_is_still_itself() -> None:
    rng = np.random.default_rng(1)
    now = build(KEY, {str(i): {("x", "load"): [rng.standard_normal((18, 4))]} for i in range(3)})
    before = json.loads(now.model_dump_json())
    for family in before["families"].values():
        assert family.pop("skew") == 0.0
    assert Baseline.model_validate(before) == now


def test_what_a_small_group_draws_to_itself_widens_its_limits() -> None:
    """18 links of a GPU, less their median: those far out do not move it, and pass a limit as often as it says."""
    readings = Readings(racks.telemetry(racks.rack(33)), racks.topology(), {})
    links = np.random.default_rng(4).standard_normal((18, 4, 18))
    own = links - np.median(links, axis=2)[:, :, None]
    family = readings.spread("x", "load", own, 0.0)
    mad = 1.4826 * float(np.median(np.abs(own - np.median(own))))
    assert family.sigma == pytest.approx(mad * (1 + 2 / 18) ** 0.5)
    assert family.sigma == pytest.approx((1 + np.pi / 2 / 18) ** 0.5, rel=0.05), "of a link that is apart from all others"


@pytest.mark.parametrize(
    ("phase", "kind"),
    [("load-2", "load"), ("load@1500-2", "load@1500"), ("idle-end", "idle"), ("load", "load"), ("ramp", "ramp")],
)
def test_kinds_of_phases(phase: str, kind: str) -> None:
    assert kind_of(phase) == kind


def test_a_whole_rack_that_is_off_is_seen_against_a_baseline_only(ten: Baseline) -> None:
    one = racks.rack(33)
    one.tim *= 1.35
    assert {f.signature for f in find(one, None) if f.severity is Severity.HOLD} == set()
    one = racks.rack(33)
    one.tim *= 1.35
    (found,) = [f for f in find(one, ten) if f.severity is Severity.HOLD]
    assert (found.part, found.signature) == ("rack", "fleet.shift") and "thermal resistance" in found.why
    one = racks.rack(33)
    one.tim *= 1.35
    assert "fleet.shift" not in {f.signature for f in find(one, ten, same=False)}, "levels of other parts are not compared"


def test_healthy_racks_are_left_alone_with_a_baseline(ten: Baseline) -> None:
    for seed in range(40, 46):
        assert [f for f in find(racks.rack(seed), ten) if f.severity is not Severity.WATCH] == []


def test_a_baseline_narrows_limits_and_one_of_other_parts_does_not(ten: Baseline) -> None:
    telemetry = racks.telemetry(racks.rack(50))
    rest = np.random.default_rng(3).normal(0, 0.03, (18, 4))
    dofs = {}
    for name, baseline, same in (("none", None, True), ("same", ten, True), ("other", ten, False)):
        family = Readings(telemetry, racks.topology(), {}, baseline, same).family("thermal.rth", "load", rest, 0.01)
        dofs[name] = family.dof
    assert dofs["none"] < dofs["other"] < dofs["same"]


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(kept(tmp_path / f"r{seed}", racks.telemetry(racks.rack(seed)))) for seed in (901, 902)]
    file = tmp_path / "base.json"
    assert run(["baseline", "build", *folders, "-o", str(file)]) == 0
    first = json.loads(file.read_text())
    assert run(["baseline", "build", *reversed(folders), "-o", str(file)]) == 0
    assert json.loads(file.read_text())["id"] == first["id"], "the same racks give the same baseline"
    assert run(["baseline", "show", str(file)]) == 0
    assert first["id"] in capsys.readouterr().out
    judged = kept(tmp_path / "judged", racks.telemetry(racks.rack(903)))
    for name, text, said in (
        ("none", None, "none: "),
        ("same", file.read_text(), f"{first['id']} (2 racks)"),
        ("other", None, "of other parts"),
    ):
        if name == "other":
            (judged / "rack.yaml").write_text((judged / "rack.yaml").read_text().replace("gb300", "gb200"))
        if text is not None:
            (judged / "baseline.json").write_text(text)
        capsys.readouterr()
        assert run(["judge", str(judged), "--json", "-"]) in (0, 3)
        assert said in json.loads(capsys.readouterr().out)["versions"]["baseline"]


@pytest.mark.parametrize("text", ["", "{}", "[1, 2", '{"format": 2}', "\x00\xff"])
def test_a_baseline_that_is_none_is_one_sentence_and_exit_2(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(tmp_path / "d", racks.telemetry(racks.rack(1), (racks.IDLE, racks.LOAD)))
    (folder / "baseline.json").write_bytes(text.encode("latin-1"))
    assert run(["judge", str(folder)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "baseline.json" in said


def test_a_baseline_that_was_changed_is_not_taken(ten: Baseline) -> None:
    body = ten.model_dump()
    body["families"]["thermal.rth load"]["own"] *= 2
    with pytest.raises(ValueError, match="changed after it was built"):
        Baseline.model_validate(body)
