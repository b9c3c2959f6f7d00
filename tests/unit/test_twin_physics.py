"""The twin's physics: limits, balances, spreads, and what each physical fault does to heat, power and clocks."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from burnin.twin import physics
from burnin.twin.faults import parse
from burnin.twin.model import Model, load, profiles
from burnin.twin.physics import HW_THERMAL, IDLE, POWER_CAP, SW_THERMAL, Gpu, Tray, TrayDraw

GB300 = load("gb300-nvl72")
FULL = [1.0] * 4
NONE = [0.0] * 4


class Settled:
    """A GPU's idle and loaded state, both at rest."""

    def __init__(self, gpu: Gpu) -> None:
        self.t_idle, self.p_idle, self.idle_c = gpu.die_c, gpu.power_w, gpu.temp_c
        self.metered: list[float] = []

    def loaded(self, gpu: Gpu) -> None:
        self.t_load, self.p_load, self.clock, self.margin = gpu.die_c, gpu.power_w, gpu.clock_mhz, gpu.margin_c
        self.reasons, self.hbm_c = gpu.reasons, gpu.hbm_true_c

    @property
    def slope(self) -> float:
        """K/W, as the thermal signature takes it."""
        return (self.t_load - self.t_idle) / (self.p_load - self.p_idle)


def settle(model: Model, draw: TrayDraw, activity: float = 1.0) -> tuple[Tray, list[Settled]]:
    tray = Tray(model, draw, Random(5))
    count = len(tray.gpus)
    tray.step(40, [0.0] * count)
    out = [Settled(gpu) for gpu in tray.gpus]
    tray.step(50, [activity] * count)
    for _ in range(100):
        tray.step(0.1, [activity] * count)
        for one, gpu in zip(out, tray.gpus, strict=True):
            one.metered.append(gpu.power_meter_w)
    for one, gpu in zip(out, tray.gpus, strict=True):
        one.loaded(gpu)
    return tray, out


@pytest.fixture(scope="module")
def healthy() -> list[list[Settled]]:
    """All trays of one healthy rack at rest, idle and loaded."""
    return [settle(GB300, draw)[1] for draw in physics.draw(GB300, 1).values()]


def with_fault(text: str) -> list[Settled]:
    return settle(GB300, physics.weaken(physics.draw(GB300, 1), [parse(text)])["t07"])[1]


# ---------------------------------------------------------------- healthy


def test_a_seed_is_one_rack() -> None:
    assert physics.draw(GB300, 7) == physics.draw(GB300, 7)
    assert physics.draw(GB300, 7) != physics.draw(GB300, 8)
    assert physics.draw(GB300, 7) != physics.draw(load("gb200-nvl72"), 7)


def test_the_same_noise_gives_the_same_readings() -> None:
    draw = physics.draw(GB300, 3)["t05"]

    def readings() -> list[tuple[int, float]]:
        tray, out = Tray(GB300, draw, Random("x")), []
        for _ in range(50):
            tray.step(0.1, FULL)
            out += [(gpu.temp_c, gpu.power_meter_w) for gpu in tray.gpus]
        return out

    assert readings() == readings()


def test_72_healthy_gpus_sit_where_published_and_captured_figures_put_them(healthy: list[list[Settled]]) -> None:
    gpus = [gpu for tray in healthy for gpu in tray]
    assert len(gpus) == 72
    assert all(33 <= g.t_idle <= 40 and 155 <= g.p_idle <= 210 for g in gpus)  # captured: 176-180 W at 38-39 Cel
    assert 175 <= statistics.mean(g.p_idle for g in gpus) <= 200
    assert all(62 <= g.t_load <= 75 and g.margin >= 10 for g in gpus)
    assert all(50 <= g.hbm_c <= 70 for g in gpus)
    assert all(abs(statistics.mean(g.metered) / 1400 - 1) < 0.01 for g in gpus)  # the cap acts on what is metered
    assert all(g.reasons == POWER_CAP for g in gpus)


def test_the_spread_of_healthy_parts_is_the_one_promised(healthy: list[list[Settled]]) -> None:
    gpus = [gpu for tray in healthy for gpu in tray]
    slope = statistics.stdev(g.slope for g in gpus) / statistics.mean(g.slope for g in gpus)
    clock = statistics.stdev(g.clock for g in gpus) / statistics.mean(g.clock for g in gpus)
    assert 0.025 < slope < 0.05  # 3.1 % of parts, and the downstream GPUs of each loop
    assert 0.010 < clock < 0.025  # V100 fleets: 1.6 %
    true = [g.p_load for g in gpus]
    assert 0.006 < statistics.stdev(true) / statistics.mean(true) < 0.02  # power sensors: 1.2 %


