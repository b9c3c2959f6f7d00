"""How often healthy racks are blamed, and how often a planted fault is named: burnin beside two rivals, on the same racks.

    python -m bench.detection                          the whole table (hours; --jobs for more cores)
    python -m bench.detection --minutes 20             what can be had in that time, every line about evenly
    python -m bench.detection --out -                  print it instead of writing docs/detection.md

Racks come from the twin's batch path, with the suite bench/detection.yaml. Baselines are learned from seeds that are not judged,
and nothing was tuned on the seeds that are. Each rack is looked at without a baseline, with one of 10 racks, with one of
150, and by the rivals.

A part that is named wrongly is a miss and a false alarm. `named`: FAIL or HOLD on the planted part or on the parent that the
fault is of; `others`: FAIL or HOLD on a part that has nothing to do with it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np

import burnin
from bench import rivals
from burnin import signatures
from burnin.checks import OFFERS
from burnin.events import Severity
from burnin.rack.load import load_catalogue, load_profile
from burnin.rack.parts import related
from burnin.signatures.baseline import Baseline, Key, build
from burnin.signatures.counts import binomial_bounds
from burnin.signatures.readings import Readings
from burnin.suites.load import load_suite
from burnin.suites.schema import Suite
from burnin.twin import batch
from burnin.twin.faults import Plant
from burnin.twin.model import Model
from burnin.twin.model import load as load_model
from burnin.twin.physics import Tails
from burnin.twin.plan import Plan, plan

ROOT = Path(__file__).parents[1]
PROFILE = "gb300-nvl72"
TRAIN, VALIDATE = 1_000_000, 3_000_000
"""Seeds of baselines and of what is judged; the tests of the signatures use others still."""
THIN = 10
BASELINES = {"none": 0, "10 racks": 10, "150 racks": 150}
GPU, TRAY, LINK = "t07.g2", "t07", "t07.g2.l13"
MARK = "<!-- below: written by bench/detection.py -->"


@dataclass(frozen=True)
class Fault:
    """One kind and size: the plant, which part is the right answer, and what the task asks for (must, aim; None: nothing)."""

    name: str
    kind: str
    part: str
    severity: float
    must: float | None = None
    aim: float | None = None
    also: tuple[str, ...] = ()
    """Other parts that are as right: the parent that stands for it."""

    def plant(self) -> Plant:
        """For the twin."""
        return Plant(self.kind, self.part, self.severity)


FAULTS = (
    Fault("TIM +75 %", "tim_void", GPU, 0.75, 0.70, 0.77),
    Fault("TIM +100 %", "tim_void", GPU, 1.0, 0.98),
    Fault("TIM +150 %", "tim_void", GPU, 1.5, 1.0),
    Fault("plate clog +75 %", "coldplate_clog", GPU, 0.75, 0.96),
    Fault("HBM +60 %", "hbm_tim", GPU, 0.6, 0.75, 0.88),
    Fault("tray flow -30 %", "tray_flow", TRAY, 0.3, 0.97, 1.0),
    Fault("T sensor +6 Cel", "tsensor_off", GPU, 6, 0.94, 0.97),
    Fault("leakage +100 %", "leaky_die", GPU, 1.0, 0.58, 0.94),
    Fault("slow GPU 1 %", "slow_gpu", GPU, 0.01, 0.52, 0.69),
    Fault("slow GPU 2 %", "slow_gpu", GPU, 0.02, 1.0),
    Fault("bandwidth -1.5 %", "bw_loss", GPU, 0.015, 0.48, 0.87),
    Fault("bandwidth -2 %", "bw_loss", GPU, 0.02, 0.99),
    Fault("one link -3 dB", "link_margin", LINK, 3, 0.99),
    Fault("GPU link group -1.5 dB", "link_margin", GPU, 1.5, 0.99),
    Fault("drift 1 Cel/24 h in 48 h", "tim_pumpout", GPU, 1.0, 0.99),
    Fault("CE 0.2/h in 48 h", "ecc_ce_rate", GPU, 0.2, 0.84),
    Fault("SDC 1e-7 per tile in 24 h", "sdc", GPU, 1.5e-6, 0.91),  # 2.4 wrong tiles expected over the run, as 24 h at 1e6 an hour
    Fault("flow meter +12 %", "flowmeter_gain", "cdu", 0.12, 1.0, also=("rack",)),
    Fault("ECC uncorrectable", "ecc_ue", GPU, 1, 1.0),
    Fault("SRAM uncorrectable", "sram_ue", GPU, 1, 1.0),
    Fault("row cluster", "row_cluster", GPU, 12, 1.0),
    Fault("XID 95", "xid", GPU, 95, 1.0),
    Fault("off the bus", "gpu_off_bus", GPU, 12, 1.0),
    Fault("link down", "link_down", LINK, 12, 1.0),
    Fault("lane flaps", "lane_flap", LINK, 12, 1.0),
    Fault("V/f +7 %", "weak_vmin", GPU, 0.07),
    Fault("VR loss 15 %", "vr_loss", GPU, 0.15),
    Fault("clock ceiling -30 %", "clock_cap", GPU, 0.3),
    Fault("power sensor +30 %", "psensor_gain", GPU, 0.3),
)


@dataclass
class Tally:
    """Racks by what was said of them: severities of any part, of the planted one, of others."""

    racks: int = 0
    said: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Both together."""
        self.racks += other.racks
        self.said += other.said
        self.by += other.by


