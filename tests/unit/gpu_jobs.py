"""A GPU's work in this process: the agent's job functions on the twin's CUDA driver, with what they say kept in a list."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from burnin.agent.cuda import Cuda
from burnin.agent.work import uuid_bytes
from burnin.twin.emulate import cuda, cuda_core, transfers
from tests.unit.twin_tray import Bench


class Clock:
    """Time that only waiting moves: what the driver's model says a launch takes is then what it took, on any machine."""

    def __init__(self) -> None:
        self._now_ns = time.monotonic_ns()

    def monotonic_ns(self) -> int:
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        self._now_ns += max(1, int(seconds * 1e9))


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated driver's clock stands still while Python thinks."""
    clock = Clock()
    for module in (cuda, cuda_core, transfers):
        monkeypatch.setattr(module, "time", clock)


class Talk:
    """Goes on until `launches` questions were asked; `before` is called at each of them."""

    def __init__(self, launches: int = 1_000_000, before: Callable[[int], None] = lambda n: None) -> None:
        self.told: list[dict[str, Any]] = []
        self.left: Callable[[], list[int]] = list
        self.asked, self.paused_s = 0, 0.0
        self._launches, self._before = launches, before

    def tell(self, body: dict[str, Any]) -> None:
        assert self.left() == [], "who tells that it is done is not seen on a GPU any more"
        self.told.append(body)

    def pause(self, seconds: float) -> None:
        """No time passes that anything here depends on."""
        self.paused_s += seconds

    def going(self) -> bool:
        self._before(self.asked)
        self.asked += 1
        return self.asked <= self._launches


def open_gpu(tray: Bench, gpu: str) -> tuple[Cuda, int]:
    """The driver of a fresh process, and a GPU by its module position."""
    driver = Cuda(cuda.library(tray.facts, tray.state))
    return driver, driver.device(uuid_bytes(uuids(tray)[gpu]))


def uuids(tray: Bench) -> dict[str, str]:
    """What a job is told: gpu -> UUID."""
    return {f"g{gpu['position']}": gpu["uuid"] for gpu in tray.facts["gpus"]}


def do(run: Callable[..., None], tray: Bench, gpu: str, args: dict[str, Any], talk: Talk | None = None) -> dict[str, Any]:
    """Run a job; what it told, once, when nothing of it was left on any GPU."""
    talk = talk or Talk()
    before = [number for number, _ in tray.state.slots()]
    talk.left = lambda: [number for number, _ in tray.state.slots() if number not in before]
    run(talk, *open_gpu(tray, gpu), {**args, "uuids": uuids(tray)})
    (told,) = talk.told
    return told
