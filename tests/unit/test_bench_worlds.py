"""Racks of another kind: draws are standard, worlds are what they are called, and nothing of one world is left for the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from bench.worlds import JUDGES, TAILS, WORLDS, World, _line, racks
from burnin.telemetry.series import Floats
from burnin.twin.batch import Recorded


def world(name: str) -> World:
    return next(one for one in WORLDS if one.name == name)


def idle(one: Recorded, metric: str) -> Floats:
    values = [one.window(f"t{i:02d}.g0", metric, one.stretches[0]).mean() for i in range(18)]
    return np.array(values)


def only(name: str, seed: int = 5) -> Recorded:
    (one,) = racks(world(name), range(seed, seed + 1))
    return one


@pytest.mark.parametrize("name", sorted(TAILS))
def test_parts_of_every_world_have_a_mean_of_0_and_a_standard_deviation_of_1(name: str) -> None:
    draws = TAILS[name](np.random.default_rng(1), 400_000)
    assert np.mean(draws) == pytest.approx(0, abs=0.01) and np.std(draws) == pytest.approx(1, abs=0.03)
    assert np.mean(np.abs(draws - np.median(draws)) > 4.5) > 5 * 6.8e-6, "and more of them far out than a Gaussian has"


def test_a_world_ends_with_its_racks() -> None:
    usual = only("usual")
    heavy = only("contaminated")
    again = only("usual")
    assert idle(usual, "gpu.temp") == pytest.approx(idle(again, "gpu.temp"), rel=0, abs=0)
    assert not np.array_equal(idle(heavy, "gpu.temp"), idle(usual, "gpu.temp"))


@pytest.mark.parametrize(
    ("name", "metric", "what"),
    [
        ("warm", "gpu.temp", lambda usual, other: np.all(other > usual + 8)),
        ("rough", "gpu.power", lambda usual, other: np.all(np.abs(other - usual) < 6)),
        ("leaky", "gpu.power", lambda usual, other: np.median(other - usual) > 5),
    ],
)
def test_a_world_is_what_it_is_called(name: str, metric: str, what: Callable[[Floats, Floats], bool]) -> None:
    assert what(idle(only("usual"), metric), idle(only(name), metric))


def test_rough_readings_are_steps() -> None:
    one = only("rough")
    power, temp = one.of("t03.g1", "gpu.power").v, one.of("t03.g1", "gpu.temp").v
    assert set(np.unique(power % 10)) == {0.0} and set(np.unique(temp % 2)) == {0.0}


def test_a_line_has_fails_and_holds_of_every_judge() -> None:
    said = {judge: Counter({"FAIL": 1, "HOLD": 3}) for judge in JUDGES}
    line = _line("x", 50, said, Counter({"perf.slow HOLD": 3}))
    assert line.count("2 / 6") == len(JUDGES) and line.endswith("| `perf.slow HOLD` 3 |")
