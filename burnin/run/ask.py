"""Ask trays who they are, outside of a run: for the gate, for `doctor`, and to clean up. Nothing is loaded or sampled."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnin.errors import TrayError
from burnin.transport.agent import AgentLink, clean
from burnin.transport.package import build
from burnin.transport.ssh import Dialer, closing

_ASK_S = 60.0


@dataclass(frozen=True, slots=True)
class Told:
    """What a tray said of itself: the hello body, who it is, and by how many seconds its wall clock is off."""

    hello: Mapping[str, Any]
    identity: Mapping[str, Any]
    clock_off_s: float


async def ask(dial: Dialer, trays: Sequence[str], name: str, *, tidy: bool = False) -> dict[str, Told | str]:
    """Tray -> what it told, or why it did not. `name` marks the agent as ours; `tidy` removes it from the tray afterwards."""

    async def one(tray: str) -> Told | str:
        link = AgentLink(dial, tray, build(), name, lambda _: None)
        try:
            async with asyncio.timeout(_ASK_S):
                hello = await link.open()
                off = hello.body["wall_ns"] / 1e9 - time.time()
                told = Told(hello.body, await link.order("identify"), off)
                with contextlib.suppress(TrayError):
                    await link.order("bye")
                    await asyncio.wait_for(asyncio.shield(link.gone), 5)
        except TrayError as error:
            return str(error)
        except TimeoutError:
            return f"{tray}: no answer within {_ASK_S:g} s"
        finally:
            await link.close()
        if tidy:
            try:
                async with closing(await dial.connect(tray)) as connection:
                    await clean(connection, dial.endpoints[tray])
            except TrayError as error:
                return str(error)
        return told

    return dict(zip(trays, await asyncio.gather(*map(one, trays)), strict=True))


async def knock(dial: Dialer, parts: Sequence[str]) -> dict[str, str]:
    """Part -> empty when it let us in, or why it did not."""

    async def one(part: str) -> str:
        try:
            async with closing(await dial.connect(part)):
                return ""
        except TrayError as error:
            return str(error)

    return dict(zip(parts, await asyncio.gather(*map(one, parts)), strict=True))
