"""mndiag and nccl-tests over several trays: whose rows they are, what is not this rack's, leave, and what ends them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from burnin.rack.schema import Rack
from burnin.run import alone
from burnin.run.steps import forbidden
from tests import build
from tests.unit.test_run_alone import Clock
from tests.unit.test_tools_dcgm import mn

TRAYS = ("t00", "t01")
SIZE = 16 << 30
LAUNCH: dict[str, Any] = {"launch": ["mpirun", "-np", "8"], "op": "all_reduce"}


def context(check: str, allow: tuple[str, ...] = ("other_trays",), **args: Any) -> Context:
    known = {"rack": "R-1", "profile": "gb300-nvl72", "ssh": {"known_hosts": "known_hosts"}, "allow": list(allow)}
    rack = Rack.model_validate({**known, "trays": {p: {"host": f"192.0.2.{n + 1}"} for n, p in enumerate(TRAYS)}})
    suite, profile = build.suite(), load_profile("gb300-nvl72")
    if check == "mndiag":  # what `mn` describes has two GPUs a host
        profile = profile.model_copy(update={"topology": profile.topology.model_copy(update={"gpus_per_tray": 2})})
    return Context("rack", rack, profile, suite, suite.stages[0], build.catalogue(), args, TRAYS)


def identity(tray: str, gpus: int) -> dict[str, Any]:
    rows = [{"gpu": f"g{i}", "index": gpus - 1 - i, "bdf": f"00000008:0{i + 1}:00.0"} for i in range(gpus)]
    return {"host": {"host": f"n{int(tray[1:])}"}, "gpus": rows, "nvml": None}


def judged(check: str, at: Context, body: Any) -> tuple[list[Measurement], Order]:
    """`body`: what the program's answer carries; a sentence is an error."""
    who = CHECKS[check].orders(at, [])
    first = tuple(Answer(order, True, identity(order.to, at.profile.topology.gpus_per_tray)) for order in who)
    (order,) = CHECKS[check].orders(at, [first])
    answers = [first, (Answer(order, not isinstance(body, str), body),)]
    assert CHECKS[check].orders(at, answers) == []
    return CHECKS[check].judge(at, Evidence(answers=answers)), order


def out(text: str, code: int | None = 0, **more: Any) -> dict[str, Any]:
    return {"exit": code, "signal": None, "stdout": text, "stderr": "", "cut": False, "ended": "", **more}


def bad(got: list[Measurement]) -> set[tuple[str, Result]]:
    return {(m.part, m.result) for m in got if m.result is not Result.PASS}


# ---------------------------------------------------------------- mndiag


def test_mndiag_names_the_gpu_at_its_position() -> None:
    at = context("mndiag", hosts={"t00": "n0", "t01": "n1:5555"})
    got, order = judged("mndiag", at, out(json.dumps(mn("Pass", *["Pass"] * 4))))
    assert bad(got) == set() and {m.part for m in got} == {"rack", "t00.g0", "t00.g1", "t01.g0", "t01.g1"}
    assert order.args["argv"] == ["dcgmi", "mndiag", "--hostList", "n0;n1:5555", "--run", "mnubergemm", "-j"]
    assert (order.to, order.args["gpus"], order.args["others"]) == ("t00", ["g0", "g1"], at.gpus)
    got, _ = judged("mndiag", at, out(json.dumps(mn("Fail", "Pass", "Pass", "Fail", "Pass")), 1))
    assert ("t01.g1", Result.FAIL) in bad(got), "NVML index 0 of n1 is at position 1"
    assert {part for part, result in bad(got) if result is Result.FAIL} == {"t01.g1", "rack"}


@pytest.mark.parametrize(
    "body",
    [
        out(json.dumps(mn("Pass", *["Pass"] * 3))),
        out(json.dumps(mn("Pass", *["Pass"] * 4))[:-200]),
        out(json.dumps(mn("Fail", mpi_error={"warning": "no slots", "error_category": "MPI"})), 1),
        out(json.dumps(mn("Pass", *["Pass"] * 4)), ended="time"),
        out(json.dumps(mn("Pass", *["Pass"] * 4)).replace('"n1"', '"elsewhere"')),
        out("dcgmi: not found", 127),
        out("", None, signal="SIGKILL"),
        "t00: the link is lost",
    ],
)
def test_mndiag_that_did_not_show_everything_is_unknown(body: Any) -> None:
    got, _ = judged("mndiag", context("mndiag"), body)
    assert bad(got) and {result for _, result in bad(got)} == {Result.UNKNOWN}


# ---------------------------------------------------------------- nccl-tests


