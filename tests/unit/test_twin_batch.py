"""Racks that are computed instead of run: the live rack's physics, the readings of a run, faults where they belong."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest

from burnin.checks import OFFERS
from burnin.errors import InputError
from burnin.rack.load import load_catalogue
from burnin.rack.parts import within
from burnin.suites.load import load_suite
from burnin.suites.schema import Suite
from burnin.twin import laws, physics
from burnin.twin.batch import Recorded, simulate
from burnin.twin.faults import KINDS, RECORDED, Plant, parse
from burnin.twin.links import Links, words_per_s
from burnin.twin.model import load
from burnin.twin.plan import plan
from burnin.twin.population import population
from burnin.twin.schedule import Condition
from burnin.twin.state import State
from burnin.twin.steady import rest
from burnin.twin.variants import variants, varied
from tests.sampled import some
from tests.unit.fault_signals import ELSEWHERE, LOGGED, MOVES, SILENT

GB300 = load("gb300-nvl72")


@cache
def two_hours() -> Suite:
    """Every kind of span, in two hours."""
    load = {"kernel": "tensor"}

    def stage(name: str, phase: str, minutes: int, **more: object) -> dict[str, object]:
        return {"stage": name, "phase": phase, "for": f"{minutes} min", "steps": ["xid"], **more}

    stages = [
        stage("idle", "idle", 20, settle="5 min"),
        stage("ramp-1", "ramp-1", 10, load=load | {"stagger": True}),
        stage("load-1", "load-1", 50, load=load, settle="5 min"),
        stage("cool-1", "cool-1", 10),
        stage("load-2", "load-2", 25, load=load, settle="5 min"),
        stage("idle-end", "idle-2", 10),
    ]
    return Suite.model_validate({"suite": "two-hours", "about": "for tests", "stages": stages})


def first_load_s() -> float:
    return plan(GB300, two_hours()).first_load_s


@cache
def rack(*planted: str, seed: int = 3, tails: physics.Tails = "normal") -> Recorded:
    (one,) = simulate("gb300-nvl72", two_hours(), [seed], lambda _: [parse(text) for text in planted], tails)
    return one


# ---------------------------------------------------------------- physics


@pytest.mark.parametrize(
    "planted", ["", "tim_void:t07.g2:1", "coldplate_clog:t07.g1:2", "leaky_die:t07.g0", "vr_loss:t07.g3", "tray_flow:t07:0.5"]
)
def test_it_comes_to_rest_where_the_live_rack_does(planted: str) -> None:
    """Watts, clocks and temperatures of a tray that is stepped, against those that are solved for."""
    trays = physics.weaken(physics.draw(GB300, 1), [parse(planted)] if planted else [])
    from burnin.twin.population import silicon

    parts = silicon(GB300, trays)
    live = physics.Tray(GB300, trays["t07"], Random(1))
    for activity in (0.0, 1.0):
        live.step(90, [activity] * 4)
        at = rest(GB300, parts, Condition(activity), np.array([[GB300.coolant.supply_c]]))
        for j, gpu in enumerate(live.gpus):
            k = 28 + j
            assert at.power[k, 0] == pytest.approx(gpu.power_w, rel=3e-3)
            assert at.die[k, 0] == pytest.approx(gpu.die_c, abs=0.2)
            assert at.hbm[k, 0] == pytest.approx(gpu.hbm_true_c, abs=0.2)
            assert at.clock[k, 0] == pytest.approx(gpu.clock_mhz, rel=3e-3)


def test_after_a_step_of_load_it_warms_as_the_live_rack_does() -> None:
    trays = physics.draw(GB300, 1)
    from burnin.twin.population import silicon

    parts, supply = silicon(GB300, trays), np.array([[GB300.coolant.supply_c]])
    cold, warm = (rest(GB300, parts, Condition(a), supply) for a in (0.0, 1.0))
    live = physics.Tray(GB300, trays["t07"], Random(1))
    live.step(90, [0.0] * 4)
    for second in range(1, 41):
        live.step(1, [1.0] * 4)
        left, _ = laws.step_response(GB300.thermal, warm.r_core, warm.r_plate + warm.r_loop, np.array([[float(second)]]))
        die = warm.die + left * (cold.die - warm.die)
        for j, gpu in enumerate(live.gpus):
            assert die[28 + j, 0] == pytest.approx(gpu.die_c, abs=1.0), second


def test_raw_error_rates_follow_erfc() -> None:
    import math

    for db in (18.0, 20.0, 21.6, 23.0):
        exact = 0.375 * math.erfc(math.sqrt(10 ** (db / 10) / 10))
        assert laws.raw_ber(np.array([db]))[0] == pytest.approx(exact, rel=0.005)
    assert 1e-8 < laws.raw_ber(np.array([21.6]))[0] < 1e-7  # reference: median 3e-8


def test_the_code_mends_what_rs_544_514_mends() -> None:
    """More than 15 of 544 symbols: by the binomial, summed here."""
    import math

    for raw in (2e-4, 1e-3):
        p = 1 - (1 - raw) ** 10
        exact = math.fsum(math.comb(544, k) * p**k * (1 - p) ** (544 - k) for k in range(16, 60))
        assert laws.code_word_loss(raw) == pytest.approx(exact, rel=0.3)  # a Poisson tail is a little fatter
    assert laws.code_word_loss(3e-8) < 1e-60
    assert laws.code_word_loss(0.0) == 0.0


# ---------------------------------------------------------------- readings


def l11() -> Suite:
    return load_suite("l11-rack-48h", checks=OFFERS, metrics=load_catalogue().metrics)


def test_a_plan_takes_as_long_as_its_suite() -> None:
    suite = l11()
    when = plan(GB300, suite)
    total = suite.duration_s()
    assert total > 40 * 3600 and when.spans[0].t0_s == 0 and when.spans[-1].t1_s == pytest.approx(total)
    assert when.cells.sum() == pytest.approx(total) and when.minute_cells.sum() == pytest.approx(total)
    steps = np.diff(when.t)
    assert steps.min() >= 10 and steps.max() <= 60
    soak = max(when.spans, key=lambda span: span.t1_s - span.t0_s)
    late = (when.t > soak.t0_s + 1900) & (when.t < soak.t1_s)
    assert set(np.diff(when.t[late])) == {60.0}
    assert plan(GB300, suite, hours=5).spans[-1].t1_s == pytest.approx(5 * 3600)


def test_a_held_clock_is_held() -> None:
    """What l11 holds at 1500 MHz reads so on every GPU, and draws less than its limit."""
    one = next(simulate("gb300-nvl72", l11(), [3], hours=2))
    held = next(s for s in one.stretches if s.phase == "load@1500")
    clocks = {float(x) for gpu in one.parts("gpu.clock_sm") for x in one.of(gpu, "gpu.clock_sm").between(held.t0_s, held.t1_s).v}
    assert clocks == {1500.0}
    assert all(one.window(gpu, "gpu.power", held).mean() < 1300 for gpu in one.parts("gpu.power"))


def test_trays_come_up_one_after_the_other() -> None:
    one = rack()
    ramp = next(s for s in one.stretches if s.phase == "ramp-1")
    first, last = (one.of(f"{tray}.g0", "gpu.power").between(ramp.t0_s, ramp.t1_s).v for tray in ("t00", "t17"))
    assert first[0] > 1300 and last[0] < 250


def test_a_seed_is_one_rack_and_faults_change_nothing_else() -> None:
    again = next(simulate("gb300-nvl72", two_hours(), [3]))
    assert all(np.array_equal(one.v, again.series[key].v, equal_nan=True) for key, one in rack().series.items())
    assert not np.array_equal(rack().of("t00.g0", "gpu.temp").v, rack(seed=4).of("t00.g0", "gpu.temp").v)


def test_the_energy_counter_is_the_integral_of_power() -> None:
    one = rack()
    for gpu in ("t00.g0", "t17.g3"):
        power, energy = one.of(gpu, "gpu.power_avg"), one.of(gpu, "gpu.energy")
        cells = plan(GB300, two_hours()).cells
        assert energy.growth() == pytest.approx(float((power.v * cells).sum()), rel=0.01)
        assert np.all(np.diff(energy.v) > 0)


def test_72_healthy_gpus_sit_where_the_live_ones_do() -> None:
    one = rack()
    load_1 = next(s for s in one.stretches if s.phase == "load-1")
    idle = next(s for s in one.stretches if s.phase == "idle")
    hot = np.array([one.window(p, "gpu.temp", load_1).mean() for p in one.parts("gpu.temp")])
    cold = np.array([one.window(p, "gpu.temp", idle).mean() for p in one.parts("gpu.temp")])
    watts = np.array([one.window(p, "gpu.power", load_1).mean() for p in one.parts("gpu.temp")])
    assert hot.size == 72 and 60 < hot.min() < hot.max() < 78 and 31 < cold.min() < cold.max() < 41
    assert np.abs(watts / 1400 - 1).max() < 0.01  # the cap acts on what is metered
    assert {float(x) % 1 for x in one.of("t00.g0", "gpu.temp").v} == {0.0}  # whole degrees


def test_heavy_tails_are_heavier_and_as_wide() -> None:
    def factors(tails: physics.Tails) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        draws = [physics.draw(GB300, seed, tails) for seed in range(60)]
        return np.array([gpu.tim - 1 for d in draws for tray in d.values() for gpu in tray.gpus]) / GB300.spread.tim

    normal, heavy = factors("normal"), factors("t5")
    assert normal.std() == pytest.approx(1, abs=0.05) and heavy.std() == pytest.approx(1, abs=0.1)
    assert np.mean(np.abs(heavy) > 3.5) > 3 * np.mean(np.abs(normal) > 3.5)


def test_links_err_as_published_and_none_loses_words() -> None:
    one = rack()
    links = one.parts("nvlink.raw_ber")
    rates = np.array([one.of(link, "nvlink.raw_ber").mean() for link in links])
    assert len(links) == 1296
    assert 1e-8 < np.median(rates) < 1e-7 and np.quantile(rates, 0.99) < 2e-6
    assert not any(one.of(link, "nvlink.effective_errors").v.any() for link in links)


# ---------------------------------------------------------------- faults


SMALL = {"psu.power": 6.0, "coolant.return_temp": 0.15}
"""What one part's fault may add to what the whole rack shares, and nobody sees."""


