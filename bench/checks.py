"""Every check against planted faults: two sizes on two parts each; silent on a healthy rack and on the fault next door.

    python -m bench.checks                  all of it (half an hour and more), writes docs/checks-matrix.md
    python -m bench.checks --only nic       rows whose check or fault contains this; the page keeps its other rows
    python -m bench.checks --way own        the rows of one way (own: a minute or two)

Seven ways, each of the twin's real seams:
    own        a tray in its own time, read by the agent's own readers (bench/own_time.py), judged by the check
    recorded   a rack of 18 trays that is written down, judged by the check: what only a load process tells
    door       a small twin's BMCs, shelves, CDU and switch trays, asked over TLS and SSH by the check's own orders
    run        `burnin run` against a small twin, as a process that is told nothing
    tools      the same on two trays, with the tools that lines trust on their PATH, after a short load
    spare      the same on one tray, while a supply is taken away
    beside     the same with a load; other work on this machine slows the twin's load, and its rows are then wrong
"""

from __future__ import annotations

import argparse
import asyncio
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
from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.errors import TrayError
from burnin.events import LogLine, Measurement, Result
from burnin.rack.load import RackFile, load_catalogue, load_profile, load_rack
from burnin.rack.parts import related, tray_of
from burnin.rack.schema import Rack
from burnin.suites.schema import Suite
from burnin.telemetry.series import Stretch, Telemetry
from burnin.transport.bmcs import Bmcs, services
from burnin.transport.rack import dialer
from burnin.transport.shell import Shell
from burnin.twin import batch
from burnin.twin.faults import KINDS, parse
from burnin.twin.up import running

ROOT = Path(__file__).parents[1]
PROFILE, SEED = "gb300-nvl72", 3109
SUITES: dict[str, Any] = YAML(typ="safe").load((Path(__file__).parent / "checks.yaml").read_text())
Spoke = tuple[str, str, str, str]
"""(check, part, measurement, result) that is not PASS."""


