"""GPU resets: nvidia-smi's line for each GPU is the proof, NVML is taken again whatever happens, and leave is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.gpu_reset import CHECK
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile
from burnin.rack.schema import Rack
from burnin.run.steps import forbidden
from burnin.twin.tools.smi import nvidia_smi
from tests import build

TRAYS = ("t00", "t01")
BDFS = [f"00000008:0{i + 1}:00.0" for i in range(4)]
DONE = "".join(f"GPU {bdf.upper()} was successfully reset.\n" for bdf in BDFS) + "All done.\n"
BUSY = (
    "The following GPUs could not be reset:\n  GPU 00000008:01:00.0: In use by another client\n\n1 device is currently "
    "being used by one or more other processes"
)


def context(stage: str = "idle", allow: tuple[str, ...] = ("gpu_reset",)) -> Context:
    known = {"rack": "R-1", "profile": "gb300-nvl72", "ssh": {"known_hosts": "known_hosts"}, "allow": list(allow)}
    rack = Rack.model_validate({**known, "trays": {p: {"host": f"192.0.2.{n + 1}"} for n, p in enumerate(TRAYS)}})
    suite = build.suite()
    (one,) = (s for s in suite.stages if s.stage == stage)
    return Context("rack", rack, load_profile("gb300-nvl72"), suite, one, build.catalogue(), {}, TRAYS)


def identity(tray: str, gone: str = "") -> dict[str, Any]:
    gpus = [{"gpu": f"g{i}", "index": i, "bdf": bdf, "uuid": f"GPU-{tray}-{i}"} for i, bdf in enumerate(BDFS)]
    return {"gpus": [gpu for gpu in gpus if f"{tray}.{gpu['gpu']}" != gone], "nvml": None}


def run(at: Context, said: Callable[[Order, int], Any]) -> tuple[list[Measurement], list[tuple[str, str]]]:
    """`said`: (order, round) -> a body, or a sentence that is an error."""
    answers: list[tuple[Answer, ...]] = []
    while orders := CHECK.orders(at, answers):
        assert len(answers) < 5 and not forbidden(CHECK, at, orders)
        bodies = [(order, said(order, len(answers))) for order in orders]
        answers.append(tuple(Answer(order, not isinstance(body, str), body) for order, body in bodies))
    asked = [(a.order.to, a.order.verb) for given in answers for a in given]
    return CHECK.judge(at, Evidence(answers=answers, stretch=build.IDLE)), asked


def rack(gone: str = "", text: str = DONE, code: int = 0, held: str = "", silent: str = "") -> Callable[[Order, int], Any]:
    def said(order: Order, number: int) -> Any:
        if order.verb == "identify":
            return "link lost" if number and order.to == silent else identity(order.to, gone if number else "")
        if order.verb == "release":
            return "NVML is not let go: t01.g0 is loaded" if order.to == held else {}
        if order.verb == "script":
            own = text if order.to == "t01" else DONE
            return {"exit": code if order.to == "t01" else 0, "stdout": own, "stderr": "", "cut": False}
        return {"gpus": [], "lost": []}

    return said


def bad(got: list[Measurement]) -> list[tuple[str, str, Result]]:
    return [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS]


def test_all_come_back() -> None:
    got, asked = run(context(), rack())
    assert bad(got) == [] and len(got) == 16
    assert [verb for to, verb in asked if to == "t00"] == ["identify", "release", "script", "take", "identify"]


@pytest.mark.parametrize("gone", ["t00.g3", "t01.g1"])
def test_one_that_does_not_come_back_is_bad(gone: str) -> None:
    got, _ = run(context(), rack(gone=gone))
    assert bad(got) == [(gone, "reset.back", Result.FAIL)]


@pytest.mark.parametrize(("text", "code"), [(BUSY, 1), ("", 0), ("All done.\n", 0), ("nvidia-smi: not found", 127)])
def test_without_its_line_nothing_was_reset_and_nobody_is_condemned(text: str, code: int) -> None:
    got, asked = run(context(), rack(text=text, code=code))
    assert set(bad(got)) == {(f"t01.g{i}", "reset.done", Result.UNKNOWN) for i in range(4)}
    assert ("t01", "take") in asked, "NVML is taken again whatever came of it"


def test_one_gpu_without_a_line_is_unknown() -> None:
    got, _ = run(context(), rack(text=DONE.replace(f"GPU {BDFS[2]} was successfully reset.\n", "")))
    assert bad(got) == [("t01.g2", "reset.done", Result.UNKNOWN)]


def test_where_nvml_is_held_nothing_is_reset() -> None:
    got, asked = run(context(), rack(held="t01"))
    assert ("t01", "script") not in asked and ("t01", "take") in asked and ("t00", "script") in asked
    assert {part for part, _, result in bad(got) if result is Result.UNKNOWN} == {f"t01.g{i}" for i in range(4)}


def test_a_tray_that_is_silent_afterwards_is_unknown() -> None:
    got, _ = run(context(), rack(silent="t00"))
    assert set(bad(got)) == {(f"t00.g{i}", "reset.back", Result.UNKNOWN) for i in range(4)}


@pytest.mark.parametrize(("stage", "allow"), [("idle", ()), ("idle", ("power_cycle",)), ("load", ("gpu_reset",))])
def test_only_where_it_is_allowed_and_at_rest(stage: str, allow: tuple[str, ...]) -> None:
    got, asked = run(context(stage, allow), rack())
    assert asked == [] and bad(got) == [("rack", "reset.done", Result.UNKNOWN)] and got[0].reason == "no_permission"
    if not allow:
        assert "allow: [gpu_reset]" in forbidden(CHECK, context(stage, allow), [Order("t00", "release")])


def test_the_twins_nvidia_smi_says_what_is_read_here() -> None:
    class State:
        def __init__(self, lost: int) -> None:
            row = {"hung": 0, "remap_pending": 1, "recovery_action": 1, "resets": 0, "reset_ppm": 0}
            self.gpus = [{"lost": int(i == lost), **row} for i in range(4)]

    facts = {"chassis": "C", "gpus": [{"bdf": bdf, "position": i} for i, bdf in enumerate(BDFS)]}
    state: Any = State(-1)
    assert nvidia_smi(["--gpu-reset"], facts, state, {}) == (DONE, "", 0) and state.gpus[0]["remap_pending"] == 0
    text = nvidia_smi(["--gpu-reset"], facts, State(2), {})  # type: ignore[arg-type]
    assert text is not None and text[2] == 255 and "successfully" not in text[0]