def changed(one: Recorded) -> dict[str, set[str]]:
    """Metric -> parts whose readings differ from those of the healthy rack."""
    out: dict[str, set[str]] = {}
    for (part, metric), series in one.series.items():
        if np.abs(series.v - rack().series[part, metric].v).max() > SMALL.get(metric, 0.0):
            out.setdefault(metric, set()).add(part)
    return out


@pytest.mark.parametrize("kind", some(sorted(MOVES)))
def test_a_fault_moves_its_signals_and_no_others(kind: str) -> None:
    where, metrics = MOVES[kind]
    part = where.split(":")[0]
    one = rack(f"{kind}:{where}")
    moved = changed(one)
    assert set(moved) == metrics
    # everybody waits for one that is slow
    parts = {name for metric, names in moved.items() for name in names if name != "cdu" and metric != "gpu.wait"}
    parts = {name for name in parts if name[0] == part[0] or part[0] != "t"}
    if part in ELSEWHERE:
        assert parts and all(ELSEWHERE[part] in name for name in parts)
    elif part.startswith("t"):
        # heat also reaches the GPU behind it in the loop, and power the other GPU of the module and the power shelves
        parts = {name for name in parts if not name.startswith("p")}
        assert all(within(name, "t07") for name in parts)
        assert not parts or any(within(name, part) or within(part, name) for name in parts)
    assert bool(one.log) == (kind in LOGGED)


