"""Racks, profiles and suites as files, and what exists: `lint`, `checks`, `suites`, `signatures`, `expect import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnin.cli import exits
from burnin.cli.options import console, pretty
from burnin.errors import InputError


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    for command in (lint, checks, suites, signatures):
        app.command()(command)
    expect = typer.Typer(help="the build record: which serials must be where", no_args_is_help=True, rich_markup_mode=None)
    expect.command("import")(expect_import)
    app.add_typer(expect, name="expect")


def lint(
    files: Annotated[list[Path], typer.Argument(help="rack, profile, suite, catalogue or site files", metavar="FILE...")],
) -> None:
    """Check files without touching a tray. 0 good, 2 with every mistake at its line and column."""
    from datetime import UTC, datetime

    from burnin.checks import OFFERS
    from burnin.rack.load import load_catalogue
    from burnin.suites.lint import lint as check
    from burnin.suites.lint import warnings

    for note in warnings(files, datetime.now(UTC).date()):
        typer.echo(f"note: {note}", err=True)
    problems = check(files, OFFERS, load_catalogue().metrics)
    for problem in problems:
        typer.echo(str(problem), err=True)
    if problems:
        raise typer.Exit(exits.USAGE)
    typer.echo(f"{len(files)} files, no mistakes")


def checks(
    name: Annotated[str, typer.Argument(help="this one, and what it measures", metavar="NAME")] = "",
    profile: Annotated[str, typer.Option(help="for whose sizes times are told", metavar="NAME")] = "gb300-nvl72",
    json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """List all checks, or one with what it measures: on what it is done, what it needs, and about how long it takes."""
    from rich.table import Table

    from burnin.checks import ALWAYS, CHECKS
    from burnin.rack.load import load_profile
    from burnin.views.terminal import clock

    if name and name not in CHECKS:
        raise InputError(f"there is no check {name!r}; `burnin checks` lists them")
    known = load_profile(profile)
    shown = [check for check in CHECKS.values() if name in ("", check.name)]
    took = {check.name: check.seconds(known, {}) for check in shown}
    if json:
        rows = [
            {
                "check": check.name,
                "scope": check.scope,
                "needs": check.needs,
                "seconds": took[check.name],
                "always": check.name in ALWAYS,
                "about": check.about,
                "measures": [{"name": q.name, "unit": q.unit, "about": q.about} for q in check.quantities],
            }
            for check in shown
        ]
        typer.echo(pretty(rows), nl=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, least in {"check": 0, "scope": 0, "needs": 14, "takes": 0, "what it shows": 24}.items():
        table.add_column(title, no_wrap=not least, min_width=least or None)
    for check in shown:
        every = " (in every run)" if check.name in ALWAYS else ""
        takes = clock(took[check.name]) if took[check.name] else "-"
        table.add_row(check.name, check.scope, ", ".join(check.needs), takes, check.about + every)
    out = console()
    out.print(table, markup=False)
    if not name:
        out.print("scope: each compute tray, each switch tray, or once for the rack. takes: about, on a", profile, end="")
        out.print("; -: at once, or as long as its step says")
        return
    measures = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("measures", "unit", "what it is"):
        measures.add_column(title, no_wrap=title != "what it is")
    for quantity in shown[0].quantities:
        measures.add_row(quantity.name, quantity.unit, quantity.about)
    out.print()
    out.print(measures, markup=False)


def suites() -> None:
    """List the suites that are found here."""
    from rich.table import Table

    from burnin.checks import OFFERS
    from burnin.rack.load import load_catalogue
    from burnin.suites.load import list_suites, load_suite
    from burnin.views.terminal import clock

    metrics = load_catalogue().metrics
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("suite", "time", "ships", "about", "file"):
        table.add_column(title, overflow="fold")
    for name, path in list_suites().items():
        suite = load_suite(path, checks=OFFERS, metrics=metrics)
        table.add_row(name, clock(suite.duration_s()), "yes" if suite.ships else "no", suite.about, str(path))
    console().print(table)


def signatures(name: Annotated[str, typer.Argument(help="explain this one", metavar="NAME")] = "") -> None:
    """List the early-failure signatures, or explain one."""
    from burnin.rack.load import load_catalogue

    rows = load_catalogue().signatures
    out = console()
    if name and name not in rows:
        raise InputError(f"there is no signature {name!r}; there are {', '.join(rows)}")
    for key, row in rows.items():
        if not name:
            out.print(f"[bold]{key}[/]  {row.mechanism}")
        elif key == name:
            out.print(f"[bold]{key}[/]  ({row.unit}, from {', '.join(row.signals)})")
            for title in ("mechanism", "statistic", "confounders", "fru", "action", "evidence"):
                out.print(f"  [dim]{title}:[/] {getattr(row, title)}")
            for limit, value in row.limits.items():
                out.print(f"  [dim]limit {limit}:[/] {value} ({value.mark}: {value.source})")


def expect_import(
    record: Annotated[Path, typer.Argument(help="CSV with the columns part and serial", metavar="RECORD.csv")],
    rack: Annotated[Path, typer.Argument(help="the rack file to fill in", metavar="RACK.yaml")],
) -> None:
    """Fill a rack file's `expect` from a build record, so that nobody types 72 serials."""
    from burnin.rack.build_record import import_expect

    count = import_expect(rack, record)
    typer.echo(f"{rack}: {count} serials filled in")
