"""Bugs that famous tools shipped, each told end to end: what the tool printed -> a run's evidence in a database -> the verdict.

Named after what happened to others (reference/peers.md); every case has its healthy twin, so that none passes by holding all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from burnin.assess.case import gather
from burnin.assess.judge import judge
from burnin.checks import ALWAYS
from burnin.cli import exits
from burnin.events import LogLine, Result, StageBegan, StageEnded, Status, TrayState, Verdict, Word
from burnin.rack.load import load_profile
from burnin.store import Attempt, Evidence, RunStart, Store, Tray, open_store
from burnin.suites.schema import Suite
from burnin.verdict.document import canonical
from tests import build
from tests.redfish_files import Body, needs_captures, tree
from tests.unit.test_checks_redfish import enabled
from tests.unit.test_checks_tools import ALL, diag
from tests.unit.test_tools_dcgm import table, v4
from tests.unit.test_tools_gpu import GOOD, NCCL, xml

POSITIONS = (1, 0, 3, 2)
"""By NVML index."""
BDF = ("00000000:06:00.0", "00000001:06:00.0", "00000002:06:00.0", "00000003:06:00.0")
SPEED = "\t Link {}: 53.125 GB/s\n"
Said = tuple[str, str, Any]
"""Verb, via, body of an answer."""


def text(out: str, code: int | None = 0, stderr: str = "", **more: Any) -> Said:
    """What a tool printed, as the agent or the shell brings it."""
    body = {"exit": code, "signal": None, "stdout": out, "stderr": stderr, "cut": False, "ended": "", "left": 0, **more}
    return "program", "agent", body


@dataclass
class Line:
    """A run of one tray in which each check brought back these answers."""

    store: Store
    rack: dict[str, Any] = field(default_factory=dict)
    lost: bool = False

    def tell(self, said: Mapping[str, Sequence[Said]], **args: Any) -> Verdict:
        profile = load_profile("gb300-nvl72")
        steps = [{"check": name, "with": args} if args else name for name in said]
        suite = Suite.model_validate(
            {
                "suite": "tools",
                "about": "for tests",
                "coverage": {"metrics": ["gpu.temp"]},
                "stages": [{"stage": "tools", "steps": steps}],
            }
        )
        rack = build.rack(1, **self.rack).model_copy(update={"profile": "gb300-nvl72"})
        config = {
            "rack": rack.model_dump(mode="json", by_alias=True),
            "profile": profile.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "suite": suite.model_dump(mode="json", by_alias=True),
            "catalogue": build.catalogue().model_dump(mode="json", by_alias=True, exclude_unset=True),
            "plan": {"trays": ["t00"], "only": []},
            "versions": {"burnin": "test"},
        }
        self.store.begin_run(RunStart("r1", "R-1", "gb300-nvl72", "tools", False, True, "me", "2026-11-21T10:00:00Z", config))
        self.store.keep(
            [TrayState("t00", 0.1, "ready"), *(LogLine("t00", 0.1, "source", code, "", "agent") for code in ("xid", "kmsg"))]
        )
        self.store.keep_tray(Tray("t00", "192.0.2.1:22", None, "J00", _who()))
        self.store.keep([StageBegan(0, "tools", "", 0.0, 1.0)])
        for name, answers in said.items():
            self._answers("tools", name, answers)
            self._attempt("tools", name, Status.ERROR if self.lost else Status.COMPLETE)
        if self.lost:
            self.store.keep([TrayState("t00", 1.5, "LOST", "t00: the link is gone")])
        self.store.keep([StageEnded(0, "tools", 2.0, Status.COMPLETE)])
        state = {f"g{i}": {"power_limit_w": 1400.0} for i in range(4)}
        self._answers("leave", "as-found", [("state", "agent", state)] * 2)
        for name in ALWAYS:
            self._attempt("leave", name, Status.COMPLETE)
        self.store.end_run("r1", "2026-11-21T10:01:00Z", "COMPLETE")
        verdict = judge(gather(self.store, "r1"))
        assert canonical(judge(gather(self.store, "r1"))) == canonical(verdict), "SuperBench #626: the same data, another verdict"
        return verdict

    def _answers(self, stage: str, check: str, answers: Sequence[Said]) -> None:
        for number, (verb, via, body) in enumerate(answers):
            kept = {"ok": not isinstance(body, str), "body": body, "via": via, "to": "t00.bmc" if via == "redfish" else "t00"}
            self.store.keep_evidence(Evidence(stage, check, "t00", 1, number, verb, kept))

    def _attempt(self, stage: str, check: str, status: Status) -> None:
        why = "the link is gone" if status is Status.ERROR else ""
        self.store.end_attempt(Attempt(stage, check, "t00", 1, status, Result.UNKNOWN, 1.0, 2.0, why))


def _who() -> dict[str, Any]:
    gpus = [
        {"gpu": f"g{position}", "index": index, "bdf": BDF[index], "name": "NVIDIA GB300", "uuid": f"GPU-{position}",
         "serial": f"S{position // 2}", "slot": 10, "tray_index": 0, "chassis": "C1"}
        for index, position in enumerate(POSITIONS)
    ]  # fmt: skip
    return {"host": {"serial": "J00"}, "nvml": None, "driver": "580", "gpus": gpus, "failed": {}, "hung": []}


WHO: Said = ("identify", "agent", _who())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    store = open_store(tmp_path / "burnin.db")
    yield Line(store)
    store.close()


def named(verdict: Verdict) -> dict[str, str]:
    """part -> what it is said to be."""
    return {**{h.part: "HOLD" for h in verdict.holds}, **{f.part: str(f.severity) for f in verdict.findings}}


# ---------------------------------------------------------------- the diagnostic that "ran"

FOUR = ("Pass",) * 4
DEVICES = ", ".join(["31c2"] * 4)
WELL = table(*v4("software", "Pass", *FOUR), *v4("memory", "Pass", *FOUR), devices=DEVICES)


def test_a_diag_whose_rows_all_pass_passes(line: Line) -> None:
    assert line.tell({"dcgm": [WHO, text(WELL)]}).word is Word.PASS


@pytest.mark.parametrize("code", [0, 226])
def test_successfully_ran_above_a_failing_table(line: Line, code: int) -> None:
    """IBM autopilot #68: the node was called healthy, because the banner and the exit status said so."""
    bad = table(*v4("software", "Pass", *FOUR), *v4("memory", "Fail", "Pass", "Pass", "Fail", "Pass"), devices=DEVICES)
    assert bad.startswith("Successfully ran diagnostic")
    verdict = line.tell({"dcgm": [WHO, text(bad, code)]})
    assert (verdict.word, named(verdict)["t00.g3"]) == (Word.FAIL, "FAIL"), "index 2 is position 3"
    assert exits.of_word(verdict.word) == 1


