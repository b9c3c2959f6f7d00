"""What bench.detection measures on: faults of a size, racks that hold one, baselines, and what all judges say of one rack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast
from unittest import mock

import numpy as np

from bench import rivals
from burnin import signatures
from burnin.checks import OFFERS
from burnin.events import Severity
from burnin.rack.load import load_catalogue, load_profile
from burnin.rack.schema import SignatureRow
from burnin.signatures.baseline import Baseline
from burnin.signatures.readings import Readings
from burnin.suites.load import load_suite
from burnin.suites.schema import Suite
from burnin.twin import batch
from burnin.twin.faults import Plant
from burnin.twin.model import Model
from burnin.twin.model import load as load_model
from burnin.twin.physics import Tails
from burnin.twin.plan import Plan, plan

PROFILE = "gb300-nvl72"
THIN = 10
BASELINES = {"none": 0, "10 racks": 10, "150 racks": 150}
GPU, TRAY, LINK = "t07.g2", "t07", "t07.g2.l13"
Said = list[tuple[str, str, str]]
"""(part, signature or rule, HOLD or FAIL)."""


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
    rate_sd: float | None = None
    """Work per clock of the fleet that the rack and its baselines are of, where it is another than the twin's."""

    def plant(self) -> Plant:
        """For the twin."""
        return Plant(self.kind, self.part, self.severity)


ALIKE = 0.0019
"""Spread of work per clock with which healthy GPUs differ by 0.21 % in this run, their two locked hours' repeatability (0.12 %
each) included. The reference does not say what its .52 and .69 presume; 0.21 % is what its limit and those shares come to."""

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
    Fault("slow GPU 1 %, fleet of 0.21 %", "slow_gpu", GPU, 0.01, 0.52, 0.69, rate_sd=ALIKE),
    Fault("slow GPU 2 %", "slow_gpu", GPU, 0.02, 1.0),
    Fault("bandwidth -1.5 %", "bw_loss", GPU, 0.015, 0.48, 0.87),
    Fault("bandwidth -2 %", "bw_loss", GPU, 0.02, 0.99),
    Fault("one link -3 dB", "link_margin", LINK, 3, 0.99),
    Fault("GPU link group -1.5 dB", "link_margin", GPU, 1.5, 0.99),
    Fault("drift 1 Cel/24 h in 48 h", "tim_pumpout", GPU, 1.0, 0.99),
    Fault("CE 0.2/h in 48 h", "ecc_ce_rate", GPU, 0.2, 0.84),
    Fault(
        "SDC 1e-7 per tile in 24 h", "sdc", GPU, 1.61e-6, 0.91
    ),  # 2.4 wrong results of 1.49e6 in this run, as of 1e6 an hour in 24
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


# ---------------------------------------------------------------- racks


@cache
def suite() -> Suite:
    """The run that is simulated: two inlet-free days in thermal cycles, with a locked clock in between."""
    return load_suite(Path(__file__).with_name("detection.yaml"), checks=OFFERS, metrics=load_catalogue().metrics)


@cache
def _plan() -> tuple[Model, Plan]:
    """Where links and what stands around are read every THIN minutes: it is they that cost time, not they that miss parts."""
    model = load_model(PROFILE)
    when = plan(model, suite())
    return model, thinned(when, THIN)


def thinned(when: Plan, minutes: int) -> Plan:
    """Links and what stands around are read every so many minutes of a stage."""
    places = np.searchsorted([span.t1_s for span in when.spans], when.minutes, side="right")
    first = np.concatenate([np.flatnonzero(places == place)[::minutes] for place in np.unique(places)])
    cells = np.add.reduceat(when.minute_cells, first)
    middle = np.minimum(first + minutes // 2, np.append(first[1:], when.minutes.size) - 1)
    return replace(when, minutes=when.minutes[middle], minute_span=when.minute_span[middle], minute_cells=cells)


def racks(seeds: Iterable[int], plants: tuple[Plant, ...], tails: str, rate_sd: float | None = None) -> Iterator[batch.Recorded]:
    """Recordings of racks that hold these faults; `rate_sd`: of a fleet whose GPUs differ so much in work per clock."""
    model, when = _plan()
    usual = batch.population()
    load = usual.load.model_copy(update={} if rate_sd is None else {"rate_sd": rate_sd})
    with mock.patch.object(batch, "population", lambda: usual.model_copy(update={"load": load})):
        for seed in seeds:
            yield batch.one_rack(model, when, seed, plants, cast("Tails", tails), when.stretches)


# ---------------------------------------------------------------- judges

_LEVELS = ("fleet.shift", "coolant.balance")
"""Signatures that learn although they have no zones."""


_catalogue, _profile = cache(load_catalogue), cache(load_profile)


def learn(tails: str, seeds: range, rate_sd: float | None = None) -> dict[int, dict[tuple[str, str], list[signatures.Floats]]]:
    """What a baseline learns of healthy racks."""
    out = {}
    some = learnable()
    for one in racks(seeds, (), tails, rate_sd):
        readings = Readings(one, _profile(PROFILE).topology, {})
        signatures.look(readings, some)
        out[one.seed] = readings.learned
    return out


def learnable() -> dict[str, SignatureRow]:
    """Signatures that a baseline learns from."""
    rows = _catalogue().signatures
    return {name: rows[name] for name in rows if "watch" in rows[name].limits or name in _LEVELS}


def judged(one: batch.Recorded, baselines: dict[str, Baseline | None]) -> dict[str, Said]:
    """What each judge holds or condemns: burnin with each baseline (None: without), then the rivals."""
    topology, catalogue = _profile(PROFILE).topology, _catalogue()
    out: dict[str, Said] = {}
    first: Readings | None = None
    for name, baseline in baselines.items():
        readings = Readings(one, topology, {}, baseline, like=first)
        first = first or readings
        said = [(f.part, f.signature, f.severity) for f in signatures.look(readings, catalogue.signatures, one.log)]
        said += _logged(one.log, catalogue.xids)
        out[name] = [(part, why, str(grade)) for part, why, grade in said if grade is not Severity.WATCH]
    out["DCGM's thresholds"] = [(part, why, "FAIL") for part, why in rivals.dcgm(one, topology, first)]
    out["SuperBench's rules"] = [(part, why, "FAIL") for part, why in rivals.superbench(one, topology, first)]
    return out


def _logged(log: Sequence[object], xids: object) -> Iterator[tuple[str, str, Severity]]:
    """XIDs that the catalogue condemns or holds, as runs and judged directories have them."""
    for line in log:
        if line.kind == "xid" and int(line.code) in xids:  # type: ignore[attr-defined, operator]
            yield line.part, f"xid.{line.code}", Severity(xids[int(line.code)].gate)  # type: ignore[attr-defined, index]
