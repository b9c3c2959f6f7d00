"""Load off straight over SSH, where no guard answers: a connection to each tray, and the order as soon as it stands.

Where the trays answer is read from beside the database, where the run put it; else from the database itself, which takes longer
and has to be whole.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from burnin.errors import NotReady, TrayError
from burnin.run.beside import read_ways
from burnin.transport.agent import GuardLink, NoHolder
from burnin.transport.package import Agent
from burnin.transport.ssh import Dialer

TRAY_S = 10.0


def halt(run: str, db: Path, by: str, begin: float) -> list[str]:
    """What was done, a line each; `begin`: the monotonic second in which the command did. Raises as `emergency.stop_now`."""
    return asyncio.run(_halt_all(run, db, by, begin))


async def _halt_all(run: str, db: Path, by: str, begin: float) -> list[str]:
    found, agent, dial = _by_ways(run, db) or _by_database(run, db)
    trays = [tray for tray in dial.endpoints if tray.startswith("t")]
    told = await asyncio.gather(*(_halt(dial, tray, agent, found, f"emergency stop by {by}") for tray in trays))
    await dial.close()
    done = {tray: said for tray, said in zip(trays, told, strict=True) if isinstance(said, int)}
    nobody = [tray for tray, said in zip(trays, told, strict=True) if said is None]
    trouble = [str(said) for said in told if isinstance(said, TrayError)]
    took = time.monotonic() - begin
    lines = [f"run {found}: no guard answered; straight over SSH {len(done)} trays are without load after {took:.2f} s"]
    lines += [f"{tray}: {count} GPUs were loaded" for tray, count in done.items() if count]
    if nobody:
        lines.append(f"no agent of this run is on {', '.join(nobody)}: nothing of it heats there")
    if trouble:
        raise NotReady("\n".join([*lines, *trouble, "what did not answer is ended by its lease; make sure by its power"]))
    return lines


def _by_ways(run: str, db: Path) -> tuple[str, Agent, Dialer] | None:
    """The run, its agent and the way to its trays; None where they do not lie beside the database, or are of another burnin."""
    told = read_ways(db, run)
    try:
        return (told["run"], Agent(b"", str(told["agent"])), Dialer.of(told["dial"])) if told is not None else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _by_database(run: str, db: Path) -> tuple[str, Agent, Dialer]:
    from burnin.rack.load import RackFile
    from burnin.rack.schema import Profile, Rack
    from burnin.store import open_store
    from burnin.transport.rack import dialer

    store = open_store(db, create=False)
    try:
        found = store.run(run)
        config = store.config(found.id)
    finally:
        store.close()
    file = RackFile(Path(config["rack_file"]), Rack.model_validate(config["rack"]), Profile.model_validate(config["profile"]))
    dial = dialer(file)
    dial.endpoints = {tray: at for tray, at in dial.endpoints.items() if tray in config["plan"]["trays"]}
    return found.id, Agent(b"", str(config["versions"]["agent"])), dial


def ways_of(dial: Dialer, trays: tuple[str, ...], agent: Agent) -> dict[str, Any]:
    """What `halt` needs, to be put beside the database (`beside.keep_ways`)."""
    return {"agent": agent.sha256[:16], "dial": dial.told(trays)}


async def _halt(dial: Dialer, tray: str, agent: Agent, run: str, why: str) -> int | TrayError | None:
    """How many GPUs were loaded; None where no agent of this run is; the error where it is not known."""
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
