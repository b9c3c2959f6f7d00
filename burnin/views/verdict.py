"""A verdict for people: the word, then part by part what is wrong, which part it is, and what to do. Reads its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from burnin.rack.parts import fold

LOOK = {"PASS": "bold green", "FAIL": "bold red", "HOLD": "bold yellow"}
_MEANS = {
    "PASS": "everything this suite requires was measured, and is good",
    "FAIL": "measured, and bad: replace or repair the parts below",
    "HOLD": "not judged, or suspicious: the rack does not move on",
}
_RESULTS = ("PASS", "FAIL", "UNKNOWN")


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print the whole verdict."""
    console.print(_panel(document))
    for part in _parts(document):
        console.print(Padding(part, (0, 0, 1, 1)))
    console.print(Padding(_checks(document["steps"]), (0, 1)))
    console.print(Padding(_footer(document), (1, 1, 0, 1)))


def _panel(document: Mapping[str, Any]) -> Panel:
    word = document["verdict"]
    ships = (
        "a PASS of this suite may ship" if document["ships"] and document["whole"] else "evidence only: this run ships nothing"
    )
    if document["ships"] and not document["whole"]:
        ships = "evidence only: the run was not whole"
    text = Text.assemble(
        (word, LOOK[word]),
        f"   rack {document['rack']}   {document['profile']}   suite {document['suite']}\n",
        (f"{_MEANS[word]} ({ships})", "dim"),
    )
    return Panel(text, border_style=LOOK[word].split()[1], expand=False)


def _parts(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """One paragraph a part: the gravest finding first, then what else was seen on it."""
    findings = [f for f in document["findings"] if f["severity"] != "WATCH"]
    shown: set[tuple[str, str]] = set()
    for name in dict.fromkeys(f["part"] for f in findings):
        group = [f for f in findings if f["part"] == name]
        shown |= {(name, f["why"]) for f in group}
        yield _finding(group)
    for hold in document["holds"]:
        if (hold["part"], hold["why"]) not in shown:
            yield _paragraph("HOLD", hold["part"], "", [hold["why"]], hold["next"])
    watched = [f for f in document["findings"] if f["severity"] == "WATCH"]
    if watched:
        yield Group(*(Text(f"watch  {f['part']}  {f['why']}", "dim") for f in watched))


def _finding(group: Sequence[Mapping[str, Any]]) -> RenderableType:
    first = group[0]
    serial = f"serial {first['serial']}" if first["serial"] else "serial not known"
    where = ", ".join(text for text in (first["fru"], serial, first["slot"]) if text)
    return _paragraph(first["severity"], first["part"], where, [f["why"] for f in group], first["action"])


def _paragraph(word: str, part: str, where: str, why: Sequence[str], action: str) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_row(Text(word, LOOK[word]), Text.assemble((part, "bold"), f"   {where}" if where else ""))
    for text in why[:4]:
        table.add_row("", Text(text))
    if len(why) > 4:
        table.add_row("", Text(f"and {len(why) - 4} more on this part", "dim"))
    if action:
        table.add_row("", Text.assemble(("do: ", "bold cyan"), (action, "cyan")))
    return table


def _checks(steps: Sequence[Mapping[str, Any]]) -> Table:
    """What ran, folded: one row per check and stage, trays of one result in one word."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("stage", "check", *_RESULTS):
        table.add_column(title)
    for stage, name in dict.fromkeys((s["stage"], s["name"]) for s in steps):
        row = [s for s in steps if (s["stage"], s["name"]) == (stage, name)]
        cells = []
        for result in _RESULTS:
            parts = [s["part"] for s in row if s["result"] == result]
            cells.append(Text(fold(parts) if parts else "", {"FAIL": "red", "UNKNOWN": "yellow"}.get(result, "green")))
        table.add_row(stage, name, *cells)
    return table


def _footer(document: Mapping[str, Any]) -> RenderableType:
    coverage = document["coverage"]
    lines = [Text(f"coverage {coverage['measured']} of {coverage['required']} slots; run {document['run']}", "dim")]
    waived = [f"waived: {w['interlock']}, by {w['by']} until {w['until']}: {w['why']}" for w in document["waivers"]]
    lines += [Text(text, "dim") for text in waived]
    return Group(*lines)
