"""Events as lines of JSON and back: what goes over the live channel, and what `burnin watch --json` prints.

Every line is an object with `event`: run, Tick, LogLine, TrayState, StageBegan, StageEnded, attempt, said, ended. A reading is
{"t07.g2 gpu.temp": 45.0}, null where it was not read.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from burnin.events import LogLine, StageBegan, StageEnded, Status, Tick, TrayState
from burnin.run.job import Event, Kept

_PLAIN = {kind.__name__: kind for kind in (LogLine, TrayState, StageBegan)}


def encode(event: Event | Kept | dict[str, Any]) -> bytes:
    """One line."""
    if isinstance(event, dict):
        body = event
    elif isinstance(event, Tick):
        values = {f"{part} {metric}": value for (part, metric), value in zip(event.columns, event.values, strict=True)}
        body = {"event": "Tick", "tray": event.tray, "t_s": event.t_s, "values": values}
    elif isinstance(event, Kept):
        names = ("stage", "check", "part", "attempt", "status", "t0_s", "t1_s", "why")
        body = {"event": "attempt", **{name: getattr(event, name) for name in names}}
    else:
        body = {"event": type(event).__name__, **asdict(event)}
    return orjson.dumps(body) + b"\n"


def decode(line: bytes) -> Event | dict[str, Any]:
    """An event, or the object as it is. Raises ValueError for what is no line of ours."""
    body = orjson.loads(line)
    if not isinstance(body, dict) or not isinstance(body.get("event"), str):
        raise ValueError(f"not an event: {line[:80]!r}")
    rest = dict(body)
    name = rest.pop("event")
    try:
        if name == "Tick":
            columns = tuple((part, metric) for part, metric in (key.split(" ", 1) for key in rest["values"]))
            return Tick(rest["tray"], rest["t_s"], columns, tuple(rest["values"].values()))
        if name == "StageEnded":
            return StageEnded(**{**rest, "status": Status(rest["status"])})
        return _PLAIN[name](**rest) if name in _PLAIN else body
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {line[:80]!r}") from error
