"""One thing that many parts say of themselves, a version or a setting: as the baseline states it, or the same everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from burnin.checks import asked
from burnin.checks.base import Quantity
from burnin.events import Measurement
from burnin.rack.parts import fold

Found = Mapping[str, Mapping[str, str | None]]
"""What -> part -> what the part says; None where it says nothing. Parts that were not read are left out."""


def differing(quantity: Quantity, name: str, found: Mapping[str, str | None], stated: str | None) -> list[Measurement]:
    """Each part that differs. Against the baseline a difference is bad; among themselves it only says that somebody must look."""
    limit = f"= {stated}" if stated is not None else "the same everywhere"
    said = Counter(version for version in found.values() if version is not None)
    wanted = stated if stated is not None else said.most_common(1)[0][0] if said else None
    out = []
    for part, version in found.items():
        if version is None and wanted is not None:
            who = "the baseline says" if stated is not None else "others say"
            out.append(quantity.unknown(part, "missing", f"{name}: {part} does not say it, {who} {wanted}", limit))
        elif version is not None and version != wanted and stated is not None:
            out.append(asked.bad(quantity, part, version, f"{name} is {version}, the baseline says {stated}", limit))
        elif version is not None and version != wanted:
            others = fold(other for other, its in found.items() if its == wanted)
            out.append(asked.hold(quantity, part, version, f"{name} is {version}, on {others} it is {wanted}", limit))
    return out


def joined(found: Mapping[str, Mapping[str, str | None]]) -> Found:
    """Part -> what -> says, turned round; who does not know of a thing that others know says nothing."""
    names = sorted({name for known in found.values() for name in known})
    return {name: {part: known.get(name) for part, known in found.items()} for name in names}
