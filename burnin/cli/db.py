"""The database as a file: `db check`, `db backup`, `db export`, `db vacuum`."""

from __future__ import annotations

import csv
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from burnin.cli.options import DB, Db
from burnin.errors import InputError, NotReady, StoreError

if TYPE_CHECKING:
    from burnin.store import Run, Store


def add(app: typer.Typer) -> None:
    """Put the commands of this file into the tree."""
    db = typer.Typer(help="the database of runs: look, copy, hand out, make room", no_args_is_help=True, rich_markup_mode=None)
    for command in (check, backup, export, vacuum):
        db.command()(command)
    app.add_typer(db, name="db")


def check(db: Db = DB) -> None:
    """Read the whole database and every checksum in it. 0 whole, 4 damaged."""
    from burnin.store import care, open_store

    looked = care.check(db)
    if not looked.damage:
        store = open_store(db, create=False)  # of a schema that this burnin knows
        store.close()
    for one in looked.damage:
        typer.echo(f"  - {one}", err=True)
    if looked.damage:
        raise StoreError(f"{db} is damaged: take its last backup, or recover it with `sqlite3 FILE .recover`")
    frames = f", {looked.frames} young pieces" if looked.frames else ""
    typer.echo(f"{db} is whole: {looked.runs} runs, {looked.blocks} blocks of readings{frames}, {looked.evidence} answers")


def backup(to: Annotated[Path, typer.Argument(help="the new file", metavar="FILE")], db: Db = DB) -> None:
    """Copy the database, also while a run is kept in it. The copy is checked before it gets its name."""
    from burnin.store import care

    size = care.backup(db, to)
    typer.echo(f"{to}: {size / 1e6:.1f} MB, whole")


def export(
    run: Annotated[str, typer.Argument(help="a run, the beginning of its name, or `last`", metavar="RUN")],
    to: Annotated[Path, typer.Option("--out", "-o", help="a folder; made, or empty", metavar="DIR")],
    plain: Annotated[
        bool, typer.Option("--csv", help="readings as CSV, too large for a spreadsheet, instead of Parquet")
    ] = False,
    db: Db = DB,
) -> None:
    """Write a run as plain files: JSON, CSV and Parquet. The folder is one that `burnin judge` reads."""
    from burnin.store import open_store

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to} is not an empty folder: nothing is overwritten")
    store = open_store(db, create=False)
    try:
        found = store.run(run)
        _export(store, found, to, not plain)
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from error
    finally:
        store.close()
    typer.echo(f"{to}: run {found.id} in {len(list(to.iterdir()))} files")


def _export(store: Store, run: Run, to: Path, parquet: bool) -> None:
    from dataclasses import asdict

    from burnin.store import care
    from burnin.telemetry.directory import Writer

    config = store.config(run.id)
    trays = {tray: {"host": at["host"]} for tray, at in config["rack"]["trays"].items() if tray in config["plan"]["trays"]}
    rack = jsonlib.dumps({"rack": run.rack, "profile": run.profile, "trays": trays}, indent=1)  # JSON is YAML
    with Writer(to, rack + "\n", parquet) as out:
        out.telemetry(store.telemetry(run.id))
        out.events(line for line in store.log(run.id) if line.kind in ("xid", "kernel"))
    for table in care.PLAIN:
        columns, rows = care.plain(store.path, run.id, table)
        with (to / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
    with (to / "evidence.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(jsonlib.dumps(asdict(one), ensure_ascii=True) + "\n" for one in store.evidence(run.id))
    (to / "run.json").write_text(jsonlib.dumps({**asdict(run), "config": config}, indent=1) + "\n")
    if (verdict := store.verdict(run.id)) is not None:
        (to / "verdict.json").write_text(verdict)


def vacuum(
    older_than: Annotated[
        int | None, typer.Option("--drop-readings", help="drop readings of runs that ended so many days ago", metavar="DAYS")
    ] = None,
    db: Db = DB,
) -> None:
    """Give unused room back to the disk. Minutes, answers and verdicts are never dropped."""
    import datetime as dt

    from burnin.run.lock import keeper
    from burnin.run.sockets import kept_by
    from burnin.store import care, open_store

    if older_than is not None and older_than < 0:
        raise InputError(f"--drop-readings {older_than}: a number of days, 0 or more")
    store = open_store(db, create=False)
    try:
        for run in store.runs():
            if (who := keeper(store, run)) is not None and (who.gone() is False or (who.gone() is None and kept_by(db))):
                raise NotReady(f"run {run.id} is being kept in {db} (process {who.pid} on {who.host}): wait until it has ended")
    finally:
        store.close()
    if older_than is not None:
        before = dt.datetime.now(dt.UTC) - dt.timedelta(days=older_than)
        for name, size in care.forget_readings(db, before.isoformat(timespec="seconds").replace("+00:00", "Z")).items():
            typer.echo(f"run {name}: readings dropped, {size / 1e6:.1f} MB")
    was, now = care.vacuum(db)
    typer.echo(f"{db}: {was / 1e6:.1f} MB, now {now / 1e6:.1f} MB")
