"""`burnin run --resume`: what is owed and why, before anything is touched; what cannot be gone on with, in a sentence."""

from __future__ import annotations

import functools
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from burnin.checks import CHECKS
from burnin.cli import run as burnin
from burnin.events import Result, StageBegan, StageEnded, Status
from burnin.rack.load import load_catalogue, load_rack, shipped
from burnin.run import plan
from burnin.run.keep import ARRIVE
from burnin.run.lock import Process
from burnin.run.resume import look
from burnin.run.start import Request, config
from burnin.store import Attempt, Enrollment, Evidence, RunStart, Session, Tray, open_store
from burnin.suites.load import load_suite

RUN = "20261121-120000-beef"
RACK = """rack: R-1
profile: gb300-nvl72
ssh: {known_hosts: known_hosts}
trays:
  t[00-17]: {host: "192.0.2.[11-28]"}
expect:
  t07: {serial: S-07}
"""
SUITE = """suite: mine
about: mine
stages:
  - {stage: audit, steps: [inventory]}
  - {stage: together, steps: [collective]}
"""


CATALOGUE = functools.cache(load_catalogue)
"""Read once: it is most of what each of these tests takes."""


def kept(status: str = "COMPLETE", of: Process | None = None, done: bool = True) -> None:
    """A run of the suite, in burnin.db."""
    file = load_rack("rack.yaml", need_known_hosts=False, need_keys=False)
    suite = load_suite("suite.yaml", checks=CHECKS, metrics=CATALOGUE().metrics)  # type: ignore[arg-type]
    request = Request(file, suite, CATALOGUE(), plan.make(suite, file.rack, file.profile, CHECKS), (), "ann")
    me = of or Process("elsewhere", "b", 1, "1")
    with closing(open_store("burnin.db")) as store:
        store.begin_run(
            RunStart(RUN, "R-1", file.profile.profile, "mine", False, True, "ann", "2026-11-21T12:00:00Z", config(request)),
            Session(me.host, me.boot, me.pid, me.started, "ann", "2026-11-21T12:00:00Z", 0.0, 0.0),
        )
        for tray in file.rack.compute():
            store.keep_tray(Tray(tray, "192.0.2.1:22", None, f"S-{tray[1:]}", {"host": {"serial": f"S-{tray[1:]}"}}))
        for index, stage in enumerate(suite.stages if done else ()):
            store.keep([StageBegan(index, stage.stage, "", 0.0, 1.0 + index)])
            for part in CHECKS[stage.steps[0].check].parts(file.rack.compute()):
                one = (stage.stage, stage.steps[0].check, part, 1, Status.COMPLETE, Result.UNKNOWN, 1.0 + index, 1.5 + index)
                store.end_attempt(Attempt(*one))
            store.keep([StageEnded(index, stage.stage, 1.6 + index, Status.COMPLETE)])
        if status != "RUNNING":
            store.end_run(RUN, "2026-11-21T13:00:00Z", status)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("burnin.rack.load.load_catalogue", CATALOGUE)
    Path("rack.yaml").write_text(RACK)
    Path("suite.yaml").write_text(SUITE)
    Path("known_hosts").write_text("")
    monkeypatch.delenv("BURNIN_DB", raising=False)


def resume(*more: str, name: str = "last") -> int:
    return burnin(["run", "suite.yaml", "rack.yaml", "--resume", name, "--dry-run", *more])


def owed(text: str) -> set[tuple[str, str]]:
    """(stage, parts) of the table."""
    lines = [line.split() for line in text.splitlines()]
    return {(words[0], words[1]) for words in lines if words and words[0] in ("audit", "together")}


def test_a_whole_run_owes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    assert resume() == 0
    assert f"nothing is owed of run {RUN}" in capsys.readouterr().out


def test_a_run_that_did_not_begin_its_stages_owes_them(capsys: pytest.CaptureFixture[str]) -> None:
    kept(done=False, status="RUNNING")
    assert resume() == 0
    out = capsys.readouterr().out
    assert owed(out) == {("audit", "t[00-17]"), ("together", "rack")}
    assert "it was not done" in out


