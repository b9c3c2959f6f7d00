"""Power cycles on trays that boot in this process: what does not come back is named, and what may not be touched is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.boot_cycle import CHECK
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from burnin.rack.schema import Rack
from burnin.run.steps import forbidden
from tests import build

TRAYS = ("t00", "t01", "t02")
DETECTOR = "/redfish/v1/Chassis/C/ThermalSubsystem/LeakDetection/LeakDetectors/L0"
SYSTEM = "/redfish/v1/Systems/S"
Missing = Callable[[str, int], set[str]]


class Rig:
    """Trays that need a minute to boot. `missing(tray, boots)` says what is not there after so many boots."""

    def __init__(self, missing: Missing = lambda tray, boots: set(), wet: dict[str, int] | None = None, dead: str = "") -> None:
        self.now_s, self.missing, self.wet, self.dead = 100.0, missing, wet or {}, dead
        self.boots: dict[str, int] = {}
        self.since: dict[str, float] = {}
        self.log: list[tuple[float, str]] = []

    def _runs(self, part: str) -> bool:
        gone = part == self.dead and self.boots.get(part, 0) > 1
        return not gone and self.now_s - self.since.get(part, 0.0) >= 60

    def ask(self, order: Order) -> Any:
        part = order.to.removesuffix(".bmc")
        boots = self.boots.get(part, 0)
        if order.verb == "post":
            assert order.args == {"path": f"{SYSTEM}/Actions/Reset", "body": {"ResetType": "PowerCycle"}}
            self.boots[part], self.since[part] = boots + 1, self.now_s
            self.log.append((self.now_s, part))
            return {}
        if order.verb == "walk":
            state = "Critical" if 0 <= self.wet.get(part, -1) <= sum(self.boots.values()) else "OK"
            action = {"target": f"{SYSTEM}/Actions/Reset", "ResetType@Redfish.AllowableValues": ["On", "PowerCycle"]}
            if SYSTEM.startswith(order.args["from"][0]):
                return {SYSTEM: {"@odata.id": SYSTEM, "Actions": {"#ComputerSystem.Reset": action}}}
            return {DETECTOR: {"@odata.id": DETECTOR, "DetectorState": state, "Status": {"State": "Enabled", "Health": "OK"}}}
        if not self._runs(part):
            return None
        here = {"g0", "g1", "n0", "d0"} - self.missing(part, boots)
        if order.verb == "identify":
            return {"gpus": [{"gpu": name, "uuid": f"GPU-{part}{name}"} for name in sorted(here) if name[0] == "g"]}
        devices = "\n".join(f"0001:0{i}:00.0" for i, name in enumerate(("g0", "g1", "n0", "d0")) if name in here)
        return {"exit": 0, "stdout": f"boot id-{part}-{boots}\n{devices}\n", "stderr": "", "cut": False}

    def run(self, at: Context, rounds: int = 200) -> list[Measurement]:
        answers: list[tuple[Answer, ...]] = []
        while (orders := CHECK.orders(at, answers)) and len(answers) < rounds:
            assert len(answers) < 199 and not forbidden(CHECK, at, orders)
            given = []
            for order in orders[1:]:
                body = self.ask(order)
                given.append(Answer(order, body is not None, body if body is not None else f"{order.to}: away"))
            self.now_s += float(orders[0].args["wait_s"])
            answers.append((Answer(orders[0], True, {"t_s": self.now_s}), *given))
        return CHECK.judge(at, Evidence(answers=answers, stretch=build.IDLE))


def context(stage: str = "idle", allow: tuple[str, ...] = ("power_cycle",), **args: Any) -> Context:
    parts = (*TRAYS, "s0", "s1")
    known = {"rack": "R-1", "profile": "gb300-nvl72", "ssh": {"known_hosts": "known_hosts"}, "allow": list(allow)}
    bmc = {part: {"url": f"https://192.0.2.{100 + n}", "ca": "ca.pem", "secret": "env:X"} for n, part in enumerate(parts)}
    rack = Rack.model_validate({**known, "trays": {p: {"host": f"192.0.2.{n + 1}"} for n, p in enumerate(parts)}, "bmc": bmc})
    suite = build.suite()
    (one,) = (s for s in suite.stages if s.stage == stage)
    return Context("rack", rack, load_profile("gb300-nvl72"), suite, one, build.catalogue(), {"cycles": 3, **args}, TRAYS)


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


def test_every_tray_is_cycled_switch_trays_first_and_group_after_group() -> None:
    rig = Rig()
    got = rig.run(context(group=2))
    assert bad(got) == []
    assert [part for _, part in rig.log] == ["s0", "s1", "t00", "t01", "t02"] * 3
    assert {m.part: m.value for m in got if m.name == "boot.cycles"} == dict.fromkeys(("s0", "s1", *TRAYS), 3.0)
    assert all(60 <= float(m.value or 0) <= 100 for m in got if m.name == "boot.ready")
    whens = sorted({when for when, _ in rig.log})
    assert all(after - before >= 60 for before, after in itertools.pairwise(whens))


@pytest.mark.parametrize(
    ("tray", "device", "boots", "named"), [("t01", "g1", 2, "t01.g1"), ("t02", "d0", 3, "t02"), ("t00", "n0", 1, "t00")]
)
def test_a_device_that_stays_away_once_is_found_in_its_cycle(tray: str, device: str, boots: int, named: str) -> None:
    got = Rig(lambda part, n: {device} if (part, n) == (tray, boots) else set()).run(context())
    assert (named, "boot.device", Result.FAIL) in bad(got) and (tray, "boot.cycles", Result.FAIL) in bad(got)
    assert {part.split(".")[0] for part, _, _ in bad(got)} == {tray}
    assert {m.value for m in got if m.name == "boot.device"} == {float(boots)}


def test_a_tray_that_never_comes_back_fails_and_the_others_go_on() -> None:
    got = Rig(dead="t01").run(context())
    assert bad(got) == [("t01", "boot.cycles", Result.FAIL)] and "power cycle 2" in next(m.why for m in got if m.part == "t01")


def test_a_leaking_tray_is_never_touched_also_when_it_begins_to_leak_meanwhile() -> None:
    rig = Rig(wet={"t01": 0})
    got = rig.run(context())
    assert "t01" not in {part for _, part in rig.log} and bad(got) == [("t01", "boot.cycles", Result.UNKNOWN)]
    rig = Rig(wet={"t02": 6})  # after the first cycle of all
    got = rig.run(context(group=1))
    assert [part for _, part in rig.log].count("t02") == 1
    assert bad(got) == [("t02", "boot.cycles", Result.UNKNOWN)] and "leaks" in next(m.why for m in got if m.part == "t02")


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 9, 20])
def test_a_run_that_is_stopped_condemns_nobody(rounds: int) -> None:
    assert {m.result for m in Rig().run(context(), rounds)} <= {Result.PASS, Result.UNKNOWN}
    assert Result.UNKNOWN in {m.result for m in Rig().run(context(), min(rounds, 9))}


@pytest.mark.parametrize("at", [context(allow=()), context(stage="load"), context(allow=("power_off_on_leak",))])
def test_nothing_is_asked_where_it_is_not_allowed(at: Context) -> None:
    rig = Rig()
    assert bad(rig.run(at)) == [("rack", "boot.cycles", Result.UNKNOWN)] and not rig.log


def test_the_run_itself_refuses_what_a_check_may_not_do() -> None:
    post = [Order("t00.bmc", "post", {"path": "/x", "body": {}}, "redfish")]
    assert "allow" in forbidden(CHECK, context(allow=()), post)
    assert "may only read" in forbidden(replace(CHECK, acts=False), context(), post)
    assert forbidden(CHECK, context(), post) == "" == forbidden(replace(CHECK, acts=False), context(), [Order("t00", "identify")])
