"""Folded entries: `t[00-17]: {host: "10.1.1.[11-28]"}` says eighteen trays in one line; here it becomes eighteen.

Pure, and looked at in the raw file whatever else is wrong with it: a wrong port in one line must not hide two trays with
the same address in another.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from pydantic import ValidatorFunctionWrapHandler, WrapValidator

from burnin.rack.data import Mistake, together
from burnin.rack.parts import is_part, kind, unfold

_RANGE = re.compile(r"\[\d[\d,/-]*\]", re.ASCII)
_OPEN = re.compile(r"\[.*", re.DOTALL)


def _spread(names: Any, fields: Any) -> tuple[dict[str, Any], list[Mistake]]:
    """One entry, `t[00-17]: {host: "10.1.1.[11-28]"}`, as one entry per tray."""
    try:
        parts = unfold(str(names))
    except ValueError as error:
        return {}, [((names, "[key]"), str(error))]
    often, times = Counter(parts).most_common(1)[0]
    found: list[Mistake] = [((names, "[key]"), f"{names!r} names {often} twice")] if times > 1 else []
    if not isinstance(fields, dict):
        return dict.fromkeys(parts, fields), found
    own: dict[str, dict[Any, Any]] = {part: dict(fields) for part in parts}
    for key, value in fields.items():
        if not (isinstance(value, str) and ("[" in value if key == "host" else _RANGE.search(value))):
            continue
        many: list[str] = []
        try:
            many = unfold(value)
            if len(many) != len(parts):
                trays = "1 tray" if len(parts) == 1 else f"{len(parts)} trays"
                found.append(((names, key), f"{names} is {trays}, but {key} {value!r} gives {len(many)}"))
        except ValueError as error:
            found.append(((names, key), str(error)))
        for i, part in enumerate(parts):  # what could not be dealt out gets a stand-in, so that one mistake is told once
            own[part][key] = many[i] if i < len(many) else _OPEN.sub(part, value)
    return own, found


def unfold_entries(value: Any) -> tuple[Any, list[Mistake]]:
    """Every tray by its own name. `t07: {port: 2222}` overrides a range, and a later range an earlier one, key by key."""
    if not isinstance(value, dict):
        return value, []
    out: dict[str, Any] = {}
    found: list[Mistake] = []
    for names, fields in sorted(value.items(), key=lambda entry: is_part(str(entry[0]))):
        own, wrong = _spread(names, fields)
        found += wrong
        for part, entry in own.items():
            before = out.get(part)
            if isinstance(before, dict) and isinstance(entry, dict):
                if "host" in before and "host" in entry:
                    found.append(((names, "host"), f"{part} is given twice, as {before['host']} and as {entry['host']}"))
                out[part] = {**before, **entry}
            else:
                out[part] = entry
    return out, found


def parts_of(*kinds: str) -> WrapValidator:
    """Unfolds a mapping whose keys are parts of these kinds."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        entries, found = unfold_entries(value)
        for part in entries if isinstance(entries, dict) else ():
            if not is_part(part) or kind(part) not in kinds:
                found.append(((part, "[key]"), f"{part!r} is not a {' or '.join(kinds)} (t00 ... t17, s0 ... s8)"))
        return together(entries, handler, found)

    return WrapValidator(validate)


def same_address(rack: Any) -> list[Mistake]:
    """Trays that would be reached at one and the same place; looked for in the raw file, whatever else is wrong with it."""
    if not isinstance(rack, dict) or not isinstance(rack.get("trays"), dict):
        return []
    ssh = rack.get("ssh")
    usual = ssh.get("port", 22) if isinstance(ssh, dict) else 22
    first: dict[tuple[str, str], str] = {}
    found: list[Mistake] = []
    for part, entry in unfold_entries(rack["trays"])[0].items():
        host, port = (entry.get("host"), entry.get("port")) if isinstance(entry, dict) else (None, None)
        if not isinstance(host, str):
            continue
        there = first.setdefault((host, str(usual if port is None else port)), part)
        if there != part:
            found.append((("trays", part, "host"), f"{there} and {part} have the same address {host}"))
    return found