def test_an_enrolled_replacement_voids_its_tray_and_what_the_rack_did_together(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    row = Enrollment("2026-11-22T08:00:00Z", "R-1", "t07", "192.0.2.18:22", "old", "new", "S-07", "ann", "h")
    with closing(open_store("burnin.db")) as store:
        store.keep_enrollment(row)
    assert resume() == 0
    out = capsys.readouterr().out
    assert "replaced: t07: t07 was S-07, which was replaced on 2026-11-22T08:00:00Z" in out
    assert owed(out) == {("audit", "t07"), ("together", "rack")}
    with closing(open_store("burnin.db")) as store:
        assert store.voided(RUN) == [], "a dry run writes nothing"


def test_an_enrollment_before_the_run_replaces_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    row = Enrollment("2026-11-20T08:00:00Z", "R-1", "t07", "192.0.2.18:22", "old", "new", "S-06", "ann", "h")
    with closing(open_store("burnin.db")) as store:
        store.keep_enrollment(row)
    resume()
    assert "nothing is owed" in capsys.readouterr().out


def test_a_part_without_a_host_key_is_replaced_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    for part in ("t07.n2", "x1", "p3.u2"):
        assert burnin(["enroll", "rack.yaml", "--part", part, "--replaces", "OLD-1"]) == 0
    assert "x1 is another one than OLD-1" in capsys.readouterr().out
    assert resume() == 0
    out = capsys.readouterr().out
    assert out.count(" was OLD-1, which was replaced on ") >= 3
    assert owed(out) == {("audit", "t07"), ("together", "rack")}, "the shelf was not read by either"


@pytest.mark.parametrize("part", ["t18", "t18.n2", "rack", "x", "s0", "t00.g4"])
def test_what_the_rack_does_not_have_is_not_replaced(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert burnin(["enroll", "rack.yaml", "--part", part, "--replaces", "OLD-1"]) == 2
    assert f"--part {part}: rack R-1 has no such part: its trays are t[00-17]" in capsys.readouterr().err


def test_what_was_enrolled_since_is_known_by_its_number_whatever_the_clock_says(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    with closing(sqlite3.connect("burnin.db")) as db, db:
        db.execute("UPDATE run SET config = json_set(config, '$.enrolled', 1)")
    with closing(open_store("burnin.db")) as store:
        for part in ("t03", "t04"):  # before the session and after it, by a clock that went back a day
            store.keep_enrollment(Enrollment("2026-11-20T12:00:00Z", "R-1", part, "a", None, "k", "OLD", "ann", "here"))
    assert resume() == 0
    assert owed(capsys.readouterr().out) == {("audit", "t04"), ("together", "rack")}


def test_a_build_record_that_names_another_serial_now_voids_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    Path("rack.yaml").write_text(RACK.replace("S-07", "S-99"))
    resume()
    out = capsys.readouterr().out
    assert "t07 was S-07, the build record now says S-99" in out
    assert owed(out) == {("audit", "t07"), ("together", "rack")}


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("rack.yaml", "rack: R-1", "rack: R-2", "is of rack R-1, not R-2"),
        ("suite.yaml", "suite: mine", "suite: yours", "is of suite mine, not yours"),
        ("rack.yaml", "gb300-nvl72", "gb200-nvl72", "is of profile gb300-nvl72, not gb200-nvl72"),
    ],
)
def test_a_run_does_not_become_another(file: str, old: str, new: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    Path(file).write_text(Path(file).read_text().replace(old, new))
    assert resume() == 2
    assert f"{why}: give what it began with, or start a new run" in capsys.readouterr().err


def test_a_suite_or_profile_that_was_changed_since_is_said_and_not_taken_over(capsys: pytest.CaptureFixture[str]) -> None:
    suite, profile = Path("suite.yaml"), Path("inventory/profiles/gb300-nvl72.yaml")
    profile.parent.mkdir(parents=True)
    shutil.copy(shipped(str(profile)), profile)
    kept()
    suite.write_text(SUITE + "  - {stage: more, steps: [inventory]}\n")
    assert "gpu.idle_power: {max: 300," in profile.read_text()
    profile.write_text(profile.read_text().replace("gpu.idle_power: {max: 300,", "gpu.idle_power: {max: 301,"))
    assert resume() == 0
    out = capsys.readouterr().out
    assert "suite mine was changed since (stages): this run goes on with what it began with" in out
    assert "profile gb300-nvl72 was changed since (limits.gpu.idle_power.max): this run goes on" in out
    assert "protects the rack" not in out


def test_a_replaced_tray_is_left_as_it_was_found_itself() -> None:
    kept()
    file = load_rack("rack.yaml", need_known_hosts=False, need_keys=False)
    suite = load_suite("suite.yaml", checks=CHECKS, metrics=CATALOGUE().metrics)  # type: ignore[arg-type]
    with closing(open_store("burnin.db")) as store:
        session = Session("elsewhere", "b", 1, "1", "ann", "2026-11-21T14:00:00Z", 0.0, 100.0, number=2)
        store.continue_run(RUN, session, {**store.config(RUN), "enrolled": 0})
        for tray, watts in (("t06", 1400), ("t07", 1200), ("t07", 1300), ("t08", 1100)):
            body = {"ok": True, "body": {"g0": {"power_limit_w": watts}}}
            store.keep_evidence(Evidence(ARRIVE, "as-found", tray, 1, 0, "state", body))
        store.end_run(RUN, "2026-11-21T15:00:00Z", "STOPPED")
        for part in ("t08", "t06.n2"):
            store.keep_enrollment(
                Enrollment("2026-11-22T08:00:00Z", "R-1", part, "192.0.2.18:22", "old", "new", "S-OLD", "ann", "h")
            )
        found = look(store, RUN, suite, file).as_found
    assert {tray: answer.body["g0"]["power_limit_w"] for tray, answer in found.items()} == {"t06": 1400, "t07": 1300}, (
        "t07 was replaced and found anew, t08 is another one now, a card is none of a GPU's settings"
    )


def test_what_protects_the_rack_is_taken_as_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    profile = Path("inventory/profiles/gb300-nvl72.yaml")
    profile.parent.mkdir(parents=True)
    shutil.copy(shipped(str(profile)), profile)
    kept()
    text = profile.read_text()
    for was, now in (
        ("limit: {min: 2, max: 47,", "limit: {min: 2, max: 44,"),
        ("rack.power_rate: {max: 20,", "rack.power_rate: {max: 10,"),
        ("gpu.tlimit.start: {min: 10,", "gpu.tlimit.start: {min: 12,"),
    ):
        assert text.count(was) == 1, was
        text = text.replace(was, now)
    profile.write_text(text.replace("gpu.idle_power: {max: 300,", "gpu.idle_power: {max: 301,"))
    assert resume() == 0
    out = capsys.readouterr().out
    assert "profile gb300-nvl72 was changed since (limits.gpu.idle_power.max): this run goes on with what it began with" in out
    places = "limits.gpu.tlimit.start.min, limits.rack.power_rate.max, guard.coolant_supply.limit.max"
    assert f"({places}): that protects the rack, and this run goes on under it as it is now" in out
    file = load_rack("rack.yaml", need_known_hosts=False, need_keys=False)
    suite = load_suite("suite.yaml", checks=CHECKS, metrics=CATALOGUE().metrics)  # type: ignore[arg-type]
    with closing(open_store("burnin.db", create=False)) as store:
        goes_on = look(store, "last", suite, file).file.profile
    supply, rate, idle = goes_on.guard["coolant_supply"], goes_on.limits["rack.power_rate"], goes_on.limits["gpu.idle_power"]
    assert (supply.limit.max, rate.max, idle.max) == (44, 10, 300)
    assert "nothing is owed" in out, "the stage that is new is none of this run's"


def test_addresses_may_change(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    Path("rack.yaml").write_text(RACK.replace("192.0.2", "192.0.3"))
    assert resume() == 0
    assert "nothing is owed" in capsys.readouterr().out


def test_only_and_parts_belong_to_a_new_run(capsys: pytest.CaptureFixture[str]) -> None:
    kept()
    assert resume("--only", "inventory") == 2
    assert "leave --only and --parts out" in capsys.readouterr().err
    assert resume(name="no-such") == 2


def test_a_run_whose_controller_lives_is_not_taken_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    me = Process.me()
    kept("RUNNING", me)
    assert resume() == 3
    assert f"rack R-1 is held by run {RUN} (process {me.pid} on {me.host}, since 2026-11-21T12:00:00Z)" in capsys.readouterr().err
    assert burnin(["runs"]) == 0
    assert f"running (process {me.pid})" in capsys.readouterr().out


def test_a_run_whose_controller_is_gone_is_not_shown_as_running(capsys: pytest.CaptureFixture[str]) -> None:
    me = Process.me()
    kept("RUNNING", Process(me.host, me.boot, me.pid, "12345"))  # the same number, another process
    assert burnin(["runs"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"cut off (process {me.pid} is gone)" in out
    assert resume() == 0
