"""What the checks of NVLink switch trays share: one script of `nv` commands, and its answer cut back into readings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from burnin.checks.base import Evidence, Order
from burnin.checks.tools import PARSERS, Outcome, Reading
from burnin.checks.tools.reading import Row

ASK_S = 20.0
"""One `nv show` takes a second or two on a real tray; a table of all ports longer."""
_BEGIN = re.compile(r"^@@burnin (\d{1,3})$", re.MULTILINE)
_END = re.compile(r"\n?^@@exit (\d{1,3})$\n?", re.MULTILINE)


def order(part: str, commands: Sequence[str], pause_s: float = 0.0, again: Sequence[str] = ()) -> Order:
    """These commands after each other, as JSON where it is `nv show`; after `pause_s` those of `again` once more."""
    lines = [_one(n, command) for n, command in enumerate(commands)]
    if again:
        lines += [f"sleep {pause_s:g}", *(_one(len(commands) + n, command) for n, command in enumerate(again))]
    script = "\n".join(lines)
    return Order(part, "script", {"script": script}, "shell", pause_s + ASK_S * (len(commands) + len(again)))


def _one(number: int, command: str) -> str:
    run = f"{command} -o json" if command.startswith("nv show") else command
    return f"printf '\\n@@burnin {number}\\n'; {run} 2>&1; printf '\\n@@exit %s\\n' $?"


def texts(evidence: Evidence, part: str) -> list[tuple[str, int | None]] | str:
    """Output and exit status of each command asked of this part, in order; a sentence where the part was not asked.

    What was cut has no exit status.
    """
    answers = [
        answer for given in evidence.answers for answer in given if answer.order.to == part and answer.order.via == "shell"
    ]
    if not answers:
        return f"{part} was not asked"
    if not answers[-1].ok:
        return str(answers[-1].body)
    body = answers[-1].body
    out = str(body.get("stdout") or "")
    begins = list(_BEGIN.finditer(out))
    found = dict[int, tuple[str, int | None]]()
    for n, match in enumerate(begins):
        piece = out[match.end() : begins[n + 1].start() if n + 1 < len(begins) else len(out)]
        end = _END.search(piece)
        found[int(match[1])] = (piece[: end.start()] if end else piece, int(end[1]) if end else None)
    if not found:
        return f"{part} answers with no `nv`: {' '.join(out.split())[:120] or str(body.get('stderr') or 'nothing')[:120]}"
    return [found.get(n, ("", None)) for n in range(max(found) + 1)]


def readings(evidence: Evidence, part: str, tools: Sequence[str]) -> list[Reading] | str:
    """The same, each read by the parser of its name; a sentence where there is nothing to read."""
    said = texts(evidence, part)
    if isinstance(said, str):
        return said
    said += [("", None)] * (len(tools) - len(said))
    return [PARSERS[tool](text, code) for tool, (text, code) in zip(tools, said, strict=False)]


def sound(reading: Reading) -> bool:
    """True when nothing of it is missing: its rows may be judged one by one."""
    return reading.outcome is not Outcome.ERROR


def why(reading: Reading) -> str:
    """Why it cannot be judged."""
    return f"{reading.tool}: {reading.whys[0] if reading.whys else 'nothing was read'}"


def rows(reading: Reading, name: str) -> list[Row]:
    """Its rows of one name."""
    return [row for row in reading.rows if row.name == name]


def value(reading: Reading, name: str) -> str | None:
    """The text of the one row of a name."""
    found = rows(reading, name)
    return str(found[0].value) if found and found[0].value is not None else None
