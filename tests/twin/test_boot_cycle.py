"""Power cycles through a twin's real BMCs: devices that do not come up again are found; a tray without a reset is said.

What agents would say of GPUs is read from the trays' own files: agents that come back after a boot are the run's concern.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from burnin.checks.base import Answer, Context, Evidence, Order
from burnin.checks.boot_cycle import CHECK
from burnin.errors import TrayError
from burnin.events import Measurement, Result
from burnin.rack.load import load_profile, load_rack
from burnin.transport.bmcs import Bmcs, services
from burnin.transport.rack import dialer
from burnin.transport.shell import Shell
from burnin.twin.faults import Plant
from burnin.twin.up import Twin, running
from tests import build

PLANTS = [Plant("boot_intermittent", "t00.d1", 1.0), Plant("boot_intermittent", "t01.g2", 1.0)]


def test_what_does_not_come_up_again_is_found(tmp_path: Path) -> None:
    with running("gb300-nvl72", 5, PLANTS, where=tmp_path, trays=3, switches=1) as twin:
        got = asyncio.run(_judged(twin))
    bad = [(m.part, m.name, m.result) for m in got if m.result is not Result.PASS and m.name == "boot.device"]
    assert sorted(part for part, _, result in bad if result is Result.FAIL) == ["t00", "t01", "t01.g2"]
    cycles = {m.part: m.result for m in got if m.name == "boot.cycles"}
    assert cycles == {"s0": Result.UNKNOWN, "t00": Result.FAIL, "t01": Result.FAIL, "t02": Result.PASS}


async def _judged(twin: Twin) -> list[Measurement]:
    file, suite, begin_s = load_rack(twin.rack_file), build.suite(), time.monotonic()
    rack = file.rack.model_copy(update={"allow": ["power_cycle"]})
    trays = tuple(rack.compute())
    at = Context("rack", rack, load_profile("gb300-nvl72"), suite, suite.stages[0], build.catalogue(), {"cycles": 1}, trays)
    shell, bmcs = Shell(dialer(file)), Bmcs(services(file))

    async def one(order: Order) -> Answer:
        if order.via == "clock":
            await asyncio.sleep(float(order.args["wait_s"]) / 10)
            return Answer(order, True, {"t_s": time.monotonic() - begin_s})
        try:
            if order.via == "agent":
                told = json.loads((twin.private / order.to / "tray.json").read_text())
                return Answer(order, True, {"gpus": [{"gpu": f"g{g['position']}", "uuid": g["uuid"]} for g in told["gpus"]]})
            door = shell.order if order.via == "shell" else bmcs.order
            return Answer(order, True, await door(order.to, order.verb, order.args, order.timeout_s))
        except (TrayError, OSError, ValueError) as error:
            return Answer(order, False, str(error))

    answers: list[tuple[Answer, ...]] = []
    while (orders := CHECK.orders(at, answers)) and time.monotonic() - begin_s < 60:
        answers.append(tuple(await asyncio.gather(*map(one, orders))))
    await bmcs.close()
    return CHECK.judge(at, Evidence(answers=answers, stretch=build.IDLE))
