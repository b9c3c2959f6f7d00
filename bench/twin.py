"""What the twin is held against, how fast it is, and whether its two ways to a verdict agree; tables of docs/twin.md.

    python -m bench.twin                             write all of it (about ten minutes)
    python -m bench.twin --calibration --signals     only these sections
    python -m bench.twin --equal --racks 2 --out -   two racks by both ways, printed

Captured figures are read from the captures (BURNIN_CAPTURES, or ../shared/captures); without them their lines are left out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from burnin.assess import recorded
from burnin.checks import OFFERS
from burnin.rack.load import load_catalogue
from burnin.signatures import find
from burnin.suites.load import load_suite
from burnin.suites.schema import Suite
from burnin.telemetry.series import Floats
from burnin.twin import laws, physics
from burnin.twin.batch import Recorded, simulate
from burnin.twin.faults import KINDS, LIVE, RECORDED
from burnin.twin.model import Model, load
from burnin.twin.plan import plan
from burnin.twin.population import Chance, margins, silicon
from burnin.twin.record import as_read, record
from burnin.twin.scenario import plants_of
from burnin.twin.schedule import Condition
from burnin.twin.steady import Rest, rest
from tests.unit import fault_signals as spec

ROOT = Path(__file__).parents[1]
CAPTURES = Path(os.environ.get("BURNIN_CAPTURES", ROOT.parent / "shared/captures"))
PAGE = ROOT / "docs/twin.md"
MARK = "<!-- below: written by bench/twin.py -->"
SEEDS = range(1, 21)


@dataclass(frozen=True)
class Figure:
    """One line: what, where the figure comes from, the figure (a number or a range), and what the twin says."""

    what: str
    source: str
    low: float
    high: float
    twin: float
    unit: str

    def line(self) -> str:
        """As a row."""
        span = f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"
        if self.low <= self.twin <= self.high:
            off = "within" if self.low != self.high else "0"
        else:
            nearest = self.low if self.twin < self.low else self.high
            off = f"{100 * (self.twin / nearest - 1):+.1f} %" if nearest else f"{self.twin - nearest:+.3g}"
        return f"| {self.what} | {span} {self.unit} | {self.twin:.4g} {self.unit} | {off} | {self.source} |"


def main() -> int:
    """Write the sections asked for behind the mark in docs/twin.md (or print them, `--out -`). 1 when the two ways disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SECTIONS:
        parser.add_argument(f"--{name}", action="store_true", help="only this section (and others named)")
    parser.add_argument("--racks", type=int, default=20, help="how many are judged both ways")
    parser.add_argument("--hours", type=float, default=None, help="of each of those (default: the suite's)")
    parser.add_argument("--out", default=str(PAGE))
    arguments = parser.parse_args()
    asked = [name for name in SECTIONS if getattr(arguments, name)] or list(SECTIONS)
    made, agree = {}, True
    for name in asked:
        if name == "equal":
            made[name], agree = equality(arguments.racks, arguments.hours)
        else:
            made[name] = SECTIONS[name]()
    if arguments.out == "-":
        print("\n\n".join("\n".join(lines) for lines in made.values()))
    else:
        PAGE.write_text(_replaced(PAGE.read_text(), made))
    return 0 if agree else 1


def _replaced(page: str, made: Mapping[str, list[str]]) -> str:
    """The page with these sections as they are now, in the order of SECTIONS; the others stay."""
    head, _, tail = page.partition(MARK)
    kept = {text.split("\n", 1)[0]: text.rstrip() for text in re.split(r"^(?=## )", tail, flags=re.M) if text.startswith("## ")}
    kept |= {lines[0]: "\n".join(lines) for lines in made.values()}
    return head + MARK + "\n\n" + "\n\n".join(kept[title] for title in TITLES if title in kept) + "\n"


