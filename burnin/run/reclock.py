"""Which run second is it, where neither this machine's monotonic clock nor its wall clock can be believed to know?

After a boot, or on another machine, the wall clock may be hours off. The trays' monotonic clocks went on, and the run wrote down
how each of them stood to its own seconds (log lines of kind `tied`). An agent that is still there says what its clock reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from dataclasses import replace

from burnin.errors import BurninError
from burnin.run.lock import Process
from burnin.run.resume import Before
from burnin.transport.agent import GuardLink
from burnin.transport.package import Agent
from burnin.transport.ssh import Dialer

ASK_S = 10.0
"""Trays that have not answered by then are not waited for."""


async def by_trays(before: Before, dial: Dialer) -> Before:
    """The same with what trays say of the run's clock, where it is needed and they say something."""
    last, here = before.sessions[-1], Process.me()
    if (last.host, last.boot) == (here.host, here.boot) or not before.tied:
        return before
    agent = Agent(b"", before.agent)
    found: list[float] = []

    async def ask(tray: str, tied_s: float) -> None:
        link = GuardLink(dial, tray, agent, before.run.id, lambda records: None)
        try:
            async with asyncio.timeout(ASK_S):
                hello = await link.watch(by_name=True)
            if hello.body["holder"] == before.places[tray].holder:  # of the same boot
                found.append(hello.mono_ns / 1e9 + tied_s - link.heard_s)
        except (BurninError, TimeoutError, KeyError):
            pass  # it is met again, and what is wrong said, when the run goes on
        finally:
            with contextlib.suppress(BurninError):
                await link.close()

    await asyncio.gather(*(ask(tray, tied_s) for tray, tied_s in before.tied.items() if tray in dial.endpoints))
    return replace(before, ours_s=statistics.median(found)) if found else before
