"""Faults in combination: a file names them with their times and growth, or says from which priors a seed draws them.

    scenario: late                                   scenario: line
    about: a hose that kinks in the night            about: one rack in three has something
    faults:                                          draw:
      - {plant: "tray_flow:t09:0.4", at: 3 h}          faulty: 0.3
      - {plant: "tim_void:t07.g2:2", at: 1 h,          kinds: {tim_void: {weight: 3, severity: [0.3, 3]},
         growth: linear, over: 6 h}                            leak: {weight: 1}}

`at` counts from the rack's first load. Severities are drawn evenly in their logarithm, parts evenly among those of a rack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Literal

from pydantic import Field

from burnin.errors import InputError
from burnin.rack.data import Data
from burnin.rack.document import read
from burnin.rack.parts import kind
from burnin.rack.yamlfile import check
from burnin.suites.schema import Duration
from burnin.twin import faults as f
from burnin.twin.faults import KINDS, LIVE, RECORDED, Kind, Plant, parse
from burnin.twin.model import Model, load

SHIPPED = Path(__file__).parent / "data" / "scenarios"


class Fault(Data):
    """One fault: KIND:PART[:SEVERITY], from when on, and how it grows."""

    plant: str
    at: Duration | None = None
    growth: Literal["step", "linear", "square"] = "step"
    over: Duration = 0.0


class Prior(Data):
    """How often a kind is drawn, against the others, and between which severities; without them its default is taken."""

    weight: float = Field(gt=0)
    severity: list[float] | None = Field(default=None, min_length=2, max_length=2)


class Draw(Data):
    """What a seed draws its faults from."""

    faulty: float = Field(ge=0, le=1, description="share of the racks that have a fault")
    more: float = Field(default=0.0, ge=0, le=20, description="mean number of further faults in such a rack")
    late: float = Field(default=0.0, ge=0, le=1, description="share of the faults that begin somewhere in the run")
    kinds: dict[str, Prior] = Field(min_length=1)


class ScenarioFile(Data):
    """A scenario."""

    scenario: str
    about: str = ""
    faults: list[Fault] = Field(default_factory=list)
    draw: Draw | None = None


def plants_of(
    profile: str, texts: Sequence[str], file: Path | None, *, seam: str = RECORDED, hours: float = 1.0
) -> Callable[[int], tuple[Plant, ...]]:
    """Seed -> its faults: those of the command line and the scenario's fixed ones in every rack, and what the seed draws.

    `hours`: of the run, for faults that begin somewhere in it. Raises InputError for what this profile or seam cannot have.
    """
    model = load(profile)
    scenario = read_scenario(file) if file is not None else None
    fixed = [parse(text) for text in texts] + [_fault(one) for one in (scenario.faults if scenario is not None else ())]
    for plant in fixed:
        _possible(model, plant, seam)
    prior = scenario.draw if scenario is not None else None
    if prior is None:
        return lambda seed: tuple(fixed)
    kinds = {name: one for name, one in prior.kinds.items() if seam in KINDS[name].seams}
    parts = {name: [part for what in KINDS[name].parts for part in every_part(model, what)] for name in kinds}
    return lambda seed: (*fixed, *_drawn(parts, prior, kinds, Random(f"{profile}/{seed}/scenario"), seam, hours))


def read_scenario(name: Path) -> ScenarioFile:
    """A file, or one that comes with burnin, by its name. Raises InputError with every mistake."""
    shipped = SHIPPED / f"{name}.yaml"
    document = read(shipped if shipped.is_file() and not name.exists() else name)
    valid, problems = check(document, ScenarioFile)
    for kind_name, prior in valid.draw.kinds.items() if valid is not None and valid.draw is not None else ():
        wrong = _wrong_prior(kind_name, prior)
        if wrong:
            problems.append(document.problem(("draw", "kinds", kind_name), wrong))
    if valid is None or problems:
        raise InputError(problems)
    return valid


def _wrong_prior(name: str, prior: Prior) -> str:
    if name not in KINDS:
        return f"there is no fault {name!r}"
    fault, span = KINDS[name], prior.severity
    if span is not None and not fault.has_severity:
        return f"{name} takes no severity"
    if span is not None and not fault.least <= span[0] <= span[1] <= fault.most:
        return f"severities {span[0]:g} to {span[1]:g} are not within {fault.least:g} to {fault.most:g} ({fault.unit})"
    return ""


def _fault(one: Fault) -> Plant:
    plain = parse(one.plant)
    start = plain.start_s if one.at is None else one.at
    return Plant(plain.kind, plain.part, plain.severity, start, one.growth, one.over)


def _possible(model: Model, plant: Plant, seam: str) -> None:
    fault = KINDS[plant.kind]
    if seam not in fault.seams:
        where = "in recorded racks only (burnin twin record)" if seam == LIVE else "in live racks only (burnin twin up)"
        raise InputError(f"{plant}: {plant.kind} happens {where}")
    if seam == LIVE and (plant.growth != "step" or (plant.start_s is not None and not fault.starts)):
        raise InputError(f"{plant}: {plant.kind} begins late or grows in recorded racks only (burnin twin record)")
    if plant.part not in every_part(model, kind(plant.part)):
        raise InputError(f"{plant}: this {model.profile} has no {plant.part}")


def _drawn(
    parts_of: dict[str, list[str]], prior: Draw, kinds: dict[str, Prior], chance: Random, seam: str, hours: float
) -> Iterator[Plant]:
    if not kinds or chance.random() >= prior.faulty:
        return
    taken: set[str] = set()
    for _ in range(1 + _poisson(chance, prior.more)):
        name = chance.choices(list(kinds), [one.weight for one in kinds.values()])[0]
        fault = KINDS[name]
        parts = [part for part in parts_of[name] if part not in taken]
        if not parts:
            continue
        part = chance.choice(parts)
        taken.add(part)
        timed = fault.unit.startswith("seconds")
        start = None
        if not timed and (seam == RECORDED or fault.starts) and chance.random() < prior.late:
            start = round(chance.uniform(0, 0.8 * hours * 3600), 1)
        severity = _severity(fault, kinds[name], chance)
        yield Plant(name, part, min(severity, round(2880 * hours, 1)) if timed else severity, start)


def _severity(fault: Kind, prior: Prior, chance: Random) -> float:
    if prior.severity is None:
        return fault.default
    low, high = prior.severity
    value = math.exp(chance.uniform(math.log(low), math.log(high))) if low > 0 else chance.uniform(low, high)
    return float(round(value)) if fault.whole else float(f"{min(max(value, low), high):.4g}")


def _poisson(chance: Random, mean: float) -> int:
    """Knuth's way: how many evenly distributed factors keep a product above exp(-mean)."""
    count, product, least = 0, chance.random(), math.exp(-mean)
    while product > least:
        count += 1
        product *= chance.random()
    return count