def signals() -> list[str]:
    """Fault by signal, as tests hold the twin to it."""
    names = {
        **{kind: sorted(moves) for kind, (_, moves) in spec.MOVES.items()},
        **{kind: ["all falls silent"] for kind in spec.SILENT},
    }
    live = {kind: sorted(moves) for kind, (_, moves) in spec.LIVE.items()} | {
        kind: [what] for kind, (what, _) in spec.PROCESSES.items()
    }
    out = [
        "## Faults and what they move",
        "",
        "Everything that a fault moves, and nothing else moves (by more than what the whole rack shares): recorded racks of two",
        "hours, and a live tray at its seams in half a minute, each against the healthy rack of the same seed. Held by",
        "`tests/unit/test_twin_batch.py` and `tests/unit/test_twin_signals.py`. *log*: the kernel log tells it too.",
        "",
        "| kind | live | recorded |",
        "|---|---|---|",
    ]
    for kind in sorted(KINDS):
        log = {"live": kind in spec.LOGGED_LIVE, "recorded": kind in spec.LOGGED}
        cells = [
            ", ".join([*(f"`{m}`" if "." in m else m for m in _folded(moves[kind])), *(["*log*"] if log[seam] else [])])
            if kind in moves
            else ""
            for seam, moves in (("live", live), ("recorded", names))
        ]
        out.append(f"| `{kind}` | {cells[0] or ('nothing' if kind in live else '')} | {cells[1]} |")
    return out


def _folded(metrics: Sequence[str]) -> list[str]:
    """gpu.power, gpu.temp -> gpu.{power,temp}."""
    families: dict[str, list[str]] = {}
    for metric in metrics:
        family, _, name = metric.rpartition(".")
        families.setdefault(family, []).append(name)
    out = []
    for family, some in families.items():
        out += some if not family else [f"{family}.{some[0]}" if len(some) == 1 else f"{family}.{{{','.join(some)}}}"]
    return out


def l11() -> Suite:
    """The suite that racks are put through."""
    return load_suite("l11-rack-48h", checks=OFFERS, metrics=load_catalogue().metrics)


# ---------------------------------------------------------------- which faults act where


def matrix() -> list[str]:
    """Kind by seam, from the kinds themselves."""
    out = [
        "## Faults and where they act",
        "",
        "`live`: behind SSH, Redfish and the emulated libraries (`burnin twin up`). `recorded`: in what the batch path",
        "computes and `burnin twin record` writes down.",
        "",
        "| kind | parts | SEVERITY is | live | recorded |",
        "|---|---|---|---|---|",
    ]
    for kind in sorted(KINDS.values(), key=lambda k: k.kind):
        acts = " | ".join("yes" if seam in kind.seams else "" for seam in (LIVE, RECORDED))
        out.append(f"| `{kind.kind}` | {', '.join(kind.parts)} | {kind.unit} | {acts} |")
    return out


# ---------------------------------------------------------------- calibration


def calibration() -> list[str]:
    """Published and captured figures against the twin's, value by value."""
    figures = [*captured("gb300-nvl72", "real_qx_gb300.xml"), *captured("gb200-nvl72", "real_qx_gb200.xml")]
    figures += [*inlets(), *rack_figures(), *spreads(), *link_figures()]
    return [
        "## Calibration",
        "",
        f"Means over {len(SEEDS)} healthy racks (seeds {SEEDS[0]} to {SEEDS[-1]}), at rest. Figures of the *reference* are",
        "those of a study's twin (signatures, section 4), not measured on Blackwell. At which coolant temperature the idle",
        "trays were captured is not known: the twin's is set so that its GPUs are as warm, and told. Power of a rack is what",
        "its supplies take in; what they lose warms the air.",
        "",
        "| quantity | published or captured | twin | off by | source |",
        "|---|---|---|---|---|",
        *(figure.line() for figure in figures),
    ]


def _rests(profile: str, activity: float, supply_c: float | None = None) -> tuple[Model, list[Rest]]:
    model = load(profile)
    supply = np.array([[model.coolant.supply_c if supply_c is None else supply_c]])
    draws = (physics.draw(model, seed) for seed in SEEDS)
    return model, [rest(model, silicon(model, draw), Condition(activity), supply) for draw in draws]


