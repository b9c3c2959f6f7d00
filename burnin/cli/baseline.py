"""What healthy racks look like, kept for those to come: `baseline build`, `show`, `firmware`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnin.cli.options import DB, Db, console, writable, write

if TYPE_CHECKING:
    from burnin.rack.schema import FirmwareBaseline


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    group = typer.Typer(help="what healthy racks look like", no_args_is_help=True, rich_markup_mode=None)
    group.command("build")(build)
    group.command("show")(show)
    group.command("firmware")(firmware)
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


def _text(made: FirmwareBaseline) -> str:
    """As YAML, one line for each version, so that two baselines can be compared by eye."""
    lines = [
        "# What every part of a rack like this must say. A rack file names it: firmware_baseline: FILE. Take out what may differ."
    ]
    for key, value in made.model_dump().items():
        lines.append(f"{key}: {json.dumps(value)}" if isinstance(value, str) or not value else f"{key}:")
        lines += [f"  {json.dumps(name)}: {json.dumps(says)}" for name, says in value.items()] if isinstance(value, dict) else []
    return "\n".join(lines) + "\n"


def firmware(
    run: Annotated[str, typer.Argument(help="a run of a good rack, or `last`", metavar="RUN")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the file to write", metavar="FILE")],
    db: Db = DB,
) -> None:
    """Write down the versions and settings of a good rack: rack files name the file as firmware_baseline."""
    from burnin.assess.case import gather
    from burnin.assess.firmware import baseline
    from burnin.store import open_store

    writable(out)
    store = open_store(db, create=False)
    try:
        case = gather(store, run)
        verdict = store.verdict(case.run.id)
    finally:
        store.close()
    made = baseline(case)
    if verdict is None or json.loads(verdict)["verdict"] != "PASS":
        typer.echo(f"note: run {case.run.id} did not pass: make sure that what is written is what you want", err=True)
    write(out, _text(made))
    counts = ", ".join(f"{len(made.of(kind))} of {kind}" for kind in ("bmc", "tray", "gpu", "switch"))
    typer.echo(f"{out}: firmware baseline {made.baseline}: {counts}")
