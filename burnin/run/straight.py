"""Load off straight over SSH, where no guard answers: a connection to each tray, and the order as soon as it stands.

Where the trays answer is read from beside the database, where the run put it; else from the database itself, which takes longer
and has to be whole.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnin.errors import BurninError, NotReady, TrayError
from burnin.run.beside import read_ways
from burnin.transport.agent import GuardLink, NoHolder
from burnin.transport.package import Agent
from burnin.transport.ssh import Dialer

if TYPE_CHECKING:
    from burnin.store import Run, Store

TRAY_S = 10.0
LEAVING_S, LOOK_S = 1.0, 0.1
"""How long an agent may take that is just leaving."""
SHOWN = 8


def halt(run: str, db: Path, by: str, begin: float) -> list[str]:
    """What was done, a line each; `begin`: the monotonic second in which the command did. Raises as `emergency.stop_now`."""
    return asyncio.run(_halt_all(run, db, by, begin))


async def _halt_all(run: str, db: Path, by: str, begin: float) -> list[str]:
    try:
        found, agent, dial = _by_ways(run, db) or _by_database(run, db)
    except BurninError as error:
        raise type(error)(f"no tray was told anything: {error}{_anothers(db)}") from None
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
        lines.append(f"no agent is on {', '.join(nobody)}: nothing of this run heats there")
    if trouble:
        last = "what did not answer is ended by its lease, a detached stage after hours; make sure by its power"
        raise NotReady("\n".join([*lines, *trouble, last]))
    return lines


def _anothers(db: Path) -> str:
    """Who can stop a run of another user."""
    try:
        mine = os.geteuid() in (0, db.stat().st_uid)
        return "" if mine else f"; it is of user {db.owner()}, who can stop the run, or root"
    except (OSError, KeyError):
        return ""


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
        found = _which(store, run)
        config = store.config(found.id)
    finally:
        store.close()
    file = RackFile(Path(config["rack_file"]), Rack.model_validate(config["rack"]), Profile.model_validate(config["profile"]))
    dial = dialer(file)
    dial.endpoints = {tray: at for tray, at in dial.endpoints.items() if tray in config["plan"]["trays"]}
    return found.id, Agent(b"", str(config["versions"]["agent"])), dial


def _which(store: Store, run: str) -> Run:
    """The run that may heat; `last` is none that was refused, because an earlier one has the rack."""
    from burnin.store import REFUSED

    found = store.run(run)
    return next((one for one in reversed(store.runs()) if one.status != REFUSED), found) if run == "last" else found


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
        return await _nobody(link)
    except TimeoutError:
        return TrayError(f"{tray}: load was not seen to end within {TRAY_S:g} s")
    except TrayError as error:
        return error
    except Exception as error:  # whatever it is (a key that cannot be read): the other trays are ended all the same
        return TrayError(f"{tray}: {error if isinstance(error, BurninError) else repr(error)}")
    finally:
        await link.close()


async def _nobody(link: GuardLink) -> TrayError | None:
    """No agent listens; but one whose directory is gone lives on, and so does its load."""
    end = time.monotonic() + LEAVING_S
    try:
        while left := await link.living():
            if time.monotonic() > end:
                which = ", ".join(map(str, left[:SHOWN])) + (" ..." if len(left) > SHOWN else "")
                return TrayError(f"{link.part}: an agent that does not answer lives there (processes {which}): kill them")
            await asyncio.sleep(LOOK_S)
    except TrayError as error:
        return error
    return TrayError(f"{link.part}: no agent answers, and what lives there cannot be read") if left is None else None


def _empty(records: list[Any], empty: asyncio.Event) -> None:
    for record in records:
        if record.kind == "beat" and not record.body["load"]:
            empty.set()
