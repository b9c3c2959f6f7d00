"""What healthy racks look like, kept for those to come: `baseline build`, `baseline show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnin.cli.options import DB, Db, console, writable, write


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    group = typer.Typer(help="what healthy racks look like", no_args_is_help=True, rich_markup_mode=None)
    group.command("build")(build)
    group.command("show")(show)
    app.add_typer(group, name="baseline")


def build(
    sources: Annotated[list[str], typer.Argument(help="judge directories and runs of healthy racks", metavar="DIR|RUN...")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the file to write", metavar="FILE")],
    db: Db = DB,
) -> None:
    """Learn spreads, places and levels of parts from racks that were good."""
    from burnin.assess.learn import from_sources
    from burnin.store import open_store

    writable(out)
    store = open_store(db, create=False) if any(not ("/" in s or Path(s).is_dir()) for s in sources) else None
    try:
        made, notes = from_sources(sources, store)
    finally:
        if store is not None:
            store.close()
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    write(out, made.model_dump_json(indent=1) + "\n")
    typer.echo(f"{out}: baseline {made.id} of {made.racks} racks, {len(made.families)} comparisons")


def show(file: Annotated[Path, typer.Argument(help="a baseline", metavar="FILE")]) -> None:
    """Say what a baseline is of and what it knows."""
    from rich.table import Table

    from burnin.assess.baseline import load

    one = load(file)
    out = console()
    known = ", ".join(f"{k} {v}" for k, v in one.key.model_dump().items() if v is not None)
    out.print(f"[bold]{one.id}[/]  {one.racks} racks; {known}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("comparison", "racks", "parts", "level", "of racks", "of trays", "of parts", "tail"):
        table.add_column(title)
    for name, family in one.families.items():
        numbers = (family.level, family.levels, family.trays, family.own)
        tail = "" if family.tail is None else f"t{family.tail:.1f}"
        table.add_row(name, str(family.racks), str(family.parts), *(f"{x:.4g}" for x in numbers), tail)
    out.print(table)
