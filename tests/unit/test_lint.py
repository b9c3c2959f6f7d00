"""`burnin lint`: what no single value shows. Each refusal once; the same file without it, and every shipped one, passes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from burnin.agent.load import SENSOR_LOST_NS
from burnin.checks import OFFERS
from burnin.errors import InputError
from burnin.rack.load import load_catalogue, load_profile
from burnin.suites.lint import lint, warnings
from burnin.suites.load import MARGIN_S, load_suite

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


COOL = "  - {stage: cool, phase: cool, for: 30 s, steps: [ecc]}\n"
IDLE, LOAD, AGAIN = (line + "\n" for line in SUITE.splitlines()[8:11])


def limit(text: str) -> tuple[str, str]:
    return LIMIT, f"  {text}\n"


def look(path: Path) -> list[str]:
    return [str(problem).removeprefix(f"{path}:") for problem in lint([path], OFFERS, METRICS)]


def look_at(path: Path, text: str, *changes: tuple[str, str]) -> list[str]:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return look(path)


REFUSED: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    "margin nobody has": ([("min: 4", "min: 87")], ["7:26: gpu.tlimit.load can never be met: no GPU has 87 Cel of margin"]),
    "unit": ([("unit: Cel", "unit: K")], ["7:35: gpu.tlimit.load is in K, but measured in Cel"]),
    "less than none": (
        [limit("remap.pending: {max: -1, unit: '1', source: me}")], ["7:24: remap.pending can never be met: it is never below 0"],
    ),
    "a count is equal": (
        [limit("ecc.dram_ue.growth: {equals: 0, unit: '1', source: me}")],
        ["7:3: ecc.dram_ue.growth is counted, and has no max", "7:3: ecc.dram_ue.growth contradicts the profiles"],
    ),
    "a share of 5": (
        [limit("gpu.idle_util: {max: 5, unit: '1', source: me}")], ["7:3: gpu.idle_util is a share, but its limit is <= 5"],
    ),
    "a share below 0": (
        [limit("gpu.idle_util: {max: -0.1, unit: '1', source: me}")], ["7:3: gpu.idle_util is a share, but its limit is <= -0.1"],
    ),
    "a share in s": (
        [limit("throttle.sw_thermal.fraction: {max: 0.1, unit: s, source: me}")], ["7:50: throttle.sw_thermal.fraction is in s"],
    ),
    "power nobody sets": (
        [limit("gpu.power_limit: {equals: 9000, unit: W, source: me}")], ["7:29: gpu.power_limit can never be met: 9000 W"],
    ),
    "power in quotes": (
        [limit("gpu.power_limit: {equals: '1400', unit: W, source: me}")],
        ["7:29: gpu.power_limit can never be met: it is a number, and '1400' is text; expected a number, without quotes"],
    ),
    "idle at full power": (
        [limit("gpu.idle_power: {max: 1400, unit: W, source: me}")], ["7:25: gpu.idle_power can never be violated: 1400 W is"],
    ),
    "no such limit": ([limit("gpu.tlimit.loaded: {min: 4, unit: Cel, source: me}")], ["7:3: no profile has a limit"]),
    "the other bound": (
        [limit("hbm.temp.load: {min: 4, unit: Cel, source: me}")],
        ["7:3: hbm.temp.load contradicts the profiles: its bound is min; expected max"],
    ),
    "starts where it is cut": (
        [limit("gpu.tlimit.start: {min: 0, unit: Cel, source: me}")],
        ["7:27: a load may start at 0 Cel of margin and is cut at 0"],
    ),
    "cut where it starts": (
        [limit("gpu.tlimit.cutoff: {min: 20, unit: Cel, source: me}")],
        ["7:28: a load may start at 10 Cel of margin and is cut at 20"],
    ),
    "load without end": ([(COOL, "")], ["10:26: stage load: the load never ends, no stage without load follows"]),
    "an end that may not come": (
        [("stage: cool,", "stage: cool, when: suspect,")], ["10:26: stage load: the load never ends"],
    ),
    "an end that waits for nothing": (
        [(COOL, "  - {stage: end, steps: [xid]}\n")], ["10:26: stage load: the load never ends"],
    ),
    "suspicion before load": (
        [(IDLE, IDLE.replace("steps", "when: suspect, steps"))],
        ["9:49: stage idle: nothing before it can raise a suspicion", "11:62: stage again: nothing before it can raise"],
    ),
    "suspicion without idle first": (
        [(IDLE, ""), (AGAIN, ""), (COOL, IDLE + AGAIN + COOL)],
        ["11:62: stage again: nothing before it can raise a suspicion"],
    ),
    "ships what was not measured": (
        [("coverage: {metrics: [gpu.temp, ecc.dram_ue]}\n", "")], ["3:8: a PASS of this suite would ship"],
    ),
    "ships what was measured idle": (
        [("ecc.dram_ue]}", "ecc.dram_ue], phases: [idle, cool]}")], ["3:8: a PASS of this suite would ship"],
    ),
    "ships what was not loaded": ([(LOAD, ""), (AGAIN, "")], ["3:8: a PASS of this suite would ship"]),
    "ships what may have been loaded": ([(LOAD, LOAD.replace("load: {}", "load: {}, when: suspect")), (AGAIN, "")], [
        "3:8: a PASS of this suite would ship", "10:59: stage load: nothing before it can raise a suspicion",
    ]),
    "a slow metric in a short stage": ([("sample_slow: 2 s", "sample_slow: 10.1 s")], [
        f"{line}: stage {stage}: ecc.dram_ue is read every 10.1 s, fewer than 3 times in the 30 s that are judged"
        for line, stage in (("9:37", "idle"), ("10:37", "load"), ("11:40", "again"))
    ]),
    "a metric that nobody reads": ([("gpu.temp,", "gpu.tmp,")], ["5:22: metric 'gpu.tmp' does not exist"]),
    "a check that does not exist": ([("[ecc]", "[eccc]")], ["12:51: check 'eccc' does not exist; expected one of"]),
}  # fmt: skip

ACCEPTED: dict[str, list[tuple[str, str]]] = {
    "as it is": [],
    "a margin some GPU has": [("min: 4", "min: 86")],
    "a margin nobody published": [("min: 4", "min: null")],
    "hot, but no margin": [limit("hbm.temp.load: {min: 90, max: 105, unit: Cel, source: me}")],
    "a time that grows": [limit("throttle.hw_thermal.growth: {max: 0, unit: s, source: me}")],
    "a share of nothing": [limit("gpu.idle_util: {max: 0, unit: '1', source: me}")],
    "a share of all": [limit("gpu.idle_util: {max: 1, unit: '1', source: me}")],
    "the least power of a GPU": [limit("gpu.power_limit: {equals: 200, unit: W, source: me}")],
    "the most power of a GPU": [limit("gpu.power_limit: {equals: 1400, unit: W, source: me}")],
    "power nobody published": [limit("gpu.power_limit: {equals: null, unit: W, source: me}")],
    "nearly all power, idle": [limit("gpu.idle_power: {max: 1399, unit: W, source: me}")],
    "idle power nobody published": [limit("gpu.idle_power: {max: null, unit: W, source: me}")],
    "a start of which no cut is known": [
        limit("gpu.tlimit.start: {min: 0, unit: Cel, source: me}\n  gpu.tlimit.cutoff: {min: null, unit: Cel, source: me}"),
    ],
    "cut after the start": [limit("gpu.tlimit.start: {min: 1, unit: Cel, source: me}")],
    "a re-test that cools down itself": [(COOL, COOL + AGAIN.replace("again", "third").replace("load-2", "load-3")
                                         + COOL.replace("cool,", "end, when: suspect,", 1))],
    "just enough slow samples": [("sample_slow: 2 s", "sample_slow: 10 s")],
    "slow, where none is asked for": [
        ("sample_slow: 2 s", "sample_slow: 20 s"), ("ecc.dram_ue]}", "ecc.dram_ue], phases: [load]}"),
        (LOAD, LOAD.replace("30 s", "60 s")), (AGAIN, AGAIN.replace("30 s", "60 s")),
    ],
    "none that is slow": [("sample_slow: 2 s", "sample_slow: 20 s"), (", ecc.dram_ue]", "]")],
    "nothing measured, and nothing shipped": [
        ("ships: true", "ships: false"), ("coverage: {metrics: [gpu.temp, ecc.dram_ue]}\n", ""),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_never_be_met_is_refused(tmp_path: Path, name: str) -> None:
    changes, says = REFUSED[name]
    said = look_at(tmp_path / "s.yaml", SUITE, *changes)
    assert [one[: len(words)] for one, words in zip(said, says, strict=True)] == says


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_can_be_met_is_not(tmp_path: Path, name: str) -> None:
    assert look_at(tmp_path / "s.yaml", SUITE, *ACCEPTED[name]) == []


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("gpu.idle_power: {max: 1400, unit: W, source: me}", "25: gpu.idle_power can never be violated: 1400 W is all"),
        ("gpu.idle_power: {max: 1399, unit: W, source: me}", None),
        ("gpu.power_limit: {equals: 1500, unit: W, source: me}", "29: gpu.power_limit can never be met: 1500 W cannot be set"),
        ("gpu.power_limit: {equals: 1000, unit: W, source: me}", None),
        ("gpu.tlimit.start: {min: 0, unit: Cel, source: me}", "27: a load may start at 0 Cel of margin and is cut at 0"),
        ("gpu.tlimit.start: {min: 1, unit: Cel, source: me}", None),
        ("gpu.tlimit.start: {min: null, unit: Cel, source: me}", None),
        ("gpu.tlimit.cutoff: {min: null, unit: Cel, source: me}", None),
        ("gpu.tlimit.load: {max: 2, unit: Cel, source: me}", "3: gpu.tlimit.load is a margin, and has no min"),
        ("ecc.dram_ue.growth: {min: 0, unit: '1', source: me}", "3: ecc.dram_ue.growth is counted, and has no max"),
    ],
)
def test_a_profile_against_its_own_gpu(tmp_path: Path, limit: str, says: str | None) -> None:
    text = (ROOT / "inventory/profiles/gb300-nvl72.yaml").read_text()
    old = next(line for line in text.splitlines() if line.startswith(f"  {limit.split(':')[0]}:"))
    said = look_at(tmp_path / "gb300-nvl72.yaml", text, (old, f"  {limit}"))
    line = 1 + text.splitlines().index(old)
    assert [one[: len(f"{line}:{says}")] for one in said] == ([f"{line}:{says}"] if says else [])


def test_every_file_that_is_shipped_is_right() -> None:
    files = [*ROOT.glob("inventory/**/*.yaml"), *ROOT.glob("test_suites/*.yaml")]
    assert len(files) >= 5 + 3 + 1 + 1 + 4
    assert [str(problem) for problem in lint(files, OFFERS, METRICS)] == []


def test_what_is_no_file_of_ours_says_so_and_does_not_hide_the_others(tmp_path: Path) -> None:
    alien, wrong = tmp_path / "a.yaml", tmp_path / "b.yaml"
    alien.write_text("services: {}\n")
    wrong.write_text("suite: x\n")
    said = [str(problem) for problem in lint([alien, tmp_path / "none.yaml", wrong], OFFERS, METRICS)]
    assert said[0].startswith(f"{alien}:1:1: this is no file of burnin's; expected a key that says what it is")
    assert [text.split(": ")[0] for text in said[1:]] == [f"{wrong}:1:1", f"{wrong}:1:1", f"{tmp_path}/none.yaml"]


def test_a_waiver_that_ran_out_or_sets_nothing_aside_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "rack: R\nprofile: h200-1gpu\ntrays: {t00: {host: h}}\nwaive:\n"
        "  - {interlock: leak, by: A. Person, why: there is no coolant, until: 2030-01-01}\n"
        "  - {interlock: gpu_margin, by: A. Person, why: it was on the bench, until: 2026-11-20}\n"
    )
    assert lint([path], OFFERS, METRICS) == []
    pointless, expired = (str(note) for note in warnings([path], dt.date(2026, 11, 21)))
    assert pointless.startswith(f"{path}:5:17: a h200-1gpu does not ask for leak")
    assert expired.startswith(f"{path}:6:77: the waiver of gpu_margin by A. Person ran out on 2026-11-20")
    assert len(warnings([path], dt.date(2026, 11, 20))) == 1, "on its last day it holds"


PLACED = """\
suite: mine
about: a test
stages:
  - {stage: audit, steps: [ecc, pulse, {pytest: [test_tray.py, nowhere.py]}]}
  - {stage: idle, phase: idle, for: 30 s, steps: [thermal-margin, xid]}
  - {stage: load, phase: load@9000, for: 30 s, load: {nic: [n0, n9]}, steps: [gpu-load, idle-baseline, together]}
  - {stage: wave, phase: ramp-pulse, for: 40 s, load: {pulse: {period: 4 s}}, steps: [pulse, gpu-load]}
  - {stage: cool, phase: cool, for: 30 s, steps: [ecc]}
  - {stage: talk, steps: [{check: collective, with: {gpus: 36}}]}
