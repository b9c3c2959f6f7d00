"""Signatures of counters, flags, events and links: what each says, of whom, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from burnin import signatures
from burnin.events import Finding, LogLine, Severity
from burnin.rack.load import load_catalogue
from burnin.signatures import fusion
from burnin.signatures.links import lost_db
from burnin.signatures.robust import sigma
from burnin.signatures.tails import GAUSS, tail_of
from burnin.telemetry.series import Series, Stretch, Telemetry
from burnin.twin.laws import raw_ber
from tests import racks
from tests.soaks import AGAIN, GPUS, LINKS, LOAD, margins

ROWS = load_catalogue().signatures


def counters(grown: Mapping[tuple[str, str], float], metrics: Sequence[str], hours: float = 20.0) -> Telemetry:
    """Counters of all GPUs from 7 on; those in `grown` by so much, in the middle."""
    t = np.linspace(0.0, hours * 3600, 41)
    out = {
        (gpu, metric): Series(t, 7.0 + np.where(t > t[20], grown.get((gpu, metric), 0.0), 0.0))
        for gpu in GPUS
        for metric in metrics
    }
    return Telemetry(out, (LOAD, AGAIN))


def look(telemetry: Telemetry, log: Sequence[LogLine] = ()) -> list[Finding]:
    return signatures.find(telemetry, racks.topology(), ROWS, {}, log)


def said(findings: Sequence[Finding]) -> dict[tuple[str, str], str]:
    return {(f.part, f.signature): str(f.severity) for f in findings}


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("count", "hours", "want"),
    [(2, 20, None), (4, 20, None), (5, 20, "HOLD"), (9, 20, "HOLD"), (40, 20, "FAIL"), (4, 0.02, "HOLD")],
)
def test_corrected_errors_are_too_many_for_the_fleet(count: int, hours: float, want: str | None) -> None:
    found = look(counters({("t07.g2", "ecc.dram_ce"): count}, ["ecc.dram_ce"], hours))
    got = said([f for f in found if f.signature == "memory.rate"])
    assert got == ({("t07.g2", "memory.rate"): want} if want else {})


def test_healthy_fleets_are_over_dispersed_and_left_alone() -> None:
    """200 racks drawn from the gamma-Poisson itself, 48 h: at most one may be held (1.8 in 1000 allowed)."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        counts = rng.poisson(rng.gamma(0.3, 0.002 / 0.3, 72) * 48)
        many = [gpu for gpu, count in zip(GPUS, counts, strict=True) if count >= 3]
        if many:
            grown = {(gpu, "ecc.dram_ce"): float(count) for gpu, count in zip(GPUS, counts, strict=True)}
            held += any(f.signature == "memory.rate" for f in look(counters(grown, ["ecc.dram_ce"], 48)))
    assert held <= 1


@pytest.mark.parametrize(("neighbours", "want"), [(0, "HOLD"), (11, "HOLD"), (40, None)])
def test_a_neighbour_s_few_errors_are_no_altitude(neighbours: int, want: str | None) -> None:
    """Six in 48 h are too many for a fleet of 0.002 an hour, of which the rest of a rack has 7 on average and by chance 11: what
    it surely has counts. 40 are five times the fleet's rate: there six are nobody's fault."""
    grown = {(gpu, "ecc.dram_ce"): float(i < neighbours) for i, gpu in enumerate(g for g in GPUS if g != "t07.g2")}
    grown["t07.g2", "ecc.dram_ce"] = 6.0
    found = [f for f in look(counters(grown, ["ecc.dram_ce"], 48)) if f.signature == "memory.rate"]
    assert said(found) == ({("t07.g2", "memory.rate"): want} if want else {})


def test_errors_on_every_gpu_are_nobody_s_own() -> None:
    found = look(counters({(gpu, "ecc.dram_ce"): 6 for gpu in GPUS}, ["ecc.dram_ce"]))
    assert said([f for f in found if f.signature == "memory.rate"]) == {("rack", "memory.rate"): "HOLD"}


def test_a_rack_with_a_high_rate_does_not_condemn_its_average_parts() -> None:
    rng = np.random.default_rng(2)
    grown = {(gpu, "ecc.dram_ce"): float(n) for gpu, n in zip(GPUS, rng.poisson(1.3, 72), strict=True)}
    grown["t07.g2", "ecc.dram_ce"] = 5
    assert "memory.rate" not in {f.signature for f in look(counters(grown, ["ecc.dram_ce"]))}


