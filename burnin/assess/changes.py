"""Two runs of one rack, before and after a repair: what is to be compared, and what of it is another part now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from burnin.assess import recorded
from burnin.assess.case import Case, gather
from burnin.assess.steps import unloaded
from burnin.errors import InputError
from burnin.rack.load import load_catalogue
from burnin.rack.schema import Topology
from burnin.signatures import changed
from burnin.signatures.readings import Readings
from burnin.store import Store


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. `serials`: of GPUs and trays, as they said; empty for foreign telemetry."""

    name: str
    rack: str
    topology: Topology
    readings: Readings
    serials: dict[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What changed, and parts that were replaced in between."""

    before: str
    after: str
    compared: changed.Compared
    new: tuple[str, ...]


def compare(before: str, after: str, store: Store | None) -> Told:
    """Two runs, or judge directories, of one rack. Raises InputError where they are not."""
    one, two = _side(before, store), _side(after, store)
    if one.rack != two.rack or one.topology != two.topology:
        raise InputError(f"{one.name} is of rack {one.rack}, {two.name} of {two.rack}: only one rack is compared with itself")
    if one.name == two.name:
        raise InputError(f"{one.name} is given twice")
    new = tuple(sorted(part for part in one.serials.keys() & two.serials.keys() if one.serials[part] != two.serials[part]))
    row = load_catalogue().signatures[changed.CHANGED]
    return Told(one.name, two.name, changed.compare(one.readings, two.readings, row, new), new)


def _side(source: str, store: Store | None) -> Side:
    if Path(source).is_dir() or "/" in source:
        found = recorded.load(source)
        return Side(source, found.file.rack.rack, found.file.profile.topology, recorded.readings(found, None), {})
    if store is None:
        raise InputError(f"{source} is no directory, and there is no database of runs")
    case = gather(store, source)
    readings = Readings(case.telemetry, case.profile.topology, unloaded(case))
    return Side(case.run.id, case.run.rack, case.profile.topology, readings, _serials(case))


def _serials(case: Case) -> dict[str, str]:
    out = {}
    for tray, said in case.identities.items():
        if serial := said.get("host", {}).get("serial"):
            out[tray] = str(serial)
        for gpu in said.get("gpus", []):
            if serial := gpu.get("serial") or gpu.get("uuid"):
                out[f"{tray}.{gpu['gpu']}"] = str(serial)
    return out
