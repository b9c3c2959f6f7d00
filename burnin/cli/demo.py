"""`burnin demo`: a twin rack with planted faults, burned in as a real one, and what was found held against what was planted."""

from __future__ import annotations

import contextlib
import functools
import json as jsonlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from burnin.cli import exits
from burnin.cli.options import DB, Db, Json, Plain, console, writable, write
from burnin.cli.twin import Plant, Profile, Seed
from burnin.errors import InputError

DEFAULT = ("tim_void:t07.g2:2", "tray_flow:t11:0.45")
_UP_S = 60.0


def add(app: typer.Typer) -> None:
    """Put the command of this file into the tree."""
    app.command()(demo)


def demo(
    profile: Profile = "gb300-nvl72",
    seed: Seed = 1,
    plant: Plant = None,
    healthy: Annotated[bool, typer.Option("--healthy", help="plant nothing")] = False,
    suite: Annotated[str, typer.Option(help="the suite to run", metavar="SUITE")] = "demo",
    plain: Plain = False,
    json: Json = None,
    db: Db = DB,
) -> None:
    """Burn in a twin rack with two planted weak parts. 0 when they, and nobody else, are named; 1 when not.

    The twin and the run are separate processes; the run is told nothing of what was planted.
    """
    from burnin.twin.faults import parse

    if healthy and plant:
        raise InputError("--healthy and --plant contradict each other")
    writable(json)
    plants = [parse(text) for text in ([] if healthy else plant or DEFAULT)]
    out = console()
    with tempfile.TemporaryDirectory(prefix="burnin-demo-") as place:
        rack, verdict = Path(place) / "rack" / "rack.yaml", Path(place) / "verdict.json"
        rack.parent.mkdir(mode=0o700)
        with _twin(profile, seed, [str(p) for p in plants], rack):
            words = ["run", suite, str(rack), "--db", str(db), "--json", str(verdict), "--operator", "demo"]
            code = subprocess.call(_burnin(*words, *(["--plain"] if plain else [])))
        if code not in (exits.PASS, exits.FAIL, exits.HOLD):
            raise typer.Exit(code)
        text = verdict.read_text()
    document = jsonlib.loads(text)
    wrong = compare([p.part for p in plants], document)
    planted = ", ".join(map(str, plants)) or "nothing"
    out.print(f"\nplanted: {planted}   found: {', '.join(_named(document)) or 'nothing'}", markup=False)
    for complaint in wrong:
        out.print(f"  wrong: {complaint}", markup=False)
    out.print("[bold red]the verdict is not the right one[/]" if wrong else "[bold green]the verdict is the right one[/]")
    write(json, text)
    raise typer.Exit(exits.FAIL if wrong else exits.PASS)


def _burnin(*words: str) -> list[str]:
    return [sys.executable, "-m", "burnin", *words]


@contextlib.contextmanager
def _twin(profile: str, seed: int, plants: Sequence[str], rack: Path) -> Iterator[None]:
    from burnin.twin.tray import die_with

    words = ["twin", "up", "--profile", profile, "--seed", str(seed), "--inventory", str(rack)]
    for plant in plants:
        words += ["--plant", plant]
    ends = functools.partial(die_with, os.getpid(), signal.SIGTERM)  # whatever becomes of us
    twin = subprocess.Popen(_burnin(*words), stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=ends)
    try:
        end = time.monotonic() + _UP_S
        while not rack.exists():
            if twin.poll() is not None:
                raise typer.Exit(twin.returncode if twin.returncode == exits.USAGE else exits.BROKEN)
            if time.monotonic() > end:
                raise TimeoutError(f"the twin did not come up within {_UP_S:g} s")
            time.sleep(0.05)
        yield
    finally:
        if twin.poll() is None:
            os.kill(twin.pid, signal.SIGTERM)
        try:
            twin.wait(20)
        except subprocess.TimeoutExpired:
            twin.kill()
            twin.wait()


def _named(document: Mapping[str, Any]) -> list[str]:
    """Every part on which the verdict puts FAIL or HOLD, in the order it lists them."""
    findings = [f["part"] for f in document["findings"] if f["severity"] != "WATCH"]
    return list(dict.fromkeys([*findings, *(hold["part"] for hold in document["holds"])]))


def compare(planted: Sequence[str], document: Mapping[str, Any]) -> list[str]:
    """What is wrong with a verdict, given what was planted: parts that were missed, and parts that were blamed for nothing.

    A planted part is found when it or its tray is named. Blame is right on a planted part, what it sits in, what sits in
    it, and its links.
    """
    from burnin.rack.parts import related, tray_of, within

    named = _named(document)
    out = [
        f"{part} was planted and is not named"
        for part in planted
        if not any(within(part, name) and within(name, tray_of(part)) for name in named)
    ]
    blamed = [name for name in named if not any(related(name, part) for part in planted)]
    out += [f"{name} is named and nothing was planted there" for name in blamed]
    if bool(planted) == (document["verdict"] == "PASS"):
        out.append(f"the word is {document['verdict']}")
    return out
