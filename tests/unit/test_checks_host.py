"""host, nic, nvme: each fault fails its own measurement on its own part, silence is UNKNOWN with a reason, health is PASS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Context, Evidence
from burnin.events import LogLine, Measurement, Result
from burnin.rack.load import load_catalogue, load_profile
from burnin.rack.schema import Profile
from burnin.telemetry.series import Series, Stretch, Telemetry
from tests import build
from tests.sampled import some

PROFILE = load_profile("gb300-nvl72")
CATALOGUE = load_catalogue()
NAMES = ("host", "nic", "nvme")
Both = dict[Stretch, Any]


def both(value: float, load: Any = None) -> Both:
    return {build.IDLE: value, build.LOAD: value if load is None else load}


def healthy() -> dict[tuple[str, str], Both]:
    """A GB300 tray: 4 GPUs, 2 CPUs, 4 InfiniBand cards and an Ethernet card, 5 drives; counters that are not at 0."""
    rows: dict[tuple[str, str], Both] = {}
    link = {"pcie.width": 16.0, "pcie.width_max": 16.0, "pcie.gen": 6.0, "pcie.gen_max": 6.0}
    errors = {"pcie.aer_correctable": 12.0, "pcie.aer_nonfatal": 2.0, "pcie.aer_fatal": 1.0}
    for part in [f"g{i}" for i in range(4)] + [f"n{i}" for i in range(5)] + [f"d{i}" for i in range(5)]:
        rows |= {(part, metric): both(value) for metric, value in {**link, **errors}.items()}
    for i in range(4):
        rows[f"g{i}", "pcie.gen"] = {build.IDLE: 1.0, build.LOAD: 6.0}  # asleep, then awake
        rows[f"g{i}", "gpu.power"] = {build.IDLE: 190.0, build.LOAD: 1395.0}
        rows[f"g{i}", "gpu.power_limit"] = both(1400.0)
        rows[f"n{i}", "nic.symbol_errors"] = both(3.0)
    rows["n4", "nic.crc_errors"] = both(3.0)
    for i in range(5):
        rows |= {(f"n{i}", "nic.link_flaps"): both(7.0), (f"n{i}", "nic.ports_up"): both(1.0)}
        rows |= {(f"d{i}", "nvme.media_errors"): both(4.0), (f"d{i}", "nvme.critical_warning"): both(0.0)}
        rows[f"d{i}", "nvme.spare"] = both(1.0)
    for i in range(2):
        rows |= {(f"c{i}", "cpu.temp"): {build.IDLE: 40.0, build.LOAD: 60.0}, (f"c{i}", "cpu.temp_limit"): both(105.0)}
    tray = {"cpu.edac_ue": 5.0, "cpu.edac_ce": 9.0, "host.cpus": 2.0, "host.nics": 5.0, "host.nvmes": 5.0}
    return rows | {("", metric): both(value) for metric, value in tray.items()}


ABSENT = {
    **{(f"n{i}", "nic.crc_errors"): "not_supported" for i in range(4)},
    ("n4", "nic.symbol_errors"): "not_supported",
    **{(f"c{i}", f"cpu.edac_{kind}"): "not_supported" for i in range(2) for kind in ("ce", "ue")},
}


def full(part: str) -> str:
    return f"t07.{part}" if part else "t07"


def telemetry(change: dict[tuple[str, str], Any] | None = None, absent: dict[tuple[str, str], str] | None = None) -> Telemetry:
    """The healthy tray t07 with some series changed (None: never read)."""
    rows = healthy()
    for key, value in (change or {}).items():
        rows[key] = {**rows.get(key, {}), **value} if value is not None else {}
    got = build.series({(full(part), metric): value for (part, metric), value in rows.items() if value})
    return replace(got, absent={(full(part), metric): why for (part, metric), why in {**ABSENT, **(absent or {})}.items()})


def context(stage: str, profile: Profile = PROFILE, **args: Any) -> Context:
    suite = build.suite()
    (one,) = (s for s in suite.stages if s.stage == stage)
    return Context("t07", build.rack(), profile, suite, one, CATALOGUE, args)


def judge(
    name: str,
    change: Any = None,
    absent: Any = None,
    stage: str = "load",
    log: Sequence[LogLine] = (),
    profile: Profile = PROFILE,
    evidence: dict[str, Any] | None = None,
    **args: Any,
) -> list[Measurement]:
    stretch = {"idle": build.IDLE, "load": build.LOAD}[stage]
    one = Evidence(telemetry=telemetry(change, absent), stretch=stretch, log=log, sources={"xid": None, "kmsg": None})
    return CHECKS[name].judge(context(stage, profile, **args), replace(one, **(evidence or {})))


def bad(measurements: list[Measurement]) -> dict[tuple[str, str], Result]:
    return {(m.part, m.name): m.result for m in measurements if m.result is not Result.PASS}


@pytest.mark.parametrize("stage", ["idle", "load"])
@pytest.mark.parametrize("name", NAMES)
def test_a_healthy_tray_passes_and_every_part_is_judged(name: str, stage: str) -> None:
    got = judge(name, stage=stage)
    assert bad(got) == {}
    parts = {m.part.removeprefix("t07").lstrip(".") for m in got}
    wanted = {"host": {"", "c0", "c1", *(f"g{i}" for i in range(4))}, "nic": {""}, "nvme": {""}}[name]
    cards = {"host": "nd", "nic": "n", "nvme": "d"}[name]
    assert parts == wanted | {f"{letter}{i}" for letter in cards for i in range(5)}


FAULTS: list[tuple[str, str, str, Any, str]] = [
    ("host", "", "cpu.edac_ue", {build.LOAD: [5.0] * 20 + [6.0] * 4}, "cpu.edac_ue.growth"),
    ("host", "", "cpu.edac_ce", {build.LOAD: 14.0}, "cpu.edac_ce.growth"),
    ("host", "", "host.cpus", {build.LOAD: [2.0] * 20 + [1.0] * 4}, "cpu.count"),
    ("host", "c1", "cpu.temp", {build.LOAD: [60.0] * 3 + [106.0] + [60.0] * 20}, "cpu.margin"),
    ("host", "n2", "pcie.width", {build.LOAD: [16.0] * 20 + [8.0] * 4}, "pcie.width.fraction"),
    ("host", "d3", "pcie.gen", {build.LOAD: 3.0}, "pcie.gen.fraction"),
    ("host", "g2", "pcie.width", {build.LOAD: 8.0}, "pcie.width.fraction"),
    ("host", "g2", "pcie.gen", {build.LOAD: 4.0}, "pcie.gen.fraction"),
    ("host", "g0", "pcie.aer_fatal", {build.LOAD: 2.0}, "pcie.aer_fatal.growth"),
    ("host", "n4", "pcie.aer_nonfatal", {build.LOAD: [2.0] * 23 + [3.0]}, "pcie.aer_nonfatal.growth"),
    ("host", "g1", "pcie.aer_correctable", {build.LOAD: [12.0 + 2 * i for i in range(24)]}, "pcie.corrected_rate"),
    ("nic", "n1", "nic.link_flaps", {build.LOAD: [7.0] * 20 + [9.0] * 4}, "nic.link_flaps.growth"),
    ("nic", "n1", "nic.symbol_errors", {build.LOAD: 14.0}, "nic.symbol_errors.growth"),
    ("nic", "n4", "nic.crc_errors", {build.LOAD: 14.0}, "nic.crc_errors.growth"),
    ("nic", "", "host.nics", {build.LOAD: [5.0] * 23 + [4.0]}, "nic.count"),
    ("nvme", "d0", "nvme.media_errors", {build.LOAD: [4.0] * 23 + [5.0]}, "nvme.media_errors.growth"),
    ("nvme", "d0", "nvme.critical_warning", {build.LOAD: [0.0] * 3 + [4.0] + [0.0] * 20}, "nvme.critical_warning"),
    ("nvme", "d4", "nvme.spare", {build.LOAD: [1.0] * 23 + [0.89]}, "nvme.spare"),
    ("nvme", "", "host.nvmes", {build.LOAD: 4.0}, "nvme.count"),
]


@pytest.mark.parametrize(
    ("name", "part", "metric", "change", "measurement"), FAULTS, ids=[f"{p}-{m}" for _, p, _, _, m in FAULTS]
)
def test_each_fault_fails_its_own_measurement_on_its_own_part_only(
    name: str, part: str, metric: str, change: Any, measurement: str
) -> None:
    assert bad(judge(name, {(part, metric): change})) == {(full(part), measurement): Result.FAIL}
    for other in set(NAMES) - {name}:
        assert bad(judge(other, {(part, metric): change})) == {}


SILENT = [(name, part, metric) for name in NAMES for part, metric in healthy() if metric in CHECKS[name].metrics]


@pytest.mark.parametrize(("name", "part", "metric"), some(SILENT, 4), ids=[f"{p}-{m}" for _, p, m in SILENT])
@pytest.mark.parametrize("reason", ["no_permission", "missing"])
def test_what_was_not_read_is_unknown_and_says_why(name: str, part: str, metric: str, reason: str) -> None:
    got = bad(judge(name, {(part, metric): None}, {(part, metric): reason}))
    if metric == "nic.ports_up":
        assert got == {}, "nobody asked for it"
    elif metric == "cpu.temp_limit":
        assert got == {(full(part), "cpu.temp.max"): Result.UNKNOWN}
    else:
        ((key, result),) = got.items()
        assert (key[0], result) == (full(part), Result.UNKNOWN)
    reasons = {m.reason for m in judge(name, {(part, metric): None}, {(part, metric): reason}) if m.result is Result.UNKNOWN}
    assert reasons <= {reason, "missing"}


@pytest.mark.parametrize("name", NAMES)
def test_no_evidence_at_all_passes_nothing(name: str) -> None:
    for evidence in (Evidence(), Evidence(stretch=build.LOAD), Evidence(stretch=build.LOAD, lost=True)):
        got = CHECKS[name].judge(context("load"), evidence)
        assert got
        assert {m.result for m in got} == {Result.UNKNOWN}
        assert all(m.value is None and m.reason for m in got)


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_that_counts_nothing_still_passes_nothing_unread(name: str) -> None:
    unknown = {"cpus_per_tray": None, "nics_per_tray": None, "nvmes_per_tray": None}
    profile = PROFILE.model_copy(update={"topology": PROFILE.topology.model_copy(update=unknown)})
    got = CHECKS[name].judge(context("load", profile), Evidence(stretch=build.LOAD))
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert {m.name for m in got} & {"cpu.edac_ue.growth", "nic.link_flaps.growth", "nvme.media_errors.growth"}
    quantity = {"host": "cpu.count", "nic": "nic.count", "nvme": "nvme.count"}[name]
    assert bad(judge(name, profile=profile)) == {("t07", quantity): Result.UNKNOWN}
    stated = {"host": 2, "nic": 5, "nvme": 5}[name]
    assert bad(judge(name, profile=profile, count=stated)) == {}
    assert bad(judge(name, profile=profile, count=stated + 1))["t07", quantity] is Result.FAIL


@pytest.mark.parametrize(
    ("name", "metric", "measurement"), [("nic", "host.nics", "nic.count"), ("nvme", "host.nvmes", "nvme.count")]
)
def test_more_parts_than_the_profile_knows_are_no_fault_and_no_pass(name: str, metric: str, measurement: str) -> None:
    assert bad(judge(name, {("", metric): both(6.0)})) == {("t07", measurement): Result.UNKNOWN}


@pytest.mark.parametrize(("name", "metric"), [("nic", "host.nics"), ("nvme", "host.nvmes")])
def test_fewer_cards_than_usual_condemn_no_tray_until_somebody_says_how_many_were_built_in(name: str, metric: str) -> None:
    few = {("", metric): both(4.0)}
    assert bad(judge(name, few))["t07", f"{name}.count"] is Result.UNKNOWN
    assert bad(judge(name, few, count=5))["t07", f"{name}.count"] is Result.FAIL


def test_a_card_that_vanished_is_unknown_beside_the_count_that_fails() -> None:
    gone: dict[tuple[str, str], Any] = {("n4", metric): None for part, metric in healthy() if part == "n4"}
    got = bad(judge("nic", {**gone, ("", "host.nics"): both(4.0)}, count=5))
    assert got.pop(("t07", "nic.count")) is Result.FAIL
    assert {part for part, _ in got} == {"t07.n4"} and set(got.values()) == {Result.UNKNOWN}


def test_counters_of_a_card_with_no_port_that_counts_are_unknown() -> None:
    silent = {("n0", "nic.symbol_errors"): "not_supported"}
    got = bad(judge("nic", {("n0", "nic.symbol_errors"): None}, silent))
    assert got == {("t07.n0", "nic.symbol_errors.growth"): Result.UNKNOWN}


@pytest.mark.parametrize(("ports", "result"), [([1.0] * 24, None), ([1.0] * 23 + [0.0], Result.FAIL), ([0.0] * 24, Result.FAIL)])
def test_a_link_that_must_be_there(ports: list[float], result: Result | None) -> None:
    got = bad(judge("nic", {("n3", "nic.ports_up"): {build.LOAD: ports}}, up=["n3"]))
    assert got == ({("t07.n3", "nic.ports_up"): result} if result else {})


def test_what_a_tray_brought_along_is_its_baseline_and_what_came_between_stages_counts() -> None:
    assert bad(judge("host", {("", "cpu.edac_ue"): both(900.0)})) == {}
    between = {("", "cpu.edac_ue"): {build.IDLE: 900.0, build.LOAD: 901.0}}
    assert bad(judge("host", between)) == {("t07", "cpu.edac_ue.growth"): Result.FAIL}
    reset = {("", "cpu.edac_ue"): {build.IDLE: 900.0, build.LOAD: [0.0] * 12 + [1.0] * 12}}
    assert bad(judge("host", reset)) == {("t07", "cpu.edac_ue.growth"): Result.FAIL}


def test_memory_errors_name_the_cpu_where_each_cpu_counts() -> None:
    own: dict[tuple[str, str], Any] = {(f"c{i}", f"cpu.edac_{kind}"): both(0.0) for i in range(2) for kind in ("ce", "ue")}
    assert bad(judge("host", own)) == {}
    broken = {**own, ("c1", "cpu.edac_ue"): both(0.0, 1.0), ("", "cpu.edac_ue"): both(5.0, 6.0)}
    assert bad(judge("host", broken)) == {("t07.c1", "cpu.edac_ue.growth"): Result.FAIL}
    half = {**broken, ("c0", "cpu.edac_ue"): None}
    assert bad(judge("host", half)) == {("t07", "cpu.edac_ue.growth"): Result.FAIL}, "one CPU does not speak for both"


def test_a_gpu_that_sleeps_is_not_called_slow_and_one_that_was_not_loaded_proves_nothing() -> None:
    asleep = {("g2", "pcie.gen"): both(1.0)}
    assert bad(judge("host", asleep, stage="idle")) == {}
    assert bad(judge("host", asleep)) == {("t07.g2", "pcie.gen.fraction"): Result.FAIL}
    idle = {**asleep, ("g2", "gpu.power"): {build.LOAD: 200.0}}
    (m,) = (m for m in judge("host", idle) if m.result is not Result.PASS)
    assert (m.part, m.name, m.result, m.reason) == ("t07.g2", "pcie.gen.fraction", Result.UNKNOWN, "not_attained")


def test_a_link_that_runs_better_than_its_ends_say_is_whole() -> None:
    """GB300: NVML's current generation is 6 where the host's port says 4 (nvidia-smi of a real tray)."""
    got = judge("host", {("g2", "pcie.gen_max"): both(4.0)})
    assert bad(got) == {}
    assert {m.value for m in got if (m.part, m.name) == ("t07.g2", "pcie.gen.fraction")} == {1.0}


def corrected(per_minute: float, minutes: float, seed: int) -> Result:
    """The host check on a link that corrects errors at this mean rate (Poisson)."""
    t = np.arange(0.0, minutes * 60, 5.0)
    counts = np.cumsum(np.random.default_rng(seed).poisson(per_minute / 12, t.size)).astype(float)
    series = {("t07.g0", "pcie.aer_correctable"): Series(t, counts)}
    evidence = Evidence(telemetry=Telemetry(series), stretch=Stretch("load", "load", 0.0, minutes * 60, 0.0))
    (m,) = (m for m in CHECKS["host"].judge(context("load"), evidence) if (m.part, m.name) == ("t07.g0", "pcie.corrected_rate"))
    return m.result


def test_a_rate_of_corrected_errors_condemns_only_when_it_is_surely_too_high() -> None:
    """The limit is 3 a minute: at the limit next to nothing fails, in half an hour three times the limit always does."""
    assert [corrected(3.0, 0.5, seed) for seed in range(40)].count(Result.FAIL) == 0
    assert [corrected(3.0, 30, seed) for seed in range(40)].count(Result.FAIL) <= 1
    assert {corrected(9.0, 30, seed) for seed in range(40)} == {Result.FAIL}


# ---------------------------------------------------------------- the kernel log


def said(code: str, part: str = "t07.d1", t_s: float = 20.0) -> LogLine:
    return LogLine(part, t_s, "kernel", code, "a line", "kmsg")


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("nvme_dead", Result.FAIL),
        ("smmu_fault", Result.UNKNOWN),
        ("nic_link_down", Result.PASS),
        ("no_such_word", Result.UNKNOWN),
    ],
)
def test_a_kernel_line_is_judged_by_the_catalogue_and_an_unknown_word_holds(code: str, result: Result) -> None:
    got = [m for m in judge("host", log=[said(code), said(code), said(code, t_s=1.0)]) if m.name == "kernel.event"]
    assert [(m.part, m.value, m.result) for m in got] == [("t07.d1", code, result)]
    assert "3 times" in got[0].why


def test_every_kind_of_line_on_every_part_is_told() -> None:
    lines = [said("nvme_dead"), said("nvme_timeout"), said("nvme_timeout", "t07.d2"), said("oom", "t07")]
    got = [m for m in judge("host", log=lines) if m.name == "kernel.event"]
    assert [(m.part, m.value) for m in got] == [
        ("t07", "oom"), ("t07.d1", "nvme_dead"), ("t07.d1", "nvme_timeout"), ("t07.d2", "nvme_timeout"),
    ]  # fmt: skip


def test_other_lines_of_the_log_are_not_the_kernels() -> None:
    other = LogLine("t07.g2", 20.0, "xid", "79", "off the bus", "kmsg")
    assert bad(judge("host", log=[other])) == {}


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [({"sources": {"kmsg": "no_permission"}}, "no_permission"), ({"lost": True}, "lost"), ({"sources": {}}, "missing")],
)
def test_a_log_that_was_not_read_says_nothing_good(evidence: dict[str, Any], reason: str) -> None:
    (m,) = (m for m in judge("host", evidence=evidence) if m.name == "kernel.event")
    assert (m.part, m.result, m.reason) == ("t07", Result.UNKNOWN, reason)
