"""A verdict for people: the word, then part by part what is wrong, which part it is, and what to do. Reads its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from burnin.rack.parts import fold, tray_of

LOOK = {"PASS": "bold green", "FAIL": "bold red", "HOLD": "bold yellow"}
_MEANS = {
    "PASS": "everything this suite requires was measured, and is good",
    "FAIL": "measured, and bad: replace or repair the parts named above",
    "HOLD": "not judged, or suspicious: the rack does not move on",
}
_MEASURED = ("tray", "gpu", "drive", "nic", "xid", "kernel", "interlock", "load")
"""What findings that are not measurements are called by, beside signatures."""
_RESULTS = ("PASS", "FAIL", "UNKNOWN")


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print the whole verdict; the word and what to do come last, where a person at a terminal looks."""
    console.print(Padding(_checks(document), (1, 1, 0, 1)))
    console.print(Padding(_small_print(document), (1, 1, 1, 1)))
    for part in _parts(document):
        console.print(Padding(part, (0, 0, 1, 1)))
    console.print(_panel(document))


def _panel(document: Mapping[str, Any]) -> Panel:
    word = document["verdict"]
    suite = f"suite {document['suite']}" if document["suite"] is not None else "no suite: recorded telemetry"
    means = _MEANS[word]
    if document["suite"] is None:
        ships, means = "evidence only: nobody asked for more than it holds", means.replace("this suite requires", "it holds")
    elif not document["whole"]:
        ships = "evidence only: trays or checks were left out"
        means = "everything that was asked for was measured, and is good" if word == "PASS" else means
    else:
        ships = "a PASS of this suite may ship" if document["ships"] else "evidence only: this suite ships nothing"
    text = Text.assemble(
        (word, LOOK[word]),
        f"   rack {document['rack']}   {document['profile']}   {suite}\n",
        (f"{means} ({ships})", "dim"),
    )
    return Panel(text, border_style=LOOK[word].split()[1], expand=False)


def _parts(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What is watched, then what holds, then what fails: one paragraph a part, the gravest nearest to the verdict."""
    watched = [f for f in document["findings"] if f["severity"] == "WATCH"]
    if watched:
        yield Group(*(Text(f"watch  {f['part']}  {f['why']}", "dim") for f in watched))
    findings = [f for f in document["findings"] if f["severity"] != "WATCH"]
    said = {(f["part"], f["why"]) for f in findings}
    for hold in document["holds"]:
        if not any(hold["part"] == part and hold["why"] in why for part, why in said):
            yield _paragraph("HOLD", hold["part"], "", [hold["why"]], hold["next"])
    groups = {name: [f for f in findings if f["part"] == name] for name in dict.fromkeys(f["part"] for f in findings)}
    below = {name for name in groups if "." in name and _follows(groups[name], groups.get(tray_of(name), []))}
    for name, group in reversed(groups.items()):
        if name not in below:
            yield _finding(group, sorted(part for part in below if tray_of(part) == name))


def _follows(group: Sequence[Mapping[str, Any]], parents: Sequence[Mapping[str, Any]]) -> bool:
    """True when everything that is wrong with a part is what its whole tray shows: it is named in the tray's paragraph."""
    serials = any(f["signature"] in ("tray.serial", "interlock.rack_identity") for f in parents)
    heat = any(f["signature"] == "thermal.tray" for f in parents)
    return all((serials and f["signature"] == "gpu.serial") or (heat and "see to" in f["action"]) for f in group)


def _finding(group: Sequence[Mapping[str, Any]], below: Sequence[str]) -> RenderableType:
    first = group[0]
    serial = f"serial {first['serial']}" if first["serial"] else "serial not known"
    where = ", ".join(text for text in (first["fru"], serial, first["slot"]) if text)
    why = [f["why"] for f in group]
    if below:
        why.append(f"the same shows on {fold(below)}")
    return _paragraph(first["severity"], first["part"], where, why, first["action"])


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


def _checks(document: Mapping[str, Any]) -> RenderableType:
    """What ran, folded: one line for all that passed everywhere, one row for each that did not."""
    steps = document["steps"]
    rows = {
        key: [s for s in steps if (s["stage"], s["name"]) == key] for key in dict.fromkeys((s["stage"], s["name"]) for s in steps)
    }
    clean = [key for key, row in rows.items() if all(s["result"] == "PASS" for s in row)]
    trays = fold({s["part"] for s in steps}) if steps else "no tray"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("stage", "check", *_RESULTS):
        table.add_column(title)
    for (stage, name), row in rows.items():
        if (stage, name) not in clean:
            parts = [[s["part"] for s in row if s["result"] == result] for result in _RESULTS]
            cells = [Text(fold(p) if p else "", look) for p, look in zip(parts, ("green", "red", "yellow"), strict=True)]
            table.add_row(stage, name, *cells)
    measured = {m["name"] for step in document["steps"] for m in step["measurements"]}
    named = {
        f["part"]
        for f in document["findings"]
        if f["severity"] != "WATCH" and f["signature"] not in measured and f["signature"].split(".")[0] not in _MEASURED
    }
    also = f"; signatures name {fold(named)}" if named else ""
    line = Text(f"{len(clean)} of {len(rows)} steps passed on {trays}{also}")
    return Group(line, table) if len(clean) < len(rows) else line


def _small_print(document: Mapping[str, Any]) -> RenderableType:
    coverage = document["coverage"]
    lines = [Text(f"coverage {coverage['measured']} of {coverage['required']} slots; run {document['run']}", "dim")]
    versions = document["versions"]
    asked = ("baseline", "soak", "coolant") if document["ships"] or document["suite"] is None else ("baseline", "coolant")
    lines += [Text(f"{name}: {versions[name]}", "dim") for name in asked if name in versions]  # a short suite is no soak
    sessions = document.get("sessions", ())
    if len(sessions) > 1:
        text = f"{len(sessions)} sessions, {sum(one['gap_s'] for one in sessions) / 3600:.2f} h between them without a controller"
        alone = [one["unguarded_s"] for one in sessions if "unguarded_s" in one]
        lines.append(Text(f"{text}{f'; load went on for {sum(alone) / 3600:.2f} h without a guard' if alone else ''}", "dim"))
    waivers: dict[tuple[str, str, str], list[str]] = {}
    for waiver in document["waivers"]:
        waivers.setdefault((waiver["by"], waiver["until"], waiver["why"]), []).append(waiver["interlock"])
    lines += [
        Text(f"waived by {by} until {until} ({why}): {', '.join(names)}", "dim") for (by, until, why), names in waivers.items()
    ]
    return Group(*lines)
