"""Suites: durations have units, stages make sense, checks and metrics exist; every mistake at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from burnin.checks.base import NoArgs
from burnin.errors import InputError
from burnin.rack.data import Data
from burnin.suites.load import Offer, list_suites, load_suite
from burnin.suites.schema import Suite, seconds


class Args(Data):
    """What a step of ecc may say here."""

    a: int | None = Field(default=None, ge=1)


CHECKS = {
    name: Offer(name == "hbm", Args if name == "ecc" else NoArgs)
    for name in ("inventory", "idle-baseline", "gpu-load", "ecc", "hbm")
}
METRICS = {"gpu.temp", "gpu.power"}
SUITE = """\
suite: mine
about: a test
lease: 15 s
coverage: {metrics: [gpu.temp], phases: [idle, load]}
stages:
  - {stage: audit, steps: [inventory]}
  - {stage: idle, phase: idle, for: 30 s, settle: 5 s, steps: [idle-baseline]}
  - {stage: load, phase: load, for: 5 min, load: {kernel: fma}, steps: [gpu-load, {check: ecc, with: {a: 1}}]}
  - {stage: again, phase: load-2, for: 1 h, load: {}, when: suspect, steps: [gpu-load]}
"""


def load(path: Path) -> Suite:
    return load_suite(path, checks=CHECKS, metrics=METRICS)


@pytest.mark.parametrize(
    ("text", "wanted"), [("90 s", 90), ("5 min", 300), ("48 h", 172800), ("250ms", 0.25), ("1.5 h", 5400), (" 2 s ", 2)]
)
def test_durations(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["48", "48 days", "-1 s", "1e3 s", "", "s", "5 m", "1 s 2 s", "\u0661 s", None, 48, [1]])
def test_a_duration_without_a_unit_that_we_know_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration; expected a number and its unit"):
        seconds(text)


def test_a_suite(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    suite = load(tmp_path / "s.yaml")
    assert [(s.stage, s.phase, s.duration, s.settle) for s in suite.stages] == [
        ("audit", None, 0, 0), ("idle", "idle", 30, 5), ("load", "load", 300, 0), ("again", "load-2", 3600, 0),
    ]  # fmt: skip
    assert suite.duration_s() == 330, "a re-test is not planned"
    assert (suite.ships, suite.load_fraction, suite.lease) == (False, 0.95, 15)
    assert [(step.check, step.args) for step in suite.stages[2].steps] == [("gpu-load", {}), ("ecc", {"a": 1})]


WRONG = {
    "a bare number": ("for: 30 s", "for: 30", "7:37: stages[1].for: 30 is not a duration; expected a number"),
    "days": ("for: 1 h", "for: 2 d", "9:40: stages[3].for: '2 d' is not a duration"),
    "unknown check": ("[idle-baseline]", "[idle-basline]", "7:64: check 'idle-basline' does not exist", "mean idle-baseline?"),
    "unknown check, long": ("{check: ecc,", "{check: eccc,", "8:91: check 'eccc' does not exist", "did you mean ecc?"),
    "no steps": (", steps: [inventory]", "", "6:5: stages[0].steps is missing; expected at least one check"),
    "empty steps": ("[inventory]", "[]", "6:27: stages[0].steps is an empty list; expected at least one check"),
    "no stages": (SUITE[SUITE.index("stages:") :], "stages: []\n", "5:9: stages is an empty list; expected at least one stage"),
    "settles all along": ("settle: 5 s", "settle: 30 s", "7:51: stage idle: nothing is left to judge after settling 30 of 30 s"),
    "settles without a phase": ("{stage: audit,", "{stage: audit, settle: 5 s,", "6:28: stage audit: settling needs a phase"),
    "power without a phase": (
        "{stage: audit,", "{stage: audit, sample_power: 200 ms,", "6:34: stage audit: reading power needs a phase"
    ),
    "power too often": (
        "settle: 5 s", "sample_power: 10 ms", "7:57: stages[1].sample_power: 0.01 s is too short; readings are 50 ms to 1 h apart"
    ),
    "too short": ("settle: 5 s", "settle: 28 s", "7:37: stage idle: 2 s are judged, fewer than 3 samples of 1 s"),
    "detached too long": (
        "phase: load, ", "phase: load, detach: 5 h, ",
        "8:40: stages[2].detach: 18000 s is too long; a stage is detached for 1 s to 4 h",
    ),
    "detached for ever": ("phase: load, ", "phase: load, detach: 600, ", "8:40: stages[2].detach: 600 is not a duration"),
    "detached idle": ("settle: 5 s", "detach: 10 min", "7:51: stage idle: only a steady load goes on by itself (phase load"),
    "detached audit": ("{stage: audit,", "{stage: audit, detach: true,", "6:28: stage audit: only a steady load goes on by"),
    "detached ramp": (
        "phase: load, for: 5 min, load: {kernel: fma}", "phase: ramp, for: 5 min, load: {stagger: true}, detach: 1 h",
        "8:75: stage load: only a steady load goes on by itself",
    ),
    "detached, tray by tray": (
        "load: {kernel: fma}", "load: {stagger: true}, detach: 1 h",
        "8:75: stage load: a load that comes up over all of its stage (stagger) cannot be left meanwhile",
    ),
    "twice": ("stage: again", "stage: load", "9:13: stage name 'load' is used twice"),
    "bad name": ("suite: mine", "suite: My Suite", "1:8: suite is 'My Suite'; expected lower-case letters, digits and dashes"),
    "phase": ("phase: load-2", "phase: full", "9:27: stages[3].phase is 'full'; expected idle, load, load@MHZ, ramp, cool"),
    "unloaded load": (", load: {kernel: fma}", "", "8:26: stage load: phase load needs a load"),
    "loaded idle": ("settle: 5 s", "load: {}", "7:49: stage idle: phase idle is unloaded, but a load is given"),
    "kernel": ("kernel: fma", "kernel: dgemm", "8:59: stages[2].load.kernel is 'dgemm'; expected one of cublaslt, fma, mma"),
    "loaded nothing": ("{stage: audit,", "{stage: audit, load: {},", "6:26: stage audit: a load needs a phase"),
    "timed nothing": ("{stage: audit,", "{stage: audit, for: 5 s,", "6:25: stage audit: a duration needs a phase"),
    "a check that is a list": ("[inventory]", "[[inventory]]", "6:28: stages[0].steps[0] is a list; expected a mapping"),
    "when": ("when: suspect", "when: never", "9:61: stages[3].when is 'never'; expected one of always"),
    "no duration": (", for: 5 min", "", "8:26: stage load: a phase needs a duration"),
    "unknown metric": ("metrics: [gpu.temp]", "metrics: [gpu.tmp]", "4:22: metric 'gpu.tmp' does not exist", "mean gpu.temp?"),
    "coverage floor": ("coverage: {", "coverage: {floor: 0, ", "4:19: coverage.floor is 0; expected above 0"),
    "coverage phase": ("phases: [idle, load]", "phases: [soak]", "4:42: coverage.phases[0] is 'soak'; expected one of cool"),
    "covers no phase": ("phases: [idle, load]", "phases: []", "4:41: coverage.phases is an empty list; expected at least one"),
    "fraction": ("about: a test", "about: a test\nload_fraction: 95", "3:16: load_fraction is 95; expected at most 1"),
    "short lease": ("lease: 15 s", "lease: 999 ms", "3:8: lease: 0.999 s is too short; a lease is 1 s to 4 h"),
    "lease": ("lease: 15 s", "lease: 5 h", "3:8: lease: 18000 s is too long; a lease is 1 s to 4 h"),
    "two loads": ("[gpu-load]", "[gpu-load, hbm]", "9:88: hbm loads the GPUs by itself, but stage again loads them"),
    "args, value": ("with: {a: 1}", "with: {a: 0}", "8:106: a is 0; expected at least 1"),
    "args, kind": ("with: {a: 1}", "with: {a: x}", "8:106: a is 'x'; expected a whole number"),
    "args, key": ("with: {a: 1}", "with: {aa: 1}", "8:103: unknown key 'aa'; expected a (did you mean a?)"),
    "args of none": ("[gpu-load, {check", "[{check: gpu-load, with: {b: 1}}, {check", "8:98: unknown key 'b'"),
    "ships": ("about: a test", "about: a test\nships: yes", "3:8: ships is 'yes'; expected true or false"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_sentence_with_its_place(tmp_path: Path, name: str) -> None:
    old, new, *says = WRONG[name]
    assert old in SUITE
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load(path)
    said = [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]
    assert len(said) == 1, said
    assert said[0].startswith(says[0])
    assert all(word in said[0] for word in says[1:])


@pytest.mark.parametrize("lease", ["1 s", "4 h"])
def test_the_shortest_stage_and_the_ends_of_a_lease_are_let_in(tmp_path: Path, lease: str) -> None:
    """3 samples of 1 s are enough."""
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.replace("lease: 15 s", f"lease: {lease}").replace("settle: 5 s", "settle: 27 s"))
    assert load(path).stages[1].settle == 27


def test_every_mistake_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.replace("lease: 15 s", "lease: 15").replace("gpu.temp", "gpu.x").replace("[inventory]", "[inv]"))
    with pytest.raises(InputError) as caught:
        load(path)
    assert [(p.line, p.column) for p in caught.value.problems] == [(3, 8), (4, 22), (6, 28)]


def test_a_name_is_looked_for_and_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_suites").mkdir()
    (tmp_path / "test_suites/smoke.yaml").write_text(SUITE)
    assert load_suite("smoke", checks=CHECKS, metrics=METRICS).suite == "mine", "a site's own file stands in front"
    assert {"demo", "l10-tray", "l11-rack-48h", "smoke"} <= set(list_suites())
    with pytest.raises(InputError, match=r"suite 'smok': does not exist.*did you mean smoke\?"):
        load_suite("smok", checks=CHECKS, metrics=METRICS)
    with pytest.raises(InputError, match=r"smoke.yaml: there is no such file"):
        load_suite("./smoke.yaml", checks=CHECKS, metrics=METRICS)


_PIECES = st.sampled_from(
    ["suite: x\n", "about: y\n", "stages:\n", "  - {stage: a, steps: [ecc]}\n", "  - {}\n", "  - repeat: 2\n",
     "    stages: [1]\n", "  - 1\n", "lease: 5 s\n",
     "stages: {}\n",     "coverage: []\n", "coverage: {metrics: 7}\n", "limits: {a: {}}\n",
     "  - {stage: a, phase: load, for: 9 s, steps: [[x], {y: 1}]}\n"]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=8).map("".join) | st.text(max_size=60))
def test_any_text_is_a_suite_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-suite.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert load(path).stages
    except InputError as error:
        assert error.problems


# ---------------------------------------------------------------- cycles

CYCLES = """suite: mine
about: a test
stages:
  - {stage: audit, steps: [inventory]}
  - repeat: 3
    stages:
      - {stage: soak, phase: load, for: 5 min, load: {}, steps: [gpu-load]}
      - {stage: rest, phase: cool, for: 1 min, steps: [ecc]}
  - {stage: end, phase: idle, for: 1 min, steps: [ecc]}