def test_errors_that_only_load_brings_are_told() -> None:
    t = np.linspace(0, 72000, 145)
    telemetry = {("t07.g2", "ecc.dram_ce"): Series(t, np.floor(np.minimum(t, 35000) / 3800))}
    parts = (Stretch("load", "load", 0.0, 36000.0), Stretch("idle-end", "idle-2", 36000.0, 72000.0))
    (found,) = [f for f in look(Telemetry(telemetry, parts)) if f.signature == "memory.rate"]
    assert found.evidence["by_load"] == pytest.approx(0.5**9, rel=0.5), "nine errors, all in the loaded half"


def test_errors_that_come_ever_faster_are_watched() -> None:
    t = np.linspace(0, 48 * 3600, 500)
    faster = Series(t, np.floor(9 * (t / t[-1]) ** 3))
    steady = Series(t, np.floor(9 * t / t[-1]))
    for one, want in ((faster, {("t07.g2", "memory.trend"): "WATCH"}), (steady, {})):
        found = look(Telemetry({("t07.g2", "ecc.dram_ce"): one}, ()))
        assert said([f for f in found if f.signature == "memory.trend"]) == want


@pytest.mark.parametrize(
    ("grown", "want"),
    [
        ({"remap.correctable": 1}, "WATCH"), ({"remap.correctable": 2}, "HOLD"), ({"remap.uncorrectable": 1}, "HOLD"),
        ({"remap.uncorrectable": 2}, "FAIL"), ({"remap.uncorrectable": 1, "remap.correctable": 1}, "HOLD"),
    ],
)  # fmt: skip
def test_spare_rows(grown: Mapping[str, float], want: str) -> None:
    metrics = ["remap.correctable", "remap.uncorrectable"]
    found = look(counters({("t07.g2", m): n for m, n in grown.items()}, metrics))
    assert said(found) == {("t07.g2", "memory.repair"): want}


@pytest.mark.parametrize(("flag", "want"), [("remap.pending", "HOLD"), ("remap.failed", "FAIL")])
def test_flags_of_a_repair_count_at_any_time(flag: str, want: str) -> None:
    t = np.arange(5.0)
    telemetry = Telemetry({("t07.g2", flag): Series(t, np.array([0.0, 1.0, np.nan, 0.0, 0.0]))}, (LOAD,))
    assert said(look(telemetry)) == {("t07.g2", "memory.repair"): want}


def test_uncorrected_errors_are_a_rule_and_what_was_there_before_is_not() -> None:
    metrics = ["ecc.sram_ue", "ecc.dram_ue"]
    assert look(counters({}, metrics)) == [], "seven from before the run"
    found = look(counters({("t07.g2", "ecc.sram_ue"): 1}, metrics))
    assert said(found) == {("t07.g2", "memory.uncorrected"): "FAIL"}


# ---------------------------------------------------------------- slowdowns


def slowed(gpus: Sequence[str], metric: str = "throttle.hw_brake", share: float = 0.2) -> Telemetry:
    t = np.arange(0.5, 36000, 100.0)
    return Telemetry({(gpu, metric): Series(t, 3 + (share if gpu in gpus else 0.0) * t) for gpu in GPUS}, (LOAD,))


@pytest.mark.parametrize(
    ("gpus", "metric", "parts"),
    [
        ([], "throttle.hw_brake", set()),
        (["t07.g2"], "throttle.hw_brake", {"t07.g2"}),
        (["t07.g0", "t07.g2"], "throttle.hw_thermal", {"t07.g0", "t07.g2"}),
        (["t07.g0", "t07.g1", "t07.g3"], "throttle.hw_thermal", {"t07"}),
        (["t07.g0", "t07.g1", "t07.g2", "t07.g3", "t09.g0"], "throttle.sw_thermal", {"t07", "t09.g0"}),
        (GPUS[:48], "throttle.sw_thermal", {"cdu"}),
        (GPUS[:48], "throttle.hw_brake", {"rack"}),
    ],
)
def test_a_slowdown_is_the_highest_part_that_shares_it(gpus: Sequence[str], metric: str, parts: set[str]) -> None:
    found = look(slowed(gpus, metric))
    assert {f.part for f in found} == parts
    assert all((f.signature, f.severity) == ("throttle.shared", Severity.HOLD) for f in found)


