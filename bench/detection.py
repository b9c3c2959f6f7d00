"""How often healthy racks are blamed, and how often a planted fault is named: burnin beside two rivals, on the same racks.

    python -m bench.detection                          the whole table (hours; --jobs for more cores)
    python -m bench.detection --minutes 20             what can be had in that time, every line about evenly
    python -m bench.detection --minutes 60 --share 0.8    the same, four of five racks healthy ones
    python -m bench.detection --table --out FILE       write docs/detection.md again from what FILE has, measure nothing
    python -m bench.detection --page -                 print it instead of writing docs/detection.md

Racks come from the twin's batch path, with the suite bench/detection.yaml. Baselines are learned from seeds that are not judged,
and nothing was tuned on the seeds that are. Each rack is looked at without a baseline, with one of 10 racks, with one of
150, and by the rivals. FILE gets a line for each rack as soon as it is judged; a run that was ended goes on where the file ends,
with the baselines that lie beside it.

A part that is named wrongly is a miss and a false alarm. `named`: FAIL or HOLD on the planted part or on the parent that the
fault is of; `others`: FAIL or HOLD on a part that has nothing to do with it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from bench.detection_page import page
from bench.detection_racks import ALIKE, BASELINES, FAULTS, PROFILE, Fault, judged, learn, racks
from burnin.signatures.baseline import Baseline, Key, build

ROOT = Path(__file__).parents[1]
TRAIN, VALIDATE = 1_000_000, 3_000_000
"""Seeds of baselines and of what is judged; the tests of the signatures use others still."""
TAILS = ("normal", "t5")
FLEETS: dict[str, tuple[str, float | None]] = {**{tails: (tails, None) for tails in TAILS}, "alike": ("normal", ALIKE)}
"""What racks are of, and baselines with them: tails, and the spread of work per clock where it is not the twin's."""
MARK = "<!-- below: written by bench/detection.py -->"
Job = tuple[str | None, str, int]
"""(fault or None, tails, seed)."""


def main() -> int:
    """Measure, and put the tables behind the mark in docs/detection.md (or print them)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=3000, help="healthy racks of each kind of tails")
    parser.add_argument("--heavy", type=int, help="of those with t5 tails, where they shall be another number")
    parser.add_argument("--each", type=int, default=200, help="racks of each fault")
    parser.add_argument(
        "--share", type=float, help="share of healthy racks in what is measured, whenever it ends (all lines evenly)"
    )
    parser.add_argument("--seed", type=int, default=VALIDATE, help="first seed of what is judged")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="faults whose name contains this (healthy: none of them)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, all lines measured about evenly")
    parser.add_argument("--no-150", action="store_true", help="without the baseline of 150 racks (learning it takes minutes)")
    parser.add_argument("--baselines", default="", help="a folder to keep them in; what lies there is not learned again")
    parser.add_argument("--out", default="", help="a file for one line a rack; goes on where it ends")
    parser.add_argument("--table", action="store_true", help="only write the page from --out")
    parser.add_argument("--page", default=str(ROOT / "docs/detection.md"))
    arguments = parser.parse_args()
    with nullcontext(arguments.out) if arguments.out else tempfile.TemporaryDirectory() as place:
        file = Path(place) if arguments.out else Path(place, "lines")
        if not arguments.table:
            measure(arguments, file)
        header, *lines = _read(file)
    text = page(header, lines)
    if arguments.page == "-":
        print(text)
    else:
        old = Path(arguments.page).read_text() if Path(arguments.page).exists() else ""
        Path(arguments.page).write_text(old.split(MARK)[0] + MARK + "\n\n" + text)
    return 0


def measure(arguments: argparse.Namespace, file: Path) -> None:
    """Adds a line to the file for each rack that is not in it, until all are or the time is up."""
    until = time.monotonic() + 60 * arguments.minutes
    sizes = {name: n for name, n in BASELINES.items() if not (arguments.no_150 and n > 10)}
    folder = Path(arguments.baselines or f"{file}.baselines")
    folder.mkdir(exist_ok=True, parents=True)
    header = {"profile": PROFILE, "seed": arguments.seed, "judges": list(sizes)}
    have = _read(file) if file.exists() else []
    if have and have[0] != header:
        raise SystemExit(f"{file} was begun as {have[0]}, not as {header}")
    done = {(line["fault"], line["tails"], line["seed"]) for line in have[1:]}
    faults = [fault for fault in FAULTS if arguments.only in fault.name]
    all_jobs = jobs(faults, arguments.healthy, arguments.each, arguments.seed, arguments.share, arguments.heavy)
    todo = [job for job in all_jobs if job not in done]
    with _side_by_side(arguments.jobs, str(folder), sizes) as each, file.open("a") as out:
        _learn_all(each, folder, sizes)
        if not have:
            print(json.dumps(header), file=out, flush=True)
        for line in each(_judge, todo):
            print(json.dumps(line), file=out, flush=True)
            if time.monotonic() > until:
                return


@contextmanager
def _side_by_side(many: int, folder: str, sizes: dict[str, int]) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map` in so many processes; one is this one, so that who stops it stops it all."""
    _begin(folder, sizes)
    if many == 1:
        yield map
    else:
        with multiprocessing.Pool(many, _begin, (folder, sizes)) as pool:
            yield pool.imap


