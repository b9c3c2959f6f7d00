"""Racks, profiles and suites as files, and what exists: `lint`, `checks`, `suites`, `signatures`, `expect import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnin.cli import exits
from burnin.cli.options import console
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
    profile: Annotated[str, typer.Option(help="for whose sizes times are told", metavar="NAME")] = "gb300-nvl72",
) -> None:
    """List all checks: what they measure and need, on what they are done, and about how long they take."""
    from rich.table import Table

    from burnin.checks import ALWAYS, CHECKS
    from burnin.rack.load import load_profile

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("check", "measures", "unit", "what it is"):
        table.add_column(title)
    known = load_profile(profile)
    scopes = {"tray": "each compute tray", "switch": "each switch tray", "rack": "once for the rack"}
    for check in CHECKS.values():
        took = check.seconds(known, {})
        words = {
            scopes[check.scope]: True,
            "needs load": check.loaded,
            "loads the GPUs by itself": check.heats,
            f"about {took:.0f} s on a {profile}": took > 0,
            "no time of its own": took <= 0,
            "in every run": check.name in ALWAYS,
        }
        needs = ", ".join(word for word, so in words.items() if so)
        table.add_row(check.name, "", "", f"[bold]{check.about}[/]" + (f" ({needs})" if needs else ""))
        for quantity in check.quantities:
            table.add_row("", quantity.name, quantity.unit, quantity.about)
    console().print(table)


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