@dataclass(frozen=True)
class Row:
    """One check against one kind of fault: two plants, and the neighbouring fault that it must not mind. `says`: the measurement
    that must not be PASS; `of`: the part that it is named on, where that is not the planted one ({1} is its tray)."""

    check: str
    plants: tuple[str, str]
    says: str
    near: str
    way: str = "own"
    of: str | tuple[str, str] = "{0}"

    def part(self, plant: str) -> str:
        """Where the answer must stand."""
        part = parse(plant).part
        own = self.of if isinstance(self.of, str) else self.of[self.plants.index(plant)]
        return own.format(part, tray_of(part))


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
    Row("throttling", ("coldplate_clog:t02.g1:4", "coldplate_clog:t14.g0:6"), "throttle.sw_thermal.fraction",
        "clock_cap:t02.g1:0.3"),
    Row("ecc", ("ecc_ue:t03.g0:1", "ecc_ue:t16.g1:40"), "ecc.dram_ue.growth", "cpu_edac:t03:3"),
    Row("ecc", ("ecc_ce_rate:t08.g2:2000", "ecc_ce_rate:t11.g3:40000"), "ecc.dram_ce.growth", "pcie_replay:t08.g2:20"),
    Row("links", ("link_margin:t05.g2.l7:3.5", "link_margin:t12.g0.l16:6"), "nvlink.effective_errors.growth",
        "pcie_replay:t05.g2:20"),
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
    Row("inventory", ("wrong_serial:t00.g3", "wrong_serial:t01"), "*.serial", "slow_gpu:t00.g2:0.2", "run"),
    Row("bmc", ("bmc_dead:t00.bmc", "bmc_dead:t02.bmc"), "bmc.sensors", "shelf_lost:p2", "door", of="{1}"),
    Row("leak", ("leak:t00:60", "leak:t02:600"), "leak.state", "bmc_dead:p3", "door"),
    Row("power", ("shelf_lost:p1", "shelf_lost:p6"), "shelf.supplies", "bmc_dead:t01.bmc", "door"),
    Row("coolant", ("supply_warm:cdu:28", "supply_warm:cdu:38"), "coolant.supply_temp", "leak:t00:60", "door", of="rack"),
    Row("coolant", ("flowmeter_gain:cdu:-0.7", "flowmeter_gain:cdu:-0.85"), "coolant.flow", "leak:t00:60", "door", of="rack"),
    Row("switch", ("leak:s0:120", "leak:s1:900"), "switch.leak", "leak:t00:60", "door"),
    Row("switch-ports", ("switchport_margin:s0.a1.p6:5", "switchport_margin:s1.a0.p58:7"), "port.symbol_errors.growth",
        "leak:s0:120", "door"),
    Row("link-ends", ("switchport_margin:s0.a1.p6:5", "switchport_margin:s1.a0.p58:7"), "link.errors",
        "wrong_serial:t00.g3", "run", of=("t00.g0.l8", "t02.g1.l13")),
    Row("copies", ("bw_loss:t00.g1:0.25", "bw_loss:t02.g3:0.6"), "copy.h2d", "sdc:t00.g3:0.5", "run"),
    Row("nvbandwidth", ("bw_loss:t00.g1:0.25", "bw_loss:t02.g3:0.6"), "copy.h2d", "sdc:t00.g3:0.5", "run"),
    Row("consensus", ("sdc:t00.g3:0.5", "sdc:t02.g1:0.05"), "consensus.wrong", "bw_loss:t00.g1:0.25", "run"),
    Row("dcgm", ("sdc:t00.g3:0.5", "sdc:t02.g1:0.05"), "dcgm.verdict", "wrong_serial:t00.g3", "run"),
    Row("collective", ("slow_gpu:t00.g2:0.2", "slow_gpu:t02.g0:0.6"), "collective.*", "wrong_serial:t00.g3", "run", of="{1}"),
    Row("nccl-tests", ("slow_gpu:t00.g2:0.2", "slow_gpu:t02.g0:0.6"), "nccl-tests.busbw", "wrong_serial:t00.g3", "run", of="{1}"),
    Row("imex", ("tray_dead:t01:0.5", "tray_dead:t02:3"), "imex.domain", "bw_loss:t00.g1:0.25", "run", of="rack"),
    Row("together", ("bw_loss:t00.g1:0.8", "bw_loss:t00.g2:0.95"), "together.nvlink", "sdc:t00.g3:0.5", "beside"),
    Row("gpu-burn", ("sdc:t00.g3:0.5", "sdc:t01.g1:0.05"), "gpu-burn.verdict", "slow_gpu:t00.g2:0.3", "tools"),
    Row("hpl", ("sdc:t00.g3:0.5", "sdc:t01.g1:0.05"), "hpl.verdict", "pcie_downtrain:t00.d1:0.5", "tools", of="{1}"),
    Row("hpl", ("slow_gpu:t00.g2:0.3", "slow_gpu:t01.g0:0.6"), "hpl.gflops", "cpu_edac:t00:1", "tools", of="{1}"),
    Row("stress-ng", ("host_bits:t00:2", "host_bits:t01:900"), "stress-ng.verdict", "cpu_edac:t00:1", "tools"),
    Row("stream", ("host_bits:t00:2", "host_bits:t01:900"), "stream.verdict", "cpu_edac:t00:1", "tools"),
    Row("fio", ("nvme_media:t00.d1:1", "nvme_media:t01.d1:30"), "fio.verdict", "host_bits:t00:2", "tools", of="{1}"),
    Row("fio", ("pcie_downtrain:t00.d1:0.5", "pcie_downtrain:t01.d1:0.75"), "fio.read", "nic_down:t00.n1:1", "tools",
        of="{1}"),
    Row("nvme-smart", ("nvme_media:t00.d1:1", "nvme_media:t01.d1:30"), "nvme-smart.verdict", "pcie_downtrain:t00.d1:0.5",
        "tools"),
    Row("mlxlink", ("nic_down:t00.n1:1", "nic_down:t01.n3:6"), "mlxlink.verdict", "nvme_media:t00.d1:1", "tools"),
    Row("ibstat", ("nic_down:t00.n1:1", "nic_down:t01.n3:6"), "ibstat.ports", "nvme_media:t00.d1:1", "tools", of="{1}"),
    Row("ib-write-bw", ("pcie_downtrain:t00.n0:0.75", "pcie_downtrain:t01.n0:0.9"), "ib-write-bw.bandwidth", "nic_down:t00.n1:1",
        "tools", of="rack"),
    Row("ipmi-sel", ("cpu_edac:t00:1", "cpu_edac:t01:20"), "ipmi-sel.verdict", "host_bits:t00:2", "tools"),
    Row("sel", ("cpu_edac:t00:1", "cpu_edac:t01:20"), "sel.critical.growth", "host_bits:t00:2", "tools"),
    Row("nvidia-smi", ("fabric_unhealthy:t00.g1:1", "fabric_unhealthy:t01.g3:8"), "nvidia-smi.verdict", "slow_gpu:t00.g2:0.3",
        "tools"),
    Row("nmx", ("fabric_unhealthy:t00.g1:1", "fabric_unhealthy:t01.g3:8"), "nmx.*", "slow_gpu:t00.g2:0.3", "tools", of="s0"),
    Row("hbm", ("hbm_bits:t00.g2:1", "hbm_bits:t01.g0:40"), "hbm.mismatches", "sdc:t00.g3:0.5", "tools"),
    Row("configuration", ("other_firmware:t00.g1:1", "other_firmware:t02:2"), "configuration.value", "sdc:t00.g3:0.5", "run"),
    Row("firmware", ("other_firmware:t00.bmc:1", "other_firmware:t02:3"), "firmware.version", "sdc:t00.g3:0.5", "run", of="{1}"),
    Row("gpu-reset", ("reset_lost:t00.g2:1", "reset_lost:t01.g0:0.9"), "reset.back", "slow_gpu:t00.g2:0.3", "tools"),
    Row("mndiag", ("sdc:t00.g3:0.5", "sdc:t01.g1:0.05"), "mndiag.verdict", "slow_gpu:t00.g2:0.3", "tools"),
    Row("nccl-across", ("slow_gpu:t00.g2:0.3", "slow_gpu:t01.g0:0.6"), "nccl-across.busbw", "sdc:t00.g3:0.5", "tools", of="rack"),
    Row("redundancy", ("psu_trip:p4.u3:1", "psu_trip:p5.u1:3"), "redundancy.held", "psu_imbalance:p4.u3:0.3", "spare"),
    Row("pulse", ("clock_cap:t00.g0:0.7", "clock_cap:t00.g3:0.9"), "pulse.swing", "sdc:t00.g3:0.5", "beside"),
)  # fmt: skip
WITHOUT = {
    "as-found": "nothing in the twin changes a setting behind a run's back; tests/unit/test_checks.py",
    "ask": "a person's answer; tests/unit/test_checks_own.py",
    "boot-cycle": "power cycles of minutes; `boot_intermittent` in tests/twin/test_boot_cycle.py",
    "program": "the site's own; tests/twin/test_tools.py",
    "pytest": "the site's own; tests/twin/test_tools.py",
}
"""Checks for which nothing can be planted that they would see, and what shows them instead."""