def test_gpus_that_pass_below_a_test_that_fails(line: Line) -> None:
    """DCGM 4.2.3 and 4.4.1: every GPU row says Pass, and the test failed."""
    verdict = line.tell({"dcgm": [WHO, text(table(*v4("software", "Pass", *FOUR), *v4("pcie", "Fail", *FOUR), devices=DEVICES))]})
    assert verdict.word is Word.FAIL
    assert named(verdict) == {"t00": "FAIL"}, "the tray's test failed; no GPU is condemned for it"


@pytest.mark.parametrize("change", [{"warnings": [{"warning": "GPU 1: memory could not be allocated", "error_id": 8}]}])
def test_a_pass_with_an_error_inside(line: Line, change: dict[str, Any]) -> None:
    """DCGM #284: the memory test records an allocation error, and says Pass."""
    body = json.loads(diag(("memory", "Pass", ALL)))
    body["DCGM Diagnostic"]["test_categories"][0]["tests"][0]["results"][1] |= change
    verdict = line.tell({"dcgm": [WHO, text(json.dumps(body))]})
    assert (verdict.word, named(verdict)) == (Word.HOLD, {"t00.g0": "HOLD"})


def test_tests_that_were_skipped_in_silence(line: Line) -> None:
    """DCGM #55: what did not run is missing from nobody's report."""
    verdict = line.tell({"dcgm": [WHO, text(diag(("pcie", "Skip", dict.fromkeys(range(4), "Skip"))))]})
    assert verdict.word is Word.HOLD


def test_a_gpu_that_no_row_names(line: Line) -> None:
    """The diagnostic tested three of four GPUs, and all of them passed."""
    verdict = line.tell({"dcgm": [WHO, text(diag(("pcie", "Pass", {0: "Pass", 1: "Pass", 2: "Pass"}), gpus=3))]})
    assert (verdict.word, named(verdict)) == (Word.HOLD, {"t00.g2": "HOLD"})


def test_an_engine_that_broke_down_condemns_nobody(line: Line) -> None:
    """DCGM #158: exit status 226 of a failed test, and of an engine that could not run it."""
    broken = json.dumps({"DCGM Diagnostic": {"runtime_error": "the engine could not start"}, "metadata": {"version": "4.4.2"}})
    verdict = line.tell({"dcgm": [WHO, text(broken, 226)]})
    assert verdict.word is Word.HOLD and "FAIL" not in named(verdict).values()


