"""What was run and what is said about it: `runs`, `show`, `links`, `compare`, `judge`, `gate`."""

from __future__ import annotations

import asyncio
import datetime as dt
import json as jsonlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnin.cli import exits
from burnin.cli.options import DB, Db, Json, console, pretty, writable, write
from burnin.errors import InputError

if TYPE_CHECKING:
    from burnin.rack.schema import Site
    from burnin.store import Run, Store

RunName = Annotated[str, typer.Argument(help="a run, the beginning of its name, or `last`", metavar="RUN")]


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    for command in (runs, show, links, compare, judge, gate):
        app.command()(command)


@contextmanager
def _reading(db: Path) -> Iterator[Store]:
    from burnin.store import open_store

    store = open_store(db, create=False)
    try:
        yield store
    finally:
        store.close()


def runs(db: Db = DB) -> None:
    """List all runs: when, which rack, which suite, what was said."""
    from rich.table import Table
    from rich.text import Text

    from burnin.views.verdict import LOOK

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("run (begun, UTC)", "rack", "suite", "took", "operator", "verdict"):
        table.add_column(title, no_wrap=title.startswith("run"), overflow="fold")
    with _reading(db) as store:
        for run in store.runs():
            word = Text(run.word, LOOK[run.word]) if run.word else Text(_unjudged(run, store), "dim")
            if not run.whole:
                word.append(" (of a part)", "dim")
            table.add_row(run.id, run.rack, run.suite or "", _took(run), run.operator, word)
    console().print(table)


def _took(run: Run) -> str:
    from burnin.views.terminal import clock

    if run.ended is None:
        return ""
    return clock((dt.datetime.fromisoformat(run.ended) - dt.datetime.fromisoformat(run.started)).total_seconds())


def _unjudged(run: Run, store: Store) -> str:
    """What became of a run without a verdict: a process that is gone does not run."""
    from burnin.run.lock import keeper

    if run.ended is not None:
        return "not judged"
    who = keeper(store, run)
    gone = who.gone() if who is not None else None
    if gone is None or who is None:
        return "running, or cut off"
    return f"cut off (process {who.pid} is gone): --resume {run.id}" if gone else f"running (process {who.pid})"


def show(run: RunName, json: Json = None, db: Db = DB) -> None:
    """Show a run's verdict as it was stored."""
    from burnin.views import verdict

    writable(json)
    with _reading(db) as store:
        found = store.run(run)
        text = store.verdict(found.id)
        unjudged = _unjudged(found, store)
    if text is None:
        raise InputError(f"run {found.id} has no verdict yet ({unjudged}): `burnin judge {found.id}` derives one")
    document = jsonlib.loads(text)
    if str(json) != "-":
        verdict.show(document, console())
    write(json, text)


def links(
    run: RunName,
    whole: Annotated[bool, typer.Option("--all", help="every link, not only those that are not good")] = False,
    json: Json = None,
    db: Db = DB,
) -> None:
    """Show every NVLink of a run from both ends; an end that was not read is UNKNOWN."""
    from burnin.assess import link_view
    from burnin.assess.case import gather
    from burnin.views import links as view

    writable(json)
    with _reading(db) as store:
        case = gather(store, run)
    found = link_view.links(case)
    if str(json) != "-":
        view.show(found, whole, console())
    write(json, pretty(link_view.document(case, found)))


def compare(
    before: Annotated[str, typer.Argument(help="a run or a judge directory from before", metavar="BEFORE")],
    after: Annotated[str, typer.Argument(help="one from after, of the same rack", metavar="AFTER")],
    json: Json = None,
    db: Db = DB,
) -> None:
    """Say which parts a repair changed more than their peers changed: 0 none got worse, 3 some did, or were not compared."""
    from dataclasses import asdict

    from burnin.assess import changes
    from burnin.rack.parts import fold
    from burnin.store import open_store

    writable(json)
    store = open_store(db, create=False) if any(not ("/" in one or Path(one).is_dir()) for one in (before, after)) else None
    try:
        told = changes.compare(before, after, store)
    finally:
        if store is not None:
            store.close()
    worse = [one for one in told.compared.findings if one.severity == "HOLD"]
    if str(json) != "-":
        out = console()
        for one in told.compared.findings:
            out.print(f"{one.part}: {one.why}", style="bold" if one.severity == "HOLD" else "dim", markup=False, highlight=False)
        for what, parts in told.compared.parts.items():
            but = f", not {fold(told.compared.missing[what])}" if what in told.compared.missing else ""
            out.print(f"{what}: {f'{parts} parts compared{but}' if parts else 'not compared'}", markup=False, highlight=False)
        if told.new:
            out.print(f"other parts now, judged by their peers alone: {', '.join(told.new)}", markup=False, highlight=False)
    write(json, pretty(asdict(told)))
    whole = all(told.compared.parts.values()) and not told.compared.missing
    raise typer.Exit(exits.PASS if whole and not worse else exits.HOLD)