def test_a_tray_that_went_through_a_load_at_another_time_is_asked_about_that_time() -> None:
    """Slowed in its own window alone it was not seen; slowed in the others' it was held for what another phase did."""
    t = np.arange(0.5, 72000, 100.0)
    held = np.where(t > 36000, 3 + 0.2 * (t - 36000), 3.0)
    telemetry = Telemetry({(gpu, "throttle.hw_thermal"): Series(t, held) for gpu in GPUS if gpu.startswith("t07")}, (LOAD,))
    assert look(telemetry) == []
    own = replace(LOAD, own=(("t07", 36000.0, 36000.0 + LOAD.t1_s - LOAD.t0_s),))
    assert [f.part for f in look(replace(telemetry, stretches=(own,)))] == ["t07"]


def test_a_thousandth_is_the_floor() -> None:
    assert look(slowed(["t07.g2"], "throttle.sw_thermal", 0.0005)) == []


# ---------------------------------------------------------------- XIDs


def xid(part: str, t_s: float, code: int, source: str = "kmsg") -> LogLine:
    return LogLine(part, t_s, "xid", str(code), "", source)


NOTHING = Telemetry({}, ())


def test_a_memory_cascade_is_told_in_its_order() -> None:
    log = [xid("t07.g2", 12.2, 94), xid("t07.g2", 12.0, 48), xid("t07.g2", 12.1, 63), xid("t07.g2", 12.3, 48, "nvml")]
    (found,) = look(NOTHING, log)
    assert (found.part, found.signature, found.severity) == ("t07.g2", "xid.sequence", Severity.HOLD)
    assert found.evidence["chain"] == [48, 63, 94]
    assert found.value == 48


@pytest.mark.parametrize(
    "log",
    [
        [xid("t07.g2", 1, 79)],
        [xid("t07.g2", 5, 48), xid("t07.g2", 1, 63)],
        [xid("t07.g2", 5, 48), xid("t07.g3", 6, 63)],
        [xid("t07.g2", 5, 43), xid("t07.g2", 6, 45)],
        [xid("t07.g2", 1, 79), xid("t07.g3", 50, 79)],
        [LogLine("t07.g2", 1, "xid", "not a number", "", "kmsg"), LogLine("t07", 1, "note", "48", "", "agent")],
    ],
)
def test_what_is_no_sequence_is_none(log: Sequence[LogLine]) -> None:
    assert look(NOTHING, log) == []


def test_boards_that_drop_together_are_their_tray_s() -> None:
    found = look(NOTHING, [xid("t07.g2", 20.0, 79), xid("t07.g3", 21.5, 79), xid("t09.g0", 90.0, 79)])
    assert said(found) == {("t07", "xid.sequence"): "HOLD"}
    assert "t07.g2, t07.g3" in found[0].why and "power" in found[0].action


def test_link_errors_everywhere_at_once_are_one_event() -> None:
    log = [xid(f"t{i:02}.g1", 30.0 + 0.1 * i, 149) for i in range(6)]
    (found,) = look(NOTHING, log)
    assert (found.part, found.evidence["order"][0]) == ("rack", "t00.g1")
    assert look(NOTHING, log[:2]) == [], "two trays may be the two ends of one link"


# ---------------------------------------------------------------- links


def links(bad: Mapping[str, float], metric: str, base: float = 0.0, parts: Sequence[str] = LINKS) -> Telemetry:
    t = np.linspace(0, 36000, 13)
    out = {}
    for link in parts:
        value = np.full(t.size, base)
        if link in bad:
            value[t > 9000] = base + bad[link]
        out[link, metric] = Series(t, value)
    return Telemetry(out, (LOAD,))


def of(gpu: str, count: int = 18) -> list[str]:
    return [f"{gpu}.l{k}" for k in range(count)]