def main() -> int:
    """Measure, and put the tables behind the mark in docs/detection.md (or print them)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=3000, help="healthy racks of each kind of tails")
    parser.add_argument("--each", type=int, default=200, help="racks of each fault")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, all lines measured about evenly")
    parser.add_argument("--no-150", action="store_true", help="without the baseline of 150 racks (learning it takes minutes)")
    parser.add_argument("--baselines", default="", help="a folder to keep them in; what lies there is not learned again")
    parser.add_argument("--out", default=str(ROOT / "docs/detection.md"))
    arguments = parser.parse_args()
    sizes = {name: n for name, n in BASELINES.items() if not (arguments.no_150 and n > 10)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.baselines or scratch)
        folder.mkdir(exist_ok=True)
        with multiprocessing.Pool(arguments.jobs, _begin, (str(folder), sizes)) as pool:
            learn(pool, folder, sizes)
            faults = [fault for fault in FAULTS if arguments.only in fault.name]
            tables = _measure(pool, faults, arguments.healthy, arguments.each, time.monotonic() + 60 * arguments.minutes)
    healthy = {tails: tables[None, tails] for tails in TAILS}
    planted = {fault: tables[fault, "normal"] for fault in faults if (fault, "normal") in tables}
    text = "\n".join([*_header(sizes), *_healthy(healthy), *_planted(planted)]) + "\n"
    if arguments.out == "-":
        print(text)
    else:
        page = Path(arguments.out)
        page.write_text(page.read_text().split(MARK)[0] + MARK + "\n\n" + text)
    return 0


def _measure(
    pool: multiprocessing.pool.Pool, faults: Sequence[Fault], healthy: int, each: int, until: float
) -> dict[tuple[Fault | None, str], dict[str, Tally]]:
    """Every line's racks, a few of each line at a time, until all are done or the time is up (the first of each line are)."""
    lines: dict[tuple[Fault | None, str], list[Job]] = {(None, tails): _jobs(None, tails, healthy, 20) for tails in TAILS}
    lines |= {(fault, "normal"): _jobs(fault, "normal", each, 3) for fault in faults}
    out: dict[tuple[Fault | None, str], dict[str, Tally]] = {}
    for turn in range(max(map(len, lines.values()), default=0)):
        todo = [jobs[turn] for jobs in lines.values() if turn < len(jobs)]
        for job, many in zip(todo, pool.imap(_judge, todo), strict=True):
            for judge, tally in many.items():
                out.setdefault(job[:2], {}).setdefault(judge, Tally()).add(tally)
            if turn and time.monotonic() > until:
                return out
        print(turn, sum(by["none"].racks for by in out.values()), file=sys.stderr, flush=True)
    return out


