"""Every check against planted faults: two sizes on two parts each, a healthy rack, and the fault next door, on which it must be silent.

    python -m bench.checks                  all of it (about half an hour), writes docs/checks-matrix.md
    python -m bench.checks --only nic       rows whose check, fault or way contains this; writes nothing
    python -m bench.checks --way own        the rows of one way (own: a minute)

Three ways, each of the twin's real seams:
    own        a tray in its own time, read by the agent's own readers (bench/own_time.py), judged by the check
    recorded   a rack of 18 trays that is written down, judged by the check: what only a load process tells
    run        `burnin run` over SSH and Redfish against a small twin, as a process that is told nothing
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench import own_time
from burnin.checks import CHECKS
from burnin.checks.base import Context, Evidence
from burnin.events import LogLine, Measurement, Result
from burnin.rack.load import load_catalogue, load_profile
from burnin.rack.parts import related, tray_of
from burnin.rack.schema import Rack
from burnin.suites.schema import Suite
from burnin.telemetry.series import Stretch, Telemetry
from burnin.twin import batch
from burnin.twin.faults import parse
from burnin.twin.up import running

ROOT = Path(__file__).parents[1]
PROFILE, SEED = "gb300-nvl72", 3109
SUITES: dict[str, Any] = YAML(typ="safe").load((Path(__file__).parent / "checks.yaml").read_text())
Spoke = tuple[str, str, str, str]
"""(check, part, measurement, result) that is not PASS."""


@dataclass(frozen=True)
class Row:
    """One check against one kind of fault: two plants, and the neighbouring fault that it must not mind. `says`: the measurement
    that must not be PASS; `of`: the part that it is named on, where that is not the planted one ({} is its tray)."""

    check: str
    plants: tuple[str, str]
    says: str
    near: str
    way: str = "own"
    of: str = "{0}"

    def part(self, plant: str) -> str:
        """Where the answer must stand."""
        part = parse(plant).part
        return self.of.format(part, tray_of(part))


@dataclass(frozen=True)
class Outcome:
    """One row's fate. `found`: what was said of each plant; the three lists: what should not have been said."""

    row: Row
    found: tuple[str, str]
    beside: tuple[str, ...]
    healthy: tuple[str, ...]
    near: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Both found, nobody else."""
        return all(self.found) and not (self.beside or self.healthy or self.near)


ROWS = (
    Row("idle-baseline", ("leaky_die:t05.g1:6", "leaky_die:t13.g3:9"), "gpu.idle_power", "tsensor_off:t05.g1:8"),
    Row("thermal-margin", ("tim_void:t05.g3:2.5", "tim_void:t12.g0:6"), "gpu.tlimit.load", "hbm_tim:t05.g3:1"),
    Row("thermal-margin", ("hbm_tim:t06.g1:9", "hbm_tim:t15.g2:10"), "hbm.temp.load", "leaky_die:t06.g1:1"),
    Row("throttling", ("coldplate_clog:t02.g1:4", "coldplate_clog:t14.g0:6"), "throttle.sw_thermal.fraction", "clock_cap:t02.g1:0.3"),
    Row("ecc", ("ecc_ue:t03.g0:1", "ecc_ue:t16.g1:40"), "ecc.dram_ue.growth", "cpu_edac:t03:3"),
    Row("ecc", ("ecc_ce_rate:t08.g2:2000", "ecc_ce_rate:t11.g3:40000"), "ecc.dram_ce.growth", "pcie_replay:t08.g2:20"),
    Row("links", ("link_margin:t05.g2.l7:3.5", "link_margin:t12.g0.l16:6"), "nvlink.effective_errors.growth", "pcie_replay:t05.g2:20"),
    Row("links", ("lane_flap:t09.g1.l2:20", "lane_flap:t10.g3.l11:120"), "nvlink.recovery_ok.growth", "nic_flap:t09.n1:5"),
    Row("links", ("link_down:t01.g0.l9:2", "link_down:t17.g2.l0:40"), "nvlink.state", "nic_flap:t01.n1:5"),
    Row("host", ("cpu_edac:t06:1", "cpu_edac:t13:20"), "cpu.edac_ue.growth", "ecc_ue:t06.g1:4"),
    Row("host", ("pcie_downtrain:t02.n1:0.5", "pcie_downtrain:t09.d4:0.75"), "pcie.width.fraction", "nic_flap:t02.n1:5"),
    Row("host", ("pcie_replay:t04.g1:1", "pcie_replay:t15.n3:200"), "pcie.corrected_rate", "link_margin:t04.g1.l3:5"),
    Row("host", ("cpu_hot:t03.c0:55", "cpu_hot:t11.c1:60"), "cpu.margin", "tim_void:t03.g1:0.5"),
    Row("nic", ("nic_flap:t05.n3:2", "nic_flap:t14.n1:9"), "nic.link_flaps.growth", "lane_flap:t05.g1.l3:60"),
    Row("nvme", ("nvme_media:t08.d4:1", "nvme_media:t12.d2:30"), "nvme.media_errors.growth", "pcie_downtrain:t08.d4:0.5"),
    Row("xid", ("xid:t10.g1:95", "xid:t16.g3:79"), "xid", "nic_flap:t10.n1:3"),
    Row("xid", ("gpu_off_bus:t02.g3:5", "gpu_off_bus:t09.g0:45"), "xid", "link_down:t02.g3.l4:5"),
    Row("gpu-load", ("sdc:t04.g3:0.01", "sdc:t15.g0:0.6"), "gpu.mismatches", "slow_gpu:t04.g3:0.1", "recorded"),
    Row("gpu-load", ("clock_cap:t06.g2:0.4", "clock_cap:t12.g1:0.7"), "gpu.power_fraction", "tim_void:t06.g2:1", "recorded"),
    Row("inventory", ("wrong_serial:t00.g3", "wrong_serial:t01"), "*.serial", "bmc_dead:t00.bmc", "run"),
    Row("bmc", ("bmc_dead:t00.bmc", "bmc_dead:t02.bmc"), "bmc.sensors", "leak:t00:20", "run", of="{1}"),
    Row("leak", ("leak:t00:60", "leak:t02:600"), "leak.state", "supply_warm:cdu:20", "run"),
    Row("power", ("shelf_lost:p1", "shelf_lost:p6"), "shelf.supplies", "bmc_dead:t01.bmc", "run"),
    Row("coolant", ("supply_warm:cdu:22", "supply_warm:cdu:38"), "coolant.supply_temp", "leak:t00:60", "run", of="rack"),
    Row("coolant", ("flowmeter_gain:cdu:-0.6", "flowmeter_gain:cdu:-0.85"), "coolant.flow", "leak:t00:60", "run", of="rack"),
    Row("sel", ("leak:t00:60", "leak:t02:600"), "sel.*", "supply_warm:cdu:20", "run"),
    Row("switch", ("leak:s0:120", "leak:s1:900"), "switch.leak", "leak:t00:60", "run"),
    Row("switch-ports", ("switchport_margin:s0.a1.p9:5", "switchport_margin:s1.a0.p3:7"), "port.symbol_errors.growth",
        "leak:s0:120", "run"),
    Row("link-ends", ("switchport_margin:s0.a1.p9:5", "switchport_margin:s1.a0.p3:7"), "link.errors", "leak:s0:120", "run"),
    Row("imex", ("tray_dead:t01:0.5", "tray_dead:t02:3"), "imex.domain", "bw_loss:t00.g1:0.25", "run", of="rack"),
    Row("copies", ("bw_loss:t00.g1:0.25", "bw_loss:t02.g3:0.6"), "copy.h2d", "sdc:t00.g3:0.5", "run"),
    Row("nvbandwidth", ("bw_loss:t00.g1:0.25", "bw_loss:t02.g3:0.6"), "copy.h2d", "sdc:t00.g3:0.5", "run"),
    Row("consensus", ("sdc:t00.g3:0.5", "sdc:t02.g1:0.05"), "consensus.wrong", "bw_loss:t00.g1:0.25", "run"),
    Row("dcgm", ("sdc:t00.g3:0.5", "sdc:t02.g1:0.05"), "dcgm.verdict", "leak:t00:60", "run"),
    Row("collective", ("slow_gpu:t00.g2:0.2", "slow_gpu:t02.g0:0.6"), "collective.*", "leak:t00:60", "run", of="{1}"),
    Row("nccl-tests", ("slow_gpu:t00.g2:0.2", "slow_gpu:t02.g0:0.6"), "nccl-tests.busbw", "leak:t00:60", "run", of="{1}"),
    Row("together", ("bw_loss:t00.g1:0.8", "bw_loss:t00.g2:0.95"), "together.nvlink", "sdc:t00.g3:0.5", "beside"),
    Row("pulse", ("clock_cap:t00.g0:0.7", "clock_cap:t00.g3:0.9"), "pulse.swing", "sdc:t00.g3:0.5", "beside"),
)  # fmt: skip
WITHOUT = {
    "as-found": "nothing in the twin changes a setting behind a run's back; tests/unit/test_checks.py",
    "ask": "a person's answer; tests/unit/test_checks_own.py",
    "boot-cycle": "power cycles of minutes; `boot_intermittent` in tests/twin/test_boot_cycle.py and tests/unit/test_check_boot_cycle.py",
    "firmware": "the twin has one firmware everywhere; tests/unit/test_checks_redfish.py",
    "fio": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "gpu-burn": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "hbm": "the twin's memory holds what is written; wrong words in tests/unit/test_agent_hbm.py and test_check_hbm.py",
    "hpl": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "ib-write-bw": "no network between twin trays; tests/unit/test_checks_tools.py",
    "ibstat": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "ipmi-sel": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "mlxlink": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "nmx": "the twin's fabric manager is always well; tests/unit/test_checks_switch.py",
    "nvidia-smi": "faults of the whole run strike under load, and it is asked at rest; tests/unit/test_twin_tools.py",
    "nvme-smart": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "program": "the site's own; tests/twin/test_tools.py",
    "pytest": "the site's own; tests/twin/test_tools.py",
    "stream": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
    "stress-ng": "not on the twin's PATH; captures in tests/unit/test_tools_captures.py",
}
"""Checks for which nothing can be planted that they would see, and what shows them instead."""


def main() -> int:
    """Run all, print as it goes, write the page. Exit status 1 when any row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose check or faults contain this")
    parser.add_argument("--way", default="", help="own, recorded, run or beside")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/checks-matrix.md")
    arguments = parser.parse_args()
    begin, outcomes = time.monotonic(), []
    for row in ROWS:
        if arguments.only in f"{row.check} {' '.join(row.plants)}" and arguments.way in ("", row.way):
            outcomes.append(outcome(row))
            print(line(outcomes[-1]), flush=True)
    if not arguments.only and not arguments.way:
        arguments.out.write_text(page(outcomes, time.monotonic() - begin))
    wrong = [one for one in outcomes if not one.right]
    print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} right")
    return 1 if wrong else 0


