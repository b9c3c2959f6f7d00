"""How long a lease is: long only where the BMC was read to react to leaks by itself."""

from __future__ import annotations

from typing import Any

import pytest

from burnin.events import LogLine
from burnin.run.leases import UNNAMED, Leases
from burnin.telemetry.watched import Said

POLICY = "/redfish/v1/Chassis/Chassis_0/Oem/Nvidia/Policies/LeakDetectionPolicy"


def bodies(enabled: bool) -> dict[str, Any]:
    policy = {"PolicyEnabled": enabled, "PolicyReactions": ["GracefulShutdown"], "PolicyConditionLogic": "AnyOf"}
    return {POLICY: policy}


class Rig:
    """One tray whose BMC says what it is told to."""

    def __init__(self, asked_s: float, wanted: bool = True) -> None:
        self.said, self.lines = UNNAMED, list[LogLine]()
        self.leases = Leases(asked_s, wanted, lambda tray: self.said, self.lines.append, lambda: 7.0)


ENABLED, OFF = Said(1.0, bodies(True)), Said(1.0, bodies(False))


@pytest.mark.parametrize(
    ("asked", "wanted", "said", "given"),
    [
        (60, True, ENABLED, 60),
        (60, True, OFF, 5),
        (60, True, Said(1.0, {}), 5),
        (60, True, Said(1.0, bodies(True), "t07: the BMC did not answer"), 5),
        (60, True, UNNAMED, 5),
        (60, False, OFF, 15),
        (10, False, OFF, 10),
        (3, True, OFF, 3),
        (3, True, ENABLED, 3),
    ],
)
def test_only_a_policy_that_was_read_as_enabled_makes_it_long(asked: float, wanted: bool, said: Said, given: float) -> None:
    rig = Rig(asked, wanted)
    rig.said = said
    assert rig.leases.of("t07") == given
    assert [line.code for line in rig.lines] == ([f"{given:g}"] if given < asked else [])


def test_it_follows_what_the_bmc_says_and_tells_each_change_once() -> None:
    rig = Rig(60)
    for said, given in ((OFF, 5), (OFF, 5), (ENABLED, 60), (ENABLED, 60), (UNNAMED, 5)):
        rig.said = said
        assert rig.leases.of("t07") == given
    assert [(line.part, line.kind, line.code, line.t_s) for line in rig.lines] == [
        ("t07", "lease", "5", 7.0), ("t07", "lease", "60", 7.0), ("t07", "lease", "5", 7.0),
    ]  # fmt: skip
    assert "is disabled: the BMC does nothing about a leak" in rig.lines[0].text
    assert "names no BMC" in rig.lines[2].text
