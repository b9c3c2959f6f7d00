"""A rack that does not exist: `twin up`, `twin record`, `twin faults`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from burnin.cli.options import console, pretty

Profile = Annotated[str, typer.Option(help="which architecture", metavar="PROFILE")]
Seed = Annotated[int, typer.Option(help="same seed, same rack", metavar="N")]
Plant = Annotated[
    list[str] | None, typer.Option(help="a fault, as KIND:PART[:SEVERITY][@SECONDS] (see `burnin twin faults`)", metavar="FAULT")
]


Scenario = Annotated[
    Path | None, typer.Option(help="a file of faults with times and growth, or of priors to draw them from", metavar="FILE")
]


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    twin = typer.Typer(help="a rack that does not exist, behind real SSH", no_args_is_help=True, rich_markup_mode=None)
    twin.command()(up)
    twin.command()(record)
    twin.command()(faults)
    app.add_typer(twin, name="twin")


def up(
    inventory: Annotated[Path, typer.Option(help="where to write the rack file that reaches it", metavar="FILE")],
    profile: Profile = "gb300-nvl72",
    seed: Seed = 1,
    plant: Plant = None,
    scenario: Scenario = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="a version of the trays' tools, as NAME=VERSION (docs/twin.md)", metavar="TOOL")
    ] = None,
    lean: Annotated[bool, typer.Option("--lean", help="physics twice a second instead of ten times: for many racks")] = False,
) -> None:
    """Serve a twin rack until ^C, and write the rack file that `burnin run` takes."""
    from burnin.twin.faults import LIVE
    from burnin.twin.scenario import plants_of
    from burnin.twin.up import serve

    plants = plants_of(profile, plant or (), scenario, seam=LIVE)(seed)
    tools = dict(word.partition("=")[::2] for word in tool or ())
    ready = lambda path: typer.echo(f"twin {profile} is up: {path}")  # noqa: E731
    serve(profile, seed, plants, inventory, ready=ready, lean=lean, tools=tools)


def record(
    out: Annotated[Path, typer.Option("--out", "-o", help="where to put one folder per rack", metavar="DIR")],
    hours: Annotated[
        float | None, typer.Option(help="shrink or stretch the suite to this", metavar="H", min=0.1, max=1000)
    ] = None,
    racks: Annotated[int, typer.Option(help="so many racks, with seeds from --seed on", metavar="N", min=1, max=10000)] = 1,
    profile: Profile = "gb300-nvl72",
    seed: Seed = 1,
    plant: Plant = None,
    scenario: Scenario = None,
    suite: Annotated[str, typer.Option(help="whose stages the racks go through", metavar="SUITE")] = "l11-rack-48h",
    tails: Annotated[str, typer.Option(help="how healthy parts differ: normal, or t5 (heavy tails)")] = "normal",
    variant: Annotated[str | None, typer.Option(help="built otherwise (docs/twin.md): other plumbing, sensors ...")] = None,
) -> None:
    """Write down what a run of twin racks would read: folders that `burnin judge` takes, and what was planted beside them."""
    from burnin.checks import OFFERS
    from burnin.rack.load import load_catalogue
    from burnin.suites.load import load_suite
    from burnin.twin.record import record as write_down
    from burnin.twin.scenario import plants_of
    from burnin.twin.variants import varied

    loaded = load_suite(suite, checks=OFFERS, metrics=load_catalogue().metrics)
    if tails not in ("normal", "t5"):
        raise typer.BadParameter(f"{tails!r} is neither normal nor t5", param_hint="--tails")
    planted = plants_of(profile, plant or (), scenario, hours=(hours or loaded.duration_s() / 3600))
    heavy: Literal["normal", "t5"] = "t5" if tails == "t5" else "normal"
    seeds = range(seed, seed + racks)
    model = varied(profile, variant) if variant is not None else profile
    write_down(model, loaded, seeds, out, planted, heavy, hours=hours, done=lambda folder: typer.echo(str(folder)))


def faults(json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """List what can be planted: kind, parts, unit of SEVERITY, what it does."""
    from rich.table import Table

    from burnin.twin.faults import KINDS

    if json:
        rows = [
            {
                "kind": k.kind,
                "parts": k.parts,
                "unit": k.unit,
                "severity": k.default,
                "starts": k.starts,
                "seams": k.seams,
                "about": k.about,
            }
            for k in KINDS.values()
        ]
        typer.echo(pretty(rows), nl=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("kind", "parts", "SEVERITY is", "default", "seams", "what it does"):
        table.add_column(title)
    for kind in KINDS.values():
        default = f"{kind.default:g}" if kind.has_severity else ""
        table.add_row(kind.kind, ", ".join(kind.parts), kind.unit, default, ", ".join(kind.seams), kind.about)
    console().print(table)
