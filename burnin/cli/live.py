"""A run that goes on: `watch` it, `stop` it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnin.cli import at_once
from burnin.cli.options import DB, Db, Json, Plain, console, writable

if TYPE_CHECKING:
    from burnin.views.terminal import Screen

RunName = Annotated[str, typer.Argument(help="a run, the beginning of its name, or `last`", metavar="RUN")]


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    app.command()(watch)
    app.command()(stop)


def watch(
    run: Annotated[str, typer.Argument(help="the run that you mean, if it matters which", metavar="[RUN]")] = "",
    plain: Plain = False,
    json: Json = None,
    db: Db = DB,
) -> None:
    """A second screen for the run that is going on: the same view, or its events as lines of JSON."""
    writable(json)
    asyncio.run(_watch(run, plain, json, db))


async def _watch(run: str, plain: bool, json: Path | None, db: Path) -> None:
    from burnin.errors import InputError, NotReady
    from burnin.run import sockets
    from burnin.run.live_lines import decode
    from burnin.views.terminal import REFRESH_HZ

    reader, writer = await sockets.connect(sockets.live(db), f"run {run}" if run else "a run")
    first = await reader.readline()
    head: dict[str, Any] = dict(decode(first)) if first else {}  # type: ignore[arg-type]
    if not head:
        raise NotReady("the run that listened there has just ended")
    if run not in ("", "last") and not head["run"].startswith(run):
        raise InputError(f"run {run} is not going on: with this database it is {head['run']}")
    with contextlib.ExitStack() as stack:
        out = None
        if json is not None:
            out = sys.stdout.buffer if str(json) == "-" else stack.enter_context(json.open("wb"))
            out.write(first)
        screen = _screen(head, plain) if str(json) != "-" else None
        try:
            async with asyncio.TaskGroup() as group:
                drawing = group.create_task(_draw(screen, head["start_s"], 1 / REFRESH_HZ))
                ended = False
                while line := await reader.readline():
                    if out is not None:
                        out.write(line)
                        out.flush()
                    event = decode(line)
                    ended = ended or (isinstance(event, dict) and event.get("event") == "ended")
                    if screen is not None:
                        screen.see(event)
                drawing.cancel()
        finally:
            writer.close()
            if screen is not None:
                screen.close()
    if not ended:
        what = "its guard and its leases end the load, unless its stage is detached"
        raise NotReady(f"the controller of run {head['run']} went away without a word: {what}")
    if screen is not None:
        console().print(f"run {head['run']} has ended: `burnin show {head['run']}`")


async def _draw(screen: Screen | None, start_s: float, every_s: float) -> None:
    while screen is not None:
        screen.tick(time.monotonic() - start_s)
        await asyncio.sleep(every_s)


def _screen(head: dict[str, Any], plain: bool) -> Screen:
    from burnin.rack.schema import Profile
    from burnin.suites.schema import Suite
    from burnin.views.live import Picture
    from burnin.views.terminal import Grid, Lines

    suite, profile = Suite.model_validate(head["suite"]), Profile.model_validate(head["profile"])
    stages = {index: suite.stages[index] for index in head["legs"]}
    picture = Picture.of(head["run"], head["rack"], profile, suite.suite, stages, head["trays"])
    out = console()
    return Grid(picture, out) if out.is_terminal and not plain else Lines(picture, out)


def stop(
    run: RunName,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="all load off at once, with or without a living controller")
    ] = False,
    db: Db = DB,
) -> None:
    """End a run: in order (load comes down, what was measured is judged), or at once."""
    if emergency:
        at_once.stop(run, db)
    else:
        asyncio.run(_stop(run, db))


ANSWER_S = 5.0


async def _stop(run: str, db: Path) -> None:
    import orjson

    from burnin.errors import InputError, NotReady
    from burnin.run import sockets

    try:
        reader, writer = await sockets.connect(sockets.live(db), f"run {run}")
    except InputError as error:
        raise InputError(f"{error}; load that was left detached ends by `burnin stop {run} --emergency`") from None
    try:
        async with asyncio.timeout(ANSWER_S):
            going = orjson.loads(await reader.readline() or b'{"run": ""}')["run"]
            if run != "last" and not going.startswith(run):
                raise InputError(f"run {run} is not going on: with this database it is {going}")
            writer.write(orjson.dumps({"do": "stop", "by": at_once.me()}) + b"\n")
            while line := await reader.readline():
                if orjson.loads(line).get("event") == "said":
                    console().print(f"run {going} is being stopped: load comes down, then it is judged")
                    return
    except TimeoutError:
        pass
    finally:
        writer.close()
    raise NotReady(f"the controller of run {run} does not answer: `burnin stop {run} --emergency` ends the load without it")
