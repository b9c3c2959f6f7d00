"""What a person who watches a run is told of its trays."""

from __future__ import annotations

from burnin.checks import CHECKS
from burnin.events import StageBegan, TrayState
from burnin.views.live import Picture
from tests import build


def test_a_tray_that_is_ready_without_nvml_is_said_when_it_comes_not_only_in_the_verdict() -> None:
    picture = Picture.of("1", "R-1", build.profile(), "smoke", {}, ["t00", "t01"])
    picture.see(TrayState("t00", 1.0, "ready"))
    picture.see(TrayState("t01", 2.0, "ready", "NVML: no libnvidia-ml.so.1"))
    assert list(picture.notes) == [(2.0, "t01 is ready, but NVML: no libnvidia-ml.so.1")]


def test_what_is_left_counts_the_time_of_checks_that_work_by_themselves() -> None:
    memory = {"stage": "memory", "steps": [{"check": "hbm", "with": {"seconds": 600}}]}
    idle = {"stage": "idle", "phase": "idle", "for": "60 s", "steps": ["xid"]}
    suite, profile = build.suite(stages=[memory, idle]), build.profile()
    picture = Picture.of("1", "R-1", profile, "s", dict(enumerate(suite.stages)), ["t00"])
    own_s = CHECKS["hbm"].seconds(profile, {"seconds": 600})
    picture.see(StageBegan(0, "memory", "", 0.0, 5.0))
    assert (picture.stage_planned_s, picture.left_s(5.0)) == (own_s, own_s + 60)
    assert picture.left_s(605.0) == own_s - 600 + 60
    picture.see(StageBegan(1, "idle", "idle", 60.0, 620.0))
    assert picture.left_s(650.0) == 30