# ---------------------------------------------------------------- exit status 0


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("nothing", "", Word.PASS),
        ("5.00      0\n", "5.00      1\n", Word.FAIL),
        (": 0 OK", ": 2 FAILED", Word.FAIL),
        ("# Avg bus bandwidth    : 3.5\n#\n", "tray: Test NCCL failure common.cu:1119 'unhandled system error'\n", Word.HOLD),
        ("2048           512", "out of memory", Word.HOLD),
    ],
)
def test_exit_status_0_with_an_error_inside(line: Line, old: str, new: str, word: Word) -> None:
    """nccl-tests of several hosts end with 0 whatever one rank said."""
    body = NCCL.replace("# Rank  0", "").replace("        2048 ", f"{2 << 30:12} ").replace("5.00      0\n", "900.0      0\n")
    body = body.replace("   4.00      0", "  900.0      0").replace(": 3.5", ": 451.25")
    ranks = "".join(f"#  Rank {n:2} Group  0 Pid 1{n} on tray device {n:2} [{BDF[n][4:]}] NVIDIA GB300\n" for n in range(4))
    body = body.replace("#  Rank  0 Group  0 Pid 12 on host device  0 [0x01] NVIDIA GB300\n", ranks)
    old = (
        old.replace("5.00      0\n", "900.0      0\n")
        .replace(": 3.5", ": 451.25")
        .replace("2048           512", "2147483648           512")
    )
    new = new.replace("5.00      1\n", "900.0      1\n")
    assert old in body or old == "nothing"
    assert line.tell({"nccl-tests": [text(body.replace(old, new))]}, bytes=2 << 30).word is word


def test_only_the_better_half_was_looked_at(line: Line) -> None:
    """NVIDIA's readiness engine gates the highest bandwidth and ignores the lowest."""
    body = (
        NCCL.replace("        2048 ", f"{2 << 30:12} ")
        .replace("4.00      0", "900.0      0")
        .replace("5.00      0\n", "90.0      0\n")
    )
    ranks = "".join(f"#  Rank {n:2} Group  0 Pid 1{n} on tray device {n:2} [{BDF[n][4:]}] NVIDIA GB300\n" for n in range(4))
    body = body.replace("#  Rank  0 Group  0 Pid 12 on host device  0 [0x01] NVIDIA GB300\n", ranks).replace(": 3.5", ": 248.75")
    verdict = line.tell({"nccl-tests": [text(body)]}, bytes=2 << 30)
    assert (verdict.word, [f.value for f in verdict.findings]) == (Word.FAIL, [90.0])


def _smi(*gpus: str, links: Sequence[str] = ("",) * 4, attached: int | None = None) -> list[Said]:
    """Both reports of nvidia-smi."""
    shown = [
        f"GPU {index}: NVIDIA GB300 (UUID: GPU-{POSITIONS[index]})\n" + (own or "".join(SPEED.format(n) for n in range(18)))
        for index, own in enumerate(links)
    ]
    return [WHO, text(xml(*(gpus or (GOOD,) * 4), attached=attached)), text("".join(shown))]


def test_a_healthy_report_passes(line: Line) -> None:
    assert line.tell({"nvidia-smi": _smi()}).word is Word.PASS


def test_a_gpu_that_is_lost_in_a_report_that_ended_well(line: Line) -> None:
    """nvidia-smi ends with 0 and says "GPU is lost" in one cell of thousands."""
    gone = GOOD.replace("<gpu_temp>38 C", "<gpu_temp>GPU is lost")
    verdict = line.tell({"nvidia-smi": _smi(GOOD, gone, GOOD, GOOD)})
    assert (verdict.word, named(verdict)["t00.g0"]) == (Word.FAIL, "FAIL")


@pytest.mark.parametrize("unhealthy", ["Unhealthy", "Limited Capacity"])
def test_a_fabric_that_is_completed_and_success_and_unhealthy(line: Line, unhealthy: str) -> None:
    """NVIDIA's DRA driver #626: State Completed, Status Success, Health Unhealthy."""
    ill = GOOD.replace("<summary>Healthy", f"<summary>{unhealthy}")
    assert "<state>Completed" in ill and "<status>Success" in ill
    verdict = line.tell({"nvidia-smi": _smi(GOOD, GOOD, GOOD, ill)})
    assert (verdict.word, named(verdict)["t00.g2"]) == (Word.FAIL, "FAIL")


