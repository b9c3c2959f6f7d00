"""All NVLinks of a run for people: a row a link, the GPU's end beside the switch tray's."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnin.assess.link_view import Links
from burnin.checks.link_table import End
from burnin.events import Result

_LOOK = {Result.PASS: "green", Result.FAIL: "bold red", Result.UNKNOWN: "yellow"}
_WHYS = 8


def show(found: Links, whole: bool, console: Console) -> None:
    """Print those that are not good, or all of them; then how many there are of each."""
    rows = [row for row in found.rows if whole or row.result is not Result.PASS]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("link", "is", "new errors", "port", "is", "new errors", "result"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        cells = (row.link or "UNKNOWN", *_cells(row.gpu), row.port or "UNKNOWN", *_cells(row.switch))
        table.add_row(*cells, Text(str(row.result), _LOOK[row.result]))
    if rows:
        console.print(table)
    for why in found.whys[:_WHYS]:
        console.print(f"missing: {why}", markup=False)
    if len(found.whys) > _WHYS:
        console.print(f"missing: {len(found.whys) - _WHYS} more, in --json")
    counts = ", ".join(f"{found.count(one)} {one}" for one in Result if found.count(one))
    console.print(f"{len(found.rows)} rows, read in stage {found.stage}: {counts}")


def _cells(end: End | None) -> tuple[str, str]:
    if end is None:
        return "UNKNOWN", "UNKNOWN"
    up = "UNKNOWN" if end.up is None else "up" if end.up else "down"
    return up, "UNKNOWN" if end.errors is None else f"{end.errors:g}"