def outcome(row: Row) -> Outcome:
    """One row, against both plants, nothing, and the neighbour."""
    healthy = spoke(row.way, ())
    own = frozenset((check, part, name) for check, part, name, _ in healthy) if row.way in ("run", "beside") else frozenset()
    found, beside = [], list[str]()
    for plant in row.plants:
        said = [one for one in spoke(row.way, _planted(row, plant)) if one[0] == row.check and one not in healthy]
        here = [one for one in said if one[1] == row.part(plant) and _is(one[2], row.says)]
        found.append(", ".join(sorted({f"{name} {result}" for _, _, name, result in here})))
        mine = [parse(p).part for p in _planted(row, plant)]
        beside += [f"{part} {name}" for _, part, name, _ in said if part not in ("rack",) and not any(related(part, m) for m in mine)]
    near = [one for one in spoke(row.way, (row.near,)) if one[0] == row.check and one[:3] not in own]
    quiet = [f"{part} {name}" for check, part, name, _ in healthy if check == row.check and (check, name) not in KNOWN]
    return Outcome(row, (found[0], found[1]), tuple(beside), tuple(quiet), tuple(f"{part} {name}" for _, part, name, _ in near))


KNOWN = {("leak", "leak.policy"), ("imex", "imex.domain"), ("firmware", "firmware.version")}
"""What a small healthy twin leaves open by itself: a BMC's leak policy as delivered, a domain smaller than the profile's rack."""


