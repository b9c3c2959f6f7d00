"""What signatures cost and see: false alarms on healthy racks, detection of planted faults; tables of docs/signatures.md.

    python -m bench.signatures                   1000 healthy racks of each kind, 60 of each fault (about ten minutes)
    python -m bench.signatures --racks 50 --faults 10 --out -
    python -m bench.signatures --racks 1000 --real sim_sgemm-longhorn.csv

Racks are synthetic (`tests/racks.py`, `tests/soaks.py`): the twin's physics at rest, parts drawn with normal or t5 tails. They
say how the statistics behave, not how NVIDIA's parts do.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from burnin import signatures
from burnin.events import Severity
from burnin.rack.load import load_catalogue
from burnin.telemetry.series import Series, Telemetry
from tests import racks, soaks

ROOT = Path(__file__).parents[1]
MARK = "<!-- below: written by bench/signatures.py -->"
PART, CELL = "t07.g2", racks.cell("t07.g2")
ROWS = load_catalogue().signatures


@dataclass(frozen=True)
class Plant:
    """One fault of one size: what it is called, which signature and part are the right answer, and a rack that has it."""

    name: str
    signature: str
    part: str
    make: Callable[[int], Telemetry]


def main() -> int:
    """Measure, and put the tables behind the mark in docs/signatures.md (or print them, `--out -`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--racks", type=int, default=1000, help="healthy racks of each kind")
    parser.add_argument("--faults", type=int, default=60, help="racks of each fault")
    parser.add_argument("--out", default=str(ROOT / "docs/signatures.md"))
    parser.add_argument(
        "--real", metavar="CSV", help="only: clock.weak on virtual racks of measured GPUs (columns uuid, freq, temp, pwr)"
    )
    arguments = parser.parse_args()
    if arguments.real:
        print(real(Path(arguments.real), arguments.racks))
        return 0
    text = "\n".join([*healthy(arguments.racks), "", *detection(arguments.faults)]) + "\n"
    if arguments.out == "-":
        print(text)
    else:
        page = Path(arguments.out)
        page.write_text(page.read_text().split(MARK)[0] + MARK + "\n\n" + text)
    return 0


def look(telemetry: Telemetry) -> list[tuple[str, str, Severity]]:
    """(part, signature, severity) of everything that is found."""
    return [(f.part, f.signature, f.severity) for f in signatures.find(telemetry, racks.topology(), ROWS, {})]


def worlds(count: int) -> Iterator[tuple[str, int, Callable[[int], Telemetry]]]:
    """Healthy racks: name, how many, and how to make one."""
    yield "normal", count, lambda seed: racks.telemetry(racks.rack(seed, "normal"))
    yield "t5", count, lambda seed: racks.telemetry(racks.rack(seed, "t5"))
    yield "48 h soak", max(1, count // 10), soaks.soak
    yield "20 min at 1 Hz", max(1, count // 10), soaks.swinging
    yield "links, normal", max(1, count // 10), lambda seed: soaks.margins(seed, "normal")
    yield "links, t5", max(1, count // 10), lambda seed: soaks.margins(seed, "t5")


def real(path: Path, count: int) -> str:
    """`clock.weak` on virtual racks of 72 GPUs drawn from a fleet that was measured; what it says of whom.

    The file has no idle readings: 35 Cel and 45 W stand in, and nothing that uses them is looked at.
    """
    readings: dict[str, list[list[float]]] = {}
    with path.open() as file:
        for line in csv.DictReader(file):
            readings.setdefault(line["uuid"], []).append([float(line[name]) for name in ("freq", "temp", "pwr")])
    fleet = {uuid: np.mean(many, axis=0) for uuid, many in sorted(readings.items())}
    rng, named, held = np.random.default_rng(1), Counter[str](), Counter[Severity]()
    t = np.concatenate([np.arange(s.t0_s + 0.3, s.t1_s) for s in (racks.IDLE, racks.LOAD, racks.LOAD_2)])
    on = t > racks.IDLE.t1_s
    for _ in range(count):
        chosen = rng.choice(sorted(fleet), 72, replace=False)
        series = {}
        for part, uuid in zip(soaks.GPUS, chosen, strict=True):
            for metric, value, idle in zip(("gpu.clock_sm", "gpu.temp", "gpu.power"), fleet[uuid], (135, 35, 45), strict=True):
                series[part, metric] = Series(t, np.where(on, value, idle))
        found = look(Telemetry(series, (racks.IDLE, racks.LOAD, racks.LOAD_2)))
        weak = [(part, severity) for part, name, severity in found if name == "clock.weak"]
        held.update({severity for _, severity in weak})
        named.update(str(chosen[soaks.GPUS.index(part)])[:12] for part, _ in weak)
    shares = ", ".join(f"{severity} in {100 * held[severity] / count:.2g} %" for severity in (Severity.WATCH, Severity.HOLD))
    return f"{count} racks of {len(fleet)} measured GPUs: clock.weak {shares} of them; GPUs: {dict(named.most_common(8))}"


def healthy(count: int) -> list[str]:
    """Share of healthy racks in which a signature says WATCH, HOLD or FAIL of anybody."""
    out = [
        f"Measured {dt.date.today()}: share of healthy racks (%) in which anybody is named. 0 of n means below 3/n with 95 %.",
        "",
        "| healthy racks | n | signature | WATCH | HOLD | FAIL |",
        "|---|---|---|---|---|---|",
    ]
    for world, many, make in worlds(count):
        seen: Counter[tuple[str, Severity]] = Counter()
        for seed in range(many):
            found = look(make(seed))
            seen.update({(signature, severity) for _, signature, severity in found})
            seen.update({("any", severity) for _, _, severity in found})
        for name in [*sorted({name for name, _ in seen} - {"any"}), "any"]:
            shares = " | ".join(f"{100 * seen[name, s] / many:.3g}" for s in (Severity.WATCH, Severity.HOLD, Severity.FAIL))
            out.append(f"| {world} | {many} | {'**any**' if name == 'any' else f'`{name}`'} | {shares} |")
        print(out[-1], file=sys.stderr, flush=True)
    return out


def detection(count: int) -> list[str]:
    """Share of racks in which a planted fault is named by its signature, on its part; and who else is held."""
    out = [
        "Share of racks (%) with one planted fault in which its part is named; normal parts, one re-test. `others`: share of",
        "racks in which a part that has nothing to do with it is held or failed.",
        "",
        "| fault | signature | part | n | WATCH or more | HOLD or FAIL | FAIL | others |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for plant in plants():
        grades: Counter[Severity] = Counter()
        others = 0
        for seed in range(5000, 5000 + count):
            found = look(plant.make(seed))
            grades.update([s for part, name, s in found if (part, name) == (plant.part, plant.signature)][:1])
            others += any(s is not Severity.WATCH and not _about(part, plant.part) for part, _, s in found)
        held = grades[Severity.HOLD] + grades[Severity.FAIL]
        shares = [held + grades[Severity.WATCH], held, grades[Severity.FAIL], others]
        text = " | ".join(f"{100 * x / count:.0f}" for x in shares)
        out.append(f"| {plant.name} | `{plant.signature}` | {plant.part} | {count} | {text} |")
        print(out[-1], file=sys.stderr, flush=True)
    return out


def _about(part: str, planted: str) -> bool:
    return part.startswith(planted) or planted.startswith(part) or planted in ("rack", "cdu")


def plants() -> Iterator[Plant]:
    """Every fault that these racks can have, in several sizes."""
    sizes: list[tuple[str, str, str, list[float], str]] = [
        ("tim", "thermal.rth", "TIM {:+.0f} %", [1.5, 2.0, 2.5, 3.0], "times"),
        ("convection", "thermal.rth", "plate clogged {:+.0f} %", [1.5, 2.0], "times"),
        ("hbm", "thermal.hbm", "HBM resistance {:+.0f} %", [1.6, 2.0, 2.5], "times"),
        ("leakage", "power.leak", "leakage {:+.0f} %", [1.5, 2.0, 2.5, 3.0], "times"),
        ("voltage", "clock.weak", "V/f {:+.0f} %", [1.07, 1.15, 1.25], "times"),
        ("top_mhz", "clock.ceiling", "clock ceiling {:+.0f} %", [0.9, 0.8, 0.7], "times"),
        ("temp_offset", "sensor.offset", "T sensor {:+.0f} K", [6.0, 8.0, 10.0, -10.0], "plus"),
        ("gain", "sensor.gain", "power sensor {:+.0f} %", [1.15, 1.3, 0.8], "times"),
    ]
    for name, signature, label, values, how in sizes:
        for value in values:
            shown = 100 * (value - 1) if how == "times" else value
            yield Plant(label.format(shown), signature, PART, _rack(name, value, how))
    for lost in (0.2, 0.3, 0.4, 0.5):
        yield Plant(f"tray flow -{100 * lost:.0f} %", "thermal.tray", "t07", _flow(lost))
    yield Plant("coolant +6 K between loads", "thermal.rack", "cdu", _warm)
    t = soaks.soak(0).of(PART, "gpu.temp").t_s
    for rate in (0.7, 1.0, 2.0):
        yield Plant(f"drift {rate:g} K/d over 48 h", "thermal.drift", PART, _soak(PART, rate * t / 86400))
    yield Plant("tray drift 1.5 K/d over 48 h", "thermal.drift", "t07", _soak("t07", 1.5 * t / 86400))
    for height in (1.5, 2.5):
        yield Plant(f"step {height:g} K after 30 h", "thermal.step", PART, _soak(PART, np.where(t > 30 * 3600, height, 0.0)))
    for swing in (0.4, 0.7):
        yield Plant(f"rack swings +-{swing:g} K", "thermal.swing", "cdu", _swing(swing))
    for part, decades in (("t07.g2.l13", 2.5), ("t07.g2.l13", 4.5), (PART, 0.7), (PART, 1.2), ("t07", 0.7), ("t07", 1.2)):
        yield Plant(f"{decades:g} decades on {part}", "nvlink.margin", part, _margin(part, decades))


def _rack(name: str, value: float, how: str) -> Callable[[int], Telemetry]:
    def make(seed: int) -> Telemetry:
        one = racks.rack(seed)
        grid = getattr(one, name)
        grid[CELL] = grid[CELL] * value if how == "times" else grid[CELL] + value
        return racks.telemetry(one)

    return make


def _flow(lost: float) -> Callable[[int], Telemetry]:
    def make(seed: int) -> Telemetry:
        one = racks.rack(seed)
        one.flow[7] *= 1 - lost
        return racks.telemetry(one)

    return make


def _warm(seed: int) -> Telemetry:
    one = racks.rack(seed)
    one.supply = {"load-2": 6.0}
    return racks.telemetry(one)


def _soak(part: str, added: racks.Floats) -> Callable[[int], Telemetry]:
    return lambda seed: soaks.soak(seed, {part: added})


def _swing(kelvin: float) -> Callable[[int], Telemetry]:
    return lambda seed: soaks.swinging(seed, rack_k=kelvin)


def _margin(part: str, decades: float) -> Callable[[int], Telemetry]:
    return lambda seed: soaks.margins(seed, worse={part: decades})


if __name__ == "__main__":
    sys.exit(main())