@pytest.mark.parametrize(("kind", "part"), some(sorted(SILENT.items()), 4))
def test_what_is_gone_is_read_no_more(kind: str, part: str) -> None:
    one = rack(f"{kind}:{part}:600")
    for (name, metric), series in one.series.items():
        if within(name, part):
            assert series.t_s.size == 0 or series.t_s[-1] < first_load_s() + 600, (name, metric)
        else:
            assert np.array_equal(series.v, rack().series[name, metric].v)
    assert [line.code for line in one.log] == (["79"] if kind == "gpu_off_bus" else [])


def test_every_kind_that_says_recorded_is_here() -> None:
    assert {kind.kind for kind in KINDS.values() if RECORDED in kind.seams} == {*MOVES, *SILENT}


def test_bursts_cost_what_the_live_link_loses_too(tmp_path: Path) -> None:
    """The same law: recorded over two hours, live over ten minutes of steps, each against the mean that the data name."""
    one, live = rack("link_margin:t07.g2.l13:3"), State.create(str(tmp_path / "state"), 4)
    bits = population().links.mbps * 8e6
    t = one.of("t07.g2.l13", "nvlink.effective_errors").t_s[-1]
    recorded_per_s = one.of("t07.g2.l13", "nvlink.effective_errors").growth() / t
    assert one.of("t07.g2.l13", "nvlink.effective_ber").v[-1] == pytest.approx(recorded_per_s / bits, rel=0.05)
    links = Links(live.links, load("gb300-nvl72"), "t07", [parse("link_margin:t07.g2.l13:3")], 3, Random(1))
    for step in range(36_000):
        links.step(step * 100_000_000, 0.1, False)
    row = live.links[2][13]
    assert row["effective_errors"] / 3600 == pytest.approx(words_per_s(3.0), rel=0.1)
    assert recorded_per_s == pytest.approx(words_per_s(3.0), rel=0.1) and words_per_s(3.0) == 4.0
    raw = row["raw_ber"] / 1e18
    assert raw == pytest.approx(one.of("t07.g2.l13", "nvlink.raw_ber").v.mean(), rel=0.8), "one reading, 0.08 decades"
    healthy = np.array([[r["raw_ber"] for r in rows] for rows in live.links])[:, :18] / 1e18
    read = [[one.of(f"t07.g{g}.l{n}", "nvlink.raw_ber").v.mean() for n in range(18)] for g in range(4)]
    assert np.abs(np.log10(healthy) - np.log10(read)).max() < 0.4
    assert not any(r["effective_errors"] for i, rows in enumerate(live.links) for j, r in enumerate(rows) if (i, j) != (2, 13))
    assert words_per_s(0.0) == 0.0 and words_per_s(1.5) * 172_800 < 0.1, "what is little worse errs before correction only"


