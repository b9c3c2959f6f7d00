"""Reads suites, and checks what they name: checks and metrics that exist are passed in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from burnin.errors import InputError, Problem
from burnin.rack.data import Data
from burnin.rack.document import Document, Loc, Place, one_of, read
from burnin.rack.load import SUITES, listed, named_file, shipped, unknown_metrics
from burnin.rack.schema import Profile
from burnin.rack.yamlfile import check, in_order
from burnin.suites.repeat import written_out
from burnin.suites.schema import LISTS, Stage, Suite, written

MARGIN_S = 2.0
"""Longest time between two readings of what is under load: agents end load whose T.Limit margin was not read for twice as long
(burnin.agent.load.SENSOR_LOST_NS)."""


class Offer(NamedTuple):
    """A check as a suite sees it. `heats`: it loads GPUs by itself, and cannot share a stage with another load.
    `args`: what a step may say of it. `misfit`: why it can show nothing in a stage, with a `with`, on racks of a profile."""

    heats: bool
    args: type[Data]
    misfit: Callable[[Stage, Mapping[str, Any], Profile], str] = lambda stage, args, profile: ""


def list_suites() -> dict[str, Path]:
    """Name -> file of every suite."""
    return listed(SUITES)


def load_suite(
    name_or_path: str | Path,
    *,
    checks: Mapping[str, Offer],
    metrics: Collection[str],
    profile: Profile | None = None,
    only: Collection[str] = (),
) -> Suite:
    """Reads one suite by name or path; `profile`: of the rack that it is to be run on, with all or `only` some of its checks.
    Raises InputError with every mistake."""
    suite, problems, document = check_suite(read(named_file(name_or_path, SUITES, "suite")), checks, metrics)
    if suite is not None and not problems and profile is not None:
        problems = in_order(list(misfits(document, suite, checks, [profile], only)))
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


def misfits(
    document: Document, suite: Suite, checks: Mapping[str, Offer], profiles: Sequence[Profile], only: Collection[str] = ()
) -> Iterator[Problem]:
    """What can show nothing where it stands, on a rack of any of these profiles: found now, not after a day of load."""
    heating = {name for name, offer in checks.items() if offer.heats and (not only or name in only)}
    loaded = any(stage.load is not None or any(step.check in heating for step in stage.steps) for stage in suite.stages)
    if suite.sample > MARGIN_S and loaded:
        ended = f"agents end load whose T.Limit margin was not read for {2 * MARGIN_S:g} s"
        what = f"a reading every {suite.sample:g} s is too seldom for load: {ended}"
        yield document.problem(("sample",), what, f"{MARGIN_S:g} s at most")
    for i, stage in enumerate(suite.stages):
        for loc, what, expected in _loads(stage, profiles):
            yield document.problem(("stages", i, *loc), f"stage {stage.stage}: {what}", expected)
        for j, step in enumerate(stage.steps):
            if only and step.check not in only:
                continue
            whys = [checks[step.check].misfit(stage, step.args, profile) for profile in profiles]
            if whys and all(whys):
                what = f"{step.check} can show nothing in stage {stage.stage}: {whys[0]}"
                yield document.problem(("stages", i, "steps", j), what, "another stage for it, or another check")
            files = step.args.get("files", []) if step.check == "pytest" else []
            for name in (name for name in files if find_test(str(name)) is None):
                what = f"there is no file {str(name)!r}, here or in test_suites/checks"
                yield document.problem(("stages", i, "steps", j), what, "a file of pytest functions")


def _loads(stage: Stage, profiles: Sequence[Profile]) -> Iterator[tuple[Loc, str, str]]:
    """A clock that no GPU reaches, cards that no tray has."""
    clocks, cards = [p.gpu.clock_sm_max_mhz for p in profiles], [p.topology.nics_per_tray for p in profiles]
    fastest = max((clock for clock in clocks if clock is not None), default=0.0) if None not in clocks else 0.0
    if fastest and (stage.locked_mhz or 0) > fastest:
        yield ("phase",), f"a clock of {stage.locked_mhz} MHz cannot be held", f"at most {fastest:g} MHz"
    named = stage.load.nic if stage.load is not None and isinstance(stage.load.nic, list) else []
    most = max((count for count in cards if count is not None), default=0) if None not in cards else 0
    absent = [card for card in named if most and int(card[1:]) >= most]
    if absent:
        yield ("load", "nic"), f"a tray has no {' and no '.join(absent)}", f"n0 to n{most - 1}"
    if len(set(named)) < len(named):
        yield ("load", "nic"), "a network card is named twice", "each once"


def find_test(name: str) -> Path | None:
    """A file of pytest functions: a path as given, else one of test_suites/checks."""
    if Path(name).is_file():
        return Path(name)
    try:
        return shipped(f"test_suites/checks/{name}")
    except InputError:
        return None


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
