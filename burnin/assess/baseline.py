"""Fleet baselines: read, and matched with what is to be judged (`burnin.assess.learn` builds them).

A baseline is frozen: its id is made of its content, and every verdict says which one it was judged with, or that there was
none. Whether it is of the same parts is decided key by key; what is not known on either side does not differ.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from burnin.assess.case import Case
from burnin.errors import InputError, Problem
from burnin.rack.load import load_site, shipped
from burnin.signatures.baseline import Baseline, Key

LARGEST = 64 << 20


def load(path: str | Path) -> Baseline:
    """Reads one baseline. Raises InputError, in one sentence, for anything else."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError([Problem(str(path), None, None, f"is larger than {LARGEST >> 20} MiB", "a baseline")])
        return Baseline.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"is no baseline: {where + ': ' if where else ''}{first['msg']}"
        raise InputError([Problem(str(path), None, None, what, "a file of `burnin baseline build`")]) from None
    except OSError as error:
        raise InputError([Problem(str(path), None, None, f"cannot be read: {error.strerror}", "a baseline")]) from None


def of_site() -> dict[str, Any] | None:
    """The baseline that site policy names, as it is kept with a run; None where it names none. Raises InputError."""
    named = load_site().baseline
    if named is None:
        return None
    path = Path(named) if Path(named).is_absolute() else shipped("inventory/site.yaml").parent / named
    found: dict[str, Any] = json.loads(load(path).model_dump_json())
    return found


def said(baseline: Baseline | None, key: Key) -> tuple[bool, str]:
    """(is it of the same parts, what the verdict says about it)."""
    if baseline is None:
        return True, "none: spreads and places are this rack's own, limits are wider"
    other = key.differs(baseline.key)
    text = f"{baseline.id} ({baseline.racks} racks)"
    if other:
        text += f" of other parts ({'; '.join(other)}): its places and levels are not used, limits are wider"
    return not other, text


def key_of_case(case: Case) -> Key:
    """What a run was of, as its trays said."""
    gpus = [gpu for identity in case.identities.values() for gpu in identity.get("gpus", [])]
    hosts = [identity.get("host", {}) for identity in case.identities.values()]
    return Key(
        profile=case.profile.profile,
        parts=_most(gpus, "part"),
        firmware=_most(gpus, "vbios"),
        driver=_most(gpus, "driver") or _most(hosts, "driver"),
        test=case.suite.suite,
    )


def _most(many: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """What most of them say; None where nobody says anything."""
    values = Counter(str(one[name]) for one in many if one.get(name))
    return values.most_common(1)[0][0] if values else None
