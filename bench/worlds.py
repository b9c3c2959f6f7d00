"""Healthy racks of another kind than the twin's: other plumbing, leakage, sensors, tails, lots. How often is anybody named?

    python -m bench.worlds                       200 racks of each world, baselines of 10 and 150 of its own (an hour)
    python -m bench.worlds --racks 20 --learn 20 --only t4    what can be had quickly

Each world is judged without a baseline, with those of its own racks, and with one that was learned elsewhere: of the twin's usual
racks, once as if nobody had noticed that the loop, the firmware or the parts are others (`same`), once as burnin does it when
the key differs. Nothing was tuned on these worlds. The run is five hours long (bench/worlds.yaml); links and what stands around
are read every five minutes. A rack with a link that loses code words is left out, as in bench.detection.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from bench.detection_racks import PROFILE, learnable, thinned
from burnin import signatures
from burnin.checks import OFFERS
from burnin.events import Severity
from burnin.rack.load import load_catalogue, load_profile
from burnin.signatures.baseline import Baseline, Key, build
from burnin.signatures.counts import binomial_bounds
from burnin.signatures.readings import Readings
from burnin.suites.load import load_suite
from burnin.telemetry.series import Floats, Series
from burnin.twin import batch, physics
from burnin.twin.model import Model
from burnin.twin.model import load as load_model
from burnin.twin.plan import Plan, plan
from burnin.twin.population import Chance
from burnin.twin.variants import varied

LEARN, JUDGE = 21_000_000, 22_000_000
MINUTES = 5
ROOT = Path(__file__).parents[1]
MARK, END = "<!-- worlds: written by bench/worlds.py -->", "<!-- end of worlds -->"
Draw = Callable[[np.random.Generator, Any], Floats]
"""Standard values of such a shape: mean 0, standard deviation 1."""


def _lognormal(stream: np.random.Generator, shape: Any) -> Floats:
    return (np.exp(0.5 * stream.standard_normal(shape)) - math.exp(0.125)) / math.sqrt(math.exp(0.5) - math.exp(0.25))


def _contaminated(stream: np.random.Generator, shape: Any) -> Floats:
    wide = np.where(stream.random(shape) < 0.02, 4.0, 1.0)
    return np.asarray(wide * stream.standard_normal(shape) / math.sqrt(0.98 + 0.02 * 16))


TAILS: dict[str, Draw] = {
    "t4": lambda stream, shape: stream.standard_t(4, shape) / math.sqrt(2),
    "t5": lambda stream, shape: stream.standard_t(5, shape) * math.sqrt(0.6),
    "lognormal": _lognormal,
    "gamma": lambda stream, shape: (stream.standard_gamma(4, shape) - 4) / 2,
    "contaminated": _contaminated,
}


@dataclass(frozen=True)
class World:
    """Racks of one kind: a variant of the twin, values of its model, how parts are drawn, what becomes of a rack's readings."""

    name: str
    about: str
    variant: str | None = None
    model: dict[str, dict[str, Any]] = field(default_factory=dict)
    draw: Draw | None = None
    read: Callable[[batch.Recorded], batch.Recorded] | None = None


def _rough(one: batch.Recorded) -> batch.Recorded:
    """Power in steps of 10 W, temperatures in steps of 2 K."""
    step = {"gpu.power": 10.0, "gpu.temp": 2.0, "hbm.temp": 2.0}
    series = {
        (part, metric): Series(s.t_s, step[metric] * np.round(s.v / step[metric])) if metric in step else s
        for (part, metric), s in one.series.items()
    }
    return replace(one, series=series)


WORLDS = (
    World("usual", "the twin's own racks"),
    World("series", "four GPUs on one loop, each warmed by those before it", "series"),
    World("parallel", "every GPU on a loop of its own", "parallel"),
    World("uneven", "a manifold that starves its end, branches and plates that differ twice as much", "uneven"),
    World("leaky", "half as much leakage again, growing faster, differing twice as much", "leaky"),
    World("coarse", "sensors twice as bad", "coarse"),
    World("sharp", "sensors and parts twice as good", "sharp"),
    World("thin", "interfaces that matter half as much, plates twice as much", "thin"),
    World("rough", "power in steps of 10 W, temperatures in steps of 2 K", read=_rough),
    World("warm", "supply at 40 Cel", model={"coolant": {"supply_c": 40}}),
    World("lot", "a lot with worse interfaces (+15 %) and more leakage (+30 %)",
          model={"thermal": {"r_tim": 0.0092}, "power": {"leakage_w": 182}}),
    World("gains", "power sensors that differ by 3 %", model={"sensors": {"power_gain": 0.03}}),
    *(World(name, f"parts drawn as {name}", draw=draw) for name, draw in TAILS.items()),
)  # fmt: skip


# ---------------------------------------------------------------- racks


class _Drawn(Random):
    """Chance whose gauss() is a world's."""

    draw: Draw

    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        stream = np.random.Generator(np.random.PCG64(self.getrandbits(64)))
        return mu + sigma * float(self.draw(stream, None))


@contextmanager
def _drawing(draw: Draw | None) -> Iterator[None]:
    if draw is None:
        yield
        return
    drawn = type("Drawn", (_Drawn,), {"draw": staticmethod(draw)})

    def parts(self: Chance, purpose: str, *shape: int) -> Floats:
        return draw(self.stream(purpose), shape)

    with mock.patch.object(physics, "HeavyTails", drawn), mock.patch.object(Chance, "parts", parts):
        yield