def every_part(model: Model, what: str) -> list[str]:
    """All parts of one kind that a rack of this model has."""
    topology, machine, housing = model.topology, model.machine, model.housing
    trays, switches = topology.trays(), topology.switches()
    gpus = [gpu for tray in trays for gpu in topology.gpus(tray)]
    asics = [f"{switch}.a{i}" for switch in switches for i in range(2)]
    shelves = [f"p{i}" for i in range(housing.shelves if housing is not None else 0)]
    cdu = model.loop is not None
    parts: dict[str, list[str]] = {
        f.TRAY: trays,
        f.GPU: gpus,
        f.LINK: [f"{gpu}.l{i}" for gpu in gpus for i in range(model.gpu.nvlinks)],
        f.CPU: [f"{tray}.c{i}" for tray in trays for i in range(machine.sockets)],
        f.NIC: [f"{tray}.n{i}" for tray in trays for i in range(len(machine.nics))],
        f.NVME: [f"{tray}.d{i}" for tray in trays for i in range(len(machine.nvmes))],
        f.BMC: [f"{tray}.bmc" for tray in [*trays, *switches]] if cdu else [],
        f.SWITCH: switches,
        f.ASIC: asics,
        f.PORT: [f"{asic}.p{i}" for asic in asics for i in range(len(gpus))],
        f.CARTRIDGE: [f"x{i}" for i in range(4)] if switches else [],
        f.SHELF: shelves,
        f.PSU: [f"{shelf}.u{i}" for shelf in shelves for i in range(housing.psus if housing is not None else 0)],
        f.CDU: ["cdu"] if cdu else [],
        f.MANIFOLD: ["manifold"] if cdu else [],
    }
    return parts[what]