def test_ten_seeds_hold_no_outlier_in_slope() -> None:
    """Healthy is healthy: nobody strays from its position's median by what a planted void would do."""
    for seed in range(1, 11):
        trays = [settle_fast(draw) for draw in physics.draw(GB300, seed).values()]
        for position in range(4):
            slopes = [tray[position] for tray in trays]
            middle = statistics.median(slopes)
            assert max(abs(s / middle - 1) for s in slopes) < 0.14, (seed, position)


def settle_fast(draw: TrayDraw) -> list[float]:
    """Slopes at rest, from the resistances alone (K/W)."""
    tray = Tray(GB300, draw, Random(1))
    branch = draw.flow_lpm / 2 * GB300.coolant.w_per_k_per_lpm
    out = []
    for position, gpu in enumerate(tray.gpus):
        t, d = GB300.thermal, gpu.draw
        plate = t.r_die + t.r_tim * d.tim + t.r_plate * d.plate + gpu.r_convection
        out.append(plate + (1.0 + 0.35 * (position % 2)) / branch)
    return out


def test_the_resistances_explain_the_slope_that_is_stepped(healthy: list[list[Settled]]) -> None:
    for draw, tray in zip(physics.draw(GB300, 1).values(), healthy, strict=True):
        assert [g.slope for g in tray] == pytest.approx(settle_fast(draw), rel=0.01)


@pytest.mark.parametrize("profile", profiles())
@pytest.mark.parametrize("activity", [0.0, 0.5, 1.0])
def test_all_electrical_power_leaves_with_the_coolant(profile: str, activity: float) -> None:
    model = load(profile)
    tray, _ = settle(model, physics.draw(model, 2)["t00"], activity)
    assert tray.heat_w == pytest.approx(tray.power_w, rel=0.01)
    flow_w_per_k = tray.flow_lpm * model.coolant.w_per_k_per_lpm
    assert (tray.return_c - tray.supply_c) * flow_w_per_k == pytest.approx(tray.power_w, rel=0.01)


@pytest.mark.parametrize("profile", profiles())
def test_every_architecture_reaches_its_limit_with_a_margin(profile: str) -> None:
    model = load(profile)
    _, gpus = settle(model, physics.draw(model, 2)["t00"])
    for gpu in gpus:
        assert statistics.mean(gpu.metered) == pytest.approx(model.gpu.limit_w, rel=0.01)
        assert gpu.margin >= 8


def test_a_load_step_settles_within_15_s() -> None:
    tray = Tray(GB300, physics.draw(GB300, 1)["t00"], Random(1))
    tray.step(40, NONE)
    idle = tray.gpus[0].die_c
    tray.step(15, FULL)
    after_15_s = tray.gpus[0].die_c
    tray.step(100, FULL)
    assert after_15_s - idle > 0.95 * (tray.gpus[0].die_c - idle)


def test_no_load_is_idle() -> None:
    tray = Tray(GB300, physics.draw(GB300, 1)["t00"], Random(1))
    tray.step(60, NONE)
    gpu = tray.gpus[0]
    assert (gpu.reasons, gpu.clock_mhz, gpu.util) == (IDLE, 120, 0.0)
    assert gpu.sw_power_s == gpu.sw_thermal_s == gpu.hw_thermal_s == 0


def test_without_heat_everything_has_the_temperature_of_the_supply() -> None:
    cold = GB300.model_copy(
        update={"power": GB300.power.model_copy(update={"fixed_w": 0, "hbm_idle_w": 0, "leakage_w": 0, "dynamic_w": 0})}
    )
    tray = Tray(cold, physics.draw(cold, 1)["t00"], Random(1))
    tray.supply_c = 22.0
    tray.step(120, NONE)
    assert [gpu.die_c for gpu in tray.gpus] == pytest.approx([22.0] * 4, abs=0.01)


def test_one_long_step_is_many_short_ones() -> None:
    draw = physics.draw(GB300, 1)["t00"]
    one, many = Tray(GB300, draw, Random(1)), Tray(GB300, draw, Random(1))
    one.step(10, FULL)
    for _ in range(100):
        many.step(0.1, FULL)
    assert [g.die_c for g in one.gpus] == pytest.approx([g.die_c for g in many.gpus], abs=1e-9)