"""


def test_a_cycle_is_written_out_with_numbers(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(CYCLES)
    assert [(s.stage, s.phase) for s in load(path).stages] == [
        ("audit", None),
        ("soak-1", "load-1"), ("rest-1", "cool-1"), ("soak-2", "load-2"), ("rest-2", "cool-2"),
        ("soak-3", "load-3"), ("rest-3", "cool-3"),
        ("end", "idle"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("repeat: 3", "repeat: 0", "5:13: repeat is 0; expected how often, 1 to 1000"),
        ("repeat: 3", "repeat: three", "5:13: repeat is 'three'; expected how often"),
        ("repeat: 3", "repeat: true", "5:13: repeat is True; expected how often"),
        ("repeat: 3", "repeat: 3\n    when: always", "6:11: unknown key 'when' beside repeat"),
        ("for: 5 min", "for: 5", "7:41: stages[1].for: 5 is not a duration"),
        ("[gpu-load]", "[gpu-lod]", "7:66: check 'gpu-lod' does not exist"),
        ("stage: rest", "stage: soak", "8:17: stage name 'soak-1' is used twice"),
        ("stage: end,", "stage: soak-2,", "9:13: stage name 'soak-2' is used twice"),
        ("{stage: rest, phase: cool, for: 1 min, steps: [ecc]}", "{repeat: 2, stages: []}", "5:5: a cycle within a cycle"),
    ],
)
def test_a_mistake_in_a_cycle_is_told_once_and_where_it_stands(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "s.yaml"
    assert old in CYCLES
    path.write_text(CYCLES.replace(old, new))
    with pytest.raises(InputError) as caught:
        load(path)
    (problem,) = (str(problem).removeprefix(f"{path}:") for problem in caught.value.problems)
    assert problem.startswith(said)


def test_a_cycle_without_stages_is_none(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(CYCLES[: CYCLES.index("    stages:")])
    with pytest.raises(InputError, match="a cycle without stages"):
        load(path)