def main() -> int:
    """Run all, print as it goes, write the page. Exit status 1 when any row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose check or faults contain this")
    parser.add_argument("--way", default="", help=f"one of {', '.join(WAYS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/checks-matrix.md")
    arguments = parser.parse_args()
    outcomes = list[Outcome]()
    for row in ROWS:
        if arguments.only in f"{row.check} {' '.join(row.plants)}" and arguments.way in ("", row.way):
            outcomes.append(outcome(row))
            print(line(outcomes[-1]), flush=True)
            arguments.out.write_text(page(arguments.out, outcomes))
    wrong = [one for one in outcomes if not one.right]
    print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} right")
    return 1 if wrong else 0


def outcome(row: Row) -> Outcome:
    """One row, against both plants, nothing, and the neighbour."""
    healthy = spoke(row.way, ())
    own = frozenset((check, part, name) for check, part, name, _ in healthy) if row.way in LIVE else frozenset()
    found, beside = [], list[str]()
    for plant in row.plants:
        said = [one for one in spoke(row.way, _planted(row, plant)) if one[0] == row.check and one not in healthy]
        here = [one for one in said if one[1] == row.part(plant) and _is(one[2], row.says)]
        found.append(", ".join(sorted({f"{name} {result}" for _, _, name, result in here})))
        mine = [part for p in _planted(row, plant) for part in (parse(p).part, row.part(p))]
        others = [(part, name) for _, part, name, _ in said if part != "rack" and not any(related(part, one) for one in mine)]
        beside += [f"{part} {name}" for part, name in others]
    near = [one for one in spoke(row.way, _near(row)) if one[0] == row.check and one[:3] not in own]
    quiet = [f"{part} {name}" for check, part, name, _ in healthy if check == row.check and (check, name) not in KNOWN]
    return Outcome(row, (found[0], found[1]), tuple(beside), tuple(quiet), tuple(f"{part} {name}" for _, part, name, _ in near))


KNOWN = {("leak", "leak.policy"), ("imex", "imex.domain"), ("link-ends", "link.joined")}
"""What a small healthy twin leaves open by itself: a BMC's leak policy as delivered, a domain smaller than the profile's rack,
links to the switch trays that are not there."""


LIVE, ALONE = ("door", "run", "beside", "tools", "spare"), ("imex", "collective", "ib-write-bw", "nmx", "nccl-across")
"""Ways through a live twin; checks that need the other trays to be well."""


def _is(name: str, wanted: str) -> bool:
    head, star, tail = wanted.partition("*")
    return name.startswith(head) and name.endswith(tail) if star else name == wanted


def sized(kind: str) -> bool:
    """Has this fault a severity?"""
    return KINDS[kind].has_severity


def _planted(row: Row, plant: str) -> tuple[str, ...]:
    """Both at once where a run is dear and they are on different parts of the rack."""
    apart = len({tray_of(parse(one).part) for one in row.plants}) == 2 or row.way == "beside"
    return row.plants if row.way in LIVE and apart and row.check not in ALONE else (plant,)


def _near(row: Row) -> tuple[str, ...]:
    """The neighbour alone, or in the run that another row makes of it anyway."""
    made = [_planted(other, row.near) for other in ROWS if other.way == row.way and row.near in other.plants]
    return made[0] if made else (row.near,)


@cache
def spoke(way: str, plants: tuple[str, ...]) -> frozenset[Spoke]:
    """All that is not PASS on a rack with these plants."""
    return frozenset(WAYS[way](plants))


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


# ---------------------------------------------------------------- doors and runs


def _door(plants: Sequence[str]) -> Iterator[Spoke]:
    with tempfile.TemporaryDirectory() as place:
        planted = [parse(plant) for plant in plants]
        with running(PROFILE, SEED, planted, where=Path(place), trays=3, switches=2) as twin:
            time.sleep(8.0)  # the fastest leak needs so long to wet a detector
            yield from asyncio.run(_asked(load_rack(twin.rack_file)))


async def _asked(file: RackFile) -> list[Spoke]:
    """The checks that ask BMCs, shelves, the CDU and switch trays, and nobody else."""
    bmcs, shell, suite = Bmcs(services(file)), Shell(dialer(file)), Suite.model_validate(SUITES["asked"])
    doors = {"redfish": bmcs.order, "shell": shell.order}
    trays = tuple(tray for tray in file.rack.trays if tray.startswith("t"))

    async def answer(order: Order) -> Answer:
        try:
            return Answer(order, True, await doors[order.via](order.to, order.verb, order.args, order.timeout_s))
        except TrayError as error:
            return Answer(order, False, str(error))

    async def one(name: str, part: str) -> list[Spoke]:
        args = {"seconds": 3.0} if name == "switch-ports" else {}
        around = trays if CHECKS[name].scope == "rack" else ()
        at = Context(part, file.rack, file.profile, suite, suite.stages[0], load_catalogue(), args, around)
        answers: list[tuple[Answer, ...]] = []
        while orders := CHECKS[name].orders(at, answers):
            answers.append(tuple(await asyncio.gather(*(answer(order) for order in orders))))
        return list(_open(name, CHECKS[name].judge(at, Evidence(answers=answers))))

    try:
        asked = [(name, part) for name in DOORS for part in CHECKS[name].parts(file.rack.trays)]
        return [spoke for found in await asyncio.gather(*(one(*each) for each in asked)) for spoke in found]
    finally:
        await bmcs.close()


DOORS = ("bmc", "leak", "power", "coolant", "switch", "switch-ports")


def _run(plants: Sequence[str]) -> Iterator[Spoke]:
    yield from _spoken("asked", plants, trays=3, switches=2)


def _tools(plants: Sequence[str]) -> Iterator[Spoke]:
    yield from _spoken("tools", plants, trays=2, switches=1)


def _spare(plants: Sequence[str]) -> Iterator[Spoke]:
    yield from _spoken("spare", plants, trays=1, switches=0)


def _beside(plants: Sequence[str]) -> Iterator[Spoke]:
    yield from _spoken("beside", plants, trays=1, switches=0)


def _spoken(suite: str, plants: Sequence[str], trays: int, switches: int) -> Iterator[Spoke]:
    """`burnin run` in a process of its own, against a small twin."""
    with tempfile.TemporaryDirectory() as place:
        at = Path(place)
        planted = [parse(plant) for plant in plants]
        with running(PROFILE, SEED, planted, where=at, trays=trays, switches=switches) as twin:
            net, host = (twin.trays[f"t{trays - 1:02}"].host.split(".")[n] for n in (1, 3))
            said = json.dumps(SUITES[suite]).replace("{card}", f"127.{net}.200.{host}")
            (at / "suite.yaml").write_text(said)  # JSON is YAML
            with twin.rack_file.open("a") as file:  # it ends with its waivers
                file.write(WAIVED.format(dt.date.today() + dt.timedelta(days=9)) if suite == "spare" else "")
                file.write(f"allow: [{', '.join(ALLOWED)}]\n")
            words = ["run", str(at / "suite.yaml"), str(twin.rack_file), "--plain", "--operator", "bench"]
            words = [sys.executable, "-m", "burnin", *words, "--db", str(at / "b.db"), "--json", str(at / "v.json")]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        if not (at / "v.json").exists():
            raise RuntimeError(f"no verdict of {plants}: {done.stdout[-500:]} {done.stderr[-500:]}")
        document = json.loads((at / "v.json").read_text())
    for step in document["steps"]:
        for one in step["measurements"]:
            if one["result"] != "PASS":
                yield step["name"], one["part"], one["name"], one["result"]


WAYS = {"own": _own, "recorded": _recorded, "door": _door, "run": _run, "tools": _tools, "spare": _spare, "beside": _beside}
ALLOWED = ("gpu_reset", "other_trays", "redundancy")
WAIVED = "  - {{interlock: power_shelves, by: bench, why: the guard would end the run before the check looked, until: {}}}\n"


# ---------------------------------------------------------------- the page


def line(one: Outcome) -> str:
    """One row of the table."""
    row = one.row
    said = "<br>".join(text or "**nothing**" for text in one.found)
    other = "; ".join(
        f"{when}: {', '.join(sorted(set(names)))}"
        for when, names in (("beside", one.beside), ("healthy", one.healthy), ("neighbour", one.near))
        if names
    )
    verdict = "right" if one.right else f"**WRONG** {other}"
    return f"{_key(row)} {said} | {row.near} | {verdict} | {_commit()} |"


def _key(row: Row) -> str:
    return f"| {row.check} | {row.way} | {'<br>'.join(row.plants)} |"


@cache
def _commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()


def page(old: Path, outcomes: Sequence[Outcome]) -> str:
    """docs/checks-matrix.md: these rows, and of all others those that the page has."""
    known = old.read_text().splitlines() if old.exists() else []
    fresh = {_key(one.row): line(one) for one in outcomes}
    lines = [fresh.get(key) or next((row for row in known if row.startswith(key)), "") for key in map(_key, ROWS)]
    there = [row for row in lines if row]
    right = sum("| right |" in row for row in there)
    head = f"""# Every check against planted faults

