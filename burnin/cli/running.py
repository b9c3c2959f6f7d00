"""`burnin run`: burn a rack in."""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import json as jsonlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from burnin.cli import exits
from burnin.cli.options import DB, Db, Json, Plain, console, writable, write
from burnin.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from burnin.events import Verdict
    from burnin.run.resume import Before
    from burnin.run.start import Request
    from burnin.store import Store


PATIENCE_S = 60.0
"""How long a run waits for somebody who holds its database: memory and trays keep what is read meanwhile."""


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
    resume: Annotated[str, typer.Option(help="go on with this run (or `last`): only what is owed of it", metavar="RUN")] = "",
    operator: Annotated[str, typer.Option(help="who runs this", metavar="ID")] = "",
    answers: Annotated[Path | None, typer.Option(help="answers to what the suite asks of a person", metavar="FILE.yaml")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be done, and touch nothing")] = False,
    plain: Plain = False,
    json: Json = None,
    db: Db = DB,
) -> None:
    """Burn a rack in and judge it. PASS is exit code 0, FAIL 1, HOLD 3."""
    from burnin.checks import CHECKS, OFFERS
    from burnin.rack.load import load_catalogue, load_rack
    from burnin.run import plan
    from burnin.run.person import load as load_answers
    from burnin.run.start import Request
    from burnin.suites.load import load_suite

    writable(json)
    catalogue = load_catalogue()
    file = load_rack(rack, need_known_hosts=not dry_run, need_keys=not dry_run)
    fits = file.profile if not resume else None  # a run that goes on does so with the suite that it began with
    chosen = tuple(word for word in only.split(",") if word)
    loaded = load_suite(suite, checks=OFFERS, metrics=catalogue.metrics, profile=fits, only=chosen)
    the_plan = plan.make(loaded, file.rack, file.profile, CHECKS, chosen, _words(parts))
    asks = any(step.check == "ask" for leg in the_plan.legs for step in leg.steps) and sys.stdin.isatty() and answers is None
    given = load_answers(answers) if answers is not None else {}
    request = Request(file, loaded, catalogue, the_plan, chosen, operator or _user(), given, input if asks else None)
    plain = plain or asks  # a live screen would write over the questions
    if resume:
        _resume(request, resume, bool(only or parts), dry_run, plain, json, db)
        return
    if dry_run:
        _dry(request)
        return

    from burnin.cli.dry import how_long, refuse_pulses
    from burnin.run.lock import refuse_second
    from burnin.run.start import new_id
    from burnin.store import open_store

    refuse_pulses(the_plan, file.profile, file.rack)
    begun = dt.datetime.now(dt.UTC)
    run_id = new_id(begun)
    store = open_store(db, keep_s=PATIENCE_S)
    out = console()
    try:
        refuse_second(store, file.rack.rack)
        _offer(store, request, out)
        out.print(f"burnin {request.suite.suite} on rack {file.rack.rack}: run {run_id}, {how_long(the_plan)}")
        verdict, through = asyncio.run(_watched(request, store, run_id, begun, plain, out))
    finally:
        store.close()
    _say(verdict, through, json, out)


def _say(verdict: Verdict, through: bool, json: Path | None, out: Console) -> NoReturn:
    from burnin.verdict.document import canonical, document
    from burnin.views.verdict import show

    show(document(verdict), out)
    write(json, canonical(verdict))
    raise typer.Exit(exits.of_word(verdict.word) if through else exits.INTERRUPTED)


def _offer(store: Store, request: Request, out: Console) -> None:
    """One line when there is a run to go on with: a new one is what was asked for."""
    from burnin.run.lock import unfinished

    left = unfinished(store, request.file.rack.rack, request.suite.suite)
    if left is not None:
        out.print(f"run {left.id} of this suite and rack did not end: --resume {left.id} would go on with it; this is a new run")


def _resume(request: Request, name: str, chosen: bool, dry_run: bool, plain: bool, json: Path | None, db: Path) -> None:
    """Go on with a run. With nothing owed, its verdict is shown as it stands."""
    from burnin.cli.dry import owed as show_owed
    from burnin.events import Word
    from burnin.run.lock import refuse_second
    from burnin.run.resume import look, what_is_owed
    from burnin.store import open_store
    from burnin.views.verdict import show

    if chosen:
        raise InputError("--resume goes on with a run as it was planned: leave --only and --parts out")
    store, out = open_store(db, create=False, keep_s=PATIENCE_S), console()
    try:
        before = look(store, name, request.suite, request.file)
        refuse_second(store, request.file.rack.rack, before.run.id)
        again = replace(
            request, file=before.file, suite=before.suite, catalogue=before.catalogue, plan=before.plan, only=before.only
        )
        for text in before.changed:
            out.print(text, markup=False, highlight=False, soft_wrap=True)
        at_once = before.left is not None and not dry_run  # load goes on alone: no days of readings are looked through before
        many = [] if at_once else what_is_owed(store, before, before.suite)
        if at_once:
            out.print(f"run {before.run.id}: a detached stage was left; its trays come first, then what is owed")
        else:
            show_owed(before.run.id, before.suite, many, before.replaced, out)
        if dry_run:
            return
        stored = store.verdict(before.run.id)
        if not at_once and not many and before.run.ended is not None and stored is not None:
            said = jsonlib.loads(stored)
            show(said, out)
            write(json, stored)
            raise typer.Exit(exits.of_word(Word(said["verdict"])))
        begun = dt.datetime.now(dt.UTC)
        verdict, through = asyncio.run(_watched(again, store, before.run.id, begun, plain, out, before))
    finally:
        store.close()
    _say(verdict, through, json, out)


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
    request: Request, store: Store, run_id: str, begun: dt.datetime, plain: bool, out: Console, before: Before | None = None
) -> tuple[Verdict, bool]:
    """The run with a screen beside it, drawn twice a second."""
    from burnin.run.lock import Process
    from burnin.run.start import execute
    from burnin.views.live import Picture
    from burnin.views.terminal import REFRESH_HZ, Grid, Lines, Screen

    if before is not None:
        from burnin.run.reclock import by_trays
        from burnin.transport.rack import dialer

        dial = dialer(request.file)
        before = await by_trays(before, dial)
        await dial.close()
    plan = request.plan
    stages = {leg.index: leg.stage.model_copy(update={"steps": list(leg.steps)}) for leg in plan.legs}
    trays = [*plan.trays, *plan.switches]
    picture = Picture.of(run_id, request.file.rack.rack, request.file.profile, request.suite.suite, stages, trays)
    screen: Screen = Grid(picture, out) if out.is_terminal and not plain else Lines(picture, out)
    start_s = time.monotonic()
    if before is not None:
        start_s -= before.elapsed_s(Process.me(), start_s, begun)

    async def draw() -> None:
        while True:
            screen.tick(time.monotonic() - start_s)
            await asyncio.sleep(1 / REFRESH_HZ)

    drawing = asyncio.create_task(draw())
    try:
        return await execute(request, store, run_id, [screen.see], begun, before)
    finally:
        drawing.cancel()
        screen.close()
