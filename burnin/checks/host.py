"""Are the CPUs, their memory and the PCIe links of the tray well, and does the kernel say so too?

Counters are judged by their growth since the run began. A PCIe link is compared with what both its ends can do; a GPU at
rest lets its link run slower, so its generation is judged under load only. Lines of the kernel log are judged by the
catalogue; a log that could not be read is UNKNOWN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from burnin.checks import around, xid
from burnin.checks.base import Check, Context, Evidence, Quantity
from burnin.checks.gpu_load import attained, not_reached
from burnin.events import LogLine, Measurement, Result
from burnin.telemetry.series import Series

_BOARD = "run again on this tray; if it comes back, replace the board that carries this memory"
_SEAT = "re-seat the card and run again; if it stays, swap it to tell card from slot"
_COOL = "check coolant and cold plate of the CPUs of this tray, then run again"
COUNT = Quantity(
    "cpu.count", "1", "CPU sockets that run", advisory=True, action="restart the tray; if a CPU stays away, replace it"
)
MEMORY = {
    "cpu.edac_ue": Quantity("cpu.edac_ue.growth", "1", "uncorrected memory errors since the run began", action=_BOARD),
    "cpu.edac_ce": Quantity("cpu.edac_ce.growth", "1", "corrected memory errors since the run began", action=_BOARD),
}
MARGIN = Quantity("cpu.margin", "Cel", "lowest margin to the temperature at which the CPU begins to protect itself", action=_COOL)
TEMP = Quantity("cpu.temp.max", "Cel", "highest CPU temperature, where the sensor knows no limit of its own", action=_COOL)
WIDTH = Quantity("pcie.width.fraction", "1", "lanes the link runs with / lanes that both ends have", action=_SEAT)
SPEED = Quantity("pcie.gen.fraction", "1", "generation the link runs at / generation that both ends can do", action=_SEAT)
ERRORS = {
    "pcie.aer_fatal": Quantity("pcie.aer_fatal.growth", "1", "PCIe errors that cost the link, since the run began", action=_SEAT),
    "pcie.aer_nonfatal": Quantity("pcie.aer_nonfatal.growth", "1", "PCIe errors that cost a transaction", action=_SEAT),
}
CORRECTED = Quantity("pcie.corrected_rate", "1/min", "corrected PCIe errors a minute, at least (3 sigma off)", action=_SEAT)
KERNEL = Quantity(
    "kernel.event", "1", "what the kernel log reports of the hardware", action="see what the line says, then run again"
)


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """CPUs, their memory, every PCIe link of the tray, the kernel log."""
    topology = context.profile.topology
    cpus = around.expected(context, topology.cpus_per_tray)
    out = [around.counted(context, evidence, COUNT, "host.cpus", cpus), *_memory(context, evidence, cpus)]
    sockets = around.parts(context, evidence, "c", "cpu.temp", cpus)
    out += [_cpu_temp(context, evidence, part) for part in sockets or [context.tray]]
    cards = around.parts(context, evidence, "n", "pcie.width", topology.nics_per_tray)
    cards += around.parts(context, evidence, "d", "pcie.width", topology.nvmes_per_tray)
    for part in (*context.gpus, *cards):
        out += _link(context, evidence, part)
    return [*out, *_kernel(context, evidence)]


def _memory(context: Context, evidence: Evidence, cpus: int | None) -> Iterator[Measurement]:
    """Per CPU where every CPU has its own counter, else of the tray: firmware counts for all sockets together."""
    for metric, quantity in MEMORY.items():
        own = around.parts(context, evidence, "c", metric, cpus)
        apart = own and all(evidence.window(part, metric).present for part in own)
        for part in own if apart else [context.tray]:
            yield around.growth(context, evidence, quantity, part, metric)


def _cpu_temp(context: Context, evidence: Evidence, part: str) -> Measurement:
    limit = evidence.whole(part, "cpu.temp_limit").lowest()
    if math.isnan(limit):
        return around.of(context, evidence, TEMP, part, "cpu.temp", Series.highest)
    return around.of(context, evidence, MARGIN, part, "cpu.temp", lambda temp: limit - temp.highest())


def _link(context: Context, evidence: Evidence, part: str) -> Iterator[Measurement]:
    gpu = part in context.gpus
    yield _share(context, evidence, WIDTH, part, "pcie.width", Series.lowest)
    if not gpu:
        yield _share(context, evidence, SPEED, part, "pcie.gen", Series.lowest)
    elif context.stage.load is not None and attained(evidence, part, context.stage, context.suite):
        yield _share(context, evidence, SPEED, part, "pcie.gen", Series.highest)
    elif context.stage.load is not None:
        yield SPEED.unknown(part, "not_attained", not_reached(evidence, part, context.stage))
    for metric, quantity in ERRORS.items():
        yield around.growth(context, evidence, quantity, part, metric)
    yield around.of(context, evidence, CORRECTED, part, "pcie.aer_correctable", _rate, so_far=True)


def _share(
    context: Context, evidence: Evidence, quantity: Quantity, part: str, metric: str, pick: Callable[[Series], float]
) -> Measurement:
    best = evidence.whole(part, f"{metric}_max").highest()
    if math.isnan(best):
        why = f"{metric}_max was not read: nobody knows what this link should be"
        return quantity.unknown(part, evidence.why_absent(part, f"{metric}_max"), why)
    now = evidence.window(part, metric)
    if not now.present:
        return quantity.unknown(part, evidence.why_absent(part, metric), f"{metric} has no readings in {context.stage.stage}")
    return quantity.judge(part, min(1.0, pick(now) / best), context.limits)


def _rate(counter: Series) -> float:
    """Errors a minute that were surely there: three standard deviations below what a chance of this size would count."""
    span_s = float(counter.t_s[-1] - counter.t_s[0]) if counter.t_s.size > 1 else 0.0
    grown = counter.growth()
    return max(0.0, grown - 3 * math.sqrt(grown)) * 60 / span_s if span_s > 0 and not math.isnan(grown) else math.nan


def _kernel(context: Context, evidence: Evidence) -> list[Measurement]:
    """One measurement per part and word of the catalogue; none at all is a pass only of a log that was read."""
    seen: dict[tuple[str, str], list[LogLine]] = {}
    for line in evidence.log:
        if line.kind == "kernel":
            seen.setdefault((line.part, line.code), []).append(line)
    out = [_judge_event(context, part, code, lines) for (part, code), lines in sorted(seen.items())]
    reason = evidence.sources.get("kmsg", "missing") or ("lost" if evidence.lost else None)
    if reason is not None:
        known = reason if reason in ("no_permission", "not_supported", "lost", "hung") else "missing"
        out.append(KERNEL.unknown(context.tray, known, f"the kernel log was not watched: {xid.unwatched('kmsg', reason)}"))
    return out or [Measurement(KERNEL.name, context.tray, 0.0, "1", "none", Result.PASS)]


def _judge_event(context: Context, part: str, code: str, lines: list[LogLine]) -> Measurement:
    row = context.catalogue.kernel.get(code)
    times = "once" if len(lines) == 1 else f"{len(lines)} times"
    why = f"{row.name if row else code}, {times}: {lines[0].text}" + (f" - {row.action}" if row else "")
    gate = row.gate if row else "HOLD"
    if gate == "FAIL":
        return Measurement(KERNEL.name, part, code, "1", "none", Result.FAIL, None, why)
    if gate == "HOLD":
        return Measurement(KERNEL.name, part, code, "1", "none", Result.UNKNOWN, "missing", why)
    return Measurement(KERNEL.name, part, code, "1", "watched only", Result.PASS, None, why)


CHECK = Check(
    name="host",
    about="CPUs and their memory, PCIe links and their errors, and what the kernel log says of the hardware",
    quantities=(COUNT, *MEMORY.values(), MARGIN, TEMP, WIDTH, SPEED, *ERRORS.values(), CORRECTED, KERNEL),
    judge=judge,
    metrics=(
        "host.cpus", "cpu.temp", "cpu.temp_limit", *MEMORY, "pcie.width", "pcie.width_max", "pcie.gen", "pcie.gen_max", *ERRORS,
        "pcie.aer_correctable",
    ),
    explains=("ras.mc", "ras.aer", "ras.mce", "host.load1", "host.mem_available", "gpu.power", "gpu.power_limit"),
    args=around.Count,
    equipment=("kernel log",),
)  # fmt: skip
