"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from burnin.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

Db = Annotated[Path, typer.Option("--db", envvar="BURNIN_DB", help="the database of runs", metavar="FILE")]
Json = Annotated[Path | None, typer.Option("--json", help="also write it as JSON to this file (- for stdout)", metavar="FILE")]
Plain = Annotated[bool, typer.Option("--plain", help="lines instead of a live screen")]
DB = Path("burnin.db")


def console(stderr: bool = False) -> Console:
    """A console that does not wrap away what scripts read: piped output is as wide as it needs."""
    from rich.console import Console

    plain = Console(stderr=stderr, highlight=False)
    return plain if plain.is_terminal else Console(stderr=stderr, highlight=False, width=120)


def writable(path: Path | None) -> None:
    """Refuse a file that cannot be written before anything is done for it. Raises InputError."""
    if path is None or str(path) == "-":
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--json {path}: there is no folder {folder}")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"--json {path}: it cannot be written")


def write(path: Path | None, text: str) -> None:
    """Write a whole file or none (`-`: stdout)."""
    if path is None:
        return
    if str(path) == "-":
        typer.echo(text, nl=False)
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)


def pretty(value: Any) -> str:
    """JSON for people and scripts."""
    import json

    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
