"""A rack of NCCL ranks for tests: 18 folders with a tray's state, 72 processes on loopback, and the holder's part in between."""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from burnin.checks.base import Answer, Order
from burnin.twin import host, identity
from burnin.twin.model import load
from burnin.twin.state import State

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("nccl_child.py")
QUIET_S = 2.0
CUT = "cut by a local limit: time"


class Ranks:
    """Answers `work` and `tell` as 18 holders would. A process that is not asked to be new lives on, to save its start."""

    def __init__(self, where: Path, trays: Sequence[str]) -> None:
        model = load("gb300-nvl72")
        rack = identity.build(model, 1)
        self.states: dict[str, State] = {}
        self._facts: dict[str, tuple[Path, str]] = {}
        for tray in trays:
            at = where / tray
            host.make_compute(at, model, rack.trays[tray], identity.for_emulation(model, rack.trays[tray], rack.cluster_uuid))
            (at / "root/sys/class/net/lo").mkdir(parents=True)
            self.states[tray] = State.create(str(at / "state"), 4)
            for row in self.states[tray].gpus:
                row["clock_busy_mhz"] = 1900
            for position, gpu in enumerate(rack.trays[tray].gpus):
                self._facts[f"{tray}.g{position}"] = at, gpu.uuid
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._end_s: dict[str, float] = {}
        for part in self._facts:
            self._spawn(part)

    def _spawn(self, part: str) -> None:
        at, uuid = self._facts[part]
        argv = [sys.executable, "-I", "-S", str(CHILD), str(ROOT), str(at), uuid]
        env = {"HOST_SYS": str(at / "root/sys"), "PATH": os.environ["PATH"]}
        self._running[part] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def close(self) -> None:
        """End every process."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):  # what was not sent yet goes to nobody
                    if pipe is not None:
                        pipe.close()
        for state in self.states.values():
            state.close()

    def row(self, part: str) -> Any:
        """The state's row of a GPU."""
        tray, gpu = part.split(".")
        return self.states[tray].gpus[int(gpu[1:])]

    def answer(self, orders: Sequence[Order]) -> list[Answer]:
        """One round of orders."""
        asked: set[str] = set()
        for order in orders:
            for gpu in order.args["gpus"] if order.verb == "work" else order.args["bodies"]:
                part = f"{order.to}.{gpu}"
                asked.add(part)
                if order.verb == "work":
                    if self._running[part].poll() is not None:
                        self._bury(part)
                        self._spawn(part)
                    args = {**order.args["args"], **order.args["args_of"].get(gpu, {})}
                    self._end_s[part] = time.monotonic() + order.args["max_s"]
                    self._write(part, {"work": args, "max_s": order.args["max_s"]})
                else:
                    self._write(part, order.args["bodies"][gpu])
        said = self._hear(asked)
        return [
            Answer(order, True, {p.split(".")[1]: body for p, body in said.items() if p.startswith(order.to + ".")})
            for order in orders
        ]

    def _write(self, part: str, body: dict[str, Any]) -> None:
        stdin = self._running[part].stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(body).encode() + b"\n")
            stdin.flush()
        except OSError:
            pass

    def _bury(self, part: str) -> None:
        process = self._running[part]
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                pass

    def _hear(self, asked: set[str]) -> dict[str, Any]:
        said: dict[str, Any] = {}
        with selectors.DefaultSelector() as selector:
            for part in asked:
                stdout = self._running[part].stdout
                assert stdout is not None
                selector.register(stdout, selectors.EVENT_READ, part)
            quiet_s = time.monotonic()
            while len(said) < len(asked):
                for key, _ in selector.select(0.1):
                    line = key.fileobj.readline()  # type: ignore[union-attr]
                    code = None if line else self._running[key.data].wait()
                    said[key.data] = json.loads(line) if line else {"failed": f"the load process ended with status {code}"}
                    selector.unregister(key.fileobj)
                    quiet_s = time.monotonic()
                left = asked - set(said)
                # Where all but one have spoken, time is cut short: a holder would wait for it until max_s.
                short = quiet_s + QUIET_S if said and len(left) == 1 else math.inf
                for part in left:
                    if time.monotonic() > min(self._end_s[part] + 1, short):
                        self._running[part].kill()
                        self._running[part].wait()
                        said[part] = {"failed": CUT}
        return said
