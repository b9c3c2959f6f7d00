"""`burnin run`: burn a rack in."""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnin.cli import exits
from burnin.cli.options import DB, Db, Json, Plain, console, writable, write

if TYPE_CHECKING:
    from rich.console import Console

    from burnin.events import Verdict
    from burnin.run.start import Request
    from burnin.store import Store


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    app.command("run")(run)


def run(
    suite: Annotated[str, typer.Argument(help="a suite: its file, or its name in test_suites/", metavar="SUITE")],
    rack: Annotated[Path, typer.Argument(help="the rack file", metavar="RACK.yaml")],
    only: Annotated[str, typer.Option(help="only these checks (a,b); such a run ships nothing", metavar="CHECK,...")] = "",
    parts: Annotated[
        str, typer.Option(help="only these trays (t07,t[10-12]); such a run ships nothing", metavar="PART,...")
    ] = "",
    operator: Annotated[str, typer.Option(help="who runs this", metavar="ID")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done, and touch nothing")] = False,
    plain: Plain = False,
    json: Json = None,
    db: Db = DB,
) -> None:
    """Burn a rack in and judge it. PASS is exit code 0, FAIL 1, HOLD 3."""
    from burnin.checks import CHECKS, OFFERS
    from burnin.rack.load import load_catalogue, load_rack
    from burnin.run import plan
    from burnin.run.start import Request
    from burnin.suites.load import load_suite

    writable(json)
    catalogue = load_catalogue()
    loaded = load_suite(suite, checks=OFFERS, metrics=catalogue.metrics)
    file = load_rack(rack, need_known_hosts=not dry_run, need_keys=not dry_run)
    chosen = tuple(word for word in only.split(",") if word)
    the_plan = plan.make(loaded, file.rack, file.profile, CHECKS, chosen, _words(parts))
    request = Request(file, loaded, catalogue, the_plan, chosen, operator or _user())
    if dry_run:
        _dry(request)
        return

    from burnin.cli.dry import how_long
    from burnin.run.start import new_id
    from burnin.store import open_store
    from burnin.verdict.document import canonical, document
    from burnin.views.verdict import show

    begun = dt.datetime.now(dt.UTC)
    run_id = new_id(begun)
    store = open_store(db)
    out = console()
    try:
        out.print(f"burnin {request.suite.suite} on rack {file.rack.rack}: run {run_id}, {how_long(the_plan)}")
        verdict, through = asyncio.run(_watched(request, store, run_id, begun, plain, out))
    finally:
        store.close()
    show(document(verdict), out)
    write(json, canonical(verdict))
    raise typer.Exit(exits.of_word(verdict.word) if through else exits.INTERRUPTED)


def _words(text: str) -> list[str]:
    """`t07,t[10-12]` at its commas, but not at those within brackets."""
    import re

    return [word for word in re.split(r",(?![^\[]*\])", text) if word]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _dry(request: Request) -> None:
    from burnin.cli.dry import show

    show(request.suite, request.plan, request.file.profile, request.file.rack, request.catalogue, console())


async def _watched(
    request: Request, store: Store, run_id: str, begun: dt.datetime, plain: bool, out: Console
) -> tuple[Verdict, bool]:
    """The run with a screen beside it, drawn twice a second."""
    from burnin.run.start import execute
    from burnin.views.live import Picture
    from burnin.views.terminal import REFRESH_HZ, Grid, Lines, Screen

    plan = request.plan
    stages = {leg.index: leg.stage for leg in plan.legs}
    trays = [*plan.trays, *plan.switches]
    picture = Picture.of(run_id, request.file.rack.rack, request.file.profile, request.suite.suite, stages, trays)
    screen: Screen = Grid(picture, out) if out.is_terminal and not plain else Lines(picture, out)
    start_s = time.monotonic()

    async def draw() -> None:
        while True:
            screen.tick(time.monotonic() - start_s)
            await asyncio.sleep(1 / REFRESH_HZ)

    drawing = asyncio.create_task(draw())
    try:
        return await execute(request, store, run_id, [screen.see], begun)
    finally:
        drawing.cancel()
        screen.close()
