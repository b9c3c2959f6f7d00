"""A controller lives for an hour, or for as long as you have: does it grow? `python -m bench.soak [--minutes 60] [--trays 18]`

`burnin run` of thermal cycles at the cadences of the L11 suites on a twin over real SSH, in processes of its own. Every ten
seconds what the run, its guard and the agents hold is read from /proc, and the database is looked at: a line of CSV. At the end,
or of a CSV that is there (`--of FILE`), a line is laid through what came after the first sixth (start, imports, caches) and
through the second half alone, and followed to 72 h.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from burnin.twin.tray import descendants
from burnin.twin.up import Twin, running

EVERY_S = 10.0
HOURS = 72.0
LOAD_MIN, COOL_MIN = 4, 2
SUITE = """
suite: soak
about: thermal cycles at the cadences of the L11 suites, to see whether the controller grows
lease: 15 s
sample: 1 s
sample_slow: 5 s
sample_links: 60 s
coverage: {{metrics: [gpu.temp, gpu.tlimit, gpu.power, ecc.dram_ue]}}
stages:
  - {{stage: audit, steps: [inventory]}}
  - {{stage: idle, phase: idle, for: 1 min, settle: 10 s, steps: [idle-baseline, xid]}}
  - repeat: {cycles}
    stages:
      - stage: warm
        phase: load-cycle
        for: {load} min
        settle: 1 min
        load: {{}}
        steps: [gpu-load, thermal-margin, throttling, ecc, xid]
      - {{stage: cold, phase: cool-cycle, for: {cool} min, steps: [ecc, xid]}}
