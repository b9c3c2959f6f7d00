"""The tree of commands."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import burnin


class Escaped(Exception):
    """Carries what a command raised past the argument parser, which would make exit code 1 of some of it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _Line(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, Escaped):
            raise
        except BaseException as error:
            if hasattr(error, "format_message") and hasattr(error, "show"):
                raise
            raise Escaped(error) from error


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"burnin {burnin.__version__}")
        raise typer.Exit(0)


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="say the version")] = False,
) -> None:
    pass


@cache
def command() -> Any:
    """The whole tree, made once."""
    from burnin.cli import baseline, db, demo, files, history, live, racks, running, twin

    app = typer.Typer(
        cls=_Line,
        help="Burn-in and commissioning of NVL72 racks, over SSH. Exit codes: 0 PASS, 1 FAIL, 3 HOLD; 2 usage, 4 burnin itself.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for group in (running, live, history, baseline, racks, files, db, demo, twin):
        group.add(app)
    return typer.main.get_command(app)