def _is(name: str, wanted: str) -> bool:
    head, star, tail = wanted.partition("*")
    return name.startswith(head) and name.endswith(tail) if star else name == wanted


def _planted(row: Row, plant: str) -> tuple[str, ...]:
    """Both at once where a run is dear and they are on different parts of the rack."""
    apart = len({tray_of(parse(one).part) for one in row.plants}) == 2 or row.way == "beside"
    return row.plants if row.way in ("run", "beside") and apart and row.check != "imex" else (plant,)


@cache
def spoke(way: str, plants: tuple[str, ...]) -> frozenset[Spoke]:
    """All that is not PASS on a rack with these plants."""
    return frozenset({"own": _own, "recorded": _recorded, "run": _run, "beside": _beside}[way](plants))


# ---------------------------------------------------------------- in its own time, and written down


def _own(plants: Sequence[str]) -> Iterator[Spoke]:
    """The tray of the plant; of a healthy rack one tray that stands for it."""
    suite, planted = Suite.model_validate(SUITES["own"]), [parse(plant) for plant in plants]
    tray = tray_of(planted[0].part) if planted else "t07"
    told = own_time.told(PROFILE, suite, tray, planted, SEED)
    yield from _judged(suite, tray, told.telemetry, told.log, told.telemetry.stretches, without=("gpu-load",))


def _recorded(plants: Sequence[str]) -> Iterator[Spoke]:
    suite, planted = Suite.model_validate(SUITES["own"]), tuple(parse(plant) for plant in plants)
    (one,) = batch.simulate(PROFILE, suite, [SEED], lambda seed: planted)
    for tray in load_profile(PROFILE).topology.trays():
        yield from _judged(suite, tray, one, one.log, one.stretches, only=("gpu-load",))


