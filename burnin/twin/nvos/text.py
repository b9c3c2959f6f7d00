"""Tables as NVOS prints them: properties by name, or a list with named columns."""

from __future__ import annotations

from typing import Any


def properties(tree: dict[str, Any]) -> str:
    """A column of names, nested by indent, and `operational`."""
    return _table([["", "operational"], *_nested(tree, "")])


def _nested(tree: dict[str, Any], indent: str) -> list[list[str]]:
    out = []
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            out += [[indent + name, ""], *_nested(value, indent + "  ")]
        else:
            out.append([f"{indent}[{name}]", ""] if isinstance(value, dict) else [indent + name, str(value)])
    return out


def listed(tree: dict[str, Any]) -> str:
    """A row for each thing. Interfaces show their link, link diagnostics a row for each code."""
    if any("link" in one for one in tree.values()):
        if all(set(one["link"]) == {"diagnostics"} for one in tree.values()):
            codes = [(name, *next(iter(one["link"]["diagnostics"].items()))) for name, one in tree.items()]
            return _table([["Interface", "Code", "Status"], *([name, code, said["status"]] for name, code, said in codes)])
        keys = ("state", "speed", "physical-state", "logical-state")
        head = ["Interface", "State", "Speed", "Physical state", "Logical state", "Type"]
        return _table(
            [head, *([name, *(str(one["link"].get(key, "")) for key in keys), one["type"]] for name, one in tree.items())]
        )
    keys_of = list(dict.fromkeys(key for one in tree.values() for key in one))
    head = ["Name", *(key.replace("-", " ").title() for key in keys_of)]
    return _table([head, *([name, *(str(one.get(key, "")) for key in keys_of)] for name, one in tree.items())])


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * max(2, width) for width in widths]
    lines = [
        "  ".join(cell.ljust(max(2, width)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (rows[0], rule, *rows[1:])
    ]
    return "\n".join(lines) + "\n"