def test_every_nvlink_inactive_and_yet_healthy(line: Line) -> None:
    """gpud #1085: all links of a GPU are inactive, and its component stays Healthy; DCGM #198: level 2 passes."""
    dead = "".join(f"\t Link {n}: <inactive>\n" for n in range(18))
    verdict = line.tell({"dcgm": [WHO, text(WELL)], "nvidia-smi": _smi(links=("", dead, "", ""))})
    assert (verdict.word, named(verdict)["t00.g0"]) == (Word.FAIL, "FAIL")


def test_links_that_are_not_shown_at_all(line: Line) -> None:
    silent = text("NVML: Unable to retrieve NVLink information as all links are inActive\n")
    verdict = line.tell({"nvidia-smi": [*_smi()[:2], silent]})
    assert verdict.word is Word.HOLD


# ---------------------------------------------------------------- nothing shown


@pytest.mark.parametrize(
    "said",
    [
        text(""),
        text("", 127, "sh: 1: dcgmi: not found\n"),
        text(WELL, None),
        text(WELL[: len(WELL) // 2]),
        text(WELL, 0, ended="time"),
        text(WELL.replace("4.4.2", "9.1.0")),
        ("program", "agent", "the tray is unreachable"),
    ],
)
def test_nothing_shown_is_not_a_pass(line: Line, said: Said) -> None:
    """SuperBench #401 ends with 0 on empty data; CVS #269 passed hosts that nobody reached; None is no exit status."""
    verdict = line.tell({"dcgm": [WHO, said]})
    assert verdict.word is Word.HOLD and "FAIL" not in named(verdict).values()
    assert exits.of_word(verdict.word) == 3, "NVIDIA's readiness engine #84: incomplete, and exit status 0"


def test_a_tray_that_was_dropped_on_the_way(line: Line) -> None:
    """NVIDIA's readiness engine #57: a node is dropped, the rest passes, and so does the whole."""
    line.lost = True
    verdict = line.tell({"dcgm": [WHO]})
    assert verdict.word is Word.HOLD and "t00" in named(verdict)


def test_a_threshold_that_nobody_has_set(line: Line) -> None:
    """OCI's health check compares with None on exactly the rack's SKU, and dies: here it is not known, and the run goes on."""
    job = {"jobname": "burnin", "error": 0, "read": {"io_bytes": 1, "bw_bytes": 10**10, "iops": 1e4, "total_ios": 1}}
    verdict = line.tell({"fio": [text(json.dumps({"fio version": "fio-3.16", "jobs": [job]}))]})
    (step,) = [step for step in verdict.steps if step.name == "fio"]
    assert {m.name: m.result for m in step.measurements} == {"fio.verdict": Result.PASS, "fio.read": Result.UNKNOWN}


# ---------------------------------------------------------------- management controllers


def bmc(*bodies: Mapping[str, Body]) -> list[Said]:
    return [("walk", "redfish", dict(one)) for one in bodies]


@needs_captures
def test_absent_bays_that_read_critical(line: Line) -> None:
    """Empty storage bays of a healthy GB300 tray: Health Critical, State Absent, and no reading."""
    bodies = tree()
    status = [one["Status"] for one in bodies.values() if isinstance(one.get("Status"), dict)]
    bays = [one for one in status if (one.get("State"), one.get("Health")) == ("Absent", "Critical")]
    assert bays, "the capture has them"
    verdict = line.tell({"bmc": bmc(bodies)})
    assert "FAIL" not in named(verdict).values()
    (step,) = [step for step in verdict.steps if step.name == "bmc"]
    assert step.result is Result.PASS


@needs_captures
@pytest.mark.parametrize(("sensor", "reading"), [("NVME_M2_0_Temp_0", 84.0), ("HGX_GPU_2_TEMP_1", -6.0)])
def test_a_bmc_that_says_ok_above_a_crossed_threshold(line: Line, sensor: str, reading: float) -> None:
    """NVIDIA's infrastructure controller lets the BMC's OK overrule the sensor's own thresholds."""
    bodies = tree()
    (path,) = [path for path in bodies if path.endswith(f"/Sensors/{sensor}")]
    bodies[path] |= {"Reading": reading, "Status": {"Health": "OK", "State": "Enabled"}}
    assert line.tell({"bmc": bmc(bodies)}).word is Word.FAIL


@needs_captures
@pytest.mark.parametrize("change", [{"Status": {"Health": "OK", "State": "Enabled"}, "DetectorState": "Critical"}])
def test_a_leak_whose_health_is_ok(line: Line, change: Body) -> None:
    bodies = enabled(tree())
    path = next(path for path in bodies if "/LeakDetectors/" in path)
    bodies[path] |= change
    assert line.tell({"leak": bmc(bodies)}).word is Word.FAIL
