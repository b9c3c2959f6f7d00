"""Twin racks written down as judge directories: what anybody's telemetry of a real rack would look like, and nothing else.

OUT/<rack serial>/rack.yaml, telemetry.parquet, events.csv       what a judge reads
OUT/truth.json                                                   what was planted where: only a comparison may read it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from burnin.rack.parts import fold
from burnin.suites.schema import Suite
from burnin.telemetry.directory import Writer
from burnin.telemetry.series import Floats, Series, Stretch
from burnin.telemetry.table import Course, stretches
from burnin.twin import identity
from burnin.twin.batch import Recorded, simulate
from burnin.twin.faults import Plant
from burnin.twin.model import Model, load
from burnin.twin.physics import Tails
from burnin.twin.plan import Plan

TRUTH = "truth.json"


def record(
    profile: str | Model,
    suite: Suite,
    seeds: Iterable[int],
    out: Path,
    plants_of: Callable[[int], Sequence[Plant]] = lambda seed: (),
    tails: Tails = "normal",
    *,
    hours: float | None = None,
    done: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Writes one directory per seed, calls `done` with each, and keeps the truth beside them.

    Raises InputError for an unknown profile; OSError where it cannot be written.
    """
    model = profile if isinstance(profile, Model) else load(profile)
    truth: dict[str, Any] = {}
    for one in simulate(model, suite, seeds, plants_of, tails, hours=hours):
        rack = identity.build(model, one.seed)
        folder = out / rack.serial
        with Writer(folder, rack_text(model, rack)) as writer:
            write(writer, one)
            writer.events(one.log)
        truth[rack.serial] = {"seed": one.seed, "tails": tails, "plants": [asdict(plant) for plant in one.plants]}
        (out / TRUTH).write_text(json.dumps(truth, indent=1) + "\n")
        done(folder)


def rack_text(model: Model, rack: identity.RackId) -> str:
    """The rack file: who it is and how it was built. Its addresses are documentation's (RFC 5737): nothing answers there."""
    lines = [
        "# A twin rack, written down. Nothing answers at these addresses.",
        f"rack: {json.dumps(rack.serial)}",
        f"profile: {model.profile}",
        "trays:",
        f'  {fold(rack.trays)}: {{host: "192.0.2.{_range(10, len(rack.trays))}"}}',
        "expect:",
    ]
    for part, built in rack.trays.items():
        uuids = ", ".join(json.dumps(gpu.uuid) for gpu in built.gpus)
        lines.append(f"  {part}: {{serial: {json.dumps(built.serial)}, gpus: [{uuids}]}}")
    return "\n".join(lines) + "\n"


def _range(first: int, count: int) -> str:
    return str(first) if count == 1 else f"[{first}-{first + count - 1}]"


def write(writer: Writer, one: Recorded) -> None:
    """All series of a rack, many parts at once where they were read at the same times."""
    together: dict[tuple[str, int], list[tuple[str, Series]]] = {}
    for (part, metric), series in one.series.items():
        together.setdefault((metric, id(series.t_s)), []).append((part, series))
    for (metric, _), many in together.items():
        t = many[0][1].t_s
        values: Floats = np.stack([series.v for _, series in many])
        parts = [part for part, _ in many]
        for stretch in one.stretches:
            a, b = np.searchsorted(t, (stretch.t0_s, stretch.t1_s))
            if b > a:
                writer.grid(stretch.phase, parts, metric, t[a:b], values[:, a:b])


def as_read(plan: Plan) -> tuple[Stretch, ...]:
    """The phases of a run as they are read back from a judge directory, which knows neither stages nor how long they settle."""
    names = [span.phase for span in plan.spans]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    phase = np.array([number[name] for name in names], np.uint16)[plan.span]
    return stretches([Course(plan.t, phase, list(number))])
