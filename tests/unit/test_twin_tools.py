"""A tray's tools on the twin: the product's own checks read them, find what is planted and nothing beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Evidence, Order
from burnin.events import Measurement, Result
from burnin.twin.tools.main import said
from tests.unit.test_checks_tools import context
from tests.unit.twin_tray import Bench, bench

PEERS = {f"t{n:02}": True for n in range(18)}


def answers(tray: Bench, name: str, **args: Any) -> list[list[Answer]]:
    """What the tray answers to each round of a check."""
    who = {"gpus": [{"gpu": f"g{own['position']}", "index": own["index"], "bdf": own["bdf"]} for own in tray.facts["gpus"]]}
    rounds: list[list[Answer]] = []
    ctx = replace(context(name, **args), tray="t00")
    while orders := CHECKS[name].orders(ctx, rounds):
        (order,) = orders
        if order.verb == "identify":
            rounds.append([Answer(order, True, who)])
            continue
        words = list(order.args["argv"]) if order.verb == "program" else [w for w in order.args["script"].split() if "=" not in w]
        found = said(words[0], words[1:], tray.facts, tray.state, PEERS)
        ended = {"exit": None, "stdout": "", "stderr": "", "ended": "time"}
        out = ended if found is None else {"exit": found[2], "stdout": found[0], "stderr": found[1], "ended": ""}
        rounds.append([Answer(order, True, {"signal": None, "cut": False, **out})])
    return rounds


def judged(tray: Bench, name: str, **args: Any) -> list[Measurement]:
    ctx = replace(context(name, **args), tray="t00")
    return CHECKS[name].judge(ctx, Evidence(answers=answers(tray, name, **args)))


CHECKED = ("dcgm", "nvbandwidth", "nccl-tests", "nvidia-smi")


@pytest.mark.parametrize("name", CHECKED)
def test_a_healthy_tray_passes(tmp_path: Path, name: str) -> None:
    tray = bench(tmp_path)
    tray.run(2)
    got = judged(tray, name)
    assert got
    assert [m for m in got if m.result is not Result.PASS] == []


FAULTS = [
    ("bw_loss:t00.g{}:0.12", "nvbandwidth", "copy.h2d"),
    ("bw_loss:t00.g{}:0.4", "nvbandwidth", "copy.h2d"),
    ("bw_loss:t00.g{}:0.4", "dcgm", "dcgm.verdict"),
    ("ecc_ue:t00.g{}", "dcgm", "dcgm.verdict"),
    ("gpu_off_bus:t00.g{}", "nvidia-smi", "nvidia-smi.verdict"),
    ("gpu_off_bus:t00.g{}", "dcgm", "dcgm.verdict"),
]


@pytest.mark.parametrize("position", [1, 3])
@pytest.mark.parametrize(("plant", "check", "measurement"), FAULTS)
def test_a_planted_fault_is_found_on_its_part(tmp_path: Path, plant: str, check: str, measurement: str, position: int) -> None:
    tray = bench(tmp_path, plant.format(position))
    tray.queue(os.getpid(), position, 400)
    tray.run(60)
    got = judged(tray, check)
    part = f"t00.g{position}"
    assert {m.part for m in got if m.result is Result.FAIL} == {part}
    assert (measurement, part) in {(m.name, m.part) for m in got if m.result is Result.FAIL}


@pytest.mark.parametrize("link", ["t00.g0.l4", "t00.g2.l17"])
def test_a_link_that_is_down_is_inactive_and_named(tmp_path: Path, link: str) -> None:
    tray = bench(tmp_path, f"link_down:{link}")
    tray.queue(os.getpid(), int(link[5]), 400)
    tray.run(60)
    got = judged(tray, "nvidia-smi")
    gpu = link.rpartition(".")[0]
    assert {m.part for m in got if m.result is Result.FAIL} == {link, gpu}


@pytest.mark.parametrize("lost", [0.15, 0.5])
def test_a_slow_gpu_slows_the_collective_of_its_tray(tmp_path: Path, lost: float) -> None:
    tray = bench(tmp_path, f"slow_gpu:t00.g1:{lost}")
    tray.run(2)
    got = {m.name: m.result for m in judged(tray, "nccl-tests")}
    assert got == {"nccl-tests.verdict": Result.PASS, "nccl-tests.busbw": Result.FAIL}


@pytest.mark.parametrize("name", CHECKED)
def test_a_hot_gpu_is_not_these_tools_to_find(tmp_path: Path, name: str) -> None:
    tray = bench(tmp_path, "tim_void:t00.g2:0.3")
    tray.run(2)
    assert [m for m in judged(tray, name) if m.result is not Result.PASS] == []


@pytest.mark.parametrize("name", CHECKED)
def test_a_driver_that_hangs_hangs_the_tool_and_that_is_unknown(tmp_path: Path, name: str) -> None:
    tray = bench(tmp_path)
    tray.run(2)
    tray.state.gpus[2]["hung"] = 1
    got = judged(tray, name)
    assert {m.result for m in got} == {Result.UNKNOWN}
    assert "hung" in {m.reason for m in got}


def test_an_imex_domain_with_a_tray_that_is_dark_is_not_up(tmp_path: Path) -> None:
    tray = bench(tmp_path)
    ctx = replace(context("imex"), tray="rack", trays=tuple(PEERS))
    for dark in (None, "t04", "t17"):
        peers = {name: name != dark for name in PEERS}
        rounds: list[list[Answer]] = []
        for argv in (["-q"], ["-N", "-j"]):
            out = said("nvidia-imex-ctl", argv, tray.facts, tray.state, peers)
            assert out is not None
            body = {"exit": out[2], "stdout": out[0], "stderr": out[1], "cut": False}
            rounds.append([Answer(Order(name, "script"), peers[name], body if peers[name] else "unreachable") for name in peers])
        got = {m.part: m.result for m in CHECKS["imex"].judge(ctx, Evidence(answers=rounds))}
        assert got["rack"] is (Result.PASS if dark is None else Result.FAIL)
        assert {part for part, result in got.items() if result is not Result.PASS} == ({dark, "rack"} if dark else set())
