"""A rack that does not exist: `twin up`, `twin faults`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from burnin.cli.options import console, pretty

Profile = Annotated[str, typer.Option(help="which architecture", metavar="PROFILE")]
Seed = Annotated[int, typer.Option(help="same seed, same rack", metavar="N")]
Plant = Annotated[
    list[str] | None, typer.Option(help="a fault, as KIND:PART[:SEVERITY][@SECONDS] (see `burnin twin faults`)", metavar="FAULT")
]


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    twin = typer.Typer(help="a rack that does not exist, behind real SSH", no_args_is_help=True, rich_markup_mode=None)
    twin.command()(up)
    twin.command()(faults)
    app.add_typer(twin, name="twin")


def up(
    inventory: Annotated[Path, typer.Option(help="where to write the rack file that reaches it", metavar="FILE")],
    profile: Profile = "gb300-nvl72",
    seed: Seed = 1,
    plant: Plant = None,
) -> None:
    """Serve a twin rack until ^C, and write the rack file that `burnin run` takes."""
    from burnin.twin.faults import parse
    from burnin.twin.up import serve

    plants = [parse(text) for text in plant or ()]
    serve(profile, seed, plants, inventory, ready=lambda path: typer.echo(f"twin {profile} is up: {path}"))


def faults(json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """List what can be planted: kind, parts, unit of SEVERITY, what it does."""
    from rich.table import Table

    from burnin.twin.faults import KINDS

    if json:
        rows = [
            {"kind": k.kind, "parts": k.parts, "unit": k.unit, "severity": k.default, "starts": k.starts, "about": k.about}
            for k in KINDS.values()
        ]
        typer.echo(pretty(rows), nl=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("kind", "parts", "SEVERITY is", "default", "what it does"):
        table.add_column(title)
    for kind in KINDS.values():
        default = f"{kind.default:g}" if kind.has_severity else ""
        table.add_row(kind.kind, ", ".join(kind.parts), kind.unit, default, kind.about)
    console().print(table)
