"""Switch trays of a twin in this process: their `nv` answers the scripts of checks, with a clock that only `sleep` moves."""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from burnin.checks import CHECKS
from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.events import Measurement
from burnin.rack.load import load_profile
from burnin.rack.schema import Rack
from burnin.twin import identity, model
from burnin.twin.faults import Plant
from burnin.twin.nvos import furnish, nv
from burnin.twin.nvos.wiring import Port, wire
from burnin.twin.rackstate import RackState
from burnin.twin.state import State
from tests import build

SEED, PROFILE = 5, "gb300-nvl72"
MODEL = model.load(PROFILE)
RACK = identity.build(MODEL, SEED)
WIRES = wire(MODEL, SEED)
Edit = Callable[[list[str], str], str]


def end(link: str) -> tuple[str, Port]:
    """Switch tray and port of a link."""
    return next((tray, port) for tray, ports in WIRES.items() for port in ports if port.link == link)


class Switches:
    """Nine switch trays; `compute` trays stand beside them. `edit` may change what a command prints."""

    def __init__(self, at: Path, plants: Sequence[Plant] = (), compute: Sequence[str] = (), edit: Edit | None = None) -> None:
        self.at, self.now_s, self.edit = at, time.time() + 5, edit
        at.mkdir(exist_ok=True)
        self.rack_state = RackState.create(str(at / "rack"), 18, 9, 8)
        self.states: dict[str, State] = {}
        for row in self.rack_state.switches:
            for i in range(8):
                row[f"leak{i}_v"] = 1.73
        for tray in compute:
            (at / tray).mkdir()
            self.states[tray] = State.create(str(at / tray / "state"), 4)
        for tray in MODEL.topology.switches():
            furnish.write(at / tray, tray, MODEL, RACK, SEED, plants, manages=tray == "s0")

    def ask(self, order: Order) -> Answer:
        """As the shell's door would."""
        out = []
        for line in order.args["script"].split("\n"):
            if line.startswith("sleep"):
                self.now_s += float(line.split()[1])
                continue
            match = re.fullmatch(r"printf '\\n@@burnin (\d+)\\n'; nv (.*) 2>&1; printf '\\n@@exit %s\\n' \$\?", line)
            assert match, line
            words = re.findall(r'"([^"]*)"|(\S+)', match[2])
            code, text = self._run([a or b for a, b in words], order.to)
            out.append(f"\n@@burnin {match[1]}\n{text}\n@@exit {code}\n")
        return Answer(order, True, {"exit": 0, "stdout": "".join(out), "stderr": "", "cut": False})

    def _run(self, words: list[str], tray: str) -> tuple[int, str]:
        for state in self.states.values():
            state.beat_ns = time.monotonic_ns()
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = nv.main(words, self.at / tray, self.now_s)
        return code, self.edit(words, text.getvalue()) if self.edit is not None else text.getvalue()


def context(check: str, part: str, compute: Sequence[str] = (), **args: Any) -> Context:
    """A step on one part of a rack whose compute trays are these."""
    trays = {tray: {"host": f"192.0.2.{n + 1}"} for n, tray in enumerate((*compute, *MODEL.topology.switches()))}
    known = {"rack": "R-1", "profile": PROFILE, "ssh": {"known_hosts": "known_hosts"}, "chassis": RACK.chassis}
    rack = Rack.model_validate({**known, "trays": trays})
    suite = build.suite()
    (stage,) = (s for s in suite.stages if s.stage == "load")
    return Context(part, rack, load_profile(PROFILE), suite, stage, build.catalogue(), args, tuple(compute))


def judged(check: str, at: Context, ask: Callable[[Order], Answer], **more: Any) -> list[Measurement]:
    """Rounds as a run makes them."""
    answers: list[tuple[Answer, ...]] = []
    while orders := CHECKS[check].orders(at, answers):
        answers.append(tuple(ask(order) for order in orders))
    return CHECKS[check].judge(at, Evidence(answers=answers, stretch=build.LOAD, **more))
