"""The detection bench: what is named, what is wrong, what is a false alarm; a run that was ended goes on where its file ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import detection
from bench.detection_page import LOSSY, page, tables
from bench.detection_racks import FAULTS, racks
from burnin.twin.faults import Plant

HEADER = {"profile": "gb300-nvl72", "seed": 7, "judges": ["none"]}


def line(
    fault: str | None, *said: tuple[str, str, str], tails: str = "normal", lost: dict[str, int] | None = None
) -> dict[str, Any]:
    return {"fault": fault, "tails": tails, "seed": 7, "lost": lost or {}, "said": {"none": [list(one) for one in said]}}


def test_a_wrong_part_is_a_miss_and_a_false_alarm_and_relatives_are_neither() -> None:
    one = "TIM +75 %"
    lines = [
        line(one, ("t07.g2", "thermal.rth", "HOLD")),
        line(one, ("t07", "thermal.tray", "HOLD")),
        line(one, ("t07.g1", "thermal.rth", "FAIL")),
        line(one),
    ]
    tally = tables(lines)[one, "normal"]["none"]
    assert (tally.racks, tally.said["named"], tally.said["others"], tally.said["FAIL"]) == (4, 1, 1, 0)
    assert "* TIM +75 %, none: t07.g1 thermal.rth" in page(HEADER, lines)


def test_a_rack_whose_link_loses_code_words_is_not_counted_as_healthy() -> None:
    """By the twin's truth alone: a link that a judge fails, and that lost none, is a false alarm like any other."""
    link, lost = "t01.g0.l3", {"t01.g0.l3": 40}
    lines = [
        line(None, ("t01.g0", "thermal.rth", "HOLD"), ("t02.g0", "power.leak", "HOLD"), tails="t5"),
        line(None, (link, "nvlink.errors", "FAIL"), (link, "nvlink.margin", "HOLD"), tails="t5", lost=lost),
        line(None, (link, "nvlink.margin", "HOLD"), ("t02.g0", "power.leak", "HOLD"), tails="t5", lost=lost),
        line(None, ("t01.g0", "nvlink.errors", "HOLD"), tails="t5", lost={**lost, "t05.g0.l1": 3}),
        line(None, (link, "nvlink.errors", "FAIL"), tails="t5"),
        line(None, tails="t5"),
    ]
    found = tables(lines)
    healthy, lossy = found[None, "t5"]["none"], found[LOSSY, "t5"]["none"]
    assert (healthy.racks, healthy.said["HOLD"], healthy.said["FAIL"]) == (3, 1, 1)
    assert (lossy.racks, lossy.said["named"], lossy.said["FAIL"], lossy.said["others"]) == (3, 2, 1, 1)
    assert "| t5 | none | 3 | 2 | 1 | 1 |" in page(HEADER, lines)


def test_the_truth_about_a_link_is_the_twin_s_and_not_its_counters() -> None:
    """A link of 6 dB less margin loses code words; they are its truth even where its counter is not read."""
    (one,) = racks([5], (Plant("link_margin", "t07.g2.l13", 6.0),), "normal")
    (sound,) = racks([5], (), "normal")
    assert set(one.lost) == {"t07.g2.l13"} and one.lost["t07.g2.l13"] == one.of("t07.g2.l13", "nvlink.effective_errors").v[-1]
    assert not sound.lost


def test_every_line_is_measured_about_evenly_whenever_it_ends() -> None:
    jobs = detection.jobs(FAULTS, 3000, 200, 100)
    assert len(jobs) == len(set(jobs)) == 2 * 3000 + 200 * len(FAULTS)
    some = jobs[: len(jobs) // 10]
    counts = [sum(fault == one.name for fault, _, _ in some) for one in FAULTS]
    assert max(counts) - min(counts) <= 1 and abs(sum(fault is None for fault, _, _ in some) - 600) < 60


def test_healthy_racks_may_have_a_larger_share() -> None:
    jobs = detection.jobs(FAULTS, 3000, 200, 100, 0.8)
    assert sorted(map(str, jobs)) == sorted(map(str, detection.jobs(FAULTS, 3000, 200, 100)))
    some = jobs[:1000]
    assert abs(sum(fault is None for fault, _, _ in some) - 800) <= 1 and sum(tails == "t5" for _, tails, _ in some) == 400


def test_healthy_racks_of_either_kind_may_be_as_many_as_wanted() -> None:
    jobs = detection.jobs(FAULTS, 30, 2, 100, 0.8, 10)
    assert [sum(fault is None and tails == kind for fault, tails, _ in jobs) for kind in ("normal", "t5")] == [30, 10]
    assert sum(tails == "t5" for _, tails, _ in [job for job in jobs if job[0] is None][:20]) == 5


def test_a_fleet_that_differs_less_is_that_fleet() -> None:
    (usual,), (alike,) = racks([5], (), "normal"), racks([5], (), "normal", 0.0)
    gpus, spreads = [f"t{i:02d}.g0" for i in range(18)], []
    for one in (usual, alike):
        done = np.array([one.of(gpu, "load.launches").v[-1] / one.of(gpu, "gpu.clock_sm").v.mean() for gpu in gpus])
        spreads.append(float(done.std() / done.mean()))
    assert spreads[1] < 0.7 * spreads[0]
    (again,) = racks([5], (), "normal")
    assert again.of("t00.g0", "load.launches").v[-1] == usual.of("t00.g0", "load.launches").v[-1]


def test_a_run_goes_on_where_its_file_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[detection.Job] = []

    def judge(job: detection.Job) -> dict[str, Any]:
        judged.append(job)
        return {"fault": job[0], "tails": job[1], "seed": job[2], "lost": {}, "said": {"none": []}}

    file, wanted = tmp_path / "lines", ["--healthy", "2", "--each", "1", "--no-150", "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr(detection, "_judge", judge)
    monkeypatch.setattr(detection, "_learn_all", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["detection", *wanted, "--out", str(file)])
    assert detection.main() == 0
    first, kept = list(judged), file.read_bytes()
    assert len(first) == len(set(first)) == 4 + len(FAULTS) == len(kept.splitlines()) - 1
    file.write_bytes(kept[:-9])
    judged.clear()
    assert detection.main() == 0
    assert judged == first[-1:] and file.read_bytes() == kept, "a line that was cut short is measured again, and no other"
    assert "| TIM +75 % | 70 / 77 | 1 |" in (tmp_path / "page.md").read_text()
    file.write_text(json.dumps({"seed": 0}) + "\n")
    with pytest.raises(SystemExit, match="was begun as"):
        detection.main()