@pytest.mark.parametrize(
    ("bad", "want"),
    [
        ([], {}),
        (["t07.g2.l13"], {"t07.g2.l13": "FAIL"}),
        (of("t07.g2", 2), {"t07.g2.l0": "FAIL", "t07.g2.l1": "FAIL"}),
        (of("t07.g2", 5), {"t07.g2": "HOLD"}),
        ([x for j in range(4) for x in of(f"t07.g{j}", 6)], {"t07": "HOLD"}),
        ([f"{gpu}.l9" for gpu in GPUS[:40]], {"rack": "HOLD"}),
        (LINKS[: 18 * 60], {"rack": "HOLD"}),
        ([*(f"{gpu}.l9" for gpu in GPUS[:40]), "t17.g3.l2"], {"rack": "HOLD", "t17.g3.l2": "FAIL"}),
    ],
)
@pytest.mark.parametrize(("metric", "signature"), [("nvlink.effective_errors", "nvlink.errors"), ("nvlink.state", "nvlink.down")])
def test_links_are_named_by_what_they_share(bad: Sequence[str], want: Mapping[str, str], metric: str, signature: str) -> None:
    down = metric == "nvlink.state"
    found = look(links(dict.fromkeys(bad, -1.0 if down else 2.0), metric, 1.0 if down else 5.0))
    assert {f.part: str(f.severity) for f in found} == dict(want)
    assert {f.signature for f in found} <= {signature}


PORTS = {link: f"s{k % 18 // 2}.a{k % 2}.p{k // 18}" for k, link in enumerate(LINKS)}
"""Of this rack: link number n of every GPU ends in chip n."""


@pytest.mark.parametrize(
    ("bad", "want"),
    [
        ([f"{gpu}.l9" for gpu in GPUS[:40]], {"s4.a1": "HOLD"}),
        ([f"{gpu}.l{n}" for gpu in GPUS[:60] for n in (8, 9)], {"s4": "HOLD"}),
        ([f"{gpu}.l9" for gpu in GPUS[:10]], {f"{gpu}.l9": "FAIL" for gpu in GPUS[:10]}),
        ([*(f"{gpu}.l9" for gpu in GPUS[:40]), *of("t17.g3", 5)], {"s4.a1": "HOLD", "t17.g3": "HOLD"}),
        (LINKS[: 18 * 60], {"rack": "HOLD"}),
    ],
)
def test_where_links_end_is_named_where_it_was_read(bad: Sequence[str], want: Mapping[str, str]) -> None:
    telemetry = links(dict.fromkeys(bad, 2.0), "nvlink.effective_errors", 5.0)
    found = signatures.find(telemetry, racks.topology(), ROWS, {}, ports=PORTS)
    assert {f.part: str(f.severity) for f in found} == dict(want)
    for one in found:
        assert (one.fru == "NVLink switch tray") == one.part.startswith("s")
        assert ".l" not in one.part or PORTS[one.part] in one.why


def test_ports_that_are_not_in_the_order_of_link_numbers_are_no_hindrance() -> None:
    """Each GPU's links end in other chips than its neighbour's do: link numbers say nothing then, chips do."""
    turned = {f"{gpu}.l{(n + i) % 18}": f"s{n // 2}.a{n % 2}.p{i}" for i, gpu in enumerate(GPUS) for n in range(18)}
    weak = {link: 0.0 for link, port in turned.items() if port.startswith("s4.a1.")}
    telemetry = margins(7, worse=dict.fromkeys(weak, 4.0))
    found = signatures.find(telemetry, racks.topology(), ROWS, {}, ports=turned)
    assert {(f.part, str(f.severity)) for f in found if f.severity is not Severity.WATCH} == {("s4.a1", "HOLD")}
    blind = {f.part for f in signatures.find(telemetry, racks.topology(), ROWS, {}) if f.severity is not Severity.WATCH}
    assert "s4.a1" not in blind


def test_a_link_that_came_back_is_held_and_one_that_stays_down_fails() -> None:
    t = np.arange(10.0)
    state = np.ones(10)
    state[4:6] = 0
    (found,) = look(Telemetry({("t07.g2.l3", "nvlink.state"): Series(t, state)}, (LOAD,)))
    assert found.severity is Severity.HOLD
    state[8:] = 0
    (found,) = look(Telemetry({("t07.g2.l3", "nvlink.state"): Series(t, state)}, (LOAD,)))
    assert found.severity is Severity.FAIL and "to the end" in found.why


@pytest.mark.parametrize(("count", "want"), [(1, "WATCH"), (2, "HOLD")])
def test_recoveries(count: int, want: str) -> None:
    assert said(look(links({"t07.g2.l13": count}, "nvlink.recovery_ok"))) == {("t07.g2.l13", "nvlink.recovery"): want}


