"""What `nv show` of NVOS prints, as a tree: its JSON, or its text tables.

    text, properties    a first column without a name, then `operational` (and `applied`): {"state": "enabled"}, nested by indent
    text, list          named columns: {"acp1": {"code": "2", "status": "Negotiation failure"}}
    JSON                as it is

Columns begin where the dashed line says; a row whose words stand between them was not understood. A text table has no end
mark, so it never proves that it is whole. Sources: NVIDIA's NVOS and Cumulus Linux manuals, as captured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from burnin.checks.tools.reading import Page, Unreadable, complaint, load_json, stranger

Tree = dict[str, Any]
_RULE = re.compile(r"-{2,200}(?: {1,8}-{2,200}){0,20} *", re.ASCII)
_PROMPT = re.compile(r"\S{1,80}@\S{1,80}[$#] ?(?:nv show ([^\n]{1,120}))?")
_DEEPEST = 8


@dataclass(slots=True)
class Shown:
    """One output of `nv show`. `asked`: the command behind `nv show`, where a prompt says it; `listed`: a list of things."""

    tree: Tree
    asked: str = ""
    listed: bool = False
    gaps: list[str] = field(default_factory=list)
    endless: bool = False


def read(tool: str, text: str) -> Shown:
    """JSON or text to a tree. Raises Unreadable."""
    if re.search(r"^[ \t]*\{", text, re.MULTILINE):
        document = load_json(text)
        shown = Shown(document.root, _asked(document.around))
        if said := document.beside:
            shown.gaps.append(f"beside the JSON: {said}")
        return shown
    return _table(tool, text)


def begin(page: Page, shown: Shown) -> None:
    """What every reader notes first."""
    page.gaps += shown.gaps
    page.endless = shown.endless


def _asked(lines: tuple[str, ...] | list[str]) -> str:
    said = (_PROMPT.match(line[:300]) for line in lines[:50])
    return next((match[1].strip() for match in said if match and match[1]), "")


def _table(tool: str, text: str) -> Shown:
    lines = text.split("\n")
    at = next((i for i, line in enumerate(lines) if i and len(line) < 4000 and _RULE.fullmatch(line)), None)
    if at is None:
        raise stranger(tool, text)
    columns = [(match.start(), match.end()) for match in re.finditer("-+", lines[at])]
    shown = Shown({}, _asked(lines[: at + 1]), endless=True)
    if said := complaint(lines[:at]):
        shown.gaps.append(said)
    heads = _cells(lines[at - 1], columns) or []
    rows = _rows(shown, lines[at + 1 :], columns)
    if heads[1:2] == ["operational"] and not heads[0].strip():
        _properties(shown, rows)
    elif heads and all(heads) and len(heads) > 1:
        shown.listed = True
        _list(shown, [head.strip().lower().replace(" ", "-") for head in heads], rows)
    else:
        raise Unreadable(f"not a table of {tool}: its columns have no names")
    return shown


def _rows(shown: Shown, lines: list[str], columns: list[tuple[int, int]]) -> list[list[str]]:
    out = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        if _PROMPT.match(line[:300]):
            if any(_RULE.fullmatch(below) for below in lines[i:] if len(below) < 4000):
                shown.gaps.append("more than one table: only the first was read")
            break
        cells = _cells(line, columns)
        if cells is None:
            shown.gaps.append(f"line {i + 1} of the table was not understood: {line.strip()[:80]!r}")
            break
        out.append(cells)
    return out


def _cells(line: str, columns: list[tuple[int, int]]) -> list[str] | None:
    """The words of a line by column, the first with its indent; None where they do not keep to the columns."""
    if len(line) > 4000:
        return None
    out = []
    for n, (begin_, end) in enumerate(columns):
        following = columns[n + 1][0] if n + 1 < len(columns) else len(line)
        if n + 1 < len(columns) and line[end:following].strip():
            return None
        cell = line[begin_:following].rstrip()
        out.append(cell if n == 0 else cell.strip())
    return out


def _properties(shown: Shown, rows: list[list[str]]) -> None:
    open_: list[Tree] = [shown.tree]
    for n, (name, value, *_) in enumerate(rows):
        key, depth = name.strip(), (len(name) - len(name.lstrip())) // 2
        if not key:
            continue  # more of the value above: none that is judged has more
        following = rows[n + 1][0] if n + 1 < len(rows) else ""
        parent = following.strip() and (len(following) - len(following.lstrip())) // 2 > depth
        if depth >= len(open_) or depth > _DEEPEST or key in open_[depth]:
            shown.gaps.append(f"{key[:60]!r} stands where nothing can")
            return
        del open_[depth + 1 :]
        if parent:
            branch: Tree = {"": value} if value else {}
            open_[depth][key] = branch
            open_.append(branch)
        else:
            open_[depth][key] = value


def _list(shown: Shown, heads: list[str], rows: list[list[str]]) -> None:
    last: dict[str, str] = {}
    for first, *others in rows:
        name = first.strip()
        if not name:  # a cell with several lines
            if not last:
                shown.gaps.append("a line belongs to nothing")
            for head, more in zip(heads[1:], others, strict=True):
                last[head] = f"{last.get(head, '')} {more}".strip()
            continue
        if name in shown.tree:
            shown.gaps.append(f"{name[:60]!r} is said twice")
            return
        last = dict(zip(heads[1:], others, strict=True))
        shown.tree[name] = last