@cache
def _plan(name: str) -> tuple[Model, Plan]:
    world = next(world for world in WORLDS if world.name == name)
    whole = (varied(PROFILE, world.variant) if world.variant else load_model(PROFILE)).model_dump(by_alias=True)
    for section, values in world.model.items():
        whole[section] |= values
    model = Model.model_validate(whole)
    suite = load_suite(Path(__file__).with_name("worlds.yaml"), checks=OFFERS, metrics=load_catalogue().metrics)
    return model, thinned(plan(model, suite), MINUTES)


def racks(world: World, seeds: range) -> Iterator[batch.Recorded]:
    """Healthy racks of a world."""
    model, when = _plan(world.name)
    with _drawing(world.draw):
        for seed in seeds:
            one = batch.one_rack(model, when, seed, (), "normal" if world.draw is None else "t5", when.stretches)
            yield world.read(one) if world.read else one


def learned(world: World, many: int) -> tuple[Baseline, Baseline]:
    """Baselines of ten racks of a world, and of so many."""
    topology, grids = load_profile(PROFILE).topology, {}
    for one in racks(world, range(LEARN, LEARN + many)):
        readings = Readings(one, topology, {})
        signatures.look(readings, learnable())
        grids[str(one.seed)] = readings.learned
    few = dict(list(grids.items())[:10])
    return build(Key(profile=PROFILE), few), build(Key(profile=PROFILE), grids)


# ---------------------------------------------------------------- judging

JUDGES = ("none", "10 racks", "150 racks", "usual's, not noticed", "usual's, noticed")


def named(world: World, many: int, learn: int, usual: Baseline) -> tuple[int, dict[str, Counter[str]], dict[str, Counter[str]]]:
    """(racks, judge -> racks in which anybody is FAIL or HOLD, judge -> by whom)."""
    few, lots = learned(world, learn)
    how = dict(zip(JUDGES, ((None, True), (few, True), (lots, True), (usual, True), (usual, False)), strict=True))
    said: dict[str, Counter[str]] = {judge: Counter() for judge in JUDGES}
    by: dict[str, Counter[str]] = {judge: Counter() for judge in JUDGES}
    topology, rows, count = load_profile(PROFILE).topology, load_catalogue().signatures, 0
    for one in racks(world, range(JUDGE, JUDGE + many)):
        if one.lost:
            continue
        count += 1
        first: Readings | None = None
        for judge, (baseline, same) in how.items():
            readings = Readings(one, topology, {}, baseline, same, like=first)
            first = first or readings
            found = [f for f in signatures.look(readings, rows, one.log) if f.severity is not Severity.WATCH]
            said[judge].update({str(f.severity) for f in found})
            by[judge].update({f"{f.signature} {f.severity}" for f in found})
        if count % 50 == 0:
            gc.collect()
    return count, said, by


def main() -> int:
    """Measure, and put the table between its marks in docs/detection.md (or print it, `--page -`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--racks", type=int, default=200, help="healthy racks of each world")
    parser.add_argument("--learn", type=int, default=150, help="racks of the large baseline")
    parser.add_argument("--only", default="", help="worlds whose name contains this")
    parser.add_argument("--page", default=str(ROOT / "docs/detection.md"))
    arguments = parser.parse_args()
    gc.disable()
    _, usual = learned(WORLDS[0], arguments.learn)
    lines = [f"| world | n | {' | '.join(JUDGES)} | by, with 150 racks |", f"|---|---|{'---|' * len(JUDGES)}---|"]
    total, all_said = 0, {judge: Counter[str]() for judge in JUDGES}
    for world in WORLDS:
        if arguments.only in world.name:
            count, said, by = named(world, arguments.racks, arguments.learn, usual)
            total += count
            for judge in JUDGES:
                all_said[judge].update(said[judge])
            lines.append(_line(f"{world.name}: {world.about}", count, said, by["150 racks"]))
            print(lines[-1], {judge: dict(one) for judge, one in by.items()}, file=sys.stderr, flush=True)
    lines.append(_line("**all**", total, all_said, Counter()))
    fails = ", ".join(f"{judge} {_bounds(all_said[judge]['FAIL'], total)}" for judge in JUDGES)
    text = "\n".join([*lines, "", f"FAIL over all worlds, %: {fails}."])
    if arguments.page == "-":
        print(text)
    else:
        page = Path(arguments.page)
        before, rest = page.read_text().split(MARK)
        page.write_text(f"{before}{MARK}\n\n{text}\n\n{END}{rest.split(END)[1]}")
    return 0


def _line(name: str, count: int, said: dict[str, Counter[str]], by: Counter[str]) -> str:
    cells = " | ".join(f"{100 * said[judge]['FAIL'] / count:.2g} / {100 * said[judge]['HOLD'] / count:.3g}" for judge in JUDGES)
    return f"| {name} | {count} | {cells} | {', '.join(f'`{why}` {times}' for why, times in by.most_common(3))} |"


def _bounds(failed: int, count: int) -> str:
    low, high = binomial_bounds(failed, count)
    return f"{100 * failed / count:.2g} ({100 * low:.2g} - {100 * high:.2g})"


if __name__ == "__main__":
    sys.exit(main())