def test_a_machine_without_links_in_its_profile_has_no_link_faults() -> None:
    lone = racks.topology().model_copy(update={"links_per_gpu": 0})
    assert signatures.find(links({"t07.g2.l13": -1.0}, "nvlink.state", 1.0), lone, ROWS, {}) == []


def test_healthy_links_are_left_alone_also_with_heavy_tails() -> None:
    assert [f for seed in range(4) for f in look(margins(seed)) if f.severity is not Severity.WATCH] == []
    heavy = [f for seed in range(6) for f in look(margins(seed, "t5")) if f.severity is not Severity.WATCH]
    assert len(heavy) <= 1, heavy


@pytest.mark.parametrize(
    ("worse", "part"),
    [({"t07.g2": 1.5}, "t07.g2"), ({"t07": 1.2}, "t07"), ({"*.l9": 4.0}, "rack"), ({"t07.g2.l13": 4.5}, "t07.g2.l13")],
)
def test_lost_margin_is_named_in_its_place(worse: Mapping[str, float], part: str) -> None:
    found = [f for f in look(margins(7, worse=worse)) if f.severity is not Severity.WATCH]
    assert {(f.part, f.signature) for f in found} == {(part, "nvlink.margin")}
    assert "dB less margin" in found[0].why


def test_links_that_are_normal_in_db_are_so_by_their_error_rates() -> None:
    """3 dB lost are 3 dB; and 200,000 healthy links do not look heavy-tailed (by -10 log10(-ln(rate)) they were t30)."""
    lost = lost_db(np.log10(raw_ber(21.6 - np.array([0.0, 1.5, 3.0]))))
    assert lost - lost[0] == pytest.approx([0.0, 1.5, 3.0], abs=0.02)
    many = lost_db(np.log10(raw_ber(np.random.default_rng(3).normal(21.6, 0.45, 200_000))))
    assert tail_of(many, sigma(many, 0.0)) == GAUSS
    assert np.isnan(lost_db(np.array([-0.3, 0.0, np.nan]))).all(), "what errs by chance has no margin to speak of"


def test_a_rate_of_nothing_is_not_a_measurement() -> None:
    telemetry = margins(7)
    series = {key: Series(one.t_s, np.zeros(one.t_s.size)) for key, one in telemetry.series.items()}
    assert look(Telemetry(series, telemetry.stretches)) == []


# ---------------------------------------------------------------- fusion


def watch(part: str, signature: str, severity: Severity = Severity.WATCH) -> Finding:
    return Finding(
        part, signature, severity, 1.0, 1.0, "1", "because", "do", statistic=None if signature == "memory.trend" else 4.0
    )


@pytest.mark.parametrize(
    ("found", "want"),
    [
        ([watch("t07.g2", "power.leak"), watch("t07.g2", "memory.trend"), watch("t07.g2", "thermal.rth")], {"t07.g2"}),
        ([watch("t07.g2", "power.leak"), watch("t07.g2", "memory.trend")], set()),
        ([watch("t07.g2", "power.leak"), watch("t07.g2", "clock.weak")], set()),
        ([watch("t07.g2", "thermal.rth"), watch("t07.g2", "thermal.hbm")], set()),
        ([watch("t07.g2", "power.leak"), watch("t07.g3", "memory.trend")], set()),
        ([watch("t07.g2", "power.leak"), watch("t07.g2", "memory.rate", Severity.HOLD)], set()),
        ([], set()),
    ],
)
def test_only_independent_causes_confirm_each_other(found: list[Finding], want: set[str]) -> None:
    got = fusion.find(found, ROWS)
    assert {f.part for f in got} == want
    assert all(f.severity is Severity.HOLD for f in got)


def test_every_signature_has_a_cause_and_a_place_in_the_code() -> None:
    run = {
        *signatures.SIGNATURES,
        "thermal.rth",
        "thermal.tray",
        "xid.sequence",
        "boot.missing",
        "soak.enough",
        "fusion",
        "bandwidth.matrix",
        "repair.change",
    }
    assert set(ROWS) == run
    assert all(row.cause for name, row in ROWS.items() if name != "fusion")
    assert all(row.patterns for name, row in ROWS.items() if name == "xid.sequence")