def text(hosts: tuple[str, ...] = ("n0", "n1"), busbw: float = 842.0, wrong: int = 0, gpus: int = 4) -> str:
    """As nccl-tests prints it, one rank a GPU."""
    head = f"# nThread 1 nGpus 1 minBytes {SIZE} maxBytes {SIZE} iters: 20\n#\n# Using devices\n"
    for rank in range(gpus * len(hosts)):
        bdf = f"0008:0{rank % gpus + 1}:00"
        where = f"{hosts[rank // gpus]:>10} device {rank % gpus:2} [{bdf}]"
        head += f"#  Rank {rank:2} Group  0 Pid {4000 + rank} on {where} NVIDIA GB300\n"
    return head + (
        "#\n#      size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
        "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
        f" {SIZE} {SIZE // 4} float sum -1 100.0 {busbw} {busbw} {wrong} 100.0 {busbw} {busbw} {wrong}\n"
        f"# Out of bounds values : {2 * wrong} {'FAILED' if wrong else 'OK'}\n# Avg bus bandwidth    : {busbw}\n#\n"
    )


def test_nccl_tests_over_two_trays_is_judged_by_its_number_of_gpus() -> None:
    at = context("nccl-across", **LAUNCH)
    got, order = judged("nccl-across", at, out(text()))
    assert bad(got) == set() and {m.name for m in got} == {"nccl-across.verdict", "nccl-across.busbw"}
    assert order.args["argv"][:4] == ["mpirun", "-np", "8", "all_reduce_perf"] and "-g" in order.args["argv"]
    got, _ = judged("nccl-across", at, out(text(busbw=700.0)))
    assert bad(got) == {("rack", Result.FAIL)} and "757" in next(m.limit for m in got if m.result is Result.FAIL)
    got, _ = judged("nccl-across", at, out(text(wrong=3)))
    assert bad(got) == {("rack", Result.FAIL)}


@pytest.mark.parametrize(
    "body",
    [
        out(text(("n0", "n7"))),
        out(text(("n0", "n0"))),
        out(text(("n0",))),
        out(text()[:400]),
        out(text(), 1),
        out(text(), ended="t01.g2 has a margin of 0 Cel left"),
        out("mpirun: command not found", 127),
        "t00: the link is lost",
    ],
)
def test_ranks_that_are_not_this_racks_gpus_and_runs_that_broke_off_prove_nothing(body: Any) -> None:
    got, _ = judged("nccl-across", context("nccl-across", **LAUNCH), body)
    assert bad(got) and {result for _, result in bad(got)} == {Result.UNKNOWN}


# ---------------------------------------------------------------- leave, and what ends them


@pytest.mark.parametrize("check", ["mndiag", "nccl-across"])
def test_nothing_is_begun_without_leave_or_without_knowing_all_trays(check: str) -> None:
    at = context(check, (), **({} if check == "mndiag" else LAUNCH))
    assert CHECKS[check].orders(at, []) == [] and forbidden(CHECKS[check], at, [Order("t00", "program")])
    (one,) = CHECKS[check].judge(at, Evidence())
    assert (one.result, one.reason) == (Result.UNKNOWN, "no_permission")
    at = replace(at, rack=at.rack.model_copy(update={"allow": ["other_trays"]}))
    first = tuple(
        Answer(o, o.to != "t01", identity(o.to, 4) if o.to != "t01" else "t01: link lost") for o in CHECKS[check].orders(at, [])
    )
    assert CHECKS[check].orders(at, [first]) == []
    (one,) = CHECKS[check].judge(at, Evidence(answers=[first]))
    assert one.result is Result.UNKNOWN and "t01: link lost" in one.why


@pytest.mark.parametrize(
    ("margin", "says"),
    [
        (lambda gpu, now_s: (now_s, 20.0 - now_s * (gpu == "t01.g2")), "t01.g2 has a margin of 0 Cel left"),
        (lambda gpu, now_s: (min(now_s, 50.0) if gpu == "t01.g0" else now_s, 20.0), "t01.g0 was not read"),
        (lambda gpu, now_s: (now_s, None if gpu == "t00.g3" else 20.0), "t00.g3 was not read"),
    ],
)
def test_any_gpu_of_any_tray_ends_it(margin: Callable[[str, float], tuple[float, float | None]], says: str) -> None:
    clock = Clock()
    gpus = [f"{tray}.g{i}" for tray in TRAYS for i in range(4)]
    watch = alone.Margins(lambda gpu: margin(gpu, clock.now_s), gpus, 0.0, clock)
    assert says in asyncio.run(watch.until_bad())