def _mean(rests: list[Rest], of: Callable[[Rest], Floats]) -> float:
    return float(np.mean([of(one) for one in rests]))


def captured(profile: str, name: str) -> Iterator[Figure]:
    """`nvidia-smi -q -x` of idle trays: the lowest and highest of four GPUs."""
    file = CAPTURES / "nvidia-smi" / name
    if not file.is_file():
        return
    text = file.read_text(errors="replace")

    def span(tag: str, unit: str) -> tuple[float, float]:
        values = [float(v) for v in re.findall(rf"<{tag}>\s*(-?[\d.]+) {unit}\s*</{tag}>", text)]
        return (min(values), max(values)) if values else (float("nan"), float("nan"))

    source, warm = f"captured, `{name}`, idle", span("gpu_temp", "C")
    supply_c = _supply_of(profile, statistics.mean(warm))
    _, rests = _rests(profile, 0.0, supply_c)
    yield Figure(
        f"{profile}: coolant that idle GPUs as warm as captured take", "Lenovo: inlet 2 to 50 Cel", 2, 50, supply_c, "Cel"
    )
    yield Figure(f"{profile}: GPU power, idle", source, *_gpu_power(text), _mean(rests, lambda r: r.power), "W")
    yield Figure(f"{profile}: GPU temperature, idle", source, *warm, _mean(rests, lambda r: r.die), "Cel")
    memory = span("memory_temp", "C")
    if memory[0] == memory[0]:
        yield Figure(f"{profile}: memory temperature, idle", source, *memory, _mean(rests, lambda r: r.hbm), "Cel")


def _supply_of(profile: str, die_c: float) -> float:
    """The supply temperature at which idle GPUs are so warm, Cel."""
    low, high = 0.0, die_c
    for _ in range(12):
        supply_c = (low + high) / 2
        _, rests = _rests(profile, 0.0, supply_c)
        low, high = (supply_c, high) if _mean(rests, lambda r: r.die) < die_c else (low, supply_c)
    return supply_c


def _gpu_power(text: str) -> tuple[float, float]:
    """Of the GPUs' own readings, not of their modules'."""
    blocks = re.findall(r"<gpu_power_readings>(.*?)</gpu_power_readings>", text, re.S)
    found = [re.search(r"<(?:instant_power_draw|power_draw)>\s*([\d.]+) W", block) for block in blocks]
    values = [float(one[1]) for one in found if one]
    return min(values), max(values)


def inlets() -> Iterator[Figure]:
    """The reference twin's table for 1,200 W at three supply temperatures, GB200."""
    for supply, (t_low, t_mid, t_high), mhz, idle_w in (
        (25, (50, 55, 61), 1859, 187),
        (35, (60, 65, 70), 1829, 196),
        (45, (68, 75, 80), 1800, 206),
    ):
        _, rests = _rests("gb200-nvl72", 1.0, supply)
        _, cold = _rests("gb200-nvl72", 0.0, supply)
        where = f"gb200-nvl72 at {supply} Cel supply"
        source = "reference, 1,200 W"
        yield Figure(f"{where}: GPU temperature, loaded", source, t_low, t_high, float(np.median([r.die for r in rests])), "Cel")
        yield Figure(f"{where}: clock at the power limit", source, mhz, mhz, _mean(rests, lambda r: r.clock), "MHz")
        yield Figure(f"{where}: GPU power, idle", source, idle_w, idle_w, _mean(cold, lambda r: r.power), "W")
        yield Figure(f"{where}: median above supply", source, t_mid - supply, t_mid - supply,
                     float(np.median([r.die for r in rests])) - supply, "K")  # fmt: skip


