"""Early-failure signatures: series in, findings out. Pure; limits come from the catalogue with their sources.

`find` runs every signature that the catalogue names and whose signals are there. A signature without its signals, or with
too few parts to compare, finds nothing and claims nothing: what had to be measured is judged by coverage, elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from burnin.events import Finding, LogLine
from burnin.rack.schema import SignatureRow, Topology
from burnin.signatures import (
    common,
    coolant,
    fusion,
    heat,
    host,
    links,
    memory,
    sensors,
    shared,
    silicon,
    soak,
    stale,
    supply,
    thermal,
    work,
    xids,
    zones,
)
from burnin.signatures.baseline import Baseline
from burnin.signatures.readings import Readings
from burnin.telemetry.series import Floats as Floats
from burnin.telemetry.series import Telemetry

SIGNATURES: Mapping[str, Callable[[Readings, SignatureRow], list[Finding]]] = {
    heat.HBM: heat.hbm,
    heat.RACK: heat.rack,
    silicon.LEAK: silicon.leak,
    silicon.WEAK: silicon.weak,
    silicon.CEILING: silicon.ceiling,
    sensors.OFFSET: sensors.offset,
    sensors.GAIN: sensors.gain,
    sensors.METER: sensors.meter,
    sensors.STUCK: sensors.stuck,
    stale.STALE: stale.stale,
    soak.DRIFT: soak.drift,
    soak.STEP: soak.step,
    soak.SWING: soak.swings,
    shared.THROTTLE: shared.throttle,
    memory.RATE: memory.rate,
    memory.TREND: memory.trend,
    memory.REPAIR: memory.repair,
    memory.UNCORRECTED: memory.uncorrected,
    links.DOWN: links.down,
    links.ERRORS: links.errors,
    links.RECOVERY: links.recovery,
    links.MARGIN: links.margin,
    links.RATES: links.rates,
    links.FEC: links.tails,
    links.PAIRED: links.paired,
    thermal.BOARD: thermal.board,
    thermal.TRANSIENT: thermal.transient,
    supply.FLOW_LAW: supply.flow_law,
    memory.BURST: memory.burst,
    work.LOCKED: work.locked,
    work.PAIR: work.pair,
    work.WATT: work.watt,
    work.DEFICIT: work.deficit,
    work.SLOW: work.slow,
    work.JITTER: work.jitter,
    work.BANDWIDTH: work.bandwidth,
    work.WAIT: work.wait,
    work.WRONG: work.wrong,
    supply.SHARES: supply.shares,
    supply.BALANCE: supply.balance,
    coolant.VIRTUAL: coolant.apart,
    supply.LEAK: supply.leak,
    supply.PRESSURE: supply.pressure,
    supply.PUMP: supply.pump,
    host.CPU_MEMORY: host.grown(host.CPU_MEMORY),
    host.C2C: host.grown(host.C2C),
    host.PCIE: host.grown(host.PCIE),
    host.NIC: host.grown(host.NIC),
    host.NVME: host.grown(host.NVME),
    host.WIDTH: host.width,
    host.RANGE: host.limits,
    common.SHIFT: common.shift,
}
"""Signatures that look at one rack's readings with their own catalogue row and nothing else."""

RETESTED = frozenset(
    {
        thermal.GPU_ROW,
        thermal.TRAY_ROW,
        heat.HBM,
        silicon.WEAK,
        sensors.GAIN,
        sensors.METER,
        links.MARGIN,
        work.SLOW,
        work.LOCKED,
        work.BANDWIDTH,
    }
)
"""Signatures over which one more load decides. A rule needs no second look, and what shows at idle or over hours gets none."""


def find(
    telemetry: Telemetry,
    topology: Topology,
    rows: Mapping[str, SignatureRow],
    unloaded: Mapping[str, frozenset[str]],
    log: Iterable[LogLine] = (),
    baseline: Baseline | None = None,
    same: bool = True,
    ports: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Everything the signatures of `rows` find in one run, sorted by part and signature.

    `ports`: link -> switch port at its other end, as far as it was read: what ends in one chip is then named on that chip.

    `baseline`: what other racks were like, and whether they were the `same` in SKU, revision and firmware.

    `unloaded`: stage -> GPUs whose load was not reached there; `log`: the run's events, of which XIDs are read. A signature
    that is not in `rows` is not run: a run is judged by the catalogue that is kept with it.
    """
    return look(Readings(telemetry, topology, unloaded, baseline, same, ports=ports), rows, log)


def look(readings: Readings, rows: Mapping[str, SignatureRow], log: Iterable[LogLine] = ()) -> list[Finding]:
    """The same, where the caller wants what a baseline would learn (`readings.learned`)."""
    lines = list(log)
    with np.errstate(all="ignore"):  # a clock of 0 or a mean of nothing is NaN, and NaN is in no zone
        return sorted(_found(readings, rows, lines), key=lambda f: (f.part, f.signature))


def _lies(readings: Readings, rows: Mapping[str, SignatureRow]) -> list[Finding]:
    """What stuck sensors say, and those below what any coolant is: neither may make another signature name a part. What is hotter
    than can be may be hot, and what is colder than the loop's own sensor may be right."""
    found: list[Finding] = []
    for name in (sensors.STUCK, host.RANGE):
        if name in rows:
            found += readings.once_for_all(name, lambda name=name: SIGNATURES[name](readings, rows[name]))  # type: ignore[misc]
    lowest = zones.number(rows[host.RANGE], "lowest") if host.RANGE in rows else 0.0
    return [one for one in found if one.signature == sensors.STUCK or (one.value or 0.0) < lowest]


def _found(readings: Readings, rows: Mapping[str, SignatureRow], log: list[LogLine]) -> list[Finding]:
    out: list[Finding] = []
    readings.take_away(_lies(readings, rows))
    if {thermal.GPU_ROW, thermal.TRAY_ROW} <= set(rows):
        out += thermal.find(readings, rows)
    for name, see in SIGNATURES.items():
        if name in rows:
            out += readings.once_for_all(name, lambda see=see, name=name: see(readings, rows[name]))  # type: ignore[misc]
    if xids.SEQUENCE in rows:
        out += xids.find(log, rows[xids.SEQUENCE])
    if host.BOOT in rows:
        out += host.boots(log, rows[host.BOOT])
    if fusion.FUSION in rows:
        out += fusion.find(out, rows)
    return out
