"""Matrices of bandwidth taken apart: who or what is slow in them, and that healthy ones name nobody."""

from __future__ import annotations

import numpy as np
import pytest

from burnin.events import Finding, Severity
from burnin.rack.load import load_catalogue
from burnin.signatures.matrix import MATRIX, Matrix, effects, find, levels
from burnin.telemetry.series import Floats

ROW = load_catalogue().signatures[MATRIX]
PARTS = tuple(f"t{tray:02}.g{slot}" for tray in range(18) for slot in range(4))


def healthy(seed: int, parts: float = 0.0015, repeat: float = 0.002) -> Floats:
    """720 GB/s, spreads of parts and of one measurement as reference signature 34 has them."""
    rng = np.random.default_rng(seed)
    one = 720 * (1 + parts * rng.standard_normal((72, 1))) * (1 + parts * rng.standard_normal((1, 72)))
    one = one * (1 + repeat * rng.standard_normal((72, 72)))
    np.fill_diagonal(one, np.nan)
    return one


def found(gbps: Floats) -> list[Finding]:
    return find([Matrix("exchange", PARTS, gbps)], ROW)


def test_healthy_matrices_name_nobody() -> None:
    assert [f for seed in range(200) for f in found(healthy(seed))] == []


@pytest.mark.parametrize("seed", range(5))
def test_a_gpu_that_loses_two_percent_both_ways_is_named_and_nobody_else(seed: int) -> None:
    gbps = healthy(seed)
    gbps[30, :] *= 0.98
    gbps[:, 30] *= 0.98
    (one,) = found(gbps)
    assert (one.part, one.severity) == ("t07.g2", Severity.HOLD)
    assert one.value == pytest.approx(0.02, abs=0.006)


@pytest.mark.parametrize(("axis", "said"), [(0, "to all others"), (1, "from all others")])
def test_one_direction_is_told_from_the_other(axis: int, said: str) -> None:
    gbps = healthy(11)
    (gbps if axis == 0 else gbps.T)[30] *= 0.95
    (one,) = found(gbps)
    assert one.part == "t07.g2" and said in one.why


def test_four_slow_gpus_are_a_tray() -> None:
    gbps = healthy(12)
    gbps[28:32, :] *= 0.97
    gbps[:, 28:32] *= 0.97
    assert [f.part for f in found(gbps)] == ["t07"]


def test_a_way_between_two_trays_blames_neither_end() -> None:
    gbps = healthy(13)
    gbps[28:32, 40:44] *= 0.9
    (one,) = found(gbps)
    assert one.part == "rack" and "t07 > t10" in one.why and "t10 > t07" not in one.why


def test_a_single_pair_blames_neither_end() -> None:
    gbps = healthy(14)
    gbps[30, 41] *= 0.8
    (one,) = found(gbps)
    assert one.part == "rack" and "t07.g2 > t10.g1 by" in one.why


def test_copies_within_trays_are_a_matrix_with_holes() -> None:
    gbps = healthy(15)
    gbps[30, :] *= 0.9
    gbps[:, 30] *= 0.9
    same = np.array([a[:3] == b[:3] for a in PARTS for b in PARTS]).reshape(72, 72)
    (one,) = found(np.where(same, gbps, np.nan))
    assert one.part == "t07.g2"


def test_few_or_no_readings_claim_nothing() -> None:
    assert find([Matrix("x", PARTS[:8], healthy(1)[:8, :8])], ROW) == []
    assert found(np.full((72, 72), np.nan)) == []
    assert find([], ROW) == []
    zero = np.zeros((72, 72))
    assert found(zero) == [], "nothing that was measured is 0"


def test_effects_add_up_to_the_matrix() -> None:
    gbps = healthy(2)
    seen = effects(gbps)
    whole = seen.source[:, None] + seen.target[None, :] + seen.rest
    apart = np.log(gbps) - whole
    assert np.nanmax(apart) - np.nanmin(apart) < 1e-9


def test_levels_are_in_the_middle_of_both_directions_and_partners_do_not_count() -> None:
    gbps = np.full((72, 72), 700.0)
    np.fill_diagonal(gbps, np.nan)
    gbps[30, :] *= 0.9
    got = levels(Matrix("x", PARTS, gbps))
    assert got[30] == pytest.approx(700 * 0.9**0.5)
    assert np.delete(got, 30) == pytest.approx(np.full(71, 700.0))