def test_energy_is_the_integral_of_metered_power() -> None:
    tray = Tray(GB300, physics.draw(GB300, 1)["t00"], Random(1))
    tray.step(30, FULL)
    before = tray.gpus[0].energy_mj
    tray.step(10, FULL)
    assert (tray.gpus[0].energy_mj - before) / 1000 == pytest.approx(1400 * 10, rel=0.01)


# ---------------------------------------------------------------- weak


def slopes(gpus: list[Settled]) -> list[float]:
    return [g.slope for g in gpus]


def relative(gpus: list[Settled], base: list[Settled]) -> list[float]:
    return [a / b - 1 for a, b in zip(slopes(gpus), slopes(base), strict=True)]


@pytest.mark.parametrize(("severity", "least", "most"), [(1.0, 0.24, 0.31), (1.5, 0.36, 0.45)])
def test_a_tim_void_makes_one_gpu_hotter_per_watt(
    healthy: list[list[Settled]], severity: float, least: float, most: float
) -> None:
    rise = relative(with_fault(f"tim_void:t07.g2:{severity}"), healthy[7])
    assert least < rise[2] < most
    assert max(abs(rise[i]) for i in (0, 1, 3)) < 0.01


def test_lost_flow_makes_all_gpus_of_the_tray_hotter_per_watt(healthy: list[list[Settled]]) -> None:
    weak = with_fault("tray_flow:t07:0.4")
    rack = [statistics.median(tray[position].slope for tray in healthy) for position in range(4)]
    above = [gpu.slope / middle - 1 for gpu, middle in zip(weak, rack, strict=True)]
    assert min(relative(weak, healthy[7])) > 0.2
    assert min(above) > 0.14
    assert statistics.mean(above) > 0.17
    assert all(g.margin > 5 for g in weak)


def test_no_flow_at_all_ends_in_shutdown_not_in_infinity() -> None:
    tray = Tray(GB300, physics.weaken(physics.draw(GB300, 1), [parse("tray_flow:t07:1")])["t07"], Random(1))
    tray.step(40, NONE)
    assert all(45 < gpu.die_c < 75 and not gpu.off for gpu in tray.gpus)
    hottest = 0.0
    for _ in range(1200):
        tray.step(0.1, FULL)
        hottest = max(hottest, *(gpu.die_c for gpu in tray.gpus))
    for gpu in tray.gpus:
        assert gpu.off
        assert gpu.power_w == 0
        assert gpu.sw_thermal_s + gpu.hw_thermal_s > 0.5
    assert 92 <= hottest < 105


def test_a_held_clock_stays_where_it_is_held_and_costs_less_power(healthy: list[list[Settled]]) -> None:
    tray = Tray(GB300, physics.draw(GB300, 1)["t07"], Random(5))
    for gpu in tray.gpus:
        gpu.locked_mhz = 1500
    tray.step(60, FULL)
    for gpu, free in zip(tray.gpus, healthy[7], strict=True):
        assert gpu.clock_mhz == 1500
        assert gpu.power_w < 0.85 * free.p_load
        assert gpu.reasons == 0, "nothing but the hold limits it"
        gpu.locked_mhz = float("inf")
    tray.step(60, FULL)
    assert all(gpu.clock_mhz > 1600 for gpu in tray.gpus)
    assert all(gpu.sw_thermal_s == 0 for gpu in tray.gpus), "letting go is no heat"


def test_a_capped_clock_costs_power_not_resistance(healthy: list[list[Settled]]) -> None:
    weak = with_fault("clock_cap:t07.g2:0.3")
    assert weak[2].clock == pytest.approx(0.7 * 2070)
    assert statistics.mean(weak[2].metered) < 0.95 * 1400
    assert abs(relative(weak, healthy[7])[2]) < 0.02
    assert weak[2].reasons == 0


def test_a_very_bad_tim_is_held_at_the_highest_operating_temperature() -> None:
    gpu = with_fault("tim_void:t07.g2:5")[2]
    assert 85 < gpu.t_load < 90
    assert gpu.reasons & SW_THERMAL
    assert not gpu.reasons & HW_THERMAL
    assert statistics.mean(gpu.metered) < 0.9 * 1400