Made by `make checks-matrix`, last on {dt.date.today()} (Python {platform.python_version()}, twin {PROFILE}, seed {SEED}); the
last column is the commit at which a row was made. {right} of {len(ROWS)} rows are right, {len(ROWS) - len(there)} were not made.
Nothing here was run on hardware.

Right means: the check says FAIL, or UNKNOWN where it must not condemn, on both planted parts, by the measurement named, and of
nobody else; it is silent on a healthy rack and on the neighbouring fault. Ways: `own`, a twin tray in its own time, read by the
agent's readers; `recorded`, a rack of 18 trays written down; `door`, the check's orders to a small twin's BMCs, CDU, shelves and
switch trays; `run`, `tools` and `beside`, `burnin run` against a small twin (`tools`: two trays, after a short load; `spare`: one
tray under load, while a supply is off, the guard's own watch of the shelves waived; `beside` wants a machine that does nothing
else).

A small healthy twin leaves open, and no row counts: a BMC's leak policy as delivered (`leak.policy`), an IMEX domain of fewer
trays than the profile's rack (`imex.domain`; a dead tray makes it FAIL), links to absent switch trays (`link.joined`).

`together` and `pulse` measure what load processes get done: where this machine starves them (a load average of 20 on two cores),
fewer copies flow than the limit asks for, healthy or not, and the check says UNKNOWN `not_attained`, never FAIL; the row is then
WRONG. Whether the load itself was reached is not what these two rows ask: their suite lets a tenth of the power limit do.

Limits are the product's (inventory/profiles), but for two that nobody has published and that a site states for itself, HPL's
result of a tray (`hpl.4gpu.gflops`) and a drive's reads (`fio.read`), where bench/checks.yaml takes the twin's own, a fifth and a
quarter off; and `together.nvlink`, 60 GB/s in place of 230, which the twin's load processes reach on a busy machine, too. A port
that downtrains to half its lanes still passes the limit of `ib-write-bw`, which is that of a 400 Gb/s port: its row plants three
quarters.

| check | way | planted | said | neighbour | | commit |
|---|---|---|---|---|---|---|
"""
    absent = "".join(f"| {name} | {why} |\n" for name, why in sorted(WITHOUT.items()) if name in CHECKS)
    tail = f"\n## What the twin does not model\n\n| check | why, and what shows it instead |\n|---|---|\n{absent}"
    return head + "\n".join(there) + "\n" + tail


if __name__ == "__main__":
    sys.exit(main())
