"""Reads suites, and checks what they name: checks and metrics that exist are passed in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from burnin.errors import InputError, Problem
from burnin.rack.data import Data
from burnin.rack.document import Document, Loc, Place, one_of, read
from burnin.rack.load import SUITES, listed, named_file, unknown_metrics
from burnin.rack.yamlfile import check, in_order
from burnin.suites.repeat import written_out
from burnin.suites.schema import LISTS, Suite, written


class Offer(NamedTuple):
    """A check as a suite sees it. `heats`: it loads GPUs by itself, and cannot share a stage with another load.
    `args`: what a step may say of it."""

    heats: bool
    args: type[Data]


def list_suites() -> dict[str, Path]:
    """Name -> file of every suite."""
    return listed(SUITES)


def load_suite(name_or_path: str | Path, *, checks: Mapping[str, Offer], metrics: Collection[str]) -> Suite:
    """Reads one suite by name or path. Raises InputError with every mistake."""
    suite, problems, _ = check_suite(read(named_file(name_or_path, SUITES, "suite")), checks, metrics)
    if suite is None or problems:
        raise InputError(problems)
    return suite


def check_suite(
    given: Document, checks: Mapping[str, Offer], metrics: Collection[str]
) -> tuple[Suite | None, list[Problem], Document]:
    """The suite, or None; every mistake in it, in the order of its lines; and the file with its cycles written out."""
    document = written_out(given, once=True)
    suite, problems = check(document, Suite)
    if suite is not None:
        document = written_out(given)
        suite, problems = check(document, Suite)
    problems += _unknown_checks(document, checks)
    problems += _two_loads(document, checks)
    problems += _args(document, checks)
    problems += unknown_metrics(document, ("coverage", "metrics", "*"), metrics)
    return suite, in_order(problems), document


def _unknown_checks(document: Document, checks: Mapping[str, Offer]) -> Iterator[Problem]:
    named: list[tuple[Loc, object]] = [
        *((loc, step) for loc, step in document.each("stages", "*", "steps", "*") if isinstance(step, str)),
        *document.each("stages", "*", "steps", "*", "check"),
    ]
    for loc, name in named:
        if isinstance(name, str) and name not in checks:
            yield document.problem(loc, f"check {name!r} does not exist", one_of(checks, name))


def _two_loads(document: Document, checks: Mapping[str, Offer]) -> Iterator[Problem]:
    stages = document.data.get("stages") if isinstance(document.data, dict) else None
    for i, stage in enumerate(stages if isinstance(stages, list) else ()):
        steps = stage.get("steps") if isinstance(stage, dict) and "load" in stage else None
        for j, step in enumerate(steps if isinstance(steps, list) else ()):
            name = written(step)[0]
            if isinstance(name, str) and name in checks and checks[name].heats:
                what = f"{name} loads the GPUs by itself, but stage {stage.get('stage')} loads them already"
                yield document.problem(("stages", i, "steps", j), what, "a stage of its own, without load")


def _args(document: Document, checks: Mapping[str, Offer]) -> Iterator[Problem]:
    """What steps say of their checks, held against what each check takes."""
    for loc, step in document.each("stages", "*", "steps", "*"):
        name, said, key = written(step)
        if isinstance(name, str) and name in checks and isinstance(said, dict):
            below = document.below((*loc, key), said)
            if key in LISTS and LISTS[key] in said:  # it may stand there without that key: its entries are then the step's
                places = {(LISTS[key], *at): place for at, place in below.places.items()}
                one: dict[Loc, Place] = {(LISTS[key], 0): below.places[()]}
                below = Document(below.file, said, {**one, **places, **below.places})
            yield from check(below, checks[name].args)[1]