def jobs(
    faults: Sequence[Fault], healthy: int, each: int, seed: int, share: float | None = None, heavy: int | None = None
) -> list[Job]:
    """Every line's racks in turn, so that whenever it ends all are measured about evenly; with a `share`, that of healthy ones
    for as long as there are any."""
    many = dict(zip(TAILS, (healthy, healthy if heavy is None else heavy), strict=True))
    turns = sorted(((i + 0.5) / count, tails, i) for tails, count in many.items() for i in range(count))
    sound: list[Job] = [(None, tails, seed + i) for _, tails, i in turns]
    weak = [(fault.name, "normal", seed + 10_000 * (1 + FAULTS.index(fault)) + turn) for turn in range(each) for fault in faults]
    part = share if share is not None else len(sound) / max(len(sound) + len(weak), 1)
    out: list[Job] = []
    taken = 0
    while taken < len(sound) and len(out) - taken < len(weak):
        if taken <= part * len(out):
            out.append(sound[taken])
            taken += 1
        else:
            out.append(weak[len(out) - taken])
    return [*out, *sound[taken:], *weak[len(out) - taken :]]


def _read(file: Path) -> list[Any]:
    """Its lines; one that was cut short by an end is taken off the file."""
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        file.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


# ---------------------------------------------------------------- one process's work

_FOLDER: list[Path] = []
_SIZES: dict[str, int] = {}
_CHUNK = 10


def _begin(folder: str, sizes: dict[str, int]) -> None:
    _FOLDER[:] = [Path(folder)]
    _SIZES.update(sizes)
    gc.disable()  # a rack is twenty thousand series without a cycle; `_judge` collects now and then


@cache
def _baseline(name: str, fleet: str) -> Baseline | None:
    path = _FOLDER[0] / f"{name}-{fleet}.json"
    return Baseline.model_validate_json(path.read_text()) if path.exists() else None


def _learn(job: tuple[str, range, float | None]) -> dict[int, Any]:
    return learn(*job)


def _learn_all(each: Callable[..., Iterator[Any]], folder: Path, sizes: dict[str, int]) -> None:
    """Baselines of racks that are not judged, of each fleet that any are of."""
    for fleet, (tails, rate_sd) in FLEETS.items():
        if all((folder / f"{name}-{fleet}.json").exists() for name, count in sizes.items() if count):
            continue
        chunks = [(tails, range(TRAIN + i, TRAIN + i + _CHUNK), rate_sd) for i in range(0, max(sizes.values()), _CHUNK)]
        grids = {str(seed): one for many in each(_learn, chunks) for seed, one in many.items()}
        for name, count in sizes.items():
            if count:
                some = dict(list(grids.items())[:count])
                (folder / f"{name}-{fleet}.json").write_text(build(Key(profile=PROFILE), some).model_dump_json())


def _judge(job: Job) -> dict[str, Any]:
    name, tails, seed = job
    if seed % 100 == 0:
        gc.collect()
    fault = next((fault for fault in FAULTS if fault.name == name), None)
    rate_sd = fault.rate_sd if fault is not None else None
    (one,) = racks([seed], (fault.plant(),) if fault is not None else (), tails, rate_sd)
    fleet = next(fleet for fleet, of in FLEETS.items() if of == (tails, rate_sd))
    said = judged(one, {baseline: _baseline(baseline, fleet) for baseline in _SIZES})
    return {"fault": name, "tails": tails, "seed": seed, "lost": dict(one.lost), "said": said}


if __name__ == "__main__":
    sys.exit(main())
