"""Cycles in a suite: `{repeat: 8, stages: [...]}` among its stages stands for these stages, eight times.

Written out before anything looks at it, so that a suite has one form inside: the third round of stage `load`, phase
`load`, is stage `load-3`, phase `load-3`. Each copy knows the lines it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from burnin.rack.document import Document, Loc, Place

MOST = 1000
_KEYS = {"repeat", "stages"}


def written_out(document: Document, *, once: bool = False) -> Document:
    """The same file with its cycles as stages. `once`: only their first round, in which all mistakes show."""
    data = document.data
    given = data.get("stages") if isinstance(data, dict) else None
    if not isinstance(given, list) or not any(_cycle(one) for one in given):
        return document
    problems = list(document.problems)
    stages: list[Any] = []
    places: dict[Loc, Place] = {loc: place for loc, place in document.places.items() if loc[:1] != ("stages",) or len(loc) == 1}
    for i, one in enumerate(given):
        if not _cycle(one):
            rounds: Iterator[tuple[Loc, Any]] = iter([(("stages", i), one)])
        elif (wrong := _wrong(one)) is None:
            rounds = _rounds(("stages", i, "stages"), one["stages"], 1 if once else one["repeat"])
        else:
            loc, what, expected = wrong
            problems.append(document.problem(("stages", i, *loc), what, expected))
            continue
        for loc, stage in rounds:
            at: Loc = ("stages", len(stages))
            places.update({(*at, *old[len(loc) :]): place for old, place in document.places.items() if old[: len(loc)] == loc})
            stages.append(stage)
    return replace(document, data={**data, "stages": stages}, places=places, problems=problems)


def _cycle(one: Any) -> bool:
    return isinstance(one, dict) and "repeat" in one


def _wrong(cycle: dict[str, Any]) -> tuple[Loc, str, str] | None:
    """Where, what is wrong, what was expected; None when it is a cycle."""
    times, stages = cycle["repeat"], cycle.get("stages")
    if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= MOST:
        return ("repeat",), f"repeat is {times!r}", f"how often, 1 to {MOST}"
    if not isinstance(stages, list) or not stages:
        return (), "a cycle without stages", "{repeat: 8, stages: [...]}"
    if extra := sorted(set(cycle) - _KEYS):
        return (extra[0],), f"unknown key {extra[0]!r} beside repeat", "repeat and stages; all else belongs to a stage"
    if any(_cycle(stage) for stage in stages):
        return (), "a cycle within a cycle", "stages"
    return None


def _rounds(loc: Loc, stages: list[Any], times: int) -> Iterator[tuple[Loc, Any]]:
    for number in range(1, times + 1):
        for i, stage in enumerate(stages):
            yield (*loc, i), _numbered(stage, number)


def _numbered(stage: Any, number: int) -> Any:
    if not isinstance(stage, dict):
        return stage
    named = {key: f"{stage[key]}-{number}" for key in ("stage", "phase") if isinstance(stage.get(key), str)}
    return {**stage, **named}
