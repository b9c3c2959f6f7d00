"""All load off, at once: by the run's guard, which has a channel to every tray; where no guard answers, straight over SSH.

Idempotent: what is off stays off, and no agent of this run loads again until a person starts a run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from burnin.errors import InputError, NotReady, TrayError
from burnin.run import sockets

if TYPE_CHECKING:  # SSH takes a third of a second to import: only where no guard answers
    from burnin.transport.package import Agent
    from burnin.transport.ssh import Dialer

ANSWER_S = 0.5
"""A guard that has not said that it ordered load off by then is not waited for: SSH is tried beside it."""
PATIENCE_S = 0.1
CONFIRM_S = 6.0
TRAY_S = 10.0


async def stop_now(run: str, db: Path, by: str) -> list[str]:
    """What was done, a line each. Raises InputError for a run that is not there, NotReady when load may still be on somewhere."""
    begin = time.monotonic()
    asking = asyncio.ensure_future(_ask_guard(run, db, by, begin))
    await asyncio.wait((asking,), timeout=PATIENCE_S)
    if not asking.done():  # what SSH needs is made ready meanwhile
        await asyncio.to_thread(_import)
    asked = await asking
    return asked if asked is not None else await _over_ssh(run, db, by, begin)


def _import() -> None:
    import burnin.rack.schema
    import burnin.store
    import burnin.transport.rack  # noqa: F401


# ---------------------------------------------------------------- by the guard


async def _ask_guard(run: str, db: Path, by: str, begin: float) -> list[str] | None:
    """None where no guard of this run answers in time."""
    try:
        reader, writer = await sockets.connect(sockets.guard(db), f"run {run}")
    except (InputError, NotReady):
        return None
    try:
        async with asyncio.timeout(ANSWER_S):
            going = str(orjson.loads(await reader.readline() or b"{}").get("run", ""))
            if not going or (run != "last" and not going.startswith(run)):
                return None
            writer.write(orjson.dumps({"do": "emergency", "run": going, "by": by}) + b"\n")
            if not await reader.readline():
                return None
        ordered_s = time.monotonic() - begin
        async with asyncio.timeout(CONFIRM_S):
            while line := await reader.readline():
                said = orjson.loads(line).get("outcome")
                if said is not None and said["name"] == "emergency":
                    return _told(going, said, ordered_s)
        return None
    except (TimeoutError, ValueError, OSError):
        return None
    finally:
        writer.close()


def _told(run: str, said: Mapping[str, Any], ordered_s: float) -> list[str]:
    lines = [
        f"run {run}: load was ordered off on every tray {ordered_s:.2f} s after this command began; {said['answered']} answered"
    ]
    if said["last_gone_s"] is not None:
        lines.append(f"the last load process was gone {said['last_gone_s']:.2f} s after the order")
    if said["cold_s"] is not None:
        lines.append(f"every GPU was read at idle power {said['cold_s']:.2f} s after the order")
    trouble = [f"{tray} did not answer: {why}" for tray, why in said["unanswered"].items()]
    if said["still"]:
        trouble.append(f"still loaded: {', '.join(said['still'])}")
    if trouble:
        raise NotReady("\n".join([*lines, *trouble]))
    return lines


# ---------------------------------------------------------------- straight over SSH


async def _over_ssh(run: str, db: Path, by: str, begin: float) -> list[str]:
    from burnin.rack.load import RackFile
    from burnin.rack.schema import Profile, Rack
    from burnin.store import open_store
    from burnin.transport.package import Agent
    from burnin.transport.rack import dialer

    store = open_store(db, create=False)
    try:
        found = store.run(run)
        config = store.config(found.id)
    finally:
        store.close()
    file = RackFile(Path(config["rack_file"]), Rack.model_validate(config["rack"]), Profile.model_validate(config["profile"]))
    dial = dialer(file)
    agent = Agent(b"", str(config["versions"]["agent"]))
    trays = [tray for tray in config["plan"]["trays"] if tray.startswith("t")]
    told = await asyncio.gather(*(_halt(dial, tray, agent, found.id, f"emergency stop by {by}") for tray in trays))
    await dial.close()
    done = {tray: said for tray, said in zip(trays, told, strict=True) if isinstance(said, int)}
    nobody = [tray for tray, said in zip(trays, told, strict=True) if said is None]
    trouble = [str(said) for said in told if isinstance(said, TrayError)]
    took = time.monotonic() - begin
    lines = [f"run {found.id}: no guard answered; straight over SSH {len(done)} trays are without load after {took:.2f} s"]
    lines += [f"{tray}: {count} GPUs were loaded" for tray, count in done.items() if count]
    if nobody:
        lines.append(f"no agent of this run is on {', '.join(nobody)}: nothing of it heats there")
    if trouble:
        raise NotReady("\n".join([*lines, *trouble, "what did not answer is ended by its lease; make sure by its power"]))
    return lines


async def _halt(dial: Dialer, tray: str, agent: Agent, run: str, why: str) -> int | TrayError | None:
    """How many GPUs were loaded; None where no agent of this run is; the error where it is not known."""
    from burnin.transport.agent import GuardLink, NoHolder

    empty = asyncio.Event()
    link = GuardLink(dial, tray, agent, run, lambda records: _empty(records, empty))
    try:
        async with asyncio.timeout(TRAY_S):
            if (count := await link.halt_by_file(why)) is not None:
                return count
            await link.watch(by_name=True)
            loaded = await link.order("halt", why=why, gpus=None)
            if loaded:
                empty.clear()
                await empty.wait()
            return len(loaded)
    except NoHolder:
        return None
    except TrayError as error:
        return error
    except TimeoutError:
        return TrayError(f"{tray}: load was not seen to end within {TRAY_S:g} s")
    finally:
        link.abort()


def _empty(records: list[Any], empty: asyncio.Event) -> None:
    for record in records:
        if record.kind == "beat" and not record.body["load"]:
            empty.set()
