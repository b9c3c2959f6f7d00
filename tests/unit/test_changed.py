"""`burnin compare`: one rack before and after a repair, each part its own control."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from burnin.assess import changes
from burnin.checks import OFFERS
from burnin.cli.app import command
from burnin.errors import InputError
from burnin.rack.load import load_catalogue, load_profile
from burnin.signatures.changed import CHANGED, QUANTITIES, Compared, compare
from burnin.signatures.readings import Readings
from burnin.suites.load import load_suite
from burnin.telemetry.series import Telemetry
from burnin.twin.batch import simulate
from burnin.twin.faults import Plant

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
        assert said(one) == set() and all(one.parts.values()) and list(one.parts) == [what.said for what in QUANTITIES]


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


def test_a_hostile_reading_names_nobody_else() -> None:
    after = run(1.2)
    broken = {
        key: type(one)(one.t_s, np.full(one.v.size, 1e300)) if key == ("t03.g1", "gpu.temp") else one
        for key, one in after.series.items()
    }
    assert {f.part for f in compared(run(1.0), Telemetry(broken, after.stretches)).findings} <= {"t03.g1", "t03"}
