"""Builds a fleet baseline from runs and judge directories of healthy racks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from burnin.assess import recorded
from burnin.assess.baseline import key_of_case
from burnin.assess.case import gather
from burnin.assess.steps import unloaded
from burnin.errors import InputError
from burnin.signatures import look
from burnin.signatures.baseline import Baseline, Key, build
from burnin.signatures.readings import Readings
from burnin.store import Store
from burnin.telemetry.series import Floats

Grids = Mapping[tuple[str, str], Sequence[Floats]]


def from_sources(sources: Sequence[str], store: Store | None) -> tuple[Baseline, list[str]]:
    """A baseline from directories and runs, and what is to be said about them. Raises InputError.

    All must be of one profile. Sources that are not without findings are used (medians do not mind one weak part) and named.
    """
    keys: list[Key] = []
    grids: dict[str, Grids] = {}
    notes = []
    for source in sources:
        name, key, one, weak = _learn(source, store)
        if name in grids:
            raise InputError(f"{source}: {name} is given twice")
        keys.append(key)
        grids[name] = one
        if weak:
            notes.append(f"{name} is not without findings ({', '.join(weak[:3])}): judge it before it serves as healthy")
    profiles = {key.profile for key in keys}
    if len(profiles) != 1:
        raise InputError(f"a baseline is of one profile, these are of {', '.join(sorted(profiles))}")
    if not any(grids.values()):
        raise InputError("nothing in these can be learned from: no idle and loaded phase of at least six trays")
    return build(_common(keys), grids), notes


def _common(keys: Sequence[Key]) -> Key:
    """What all say; where they differ, nothing is known."""
    first = keys[0].model_dump()
    return Key(**{k: v if all(getattr(key, k) == v for key in keys) else None for k, v in first.items()})


def _learn(source: str, store: Store | None) -> tuple[str, Key, Grids, list[str]]:
    if Path(source).is_dir() or "/" in source:
        one = recorded.load(source)
        readings = recorded.readings(one, None)
        found = look(readings, one.catalogue.signatures, one.log)
        name, key = one.name, recorded.key(one)
    else:
        if store is None:
            raise InputError(f"{source} is no directory, and there is no database of runs")
        case = gather(store, source)
        readings = Readings(case.telemetry, case.profile.topology, unloaded(case))
        found = look(readings, case.catalogue.signatures, case.log)
        name, key = case.run.id, key_of_case(case)
    weak = [f"{f.part} {f.signature}" for f in found if f.severity != "WATCH"]
    return name, key, readings.learned, weak
