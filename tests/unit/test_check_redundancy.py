"""One supply or pump off under load: seen off, others at work, no GPU braking, on again whatever was seen; only with leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.redundancy import CHECK, Args
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from burnin.rack.schema import Rack
from burnin.run.steps import forbidden
from burnin.telemetry.series import Series, Telemetry
from tests import build

SUPPLIES = "/redfish/v1/Chassis/PowerShelf_0/PowerSubsystem/PowerSupplies"
UNIT = "/redfish/v1/ThermalEquipment/CDUs/1"
PUMP = f"{UNIT}/Pumps/2/Actions/Oem/Site.Switch"
BY_SITE: dict[str, Any] = {
    "at": "cdu", "off": {"path": PUMP, "body": {"Run": False}}, "on": {"path": PUMP, "body": {"Run": True}},
}  # fmt: skip
OFF = ("UnavailableOffline", "Critical")


class Rig:
    """A shelf of 6 supplies and a CDU of 2 pumps, and what answers when they are switched."""

    def __init__(self, also: str = "", stuck: bool = False, dead: bool = False, broken: str = "", silent: int = -1) -> None:
        """`also`: goes off with the one; `stuck`: does not go off; `dead`: does not come back; `broken`: bad from the start;
        `silent`: the round in which nothing is answered."""
        self.also, self.stuck, self.dead, self.silent = also, stuck, dead, silent
        self.out = {broken} - {""}
        self.now_s, self.posts = 20.0, list[tuple[str, Any]]()

    def _post(self, args: Any) -> dict[str, Any]:
        self.posts.append((args["path"], args["body"]))
        off = args["body"] in ({"ResetType": "ForceOff"}, {"Run": False})
        one = "3" if "PowerSupplies/3/" in args["path"] else "P2"
        if off and not self.stuck:
            self.out |= {one} | ({self.also} - {""})
        elif not off and not self.dead:
            self.out = set()
        return {}

    def _walk(self, to: str) -> dict[str, Any]:
        if to == "cdu":
            return {
                f"{UNIT}/Pumps/P{i}": {
                    "@odata.type": "#Pump.v1_1_0.Pump", "Status": {"State": "Enabled", "Health": "OK"},
                    "PumpSpeedPercent": {"Reading": 50, "SpeedRPM": 0 if f"P{i}" in self.out else 2400},
                }
                for i in (1, 2)
            }  # fmt: skip
        out = {}
        for i in range(1, 7):
            state, health = OFF if str(i) in self.out else ("Enabled", "OK")
            target = f"{SUPPLIES}/{i}/Actions/PowerSupply.Reset"
            action = {"#PowerSupply.Reset": {"target": target, "ResetType@Redfish.AllowableValues": ["On", "ForceOff"]}}
            out[f"{SUPPLIES}/{i}"] = {"Status": {"State": state, "Health": health}, "Actions": action}
        return out

    def run(self, at: Context, telemetry: Telemetry | None = None) -> list[Measurement]:
        answers: list[tuple[Answer, ...]] = []
        while orders := CHECK.orders(at, answers):
            assert len(answers) < 7 and not forbidden(CHECK, at, orders)
            given = []
            for order in orders:
                if order.via == "clock":
                    self.now_s += order.args["wait_s"]
                    given.append(Answer(order, True, {"t_s": self.now_s}))
                elif len(answers) == self.silent:
                    given.append(Answer(order, False, f"{order.to}: no answer"))
                else:
                    given.append(Answer(order, True, self._post(order.args) if order.verb == "post" else self._walk(order.to)))
            answers.append(tuple(given))
        return CHECK.judge(at, Evidence(answers=answers, telemetry=telemetry or readings(), stretch=build.LOAD))


def readings(braked: str = "", flow: float = 120.0, unread: str = "") -> Telemetry:
    """Two trays under load for 90 s: the brake counter of `braked` grows while something is off."""
    t = np.arange(0.0, 100.0, 2.0)
    series = {}
    for gpu in (f"t0{n}.g{i}" for n in (0, 1) for i in range(4)):
        grown = np.where((t > 25) & (gpu == braked), 0.5, 0.0)
        if gpu != unread:
            series[gpu, "throttle.hw_brake"] = Series(t, grown)
    series["rack", "coolant.flow"] = Series(t, np.where(t > 24, flow, 120.0))
    return Telemetry(series)


def context(stage: str = "ramp-load", allow: tuple[str, ...] = ("redundancy",), **args: Any) -> Context:
    trays = ("t00", "t01")
    known = {"rack": "R-1", "profile": "gb300-nvl72", "ssh": {"known_hosts": "known_hosts"}, "allow": list(allow)}
    rack = Rack.model_validate({**known, "trays": {p: {"host": f"192.0.2.{n + 1}"} for n, p in enumerate(trays)}})
    suite = build.suite()
    (one,) = (s for s in suite.stages if s.stage == stage.removeprefix("ramp-"))
    if stage.startswith("ramp"):
        one = one.model_copy(update={"phase": "ramp-redundancy"})
    return Context("rack", rack, load_profile("gb300-nvl72"), suite, one, build.catalogue(), args or {"part": "p4.u2"}, trays)


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


@pytest.mark.parametrize("args", [{"part": "p4.u2"}, BY_SITE])
def test_what_is_redundant_passes_and_is_on_again(args: dict[str, Any]) -> None:
    rig = Rig()
    got = rig.run(context(**args))
    assert bad(got) == [] and len(rig.posts) == 2 and rig.out == set()
    if "part" in args:
        target = f"{SUPPLIES}/3/Actions/PowerSupply.Reset"
        assert rig.posts == [(target, {"ResetType": "ForceOff"}), (target, {"ResetType": "On"})], "bay 2, counted from 0"
    else:
        assert [m.value for m in got if m.name == "redundancy.flow"] == [120.0]


@pytest.mark.parametrize(
    ("rig", "expected"),
    [
        (Rig(also="5"), ("p4.u4", "redundancy.held", Result.FAIL)),  # who went off with it, not who was told to
        (Rig(dead=True), ("p4.u2", "redundancy.back", Result.FAIL)),
        (Rig(stuck=True), ("p4.u2", "redundancy.off", Result.UNKNOWN)),
        (Rig(broken="6"), ("p4.u2", "redundancy.off", Result.UNKNOWN)),
        (Rig(silent=0), ("p4.u2", "redundancy.off", Result.UNKNOWN)),
        (Rig(silent=3), ("p4.u2", "redundancy.off", Result.UNKNOWN)),
        (Rig(silent=6), ("p4.u2", "redundancy.back", Result.UNKNOWN)),
    ],
)
def test_what_goes_wrong_is_named_or_unknown(rig: Rig, expected: tuple[str, str, Result]) -> None:
    assert bad(rig.run(context())) == [expected]
    assert len(rig.posts) in (0, 2), "what was switched off is switched on, whatever was seen"
    assert (len(rig.posts) == 0) == (rig.silent == 0 or "6" in rig.out)


@pytest.mark.parametrize("gpu", ["t00.g1", "t01.g3"])
def test_a_gpu_that_braked_meanwhile_fails_and_one_that_was_not_read_is_unknown(gpu: str) -> None:
    assert bad(Rig().run(context(), readings(braked=gpu))) == [(gpu, "redundancy.braked", Result.FAIL)]
    assert bad(Rig().run(context(), readings(unread=gpu))) == [(gpu, "redundancy.braked", Result.UNKNOWN)]


def test_too_little_flow_with_one_pump_off_fails() -> None:
    assert bad(Rig().run(context(**BY_SITE), readings(flow=30.0))) == [("rack", "redundancy.flow", Result.FAIL)]


@pytest.mark.parametrize(
    ("stage", "allow"), [("idle", ("redundancy",)), ("load", ("redundancy",)), ("ramp-load", ()), ("ramp-load", ("power_cycle",))]
)
def test_only_with_leave_and_under_load(stage: str, allow: tuple[str, ...]) -> None:
    rig = Rig()
    assert bad(rig.run(context(stage, allow))) == [("p4.u2", "redundancy.off", Result.UNKNOWN)] and rig.posts == []
    if not allow:
        assert forbidden(CHECK, context(stage, allow), [Order("p4", "post", {}, "redfish")])


@pytest.mark.parametrize(
    "args", [{}, {"part": "p4.u2", **BY_SITE}, {"at": "cdu"}, {"part": "t07"}, {"part": "p4.u2", "seconds": 600}]
)
def test_a_step_that_does_not_say_what_to_switch_is_refused(args: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Args.model_validate(args)
