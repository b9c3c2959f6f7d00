"""`burnin lint`: what no single value shows. Each refusal once; the same file without it, and every shipped one, passes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from burnin.checks import CHECKS
from burnin.rack.load import load_catalogue
from burnin.suites.lint import lint, warnings

ROOT = Path(__file__).parents[2]
METRICS = load_catalogue().metrics

SUITE = """\
suite: mine
about: a test
ships: true
sample_slow: 2 s
coverage: {metrics: [gpu.temp, ecc.dram_ue]}
limits:
  gpu.tlimit.load: {min: 4, unit: Cel, source: me}
stages:
  - {stage: idle, phase: idle, for: 30 s, steps: [idle-baseline]}
  - {stage: load, phase: load, for: 30 s, load: {}, steps: [gpu-load]}
  - {stage: again, phase: load-2, for: 30 s, load: {}, when: suspect, steps: [gpu-load]}
  - {stage: cool, phase: cool, for: 30 s, steps: [ecc]}
"""
LIMIT = "  gpu.tlimit.load: {min: 4, unit: Cel, source: me}\n"


def other(text: str) -> tuple[str, str]:
    return LIMIT, f"  {text}\n"


REFUSED = {
    "margin nobody has": ("min: 4", "min: 90", "7:26: gpu.tlimit.load can never be met: no GPU has 90 Cel of margin"),
    "unit": ("unit: Cel", "unit: K", "7:35: gpu.tlimit.load is in K, but measured in Cel"),
    "a counter falls": (
        *other("ecc.dram_ue.growth: {max: -1, unit: '1', source: me}"), "7:29: ecc.dram_ue.growth can never be met: a counter",
    ),
    "a count is equal": (
        *other("ecc.dram_ue.growth: {equals: 0, unit: '1', source: me}"), "7:3: ecc.dram_ue.growth contradicts the profiles",
    ),
    "a share of 5": (
        *other("throttle.sw_thermal.fraction: {max: 5, unit: '1', source: me}"), "7:3: throttle.sw_thermal.fraction is a share",
    ),
    "a share in s": (
        *other("throttle.sw_thermal.fraction: {max: 0.1, unit: s, source: me}"), "7:50: throttle.sw_thermal.fraction is in s",
    ),
    "power nobody sets": (
        *other("gpu.power_limit: {equals: 9000, unit: W, source: me}"), "7:29: gpu.power_limit can never be met: 9000 W",
    ),
    "no such limit": (*other("gpu.tlimit.loaded: {min: 4, unit: Cel, source: me}"), "7:3: no profile has a limit"),
    "the other bound": ("{min: 4", "{max: 4", "7:3: gpu.tlimit.load contradicts the profiles: its bound is max; expected min"),
    "starts where it is cut": (
        *other("gpu.tlimit.start: {min: -3, unit: Cel, source: me}"), "7:27: a load may start at -3 Cel of margin and is cut at",
    ),
    "load without end": ("  - {stage: cool, phase: cool, for: 30 s, steps: [ecc]}\n", "", "10:26: stage load: the load never"),
    "suspicion before load": (
        "for: 30 s, steps: [idle-baseline]", "for: 30 s, when: suspect, steps: [idle-baseline]",
        "9:49: stage idle: nothing before it can raise a suspicion",
    ),
    "ships what was not measured": ("coverage: {metrics: [gpu.temp, ecc.dram_ue]}\n", "", "3:8: a PASS of this suite would ship"),
    "a slow metric in a short stage": (
        "sample_slow: 2 s", "sample_slow: 20 s", "9:37: stage idle: ecc.dram_ue is read every 20 s, fewer than 3",
    ),
}  # fmt: skip


def look(path: Path) -> list[str]:
    return [str(problem).removeprefix(f"{path}:") for problem in lint([path], CHECKS, METRICS)]


def test_the_suite_that_the_others_are_made_of_is_right(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    assert look(tmp_path / "s.yaml") == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_never_be_met_is_refused(tmp_path: Path, name: str) -> None:
    old, new, says = REFUSED[name]
    assert old in SUITE
    (tmp_path / "s.yaml").write_text(SUITE.replace(old, new, 1))
    said = look(tmp_path / "s.yaml")
    assert said and said[0].startswith(says), said


def test_a_check_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE.replace("[ecc]", "[eccc]"))
    (said,) = look(tmp_path / "s.yaml")
    assert said.startswith("12:51: check 'eccc' does not exist")


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("gpu.idle_power: {max: 1400, unit: W, source: me}", "gpu.idle_power can never be violated: 1400 W is all"),
        ("gpu.power_limit: {equals: 1500, unit: W, source: me}", "gpu.power_limit can never be met: 1500 W cannot be set"),
        ("gpu.tlimit.start: {min: 0, unit: Cel, source: me}", "a load may start at 0 Cel of margin and is cut at 0"),
    ],
)
def test_a_profile_against_its_own_gpu(tmp_path: Path, limit: str, says: str) -> None:
    text = (ROOT / "inventory/profiles/gb300-nvl72.yaml").read_text()
    name = limit.split(":")[0]
    lines = [f"  {limit}" if line.startswith(f"  {name}:") else line for line in text.splitlines()]
    path = tmp_path / "gb300-nvl72.yaml"
    path.write_text("\n".join(lines))
    (said,) = look(path)
    assert says in said
    assert said.startswith(f"{1 + next(i for i, line in enumerate(lines) if limit in line)}:")


def test_every_file_that_is_shipped_is_right() -> None:
    files = [*ROOT.glob("inventory/**/*.yaml"), *ROOT.glob("test_suites/*.yaml")]
    assert len(files) >= 5 + 3 + 1 + 1 + 4
    assert [str(problem) for problem in lint(files, CHECKS, METRICS)] == []


def test_what_is_no_file_of_ours_says_so_and_does_not_hide_the_others(tmp_path: Path) -> None:
    alien, wrong = tmp_path / "a.yaml", tmp_path / "b.yaml"
    alien.write_text("services: {}\n")
    wrong.write_text("suite: x\n")
    said = [str(problem) for problem in lint([alien, tmp_path / "none.yaml", wrong], CHECKS, METRICS)]
    assert said[0].startswith(f"{alien}:1:1: this is no file of burnin's; expected a key that says what it is")
    assert [text.split(": ")[0] for text in said[1:]] == [f"{wrong}:1:1", f"{wrong}:1:1", f"{tmp_path}/none.yaml"]


def test_a_waiver_that_ran_out_or_sets_nothing_aside_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "rack: R\nprofile: h200-1gpu\ntrays: {t00: {host: h}}\nwaive:\n"
        "  - {interlock: leak, by: A. Person, why: there is no coolant, until: 2030-01-01}\n"
        "  - {interlock: gpu_margin, by: A. Person, why: it was on the bench, until: 2026-11-20}\n"
    )
    assert lint([path], CHECKS, METRICS) == []
    pointless, expired = (str(note) for note in warnings([path], dt.date(2026, 11, 21)))
    assert pointless.startswith(f"{path}:5:17: a h200-1gpu does not ask for leak")
    assert expired.startswith(f"{path}:6:77: the waiver of gpu_margin by A. Person ran out on 2026-11-20")
    assert len(warnings([path], dt.date(2026, 11, 20))) == 1, "on its last day it holds"