def rack_figures() -> Iterator[Figure]:
    """A loaded rack: power, heat, flow."""
    suite = l11()
    for profile, nominal in (("gb300-nvl72", (132e3, 135e3)), ("gb200-nvl72", (115e3, 132e3))):
        one = next(simulate(profile, suite, [1], hours=4))
        soak = max((s for s in one.stretches if s.phase.startswith("load")), key=lambda s: s.t1_s - s.t0_s)
        housing = load(profile).housing
        assert housing is not None

        def total(metric: str, one: Recorded = one, soak: object = soak) -> float:
            return float(sum(one.window(part, metric, soak).mean() for part in one.parts(metric)))  # type: ignore[arg-type]

        power = total("psu.power") / housing.psu_efficiency
        air = housing.tray_air_w * 18 + power * (1 - housing.psu_efficiency)
        flow = total("coolant.flow")
        rise = total("coolant.return_temp") - total("coolant.supply_temp")
        source = "HPE 132 kW, Lenovo 135 kW (TDP)" if profile.startswith("gb300") else "HPE 115 kW liquid and 17 kW air"
        yield Figure(f"{profile}: power of the loaded rack", source, nominal[0] / 1e3, nominal[1] / 1e3, power / 1e3, "kW")
        yield Figure(f"{profile}: share of heat in the coolant", "OCP 85 %, Lenovo 90 %", 0.85, 0.9, (power - air) / power, "")
        yield Figure(f"{profile}: flow by heat", "OCP", 1.25, 2.0, flow / ((power - air) / 1e3), "L/min/kW")
        yield Figure(f"{profile}: coolant's rise", "OCP at most 10 K; Lenovo 9.9 K at 45 Cel supply", 9.0, 10.0, rise, "K")
        heat = flow * load(profile).coolant.w_per_k_per_lpm * rise
        yield Figure(f"{profile}: heat in the coolant / heat of the parts", "energy is kept; meters err by 1 %, 0.15 K",
                     0.96, 1.04, heat / (power - air), "")  # fmt: skip


def spreads() -> Iterator[Figure]:
    """How much healthy GPUs differ."""
    model, hot = _rests("gb300-nvl72", 1.0)
    _, cold = _rests("gb300-nvl72", 0.0)
    _, warm = _rests("gb300-nvl72", 1.0, model.coolant.supply_c + 10)
    clock = statistics.mean(float(np.std(r.clock) / np.mean(r.clock)) for r in hot)
    yield Figure("clock at the power limit, relative sd", "392 V100 (SC22 data)", 0.0155, 0.0163, clock, "")
    slopes = [((h.die - c.die) / (h.power - c.power)).reshape(-1, 4) for h, c in zip(hot, cold, strict=True)]
    by_slot = statistics.mean(float(np.mean(np.std(s, axis=0) / np.mean(s, axis=0))) for s in slopes)
    yield Figure("thermal resistance, relative sd within a slot", "reference", 0.031, 0.031, by_slot, "")
    per_k = statistics.mean(float(np.mean((w.clock / h.clock - 1) / (w.die - h.die))) for w, h in zip(warm, hot, strict=True))
    yield Figure("clock by temperature", "V100: -0.15; reference: -0.157", -0.157, -0.15, 100 * per_k, "%/K")
    thermal, one = model.thermal, hot[0]
    since = np.arange(0.0, 60.0, 0.01)[None, :]
    left, _ = laws.step_response(thermal, one.r_core[:1], (one.r_plate + one.r_loop)[:1], since)
    tau = float(since[0, np.argmax(left[0] < np.exp(-1))])
    yield Figure("die: time to 63 % of a step", "reference: die 1 s, plate 3 to 4 s", 3.0, 4.0, tau, "s")


def link_figures() -> Iterator[Figure]:
    """Raw error rates of a rack's links."""
    model = load("gb300-nvl72")
    rates = np.array([laws.raw_ber(margins(model, Chance(seed), ())).ravel() for seed in SEEDS])
    yield Figure("NVLink: median raw bit error rate", "reference", 3e-8, 3e-8, float(np.median(rates)), "")
    yield Figure("NVLink: 99th percentile", "reference", 5e-7, 5e-7, float(np.quantile(rates, 0.99)), "")
    words = model.gpu.nvlink_mbps * 8e6 / 5440
    yield Figure("NVLink: code words lost in 48 h at raw 2.4e-4", "RS(544,514), binomial tail by hand: about 11", 4, 20,
                 words * laws.code_word_loss(2.4e-4) * 172800, "")  # fmt: skip


