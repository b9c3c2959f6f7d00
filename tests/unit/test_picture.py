"""What a person who watches a run is told of its trays."""

from __future__ import annotations

from burnin.events import TrayState
from burnin.views.live import Picture
from tests import build


def test_a_tray_that_is_ready_without_nvml_is_said_when_it_comes_not_only_in_the_verdict() -> None:
    picture = Picture.of("1", "R-1", build.profile(), "smoke", {}, ["t00", "t01"])
    picture.see(TrayState("t00", 1.0, "ready"))
    picture.see(TrayState("t01", 2.0, "ready", "NVML: no libnvidia-ml.so.1"))
    assert list(picture.notes) == [(2.0, "t01 is ready, but NVML: no libnvidia-ml.so.1")]