def test_a_link_at_its_end_loses_code_words() -> None:
    one = rack("link_margin:t07.g2.l13:5")
    grew = [one.of(link, "nvlink.effective_errors").growth() for link in ("t07.g2.l13", "t07.g2.l12")]
    assert grew[0] > 0 and grew[1] == 0


def test_a_fault_may_begin_late_and_grow() -> None:
    slow = Plant("tim_void", "t07.g2", 3.0, start_s=1800, growth="linear", over_s=3600)
    late = Plant("link_margin", "t02.g1.l3", 3.0, start_s=3600)
    (one,) = simulate("gb300-nvl72", two_hours(), [3], lambda _: [slow, late])
    healthy = rack()
    warmer = one.of("t07.g2", "gpu.temp").v - healthy.of("t07.g2", "gpu.temp").v
    t = one.of("t07.g2", "gpu.temp").t_s - first_load_s()
    loaded = one.of("t07.g2", "gpu.power").v > 1000
    assert not warmer[t < 1790].any()
    assert 0 < warmer[(t > 2500) & (t < 3500) & loaded].mean() < warmer[(t > 5000) & loaded].mean()
    worse = one.of("t02.g1.l3", "nvlink.raw_ber").v / healthy.of("t02.g1.l3", "nvlink.raw_ber").v
    minutes = one.of("t02.g1.l3", "nvlink.raw_ber").t_s - first_load_s()
    assert np.allclose(worse[minutes < 3600], 1) and worse[minutes > 3600].min() > 100


@pytest.mark.parametrize("name", sorted(variants()))
def test_a_variant_is_another_rack_that_still_reaches_its_limit(name: str) -> None:
    (one,) = simulate(varied("gb300-nvl72", name), two_hours(), [3])
    load_1 = next(s for s in one.stretches if s.phase == "load-1")
    at = {m: np.array([one.window(p, m, load_1).mean() for p in one.parts(m)]) for m in ("gpu.temp", "gpu.power", "gpu.clock_sm")}
    usual = {m: np.array([rack().window(p, m, load_1).mean() for p in rack().parts(m)]) for m in at}
    assert np.abs(at["gpu.power"] / 1400 - 1).max() < 0.02 and at["gpu.temp"].max() < 85
    assert np.abs(at["gpu.temp"] - usual["gpu.temp"]).max() > 1 or np.abs(at["gpu.clock_sm"] - usual["gpu.clock_sm"]).max() > 10
    assert f"`{name}`" in (Path(__file__).parents[2] / "docs/twin.md").read_text()


def test_an_unknown_variant_is_said() -> None:
    with pytest.raises(InputError, match="there is no variant 'odd'; there are coarse"):
        varied("gb300-nvl72", "odd")