# ---------------------------------------------------------------- one process's work

_FOLDER: list[Path] = []
_SIZES: dict[str, int] = {}
Job = tuple[Fault | None, str, range]
CHUNK = 10
TAILS = ("normal", "t5")


def _begin(folder: str, sizes: dict[str, int]) -> None:
    _FOLDER[:] = [Path(folder)]
    _SIZES.update(sizes)


@cache
def suite() -> Suite:
    """The run that is simulated: two inlet-free days in thermal cycles, with a locked clock in between."""
    return load_suite(Path(__file__).with_name("detection.yaml"), checks=OFFERS, metrics=load_catalogue().metrics)


@cache
def _plan() -> tuple[Model, Plan]:
    """Where links and what stands around are read every THIN minutes: it is they that cost time, not they that miss parts."""
    model = load_model(PROFILE)
    when = plan(model, suite())
    places = np.searchsorted([span.t1_s for span in when.spans], when.minutes, side="right")
    first = np.concatenate([np.flatnonzero(places == place)[::THIN] for place in np.unique(places)])
    cells = np.add.reduceat(when.minute_cells, first)
    middle = np.minimum(first + THIN // 2, np.append(first[1:], when.minutes.size) - 1)
    return model, replace(when, minutes=when.minutes[middle], minute_span=when.minute_span[middle], minute_cells=cells)


def racks(seeds: Iterable[int], plants: tuple[Plant, ...], tails: str) -> Iterator[batch.Recorded]:
    """Recordings of racks that hold these faults."""
    model, when = _plan()
    for seed in seeds:
        yield batch.one_rack(model, when, seed, plants, cast("Tails", tails), when.stretches)


@cache
def _baseline(name: str, tails: str) -> Baseline | None:
    path = _FOLDER[0] / f"{name}-{tails}.json"
    return Baseline.model_validate_json(path.read_text()) if path.exists() else None


def learn(pool: multiprocessing.pool.Pool, folder: Path, sizes: dict[str, int]) -> None:
    """Baselines of racks that are not judged."""
    for tails in TAILS:
        if all((folder / f"{name}-{tails}.json").exists() for name, count in sizes.items() if count):
            continue
        most = max(sizes.values())
        jobs = [(tails, range(TRAIN + i, TRAIN + min(i + CHUNK, most))) for i in range(0, most, CHUNK)]
        grids = {str(seed): one for many in pool.imap(_learn, jobs) for seed, one in many.items()}
        for name, count in sizes.items():
            if count:
                some = dict(list(grids.items())[:count])
                (folder / f"{name}-{tails}.json").write_text(build(Key(profile=PROFILE), some).model_dump_json())


_LEVELS = ("fleet.shift", "coolant.balance")
"""Signatures that learn although they have no zones."""


def _learn(job: tuple[str, range]) -> dict[int, dict[tuple[str, str], list[signatures.Floats]]]:
    tails, seeds = job
    out = {}
    for one in racks(seeds, (), tails):
        readings = Readings(one, load_profile(PROFILE).topology, {})
        rows = load_catalogue().signatures
        signatures.look(readings, {name: rows[name] for name in rows if "watch" in rows[name].limits or name in _LEVELS})
        out[one.seed] = readings.learned
    return out


def _jobs(fault: Fault | None, tails: str, count: int, chunk: int) -> list[Job]:
    begin = VALIDATE + (0 if fault is None else 10_000 * (1 + FAULTS.index(fault)))
    return [(fault, tails, range(begin + i, begin + min(i + chunk, count))) for i in range(0, count, chunk)]


def _judge(job: Job) -> dict[str, Tally]:
    fault, tails, seeds = job
    topology, catalogue = load_profile(PROFILE).topology, load_catalogue()
    out: dict[str, Tally] = {}
    plants = (fault.plant(),) if fault else ()
    for one in racks(seeds, plants, tails):
        found: dict[str, list[tuple[str, str, Severity]]] = {}
        first: Readings | None = None
        for name in _SIZES:
            readings = Readings(one, topology, {}, _baseline(name, tails), like=first)
            first = first or readings
            said = [*signatures.look(readings, catalogue.signatures, one.log)]
            found[name] = [(f.part, f.signature, f.severity) for f in said] + list(_logged(one.log, catalogue.xids))
        found["DCGM's thresholds"] = [(part, why, Severity.FAIL) for part, why in rivals.dcgm(one, topology, first)]
        found["SuperBench's rules"] = [(part, why, Severity.FAIL) for part, why in rivals.superbench(one, topology, first)]
        for judge, named in found.items():
            out.setdefault(judge, Tally()).add(_tally(fault, named))
    return out


def _logged(log: Sequence[object], xids: object) -> Iterator[tuple[str, str, Severity]]:
    """XIDs that the catalogue condemns or holds, as runs and judged directories have them."""
    for line in log:
        if line.kind == "xid" and int(line.code) in xids:  # type: ignore[attr-defined, operator]
            yield line.part, f"xid.{line.code}", Severity(xids[int(line.code)].gate)  # type: ignore[attr-defined, index]


def _tally(fault: Fault | None, named: Sequence[tuple[str, str, Severity]]) -> Tally:
    out = Tally(racks=1)
    grave = [(part, why, grade) for part, why, grade in named if grade is not Severity.WATCH]
    if fault is None:
        out.said.update({str(grade) for _, _, grade in grave})
        out.by.update({f"{why} {grade}" for _, why, grade in grave})
        return out
    right = [x for x in grave if x[0] == fault.part or x[0] in fault.also]
    wrong = [x for x in grave if not any(related(x[0], part) for part in (fault.part, *fault.also))]
    out.said.update({"named": bool(right), "FAIL": any(g is Severity.FAIL for _, _, g in right), "others": bool(wrong)})
    out.by.update({f"{part} {why}" for part, why, _ in wrong} | {f"+ {why}" for _, why, _ in right})
    return out


# ---------------------------------------------------------------- the tables


def _header(sizes: dict[str, int]) -> list[str]:
    return [
        f"{dt.date.today()}, burnin {burnin.__version__}, on the twin's batch path ({PROFILE}, 48 h): {', '.join(sizes)}",
        "Simulated, validated on 0 real racks. Intervals are Clopper-Pearson, 95 %.",
        "",
    ]


def _share(count: int, n: int) -> str:
    low, high = binomial_bounds(count, n)
    return f"{100 * count / n:.3g} ({100 * low:.2g} - {100 * high:.3g})"


def _healthy(tables: dict[str, dict[str, Tally]]) -> list[str]:
    out = ["## False alarms", "", "Share of healthy racks, %, in which anybody is named.", ""]
    out += ["| parts | judge, baseline | n | FAIL | HOLD | by |", "|---|---|---|---|---|---|"]
    for tails, judges in tables.items():
        for judge, tally in judges.items():
            by = ", ".join(f"`{why}` {count}" for why, count in tally.by.most_common(4))
            shares = " | ".join(_share(tally.said[grade], tally.racks) for grade in ("FAIL", "HOLD"))
            out.append(f"| {tails} | {judge} | {tally.racks} | {shares} | {by} |")
    return [*out, ""]


def _planted(tables: dict[Fault, dict[str, Tally]]) -> list[str]:
    judges = list(next(iter(tables.values()), {}))
    out = [
        "## Detection",
        "",
        "Share of racks with one planted fault, %, in which its part is FAIL or HOLD; in brackets the interval, and",
        "behind / the racks in which another part is.",
        "",
    ]
    out += [f"| fault | must / aim | n | {' | '.join(judges)} |", f"|---|---|---|{'---|' * len(judges)}"]
    for fault, by in tables.items():
        asked = " / ".join(f"{100 * x:.0f}" for x in (fault.must, fault.aim) if x is not None)
        cells = [f"{_share(by[j].said['named'], by[j].racks)} / {by[j].said['others']}" for j in judges]
        out.append(f"| {fault.name} | {asked} | {next(iter(by.values())).racks} | {' | '.join(cells)} |")
    return [*out, ""]


if __name__ == "__main__":
    sys.exit(main())
