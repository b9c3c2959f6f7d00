"""The detection bench: what is named, what is wrong, what is a false alarm; a run that was ended goes on where its file ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import detection
from bench.detection_page import page, tables
from bench.detection_racks import FAULTS

HEADER = {"profile": "gb300-nvl72", "seed": 7, "judges": ["none"]}


def line(fault: str | None, *said: tuple[str, str, str], tails: str = "normal", lossy: int = 0) -> dict[str, Any]:
    return {"fault": fault, "tails": tails, "seed": 7, "lossy": lossy, "said": {"none": [list(one) for one in said]}}


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


def test_a_healthy_rack_counts_once_and_lost_code_words_are_told_apart() -> None:
    lines = [
        line(None, ("t01.g0", "thermal.rth", "HOLD"), ("t02.g0", "power.leak", "HOLD"), tails="t5"),
        line(None, ("t01.g0.l3", "nvlink.errors", "FAIL"), ("t01.g0.l3", "nvlink.margin", "HOLD"), tails="t5", lossy=1),
        line(None, ("t01.g0.l3", "nvlink.errors", "FAIL"), tails="t5"),
        line(None, tails="t5"),
    ]
    said = tables(lines)[None, "t5"]["none"].said
    assert (said["HOLD"], said["FAIL"], said["sound HOLD"], said["sound FAIL"]) == (2, 2, 1, 1)


def test_every_line_is_measured_about_evenly_whenever_it_ends() -> None:
    jobs = detection.jobs(FAULTS, 3000, 200, 100)
    assert len(jobs) == len(set(jobs)) == 2 * 3000 + 200 * len(FAULTS)
    some = jobs[: len(jobs) // 10]
    counts = [sum(fault == one.name for fault, _, _ in some) for one in FAULTS]
    assert max(counts) - min(counts) <= 1 and abs(sum(fault is None for fault, _, _ in some) - 600) < 60


def test_a_run_goes_on_where_its_file_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[detection.Job] = []

    def judge(job: detection.Job) -> dict[str, Any]:
        judged.append(job)
        return {"fault": job[0], "tails": job[1], "seed": job[2], "lossy": 0, "said": {"none": []}}

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
