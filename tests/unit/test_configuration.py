"""Versions and settings: the same everywhere, or exactly what differs; a baseline from a good run, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.configuration import CHECK
from burnin.cli import run as burnin
from burnin.errors import InputError
from burnin.events import Measurement, Result, StageBegan, StageEnded, Status
from burnin.rack.load import load_catalogue, load_profile, load_rack
from burnin.rack.schema import FirmwareBaseline
from burnin.run.keep import _evidence
from burnin.store import Attempt, RunStart, open_store
from burnin.suites.schema import Suite
from tests.unit.nvos_rack import Switches, context

TRAYS = ("t00", "t01", "t02")
Change = Callable[[str, dict[str, Any]], None]


def ask(rack: Switches, change: Change, mute: str = "") -> Callable[[Order], Answer]:
    """Trays that are all alike but for `change` (tray, body of identify or state)."""

    def one(order: Order) -> Answer:
        if order.to == mute:
            return Answer(order, False, f"{order.to}: link lost")
        if order.via == "shell":
            return rack.ask(order)
        gpus = [{"gpu": f"g{i}", "vbios": "97.10", "inforom": "G548"} for i in range(4)]
        set_ = {"power_limit_w": 1400.0, "persistence": 1, "compute_mode": 0, "ecc": [1, 1], "mig": None, "max_clock_sm": 2070}
        who = {"host": {"kernel": "6.8", "machine": "aarch64", "bios": "1.2"}, "driver": "580.1", "cuda": 13000, "gpus": gpus}
        body: dict[str, Any] = who if order.verb == "identify" else {f"g{i}": dict(set_) for i in range(4)}
        change(order.to, body)
        return Answer(order, True, body)

    return one


def judged(at: Context, asked: Callable[[Order], Answer]) -> list[Measurement]:
    return CHECK.judge(at, Evidence(answers=[tuple(asked(order) for order in CHECK.orders(at, []))]))


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


def same(tray: str, body: dict[str, Any]) -> None:
    """Nothing differs."""


def of_gpu(tray: str, gpu: str, key: str, value: Any) -> Change:
    def change(to: str, body: dict[str, Any]) -> None:
        for own in [body.get(gpu), *(one for one in body.get("gpus", []) if one["gpu"] == gpu)]:
            if to == tray and own is not None and key in own:
                own[key] = value

    return change


@pytest.fixture
def rack(tmp_path: Path) -> Switches:
    return Switches(tmp_path / "twin", compute=TRAYS)


@pytest.mark.parametrize(
    ("gpu", "key", "value"), [("t01.g2", "vbios", "97.11"), ("t02.g0", "power_limit_w", 1200.0), ("t00.g3", "ecc", [0, 1])]
)
def test_the_same_everywhere_or_exactly_what_differs(rack: Switches, gpu: str, key: str, value: Any) -> None:
    at = context("configuration", "rack", TRAYS)
    assert bad(judged(at, ask(rack, same))) == []
    got = judged(at, ask(rack, of_gpu(gpu[:3], gpu[4:], key, value)))
    assert bad(got) == [(gpu, "configuration.value", Result.UNKNOWN)] and key in got[0].why


def test_a_setting_that_one_gpu_does_not_say_is_unknown_and_one_that_nobody_has_is_not_asked_for(rack: Switches) -> None:
    at = context("configuration", "rack", TRAYS)
    assert bad(judged(at, ask(rack, of_gpu("t01", "g1", "vbios", None)))) == [("t01.g1", "configuration.value", Result.UNKNOWN)]


@pytest.mark.parametrize("mute", ["t02", "s5"])
def test_a_part_that_is_not_read_is_unknown(rack: Switches, mute: str) -> None:
    got = judged(context("configuration", "rack", TRAYS), ask(rack, same, mute))
    assert bad(got) == [(mute, "configuration.audit", Result.UNKNOWN)] and "link lost" in got[0].why
    assert bad(judged(context("configuration", "rack", TRAYS), lambda o: Answer(o, False, "no")))[-1][:2] == (
        "rack",
        "configuration.audit",
    )


def test_against_a_baseline_a_difference_is_bad(rack: Switches) -> None:
    at = context("configuration", "rack", TRAYS)
    stated = FirmwareBaseline(baseline="b", profile="gb300-nvl72", gpu={"vbios": "97.10"}, tray={"driver": "580.2"})
    at = replace(at, rack=at.rack.model_copy(update={"firmware_stated": stated}))
    found = bad(judged(at, ask(rack, of_gpu("t01", "g0", "vbios", "97.11"))))
    fails = {(tray, "configuration.value", Result.FAIL) for tray in TRAYS}
    assert set(found) == {*fails, ("t01.g0", "configuration.value", Result.FAIL)}
    stated = stated.model_copy(update={"tray": {}, "switch": {"NOT-THERE": "1"}})
    at = replace(at, rack=at.rack.model_copy(update={"firmware_stated": stated}))
    found = bad(judged(at, ask(rack, same)))
    assert {(part[0], result) for part, _, result in found} == {("s", Result.UNKNOWN)} and len(found) == 9


def keep(place: Path, asked: Callable[[Order], Answer]) -> None:
    """A run that did the check, in burnin.db."""
    at = context("configuration", "rack", TRAYS)
    suite = {"suite": "mine", "about": "mine", "stages": [{"stage": "audit", "steps": ["configuration"]}]}
    dump: Any = {"mode": "json", "by_alias": True}
    config = {
        "rack": at.rack.model_dump(**dump), "profile": load_profile("gb300-nvl72").model_dump(**dump, exclude_unset=True),
        "suite": Suite.model_validate(suite).model_dump(**dump),
        "catalogue": load_catalogue().model_dump(**dump, exclude_unset=True),
        "plan": {"trays": [*TRAYS, *at.rack.switches()], "only": []}, "versions": {"burnin": "test"},
    }  # fmt: skip
    with closing(open_store(place / "burnin.db")) as store:
        store.begin_run(RunStart("r1", "R-1", "gb300-nvl72", "mine", False, True, "me", "2026-11-21T10:00:00Z", config))
        store.keep([StageBegan(0, "audit", "", 0.0, 1.0)])
        brought = [_evidence("audit", "configuration", "rack", 1, 0, asked(order)) for order in CHECK.orders(at, [])]
        store.end_attempt(Attempt("audit", "configuration", "rack", 1, Status.COMPLETE, Result.UNKNOWN, 1.0, 2.0, ""), brought)
        store.keep([StageEnded(0, "audit", 2.0, Status.COMPLETE)])
        store.end_run("r1", "2026-11-21T10:01:00Z", "COMPLETE")


def test_a_baseline_of_a_good_run_is_what_another_rack_is_held_against(rack: Switches, tmp_path: Path) -> None:
    keep(tmp_path, ask(rack, same))
    assert burnin(["baseline", "firmware", "last", "-o", str(tmp_path / "fw.yaml"), "--db", str(tmp_path / "burnin.db")]) == 0
    (tmp_path / "rack.yaml").write_text(
        'rack: R-2\nprofile: gb300-nvl72\nfirmware_baseline: fw.yaml\ntrays: {"t[00-02]": {host: "192.0.2.[1-3]"}}\n'
    )
    stated = load_rack(tmp_path / "rack.yaml", need_known_hosts=False, need_keys=False).rack.firmware_stated
    assert stated is not None and "run r1" in stated.made_from
    assert stated.tray == {"driver": "580.1", "cuda": "13000", "kernel": "6.8", "machine": "aarch64", "bios": "1.2"}
    assert stated.gpu["power_limit_w"] == "1400" and stated.gpu["ecc"] == "1, 1" and "mig" not in stated.gpu and stated.switch
    at = context("configuration", "rack", TRAYS)
    at = replace(at, rack=at.rack.model_copy(update={"firmware_stated": stated}))
    assert bad(judged(at, ask(rack, same))) == []
    got = bad(judged(at, ask(rack, of_gpu("t02", "g1", "inforom", "G549"))))
    assert got == [("t02.g1", "configuration.value", Result.FAIL)]


@pytest.mark.parametrize(
    ("mute", "change", "says"), [("t01", same, "link lost"), ("", of_gpu("t00", "g0", "vbios", "9"), "vbios of gpus")]
)
def test_a_run_that_is_no_baseline_makes_none(
    rack: Switches, tmp_path: Path, capsys: pytest.CaptureFixture[str], mute: str, change: Change, says: str
) -> None:
    keep(tmp_path, ask(rack, change, mute))
    assert burnin(["baseline", "firmware", "r1", "-o", str(tmp_path / "fw.yaml"), "--db", str(tmp_path / "burnin.db")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "fw.yaml").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        (json.dumps({"baseline": "b", "profile": "hgx-h200"}), "of a hgx-h200"),
        ("baseline: [", "fw.yaml:1"),
    ],
)
def test_a_baseline_that_cannot_be_used_is_a_mistake_of_the_rack_file(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "fw.yaml").write_text(text)
    (tmp_path / "rack.yaml").write_text(
        'rack: R-2\nprofile: gb300-nvl72\nfirmware_baseline: fw.yaml\ntrays: {"t[00-02]": {host: "192.0.2.[1-3]"}}\n'
    )
    with pytest.raises(InputError, match=says):
        load_rack(tmp_path / "rack.yaml", need_known_hosts=False, need_keys=False)