def judge(
    run: Annotated[str, typer.Argument(help="a run, `last`, or a directory of telemetry", metavar="RUN|DIR")],
    json: Json = None,
    db: Db = DB,
) -> None:
    """Derive a run's verdict again from its evidence alone, or judge a directory of telemetry (rack.yaml, telemetry.csv)."""
    if Path(run).is_dir() or "/" in run:
        judge_directory(Path(run), json)
    from burnin.assess.case import gather
    from burnin.assess.judge import judge as derive
    from burnin.verdict.document import canonical, document
    from burnin.views import verdict as view

    writable(json)
    with _reading(db) as store:
        case = gather(store, run)
        verdict = derive(case)
        if store.verdict(case.run.id) is None:
            store.keep_verdict(verdict, canonical(verdict))
    if str(json) != "-":
        view.show(document(verdict), console())
    write(json, canonical(verdict))
    raise typer.Exit(exits.of_word(verdict.word))


def judge_directory(folder: Path, json: Path | None) -> None:
    """`burnin judge DIR`."""
    from burnin.assess.recorded import judge as derive
    from burnin.assess.recorded import load
    from burnin.verdict.document import canonical, document
    from burnin.views import verdict as view

    writable(json)
    verdict = derive(load(folder))
    if str(json) != "-":
        view.show(document(verdict), console())
    write(json, canonical(verdict))
    raise typer.Exit(exits.of_word(verdict.word))


def gate(
    rack: Annotated[str, typer.Argument(help="the rack's serial number", metavar="RACK_SERIAL")],
    suite: Annotated[str, typer.Option(help="the suite that must have passed (site policy names it)", metavar="NAME")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the rack what is in it now: HOLD at best")] = False,
    json: Json = None,
    db: Db = DB,
) -> None:
    """Say whether a rack may ship with what is in it now. 0 yes, 1 it failed, 3 not proven."""
    from burnin.assess.case import gather
    from burnin.assess.judge import judge as derive
    from burnin.rack.load import load_site
    from burnin.verdict.document import document
    from burnin.verdict.gate import decide
    from burnin.views.verdict import LOOK

    writable(json)
    policy: Site = load_site()
    wanted = suite or policy.ships_after
    stored = rejudged = live = run = None
    replaced: list[str] = []
    with _reading(db) as store:
        run = store.last_run(rack, wanted)
        if run is not None and run.ended is not None:
            text = store.verdict(run.id)
            stored = jsonlib.loads(text) if text is not None else None
            rejudged = document(derive(gather(store, run.id)))
            replaced = _replaced(store, run)
            if not offline:
                live = _changed(store, run.id)
    said = decide(stored, rejudged, policy, wanted, dt.datetime.now(dt.UTC), live, replaced)
    if suite and suite != policy.ships_after:
        reason = f"site policy ships after {policy.ships_after}, not after {suite}"
        said = type(said)(exits.worse(said.word), (*said.reasons, reason))
    out = console()
    if str(json) != "-":
        out.print(f"[{LOOK[said.word]}]{said.word}[/]  rack {rack}, suite {wanted}, run {run.id if run else 'none'}")
        for reason in said.reasons:
            typer.echo(f"  - {reason}")
    body = {"rack": rack, "suite": wanted, "run": run.id if run else None, "gate": str(said.word), "reasons": list(said.reasons)}
    write(json, pretty(body))
    raise typer.Exit(exits.of_word(said.word))


def _replaced(store: Store, run: Run) -> list[str]:
    """What a person said was replaced since the run: what a tray does not say of itself is known from there alone."""
    from burnin.run.replaced import since, swapped

    sessions = store.sessions(run.id)
    started = sessions[-1].started if sessions else run.started
    return list(dict(swapped(since(store.enrollments(run.rack), store.config(run.id), started))).values())


def _changed(store: Store, run: str) -> list[str]:
    """What is in the rack now against what the run tested."""
    from burnin.rack.load import load_rack
    from burnin.rack.schema import Rack
    from burnin.run.ask import Told, ask
    from burnin.run.replaced import announced
    from burnin.transport.rack import dialer
    from burnin.verdict.gate import differences

    tested: dict[str, Mapping[str, Any]] = {tray.part: tray.identity for tray in store.trays(run) if tray.identity}
    config = store.config(run)
    try:
        file = load_rack(config["rack_file"])
        answers = asyncio.run(ask(dialer(file), file.rack.compute(), f"gate-{run}"))
    except InputError as error:
        return [f"the rack cannot be asked what is in it now: {error}"]
    record = announced(tested, Rack.model_validate(config["rack"]).expect, file.rack.expect, ()).values()
    return [*record, *differences(tested, {tray: a.identity if isinstance(a, Told) else a for tray, a in answers.items()})]