# ---------------------------------------------------------------- speed and equality


def speed() -> list[str]:
    """Racks a second and times real time, on one core."""
    suite, count = l11(), 5
    hours = plan(load("gb300-nvl72"), suite).spans[-1].t1_s / 3600
    next(simulate("gb300-nvl72", suite, [0]))
    begin = time.process_time()
    for _ in simulate("gb300-nvl72", suite, range(1, 1 + count)):
        pass
    batch = (time.process_time() - begin) / count
    with tempfile.TemporaryDirectory() as out:
        begin = time.process_time()
        record("gb300-nvl72", suite, [1], Path(out))
        written = time.process_time() - begin
        size = sum(file.stat().st_size for file in Path(out).rglob("*") if file.is_file())
    return [
        "## Speed",
        "",
        f"One GB300 NVL72 through `l11-rack-48h` ({hours:.0f} h), CPU time of one process ({platform.machine()}, Python",
        f"{platform.python_version()}), measured {dt.date.today()}.",
        "",
        "| | took | that is | asked |",
        "|---|---|---|---|",
        f"| batch: all series in memory | {batch:.2f} s | {1 / batch:.1f} racks/s | 1 rack/s |",
        f"| recorded: {size / 1e6:.0f} MB of Parquet | {written:.1f} s | {hours * 3600 / written:,.0f} times real time | 2,000 |",
    ]


def equality(count: int, hours: float | None) -> tuple[list[str], bool]:
    """Racks judged both ways: arrays into signatures, and files written, read and judged. Findings must be the same."""
    suite, profile = l11(), "gb300-nvl72"
    laid_out = plan(load(profile), suite, hours)
    when, total = as_read(laid_out), laid_out.spans[-1].t1_s / 3600
    draw = plants_of(profile, (), Path("field"), hours=total)

    def plants(seed: int) -> tuple[object, ...]:
        return draw(seed) if seed % 2 else ()

    same = findings = 0
    for seed in range(7001, 7001 + count):
        tails: physics.Tails = "t5" if seed % 4 < 2 else "normal"
        with tempfile.TemporaryDirectory() as out:
            record(profile, suite, [seed], Path(out), plants, tails, hours=hours)  # type: ignore[arg-type]
            kept = recorded.load(Path(out) / f"TWIN-GB300-NVL72-{seed:04}")
        (one,) = simulate(profile, suite, [seed], plants, tails, hours=hours, stretches=lambda _: when)  # type: ignore[arg-type]
        rows, topology = kept.catalogue.signatures, kept.file.profile.topology
        a = find(one, topology, rows, {}, one.log)
        b = find(kept.telemetry, topology, rows, {}, kept.log)
        same += a == b
        findings += len(a)
        print(f"seed {seed} {tails}: {len(a)} and {len(b)} findings, {'equal' if a == b else 'DIFFERENT'}", file=sys.stderr)
    text = [
        "## Two ways, one answer",
        "",
        f"{count} racks of {total:.3g} h (seeds 7001 to {7000 + count}; every other one drawn from the scenario `field`,",
        "half of them with heavy tails): arrays straight into the signatures, against files that are written, read back and",
        "judged. All findings (part, signature, grade, numbers, words) are the same in",
        f"**{same} of {count}** racks: {findings} findings.",
    ]
    return text, same == count


SECTIONS: dict[str, Callable[[], list[str]]] = {
    "matrix": matrix,
    "signals": signals,
    "calibration": calibration,
    "speed": speed,
    "equal": lambda: equality(20, None)[0],
}
TITLES = (
    "## Faults and where they act",
    "## Faults and what they move",
    "## Calibration",
    "## Speed",
    "## Two ways, one answer",
)
"""Of the sections, in the page's order."""

if __name__ == "__main__":
    sys.exit(main())
