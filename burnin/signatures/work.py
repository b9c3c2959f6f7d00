"""What a GPU gets done: how fast at its clock, how evenly, for how many watts, how fast to its peers, and whether it is right.

Same-cause signals do not confirm each other: all of these carry the cause `work` or `silicon` in the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from burnin.events import Finding, Severity
from burnin.rack.schema import SignatureRow
from burnin.signatures import zones
from burnin.signatures.baseline import kind_of
from burnin.signatures.readings import Readings
from burnin.signatures.robust import median
from burnin.signatures.zones import number
from burnin.telemetry.series import Floats, Series, Stretch

SLOW, JITTER, WATT, DEFICIT = "perf.slow", "perf.jitter", "perf.watt", "power.deficit"
LOCKED, PAIR = "power.isoclock", "power.leak_pair"
BANDWIDTH, WAIT, WRONG = "bandwidth.gpu", "collective.wait", "sdc.wrong"


def _steady(row: SignatureRow) -> Callable[[Series], float]:
    """The rate over windows that are long enough for a host's hiccup not to matter; NaN over shorter ones."""
    least = number(row, "seconds")
    return lambda series: series.rate() if series.present > 1 and series.t_s[-1] - series.t_s[0] >= least else float("nan")


def slow(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Work per clock below that of peers: launches per second / mean clock, so that a capped clock is not called slow.

    Judged in phases at a locked clock where there are any; those at one clock are averaged, for it is parts that are compared,
    not runs. A clock that moves between readings is not known by its mean: without a locked one, only what is slower by
    `capped` counts.
    """
    many = []
    looks, floor = _looks(readings, row)
    for load, done in looks:
        relative, least = zones.relative(done), number(row, "sigma_min")
        if readings.enough(done):
            shared = readings.shared(SLOW, load.phase, relative, least)
            mean = np.array([np.nanmean(x) if np.isfinite(x).any() else np.nan for x in done])
            trays = zones.parts(row, load.stage, readings.trays, mean, shared, shared.own <= -floor, per=-median(done), sign=-1.0)
            family = readings.family(SLOW, load.phase, relative, least, (shared.own <= -floor).astype(float))
            own = zones.among(readings, row, load.stage, done, family, family.own <= -floor, per=-median(done), sign=-1.0)
            many.append(trays | own)
    found = zones.findings(
        SLOW, row, zones.collect(many), lambda s: f"it does {100 * s.excess:.1f} % less work per clock than its peers"
    )
    host = "its GPUs are slow together: look at its host, BIOS and power profile before any board"
    return [one if "." in one.part else zones.doing(one, host) for one in found]


def _looks(readings: Readings, row: SignatureRow) -> tuple[list[tuple[Stretch, Floats]], float]:
    """([(the last load of a kind, launches per second and MHz)], how much less of it counts)."""
    looks = []
    for idle, load in readings.pairs():
        done = _rates(readings, row, load) / readings.mean("gpu.clock_sm", load)
        looks.append((load, np.where(readings.loaded(idle, load), done, np.nan)))
    kinds: dict[str, list[tuple[Stretch, Floats]]] = {}
    for load, done in looks:
        if "@" in load.phase and readings.enough(done):
            kinds.setdefault(kind_of(load.phase), []).append((load, done))
    pinned = [
        (some[-1][0], _mean(np.stack([done / median(done) for _, done in some])) * median(some[-1][1])) for some in kinds.values()
    ]
    return (pinned, number(row, "floor")) if pinned else (looks, number(row, "capped"))


def _rates(readings: Readings, row: SignatureRow, load: Stretch) -> Floats:
    """Launches per second of every GPU in a stretch."""
    name = f"launches {number(row, 'seconds'):g}"
    return readings.once(name, load, partial(readings.of, "load.launches", load, _steady(row)))


def _mean(stack: Floats) -> Floats:
    """Over looks of which each is a grid; of what is known, NaN where nothing is."""
    known = ~np.isnan(stack)
    mean = np.where(known, stack, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known.any(axis=0), mean, np.nan)


def jitter(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Work that comes unevenly: spread of the launches between readings / their median, against peers."""
    many = []
    for load in readings.telemetry.phase("load"):
        uneven = readings.once(JITTER, load, partial(readings.of, "load.launches", load, _uneven))
        family = readings.family(JITTER, load.phase, uneven, number(row, "sigma_min"))
        many.append(zones.among(readings, row, load.stage, uneven, family))
    return zones.findings(
        JITTER, row, zones.collect(many), lambda s: f"one step in a hundred takes {100 * s.value:.1f} % longer than usual"
    )


def _uneven(series: Series) -> float:
    t, v = (x[~np.isnan(series.v)] for x in (series.t_s, series.v))
    if t.size < 50:
        return float("nan")
    took, did = np.diff(t), np.diff(v)
    usual = median(took)
    good = (did > 0) & (np.abs(took - usual) <= 0.2 * usual)
    pace = np.sort(took[good] / did[good])
    if pace.size < 50:
        return float("nan")
    at = 0.99 * (pace.size - 1)
    slow = pace[int(at)] + (at - int(at)) * (pace[min(int(at) + 1, pace.size - 1)] - pace[int(at)])
    return float(slow / median(pace) - 1)


def watt(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Work per joule below that of peers, at the power limit."""
    many = []
    for idle, load in readings.free():
        done = _rates(readings, row, load) / readings.mean("gpu.power", load)
        done = np.where(readings.loaded(idle, load), done, np.nan)
        relative, least, floor = zones.relative(done), number(row, "sigma_min"), number(row, "floor")
        if readings.enough(done):  # a tray that is slow as a whole is perf.slow's to name
            shared = readings.shared(WATT, load.phase, relative, least)
            family = readings.family(WATT, load.phase, relative, least, (shared.own <= -floor).astype(float))
            many.append(zones.among(readings, row, load.stage, done, family, per=-median(done), sign=-1.0))
    return zones.findings(
        WATT, row, zones.collect(many), lambda s: f"it does {100 * s.excess:.1f} % less work per joule than its peers"
    )


def deficit(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Power under full load well below the rack's, whatever the clock says: something holds it back.

    Against the median of all loaded GPUs, not against the limit: a load that does not reach the limit anywhere is no fault.
    A tray of which most GPUs lack power is named instead of them.
    """
    out: dict[str, Finding] = {}
    for _, load in readings.free():
        share = 1 - readings.mean("gpu.power", load) / median(readings.mean("gpu.power", load))
        steady = np.isfinite(share) & (share >= number(row, "floor"))
        if not readings.enough(share) or np.count_nonzero(steady) * 2 > np.count_nonzero(np.isfinite(share)):
            continue
        for i, tray in enumerate(readings.trays):
            lacking, known = np.flatnonzero(steady[i]).tolist(), int(np.count_nonzero(np.isfinite(share[i])))
            whole = len(lacking) > 1 and len(lacking) * 4 >= 3 * known
            for j in lacking[:1] if whole else lacking:
                part = tray if whole else readings.gpus[i][j]
                lost = float(np.nanmin(share[i][steady[i]])) if whole else float(share[i, j])
                why = f"it draws {100 * lost:.1f} % less than the rack's GPUs in {load.stage}, under the same load"
                out[part] = zones.policy(DEFICIT, row, part, Severity.HOLD, lost, why, stage=load.stage)
    return list(out.values())


def locked(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Power at one clock, brought to one temperature: leakage or regulator losses."""
    many = []
    for load, power in _isoclock(readings, row):
        family = readings.family(LOCKED, load.phase, zones.relative(power), number(row, "sigma_min"))
        many.append(zones.among(readings, row, load.stage, power, family, per=median(power)))
    return zones.findings(
        LOCKED, row, zones.collect(many), lambda s: f"{s.value:.0f} W at a locked clock, {100 * s.excess:.0f} % above its peers"
    )


def _isoclock(readings: Readings, row: SignatureRow) -> list[tuple[Stretch, Floats]]:
    out = []
    for idle, load in readings.pairs():
        if "@" in load.phase:
            power, temp = readings.mean("gpu.power", load), readings.mean("gpu.temp", load)
            even = power * np.exp(-number(row, "per_kelvin") * (temp - median(temp)))
            out.append((load, np.where(readings.loaded(idle, load), even, np.nan)))
    return out


def pair(readings: Readings, row: SignatureRow) -> list[Finding]:
    """How much power grows with temperature at one locked clock, between a cold and a hot inlet: leakage, and nothing else."""
    loads = [load for load in readings.telemetry.phase("load") if "@" in load.phase]
    best: tuple[float, Stretch, Stretch] | None = None
    for i, one in enumerate(loads):
        for two in loads[i + 1 :]:
            warmer = abs(median(readings.mean("gpu.temp", two) - readings.mean("gpu.temp", one)))
            if one.phase.split("-")[0] == two.phase.split("-")[0] and (best is None or warmer > best[0]):
                best = warmer, one, two
    if best is None or not best[0] >= number(row, "apart"):
        return []
    _, one, two = best
    rise = readings.mean("gpu.temp", two) - readings.mean("gpu.temp", one)
    slope = (readings.mean("gpu.power", two) - readings.mean("gpu.power", one)) / rise
    family = readings.family(PAIR, one.phase, zones.relative(slope), number(row, "sigma_min"))
    seen = zones.among(readings, row, two.stage, slope, family, per=median(slope))
    return zones.findings(
        PAIR, row, zones.collect([seen]),
        lambda s: f"its power grows by {s.value:.2f} W/K at a locked clock, {100 * s.excess:.0f} % more than that of its peers",
    )  # fmt: skip


def bandwidth(readings: Readings, row: SignatureRow) -> list[Finding]:
    """What a GPU reaches to all others, against peers: means over its pairs and over all exchanges, because single ones are
    noisier than parts differ."""
    reached, last = _exchanges(readings, "gpu.bandwidth")
    family = readings.family(BANDWIDTH, "load", zones.relative(reached), number(row, "sigma_min"))
    seen = zones.among(readings, row, last, reached, family, per=-median(reached), sign=-1.0)
    return zones.findings(
        BANDWIDTH, row, zones.collect([seen]),
        lambda s: f"{s.value:.1f} GB/s to all others, {100 * s.excess:.1f} % below its peers",
    )  # fmt: skip


def wait(readings: Readings, row: SignatureRow) -> list[Finding]:
    """In a collective everybody waits for the slow one, who waits least."""
    waited, last = _exchanges(readings, "gpu.wait")
    family = readings.family(WAIT, "load", waited, number(row, "sigma_min"))
    seen = zones.among(readings, row, last, waited, family, per=-1.0, sign=-1.0)
    return zones.findings(
        WAIT, row, zones.collect([seen]),
        lambda s: f"it waits {100 * s.value:.1f} % of each step, {100 * s.excess:.1f} points less than those who wait for it",
    )  # fmt: skip


def _exchanges(readings: Readings, metric: str) -> tuple[Floats, str]:
    """(mean over all stretches in which it was read of what was read there, whether it had settled or not; the last of them)."""
    looks = [(s.stage, readings.mean(metric, replace(s, settle_s=0.0))) for s in readings.telemetry.stretches]
    looks = [(stage, grid) for stage, grid in looks if readings.enough(grid)]
    if not looks:
        return np.full((len(readings.trays), readings.topology.gpus_per_tray), np.nan), ""
    stack = np.stack([grid / median(grid) if metric == "gpu.bandwidth" else grid for _, grid in looks])
    scale = median(looks[-1][1]) if metric == "gpu.bandwidth" else 1.0
    return _mean(stack) * scale, looks[-1][0]


def wrong(readings: Readings, row: SignatureRow) -> list[Finding]:
    """Results that differ from what equal arithmetic gives elsewhere: once is HOLD until it is reproduced, again is FAIL."""
    out = []
    for gpus in readings.gpus:
        for gpu in gpus:
            grew = readings.telemetry.of(gpu, "load.wrong").growth()
            if grew >= number(row, "floor"):
                again = grew >= number(row, "far")
                why = f"{grew:.0f} results were wrong{'' if again else ': once is not proven, and not forgotten'}"
                out.append(zones.policy(WRONG, row, gpu, Severity.FAIL if again else Severity.HOLD, grew, why))
    return out