"""
MISPLACED = {
    "4:28": "ecc can show nothing in stage audit: it judges readings, and this stage has no phase to take them in",
    "4:33": "pulse can show nothing in stage audit: it judges readings, and this stage has no phase to take them in",
    "4:40": "there is no file 'nowhere.py', here or in test_suites/checks",
    "5:51": "thermal-margin can show nothing in stage idle: it judges a load, and this stage has none",
    "6:26": "stage load: a clock of 9000 MHz cannot be held; expected at most 1980 MHz",
    "6:60": "stage load: a tray has no n9; expected n0 to n7",
    "6:89": "idle-baseline can show nothing in stage load: it judges GPUs at rest, and this stage loads them",
    "7:94": "gpu-load can show nothing in stage wave: it judges a steady load, and this one comes and goes (stagger, pulse)",
    "9:27": "collective can show nothing in stage talk: a group of 36 GPUs, and a hgx-h200 has 8",
}


def test_what_can_show_nothing_is_refused_before_a_run_and_where_no_rack_is_known_by_lint(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(PLACED)
    eight = load_profile("hgx-h200")
    eight = eight.model_copy(update={"topology": eight.topology.model_copy(update={"nics_per_tray": 8})})
    with pytest.raises(InputError) as refused:
        load_suite(path, checks=OFFERS, metrics=METRICS, profile=eight)
    said = {f"{p.line}:{p.column}": str(p).split(": ", 1)[1] for p in refused.value.problems}
    assert list(said) == list(MISPLACED)
    assert all(said[at].startswith(text) for at, text in MISPLACED.items())
    anywhere = [at for at in MISPLACED if at not in ("6:26", "6:60", "9:27")]
    assert [line.partition(": ")[0] for line in look(path)] == anywhere, "some rack may have such a clock, card or group"
    load_suite(path, checks=OFFERS, metrics=METRICS)
    path.write_text(PLACED.replace("load@9000", "load").replace("n9", "n1"))
    load_suite(path, checks=OFFERS, metrics=METRICS, profile=eight, only=["xid"])


@pytest.mark.parametrize(
    "stage", ["{stage: load, phase: load, for: 30 s, load: {}, steps: [gpu-load]}", "{stage: mem, steps: [hbm]}"]
)
def test_load_that_its_own_agents_would_end_is_refused_before_a_run(tmp_path: Path, stage: str) -> None:
    assert 2e9 * MARGIN_S == SENSOR_LOST_NS
    path, suite = tmp_path / "suite.yaml", "suite: mine\nabout: a test\nsample: {}\nstages:\n  - {}\n"
    path.write_text(suite.format("2 s", stage))
    load_suite(path, checks=OFFERS, metrics=METRICS, profile=load_profile("gb300-nvl72"))
    path.write_text(suite.format("2100 ms", stage))
    with pytest.raises(
        InputError, match=r":3:9: a reading every 2\.1 s is too seldom for load: .* for 4 s; expected 2 s at most"
    ):
        load_suite(path, checks=OFFERS, metrics=METRICS, profile=load_profile("gb300-nvl72"))
    load_suite(path, checks=OFFERS, metrics=METRICS)  # what something else recorded is judged by it
    path.write_text(suite.format("3 s", "{stage: idle, phase: idle, for: 30 s, steps: [xid]}"))
    load_suite(path, checks=OFFERS, metrics=METRICS, profile=load_profile("gb300-nvl72"))
