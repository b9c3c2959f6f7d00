"""Every fault alone, on three seeds and three parts, and ten healthy racks: `make matrix` writes docs/matrix.md.

Each line is one `burnin demo`: a twin GB300 NVL72 of 18 trays with real agents over real SSH, judged by a run that is told
nothing of what was planted. It takes about an hour, because the minutes of a run are real ones.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HEALTHY_SEEDS = range(1, 11)
FAULTS = {
    "tim_void": ("t02.g0", "t07.g2", "t16.g3"),
    "tray_flow": ("t00", "t09", "t17"),
    "clock_cap": ("t01.g1", "t08.g3", "t13.g0"),
    "ecc_ue": ("t03.g2", "t10.g0", "t15.g1"),
    "xid": ("t04.g3", "t06.g1", "t12.g2"),
    "gpu_off_bus": ("t05.g0", "t11.g3", "t14.g1"),
    "tray_dead": ("t02", "t08", "t16"),
    "wrong_serial": ("t06", "t10.g2", "t13.g3"),
    "link_down": ("t02.g1.l0", "t09.g3.l17", "t15.g0.l8"),
    "link_margin": ("t00.g2.l5", "t06.g0.l11", "t17.g1.l3"),
    "lane_flap": ("t04.g0.l13", "t11.g2.l1", "t16.g3.l9"),
    "nvml_hang": ("t01.g0", "t09.g1", "t17.g2"),
}
SEEDS = (21, 22, 23)


@dataclass(frozen=True)
class Outcome:
    """One demo: what was planted, what was said, and whether that was right (the demo's own exit code)."""

    planted: str
    seed: int
    right: bool
    word: str
    named: str
    seconds: float


def main() -> int:
    """Run all, print as it goes, write the table. Exit status 1 when any line is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only faults whose name contains this (healthy: the healthy seeds)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/matrix.md")
    arguments = parser.parse_args()
    outcomes = []
    for planted, seed in cases(arguments.only):
        outcomes.append(run(planted, seed))
        print(line(outcomes[-1]), flush=True)
    if not arguments.only:
        arguments.out.write_text(page(outcomes))
    wrong = [one for one in outcomes if not one.right]
    print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} right")
    return 1 if wrong else 0


def cases(only: str) -> Iterator[tuple[str, int]]:
    """(plant, seed); an empty plant is a healthy rack."""
    if only in "healthy":
        yield from (("", seed) for seed in HEALTHY_SEEDS)
    for kind, parts in FAULTS.items():
        if only in kind:
            yield from ((f"{kind}:{part}", seed) for part, seed in zip(parts, SEEDS, strict=True))


def run(planted: str, seed: int) -> Outcome:
    """One demo in processes of its own."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "verdict.json"
        words = ["demo", "--plain", "--seed", str(seed), "--db", f"{place}/burnin.db", "--json", str(said)]
        words += ["--plant", planted] if planted else ["--healthy"]
        done = subprocess.run([sys.executable, "-m", "burnin", *words], capture_output=True, text=True, cwd=ROOT, check=False)
        document: dict[str, Any] = (
            json.loads(said.read_text()) if said.exists() else {"verdict": "none", "findings": [], "holds": []}
        )
    if done.returncode not in (0, 1):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    named = {f["part"]: f["signature"] for f in reversed(document["findings"]) if f["severity"] != "WATCH"}
    for hold in document["holds"]:
        named.setdefault(hold["part"], "hold")
    text = ", ".join(f"{part} ({why})" for part, why in sorted(named.items()))
    return Outcome(
        planted or "nothing", seed, done.returncode == 0, document["verdict"], text or "nobody", time.monotonic() - begin
    )


def line(one: Outcome) -> str:
    """One row of the table."""
    return (
        f"| {one.planted} | {one.seed} | {one.word} | {one.named} | {'right' if one.right else '**WRONG**'} | {one.seconds:.0f} |"
    )


def page(outcomes: list[Outcome]) -> str:
    """docs/matrix.md."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.strip()
    right = sum(one.right for one in outcomes)
    head = f"""# Matrix: every fault alone, and healthy racks

Made by `make matrix` on {dt.date.today()} at commit {commit} (Python {platform.python_version()}, {platform.machine()}, twin
gb300-nvl72 with 18 trays, suite demo). {right} of {len(outcomes)} lines are right. Right means: a healthy rack is PASS; a planted
part, or its tray, is named FAIL or HOLD; and nobody else is. Severities are the kinds' defaults (`burnin twin faults`).
Nothing here was run on hardware.

| planted | seed | verdict | named (first reason) | | s |
|---|---|---|---|---|---|
"""
    return head + "\n".join(line(one) for one in outcomes) + "\n"


if __name__ == "__main__":
    sys.exit(main())