"""
_PAGE = os.sysconf("SC_PAGESIZE")
_HZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Held:
    """What one process holds: MB of memory that are its own, open files, threads, and the seconds of CPU it took."""

    mb: float
    files: int
    threads: int
    cpu_s: float


def held(pid: int) -> Held | None:
    """None where it is gone."""
    try:
        at = Path(f"/proc/{pid}")
        resident, shared = map(int, at.joinpath("statm").read_text().split()[1:3])
        rest = at.joinpath("stat").read_text().rpartition(")")[2].split()
        mb = (resident - shared) * _PAGE / 1e6
        return Held(mb, len(os.listdir(at / "fd")), int(rest[17]), (int(rest[11]) + int(rest[12])) / _HZ)
    except OSError:
        return None


def named(root: int, word: bytes) -> list[int]:
    """Processes below this one with this word among their arguments."""
    out = []
    for pid in descendants(root):
        try:
            if any(word in part for part in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")):
                out.append(pid)
        except OSError:
            continue
    return out


def look(begun: float, run: int, twin: Twin, db: Path) -> dict[str, float] | None:
    """One line; None when the run is over."""
    controller, guards = held(run), named(run, b"burnin.run.guard_process")
    guard = held(guards[0]) if guards else None
    if controller is None or not controller.files:
        return None
    agents = [one for pid in _holders(twin) if (one := held(pid)) is not None]
    out = {"t_s": time.monotonic() - begun, "load_average": os.getloadavg()[0], "agents": len(agents)}
    for name, one in (("run", controller), ("guard", guard)):
        out |= {f"{name}_{key}": value for key, value in vars(one).items()} if one is not None else {}
    out["agent_mb"] = sum(one.mb for one in agents) / max(1, len(agents))
    out["agent_files"] = max((one.files for one in agents), default=0)
    out["db_mb"] = sum(path.stat().st_size for path in (db, db.with_name(f"{db.name}-wal")) if path.exists()) / 1e6
    return out


def _holders(twin: Twin) -> Iterator[int]:
    for place in twin.trays.values():
        yield from named(place.pid, b"hold")[:1]


def soak(minutes: float, trays: int, place: Path, out: Path) -> int:
    """Run it, and write the CSV as it goes: the run's exit code."""
    cycles = max(1, round(minutes / (LOAD_MIN + COOL_MIN)))
    (place / "soak.yaml").write_text(SUITE.format(cycles=cycles, load=LOAD_MIN, cool=COOL_MIN))
    with running("gb300-nvl72", 7, where=place, trays=trays, switches=0) as twin, out.open("w", newline="") as file:
        words = ["run", str(place / "soak.yaml"), str(twin.rack_file), "--db", str(db := place / "runs.db"), "--plain"]
        process = subprocess.Popen(
            [sys.executable, "-m", "burnin", *words, "--operator", "soak", "--json", str(place / "verdict.json")],
            stdout=(place / "said").open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        begun, writer = time.monotonic(), None
        try:
            while process.poll() is None:
                time.sleep(EVERY_S)
                line = look(begun, process.pid, twin, db)
                if line is None or "guard_mb" not in line:
                    continue
                if writer is None:
                    writer = csv.DictWriter(file, list(line))
                    writer.writeheader()
                writer.writerow({key: round(value, 3) for key, value in line.items()})
                file.flush()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(60)
        return process.returncode


# ---------------------------------------------------------------- what it came to


def read(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def slope(t_h: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Of a straight line per hour, and its standard error. Readings that follow each other are not independent: the error counts
    as many as the residuals' own correlation leaves."""
    x = t_h - t_h.mean()
    value = float((x * y).sum() / (x * x).sum())
    left = y - y.mean() - value * x
    if not left.any():
        return value, 0.0
    close = float((left[1:] * left[:-1]).sum() / (left * left).sum())
    apart = max(3.0, len(y) * (1 - close) / (1 + close)) if close > 0 else float(len(y))
    spread = float((left * left).sum() / (len(y) - 2))
    return value, (spread / float((x * x).sum()) * len(y) / apart) ** 0.5


def table(columns: Mapping[str, np.ndarray]) -> Iterable[str]:
    """Markdown."""
    t_h = columns["t_s"] / 3600
    late, half = t_h >= t_h[-1] / 6, t_h >= t_h[-1] / 2
    load = columns["load_average"]
    looks = f"{t_h[-1] * 60:.0f} minutes, {len(t_h)} looks, {columns['agents'].max():.0f} trays"
    yield f"{looks}; load average {load.min():.1f} to {load.max():.1f}."
    yield ""
    yield "| | after the first sixth | at the end | a hour | of it in the second half | after 72 h |"
    yield "|---|---|---|---|---|---|"
    rows = {
        "run: memory of its own, MB": "run_mb", "run: open files": "run_files", "run: threads": "run_threads",
        "guard: memory of its own, MB": "guard_mb", "guard: open files": "guard_files",
        "agent: memory of its own, mean of all, MB": "agent_mb", "agent: open files, most": "agent_files",
        "database with its log, MB": "db_mb",
    }  # fmt: skip
    for what, key in rows.items():
        y = columns[key]
        per_h, error = slope(t_h[late], y[late])
        later, unsure = slope(t_h[half], y[half])
        grown = y[-1] + later * (HOURS - t_h[-1])
        slopes = f"{per_h:+.2f} +- {error:.2f} | {later:+.2f} +- {unsure:.2f}"
        yield f"| {what} | {y[late][0]:.1f} | {y[-1]:.1f} | {slopes} | {grown:.0f} |"
    for what, key in (("run", "run_cpu_s"), ("guard", "guard_cpu_s")):
        y, t = columns[key][late], columns["t_s"][late]
        yield f"| {what}: of a core, % | | {100 * (y[-1] - y[0]) / (t[-1] - t[0]):.1f} | | | |"


def main() -> int:
    """Soak, then the table; 1 when the run ended otherwise than with a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--trays", type=int, default=18)
    parser.add_argument("--out", type=Path, default=Path("soak.csv"), help="where the looks go")
    parser.add_argument("--place", type=Path, help="where the run's files stay (default: they go)")
    parser.add_argument("--of", type=Path, help="only the table, of looks that are there")
    given = parser.parse_args()
    if given.of:
        print("\n".join(table(read(given.of))))
        return 0
    with tempfile.TemporaryDirectory(prefix="burnin-soak-") as folder:
        place = given.place or Path(folder)
        place.mkdir(exist_ok=True)
        code = soak(given.minutes, given.trays, place, given.out)
        print("\n".join(table(read(given.out))))
        print(f"\nthe run ended with {code}; {(place / 'said').read_text().strip().splitlines()[-3:]}")
    return 0 if code in (0, 1, 3) else 1


if __name__ == "__main__":
    sys.exit(main())