def _judged(
    suite: Suite,
    tray: str,
    telemetry: Telemetry,
    log: Sequence[LogLine],
    stretches: Sequence[Stretch],
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Iterator[Spoke]:
    profile, catalogue = load_profile(PROFILE), load_catalogue()
    rack = Rack.model_validate(
        {"rack": "R-1", "profile": PROFILE, "ssh": {"known_hosts": "none"}, "trays": {tray: {"host": "192.0.2.1"}}}
    )
    for stage, stretch in zip(suite.stages, stretches, strict=True):
        known = [one for one in log if one.t_s <= stretch.t1_s and tray_of(one.part) == tray]
        evidence = Evidence((), telemetry, stretch, known, {"xid": None, "kmsg": None})
        for step in stage.steps:
            if (not only or step.check in only) and step.check not in without:
                context = Context(tray, rack, profile, suite, stage, catalogue, step.args)
                yield from _open(step.check, CHECKS[step.check].judge(context, evidence))


def _open(check: str, measured: Sequence[Measurement]) -> Iterator[Spoke]:
    yield from ((check, one.part, one.name, one.result.value) for one in measured if one.result is not Result.PASS)


# ---------------------------------------------------------------- runs


def _run(plants: Sequence[str]) -> Iterator[Spoke]:
    yield from _spoken("asked", plants, trays=3, switches=2)


def _beside(plants: Sequence[str]) -> Iterator[Spoke]:
    yield from _spoken("beside", plants, trays=1, switches=0)


def _spoken(suite: str, plants: Sequence[str], trays: int, switches: int) -> Iterator[Spoke]:
    """`burnin run` in a process of its own, against a small twin."""
    with tempfile.TemporaryDirectory() as place:
        at = Path(place)
        (at / "suite.yaml").write_text(json.dumps(SUITES[suite]))  # JSON is YAML
        planted = [parse(plant) for plant in plants]
        with running(PROFILE, SEED, planted, where=at, trays=trays, switches=switches) as twin:
            words = ["run", str(at / "suite.yaml"), str(twin.rack_file), "--plain", "--operator", "bench", "--db", str(at / "b.db")]
            done = subprocess.run(
                [sys.executable, "-m", "burnin", *words, "--json", str(at / "v.json")], capture_output=True, text=True, check=False
            )
        if not (at / "v.json").exists():
            raise RuntimeError(f"no verdict of {plants}: {done.stdout[-500:]} {done.stderr[-500:]}")
        document = json.loads((at / "v.json").read_text())
    for step in document["steps"]:
        for one in step["measurements"]:
            if one["result"] != "PASS":
                yield step["name"], one["part"], one["name"], one["result"]


# ---------------------------------------------------------------- the page


def line(one: Outcome) -> str:
    """One row of the table."""
    row = one.row
    plants = "<br>".join(row.plants)
    said = "<br>".join(text or "**nothing**" for text in one.found)
    other = "; ".join(
        f"{when}: {', '.join(sorted(set(names)))}"
        for when, names in (("beside", one.beside), ("healthy", one.healthy), ("neighbour", one.near))
        if names
    )
    verdict = "right" if one.right else f"**WRONG** {other}"
    return f"| {row.check} | {row.way} | {plants} | {said} | {row.near} | {verdict} |"


def page(outcomes: Sequence[Outcome], took_s: float) -> str:
    """docs/checks-matrix.md."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False)
    right = sum(one.right for one in outcomes)
    head = f"""# Every check against planted faults

Made by `make checks-matrix` on {dt.date.today()} at commit {commit.stdout.strip()} (Python {platform.python_version()}, twin {PROFILE}, seed
{SEED}) in {took_s / 60:.0f} min. {right} of {len(outcomes)} rows are right. Right means: the check says FAIL or UNKNOWN (UNKNOWN
where it must not condemn) on both planted parts, by the measurement named, and of nobody else; it is silent on a healthy rack and
on the neighbouring fault. Nothing here was run on hardware. Ways: `own`, a twin tray in its own time, read by the agent's readers;
`recorded`, a rack of 18 trays written down; `run` and `beside`, `burnin run` over SSH and Redfish against a small twin.

A small healthy twin leaves open, and no row counts: a BMC's leak policy as delivered (`leak.policy`), and an IMEX domain of
fewer trays than the profile's rack (`imex.domain`; a dead tray makes it FAIL).

| check | way | planted | said | neighbour | |
|---|---|---|---|---|---|
"""
    absent = "".join(f"| {name} | {why} |\n" for name, why in sorted(WITHOUT.items()))
    tail = f"\n## What the twin does not model\n\n| check | why, and what shows it instead |\n|---|---|\n{absent}"
    return head + "\n".join(line(one) for one in outcomes) + "\n" + tail


if __name__ == "__main__":
    sys.exit(main())
