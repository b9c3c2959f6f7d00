"""Statistics against brute force, tables of textbooks, and simulated truth. Nothing here knows of racks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnin.signatures import counts, robust, tails, trend

# ---------------------------------------------------------------- tails


def _t5_density(t: float) -> float:
    return math.gamma(3) / (math.sqrt(5 * math.pi) * math.gamma(2.5)) * (1 + t * t / 5) ** -3


@given(st.floats(-20, 60))
def test_t5_is_the_integral_of_its_density(t: float) -> None:
    """Substitute t = 1/u: the tail becomes a proper integral (Simpson, 4000 strips)."""
    if t < 1:
        grid = np.linspace(t, 1, 4001)
        y = np.array([_t5_density(x) for x in grid])
        near = (1 - t) / 12000 * float(y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
    else:
        near = 0.0
    u = np.linspace(1e-12, 1 / max(t, 1.0), 4001)
    y = np.array([_t5_density(1 / x) / x**2 for x in u])
    far = float(u[-1]) / 12000 * float(y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
    assert tails.t5_above(t) == pytest.approx(near + far, rel=1e-6, abs=1e-12)


def _gamma_above(x: float, shape: int) -> float:
    """P(Gamma(shape, 1) > x) = P(Poisson(x) < shape)."""
    terms = [math.exp(-x + i * math.log(x) - math.lgamma(i + 1)) for i in range(shape)]
    return math.fsum(terms)


@pytest.mark.parametrize("shape", [400, 1600])
@pytest.mark.parametrize("above", [1e-3, 1e-5])
def test_a_skewed_family_has_the_limits_that_its_skewness_gives(shape: int, above: float) -> None:
    """A gamma of shape n has a skewness of 2 / sqrt(n), its median a third below its mean of n, and tails in closed form."""
    k, root = tails.normal_quantile(above), shape**0.5
    leant = tails.leaning(k, 2 / root)
    assert _gamma_above(shape - 1 / 3 + root * leant, shape) == pytest.approx(above, rel=0.05)
    assert _gamma_above(shape - 1 / 3 + root * k, shape) > 1.2 * above, "as a Gaussian it would be passed too often"
    assert tails.leaning(k, -0.2) == k, "the side that is nearer keeps the Gaussian's limit"


def test_skewness_is_learned_of_many_parts_and_claimed_only_where_it_is_shown() -> None:
    rng = np.random.default_rng(5)
    skewed = (rng.gamma(400, size=20_000) - 400) / 20
    assert tails.skewness(skewed, 1.0) == pytest.approx(0.1, abs=0.06)
    assert tails.skewness(-skewed, 1.0) == pytest.approx(-tails.skewness(skewed, 1.0))
    assert tails.skewness(skewed[:599], 1.0) == 0.0
    assert sum(tails.skewness(rng.standard_normal(5000), 1.0) != 0 for _ in range(60)) <= 4
    far = np.append(skewed, [1e6] * 20)
    assert tails.skewness(far, 1.0) == pytest.approx(tails.skewness(skewed, 1.0), rel=0.05), "they are not the family"


def test_the_spread_of_many_is_better_known_than_by_a_mad() -> None:
    rng = np.random.default_rng(6)
    draws = [rng.standard_normal(3000) for _ in range(200)]
    by_three, by_mad = (np.array([f(one) for one in draws]) for f in (robust.spread, lambda one: robust.sigma(one, 0.0)))
    assert by_three.mean() == pytest.approx(1.0, abs=0.005) and by_three.std() < 0.75 * by_mad.std()
    bad = np.append(rng.standard_normal(3000), np.full(60, 1e9))
    assert robust.spread(bad) == pytest.approx(1.0, abs=0.15), "two of a hundred are bad"
    assert robust.spread(np.full(3, np.nan)) == 0.0


@pytest.mark.parametrize(
    ("above", "t"), [(0.25, 0.726687), (0.05, 2.015048), (0.025, 2.570582), (0.005, 4.032143), (0.0005, 6.868827)]
)
def test_t5_quantiles_of_the_textbook(above: float, t: float) -> None:
    assert tails.t5_quantile(above) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize(("above", "z"), [(0.025, 1.959964), (0.001, 3.090232), (1e-6, 4.753424)])
def test_normal_quantiles_of_the_textbook(above: float, z: float) -> None:
    assert tails.normal_quantile(above) == pytest.approx(z, abs=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.6, -1.0])
def test_a_tail_outside_its_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        tails.t5_quantile(p)


@given(st.floats(200, 280))
def test_the_far_tail_joins_the_near_one(t: float) -> None:
    """The two formulas meet near t = 112; far out the tail is 9.49 / t^5, from the leading term of the density."""
    assert tails.t5_above(t) == pytest.approx(9.4901 / t**5, rel=1e-3)
    assert tails.t5_above(111.7) / tails.t5_above(111.9) == pytest.approx((111.9 / 111.7) ** 5, rel=1e-4)


@pytest.mark.parametrize(("n", "rate"), [(72, 0.05), (18, 0.05), (1296, 0.05)])
def test_the_worst_of_n_heavy_tailed_parts_passes_the_limit_as_seldom_as_promised(n: int, rate: float) -> None:
    """By simulation, with the true spread known: Bonferroni is nearly exact for independent parts."""
    sigma = 1.4826 * 0.726687
    rng = np.random.default_rng(n)
    worst = (rng.standard_t(5, (4000, n)) / sigma).max(axis=1)
    share = float(np.mean(worst > tails.limit(n, rate)))
    assert rate * 0.75 < share < rate * 1.25
    assert tails.normal_limit(n, rate) < tails.limit(n, rate)


# ---------------------------------------------------------------- counts


@given(st.integers(0, 60), st.floats(0.01, 60))
def test_poisson_tail_is_the_sum_of_its_terms(count: int, mean: float) -> None:
    terms = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count, count + 400)]
    assert counts.poisson_at_least(count, mean) == pytest.approx(math.fsum(terms), rel=1e-9, abs=1e-13)


def test_poisson_tail_of_a_large_mean() -> None:
    """Against the exact lower sum, where the normal form takes over."""
    exact = 1 - math.fsum(math.exp(k * math.log(900.0) - 900 - math.lgamma(k + 1)) for k in range(880))
    assert counts.poisson_at_least(880, 900.0) == pytest.approx(exact, rel=1e-3)
    assert counts.poisson_at_least(0, 5.0) == 1.0
    assert counts.poisson_at_least(3, 0.0) == 0.0


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.688879), (1, 0.025318, 5.571643), (5, 1.623486, 11.668332), (10, 4.795389, 18.390356)]
)
def test_garwood_bounds_of_the_table(count: int, low: float, high: float) -> None:
    assert counts.poisson_bounds(count, 0.025) == pytest.approx((low, high), abs=1e-5)


@given(st.integers(0, 200), st.floats(0.001, 0.2))
@settings(max_examples=30)
def test_garwood_bounds_are_where_the_tails_are(count: int, above: float) -> None:
    low, high = counts.poisson_bounds(count, above)
    assert low <= count <= high
    assert 1 - counts.poisson_at_least(count + 1, high) == pytest.approx(above, rel=1e-6)
    if count:
        assert counts.poisson_at_least(count, low) == pytest.approx(above, rel=1e-6)


def test_nothing_in_three_hours_is_three_over_three() -> None:
    """The rule of three: no event, 95 % bound 2.996 / t."""
    assert counts.poisson_bounds(0, 0.05)[1] == pytest.approx(-math.log(0.05))


@given(st.integers(0, 30), st.floats(0.1, 100), st.floats(1e-4, 1), st.floats(0.1, 50))
@settings(max_examples=50)
def test_a_fleet_is_a_mixture_of_poissons(count: int, hours: float, mean: float, shape: float) -> None:
    """Gamma mixture by quadrature in quantiles of the rate."""
    grid = np.exp(np.linspace(math.log(mean) - 60 / min(shape, 1) ** 0.5 - 6, math.log(mean) + 6, 6000))
    log_density = (shape - 1) * np.log(grid) - shape * grid / mean + shape * math.log(shape / mean) - math.lgamma(shape)
    weight = np.exp(log_density) * grid * math.log(float(grid[1] / grid[0]))
    mixed = math.fsum(
        w * counts.poisson_at_least(count, float(r) * hours) for w, r in zip(weight, grid, strict=True) if w > 1e-15
    )
    if abs(float(weight.sum()) - 1) < 1e-4:
        assert counts.fleet_at_least(count, hours, mean, shape) == pytest.approx(mixed, rel=1e-2, abs=1e-6)


@given(st.integers(1, 25), st.integers(0, 40), st.floats(0.5, 50), st.floats(0.5, 500))
@settings(max_examples=50)
def test_two_poisson_rates_compare_as_a_binomial(count: int, others: int, hours: float, other_hours: float) -> None:
    share = hours / (hours + other_hours)
    total = count + others
    want = math.fsum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count, total + 1))
    assert counts.compare(count, hours, others, other_hours, 1e-3, 1e7) == pytest.approx(want, rel=1e-3)


def test_over_dispersion_makes_a_part_less_suspicious() -> None:
    plain = counts.compare(5, 10, 0, 710, 2e-3, 1e9)
    wide = counts.compare(5, 10, 0, 710, 2e-3, 0.3)
    assert plain < 1e-6 < wide * 10 and wide > 100 * plain
    assert counts.compare(0, 10, 5, 710, 2e-3, 0.3) == 1.0


def test_errors_that_come_ever_faster_have_an_exponent_above_one() -> None:
    rng = np.random.default_rng(3)
    even, lows = [], []
    for _ in range(400):
        times = sorted(48 * rng.random(8))
        b, low = counts.growth_shape(list(times), 48.0)
        even.append(b)
        lows.append(low > 1)
    assert 0.9 < float(np.median(even)) < 1.3
    assert np.mean(lows) == pytest.approx(0.05, abs=0.03), "the lower bound keeps its promise"
    faster = [48 * u ** (1 / 3) for u in rng.random(40)]  # rate ~ t^2
    b, low = counts.growth_shape(faster, 48.0)
    assert 2 < b < 4.5 and low > 1
    assert counts.growth_shape([5.0], 48.0)[1] == 0.0


# ---------------------------------------------------------------- trend


def _ar1(rng: np.random.Generator, n: int, rho: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    y = np.empty(n)
    y[0] = rng.standard_normal()
    for i in range(1, n):
        y[i] = rho * y[i - 1] + math.sqrt(1 - rho * rho) * rng.standard_normal()
    return y


@given(st.floats(-5, 5), st.floats(-50, 50), st.integers(8, 60))
def test_a_line_without_noise_is_found(slope: float, level: float, n: int) -> None:
    t = np.arange(float(n))
    got = trend.line(t, slope * t + level)
    assert got.slope == pytest.approx(slope, abs=1e-9)
    assert got.error < 1e-6


def test_a_line_equals_the_normal_equations_and_forgets_what_was_not_read() -> None:
    rng = np.random.default_rng(2)
    t, y = np.arange(40.0), rng.standard_normal(40)
    y[[3, 17]] = np.nan
    known = ~np.isnan(y)
    want = np.polyfit(t[known], y[known], 1)[0]
    assert trend.line(t, y).slope == pytest.approx(float(want))
    assert math.isnan(trend.line(t[:7], y[:7]).slope), "seven points are no trend"


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.7])
def test_the_error_of_a_slope_is_its_scatter_also_when_noise_remembers(rho: float) -> None:
    rng = np.random.default_rng(int(10 * rho) + 1)
    t = np.arange(72.0)
    lines = [trend.line(t, _ar1(rng, 72, rho)) for _ in range(600)]
    scatter = float(np.std([one.slope for one in lines]))
    said = float(np.median([one.error for one in lines]))
    assert 0.8 < said / scatter < 1.35
    plain = float(np.median([one.error * math.sqrt((1 - one.rho) / (1 + one.rho)) for one in lines]))
    assert rho < 0.5 or plain < 0.65 * scatter, "uncorrected it would be far too sure"


def test_cusum_finds_a_step_and_says_where() -> None:
    rng = np.random.default_rng(4)
    y = rng.standard_normal(200)
    y[120:] += 2.0
    up, down, began = trend.cusum(y)
    assert up > 60 and down < 15 and 115 <= began <= 125
    up, down, _ = trend.cusum(-y)
    assert down > 60 and up < 15


def test_cusum_by_hand() -> None:
    assert trend.cusum(np.array([0.0, 1.0, 2.0, math.nan, -4.0, 1.0])) == (2.0, 3.5, 4)
    assert trend.cusum(np.empty(0)) == (0.0, 0.0, 0)


def test_whitening_keeps_false_alarms_down_in_noise_that_remembers() -> None:
    rng = np.random.default_rng(6)
    raw, white = [], []
    for _ in range(60):
        y = _ar1(rng, 288, 0.6)
        raw.append(max(trend.cusum(y)[:2]))
        white.append(max(trend.cusum(y, rho=0.6)[:2]))
    assert float(np.quantile(white, 0.95)) < 12 < float(np.quantile(raw, 0.5))


@pytest.mark.parametrize(("amplitude", "period"), [(1.0, 30.0), (0.5, 60.0), (2.0, 11.3)])
def test_a_swing_has_its_amplitude_and_period(amplitude: float, period: float) -> None:
    t = np.arange(900.0)
    y = 60 + 0.002 * t + amplitude * np.sin(2 * math.pi * t / period) + 0.05 * np.random.default_rng(1).standard_normal(900)
    got, at, ratio = trend.swing(y, 1.0, 5.0, 300.0)
    assert got == pytest.approx(amplitude, rel=0.2)
    assert at == pytest.approx(period, rel=0.05)
    assert ratio > 100


def test_noise_and_drift_do_not_swing() -> None:
    rng = np.random.default_rng(2)
    ratios = [trend.swing(0.01 * np.arange(900.0) + rng.standard_normal(900), 1.0, 5.0, 300.0)[2] for _ in range(50)]
    assert max(ratios) < 40
    assert trend.swing(np.arange(10.0), 1.0, 5.0, 300.0) == (0.0, 0.0, 0.0)


def test_blocks_are_means_and_gaps_stay_gaps() -> None:
    t = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 35.0])
    got = trend.blocks(t, np.array([1.0, 2.0, np.nan, 5.0, 7.0, 9.0]), 0.0, 39.0, 10.0)
    np.testing.assert_allclose(got, [1.5, 6.0, np.nan])


# ---------------------------------------------------------------- robust


@given(st.floats(-3, 3), st.integers(5, 30), st.integers(0, 4), st.floats(-1e4, 1e4))
def test_theil_sen_does_not_care_for_one_bad_point(slope: float, n: int, odd: int, jump: float) -> None:
    x = np.arange(float(n))
    y = slope * x + 4
    y[odd] += jump
    if n >= 8:
        assert robust.theil_sen(x, y) == pytest.approx(slope, abs=1e-6)
    assert robust.theil_sen(x[:2], y[:2]) == 0.0


def test_own_takes_away_what_a_tray_shares_and_leaves_what_one_part_has() -> None:
    rng = np.random.default_rng(8)
    trays = rng.normal(0, 5, (18, 1))
    grid = trays + rng.normal(0, 1, (18, 4))
    grid[7, 2] += 12
    left = robust.own(grid + np.array([0.0, 6.0, -2.0, 3.0]), 0.1)
    assert left[7, 2] == pytest.approx(12, abs=3.5)
    assert int(np.argmax(left)) == 7 * 4 + 2
    assert robust.sigma(left.ravel(), 0.0) < 1.6


def test_own_does_not_invent_a_tray_effect_that_is_not_there() -> None:
    """With no tray effect the shrunk share adds less variance than the full leave-one-out one (4/3)."""
    rng = np.random.default_rng(9)
    ratio = []
    for _ in range(40):
        grid = rng.standard_normal((18, 4))
        ratio.append(float(np.std(robust.own(grid, 0.01)) / np.std(grid - robust.others(grid))))
    assert float(np.mean(ratio)) < 0.95


@given(st.lists(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=4, max_size=4), min_size=1, max_size=6))
def test_medians_of_rows_are_those_of_their_known_values(rows: list[list[float]]) -> None:
    got = robust.medians(np.array(rows))
    for row, one in zip(rows, got, strict=True):
        known = [v for v in row if not math.isnan(v)]
        assert (math.isnan(one) and not known) or one == pytest.approx(float(np.median(known)))


# ---------------------------------------------------------------- tails of families


@pytest.mark.parametrize("parts", [720, 1296, 10_800])
def test_normal_parts_are_not_taken_for_heavy_ones(parts: int) -> None:
    rng = np.random.default_rng(parts)
    told = [tails.tail_of(x := rng.standard_normal(parts), robust.sigma(x, 0.0)) for _ in range(1000)]
    assert sum(tail != tails.GAUSS for tail in told) <= 3  # one in 1000; 3 or fewer with 98 %


@pytest.mark.parametrize("weak", [1, 2, 3])
def test_a_few_weak_parts_are_not_what_their_peers_are_like(weak: int) -> None:
    rng = np.random.default_rng(weak)
    claims = 0
    for _ in range(200):
        parts = rng.standard_normal(720)
        parts[:weak] += 12
        claims += tails.tail_of(parts, robust.sigma(parts, 0.0)) != tails.GAUSS
    assert claims <= 2  # as without them, one in 1000, and a little: 3 of 720 are a tenth of the BEYOND that is looked at


def test_heavy_parts_are_seen_and_never_claimed_heavier_than_t5() -> None:
    rng = np.random.default_rng(9)
    for dof, parts, heaviest, lightest in ((5, 10_800, 5, 7), (2, 10_800, 5, 5), (3, 1296, 5, 6)):
        told = [tails.tail_of(x := rng.standard_t(dof, parts), robust.sigma(x, 0.0)) for _ in range(50)]
        assert min(told) >= heaviest and float(np.median(told)) <= lightest


def test_few_parts_say_nothing_of_their_tail() -> None:
    assert tails.tail_of(np.random.default_rng(1).standard_t(3, 500), 1.0) == tails.GAUSS
    assert tails.unless_heavy(72) == pytest.approx(tails.limit(72, 0.005))


@pytest.mark.parametrize(
    ("dof", "parts", "gauss"), [(5, 720, 0.02), (6, 720, 0.03), (6, 10_800, 0.0), (math.inf, 10_800, 0.95), (math.inf, 720, 0.5)]
)
def test_a_baseline_of_few_parts_does_not_take_heavy_ones_for_normal(dof: float, parts: int, gauss: float) -> None:
    """Share of 200 baselines that claim a Gaussian: hardly any of heavy parts, most of normal ones where parts are many."""
    rng = np.random.default_rng(11)
    told = []
    for _ in range(200):
        x = rng.standard_normal(parts) if math.isinf(dof) else rng.standard_t(dof, parts)
        told.append(tails.learned_tail(x, robust.sigma(x, 0.0)))
    share = sum(tail == tails.GAUSS for tail in told) / len(told)
    assert share >= gauss if math.isinf(dof) else share <= gauss
