"""Judging telemetry that burnin did not record: a judge directory -> verdict, by the same signatures and limits as a run.

There is no suite, so what must be covered is what the files carry: where one part has a metric in a phase, all its peers in
the rack file must have it too. Nothing ships on it: `ships` is false.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import burnin
from burnin.assess import soak
from burnin.assess.baseline import load as read_baseline
from burnin.assess.baseline import said
from burnin.assess.windows import Windows
from burnin.checks import CHECKS
from burnin.checks.base import Quantity
from burnin.events import Coverage, Finding, Hold, LogLine, Measurement, Result, Severity, Status, Step, Verdict
from burnin.rack.load import RackFile, load_catalogue, load_rack
from burnin.rack.parts import is_part, kind, parent, tray_of
from burnin.rack.schema import Catalogue
from burnin.signatures import look
from burnin.signatures.baseline import Baseline, Key
from burnin.signatures.readings import MIN_TRAYS, Readings
from burnin.suites.schema import Suite
from burnin.telemetry import directory
from burnin.telemetry.series import Series, Telemetry
from burnin.verdict import fold

PEERS_SHARE = 0.5
"""A slot is measured with this share of the readings that its peers have there (median): gaps are let pass, holes are not."""
TOGETHER_S = 10.0
"""XIDs so near to each other may be one event (as xid.sequence's window_s)."""
LOAD_FRACTION: float = Suite.model_fields["load_fraction"].default
_RULES = {
    "gpu.tlimit.load": ("gpu.tlimit", Series.lowest),
    "hbm.temp.load": ("hbm.temp", Series.highest),
    "nvlink.speed": ("nvlink.speed", Series.lowest),
    "nvlink.effective_ber": ("nvlink.effective_ber", Series.highest),
    "nvlink.rx_errors.growth": ("nvlink.rx_errors", Series.growth),
    "nvlink.integrity_errors.growth": ("nvlink.integrity_errors", Series.growth),
    "ecc.sram_threshold": ("ecc.sram_threshold", Series.highest),
    "repair.pending": ("repair.pending", Series.highest),
    "gpu.recovery_action": ("gpu.recovery_action", Series.highest),
    "nvme.critical_warning": ("nvme.critical_warning", Series.highest),
    "nvme.spare": ("nvme.spare", Series.lowest),
}
"""Limits of the profile that need nothing but readings: (metric, which value of its loaded readings). What signatures judge,
parents first, is not judged here a second time."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One judge directory, read."""

    name: str
    file: RackFile
    catalogue: Catalogue
    recorded: directory.Recorded
    baseline: Baseline | None = None

    @property
    def telemetry(self) -> Telemetry:
        """Its readings."""
        return self.recorded.telemetry

    @property
    def log(self) -> tuple[LogLine, ...]:
        """Its events; none where no log is claimed."""
        return self.recorded.log or ()


def load(folder: str | Path) -> Recording:
    """Reads a judge directory. Raises InputError with one sentence per mistake."""

    folder = Path(folder)
    file = load_rack(folder / directory.RACK, need_known_hosts=False, need_keys=False)
    catalogue = load_catalogue()
    there = _Parts(file)
    needed = {s for row in catalogue.signatures.values() for s in row.signals} | {metric for metric, _ in _RULES.values()}
    needed |= {"gpu.power_limit", "gpu.power"}
    recorded = directory.read(folder, catalogue.metrics, there.__contains__, needed)
    given = folder / directory.BASELINE
    known = read_baseline(given) if given.exists() else None
    if file.rack.coolant is not None and file.rack.coolant.scope == "row":
        recorded = replace(recorded, telemetry=_without_loop(recorded.telemetry))
    return Recording(folder.resolve().name, file, catalogue, recorded, known)


def _without_loop(telemetry: Telemetry) -> Telemetry:
    """A row's coolant says nothing about one rack."""
    own = {key: one for key, one in telemetry.series.items() if not key[1].startswith(("coolant.", "pump."))}
    return Telemetry(own, telemetry.stretches, telemetry.absent)


def key(one: Recording) -> Key:
    """What a baseline of it would be of, as far as the rack file says."""
    firmware = one.file.rack.firmware
    return Key(profile=one.file.profile.profile, firmware=firmware.get("vbios"), driver=firmware.get("driver"))


def readings(one: Recording, baseline: Baseline | None, same: bool = True) -> Readings:
    """As the signatures look at it."""
    return Readings(one.telemetry, one.file.profile.topology, dict(_unloaded(one)), baseline, same)


class _Parts:
    """The parts that this rack can have: grammar, topology, and for compute trays what the rack file lists."""

    def __init__(self, file: RackFile) -> None:
        self.trays, self.topology = set(file.rack.compute()), file.profile.topology

    def __contains__(self, part: str) -> bool:
        if not is_part(part):
            return False
        top, t = tray_of(part), self.topology
        if top[0] == "t":
            rest = part.split(".")[1:]
            return top in self.trays and (not rest or rest[0][0] != "g" or int(rest[0][1:]) < t.gpus_per_tray)
        if top in ("rack", "cdu", "manifold"):
            return True
        counts = {"s": t.switch_trays, "x": t.cable_cartridges, "p": t.power_shelves}
        count = counts[top[0]]
        return count is None or int(top[1:]) < count


# ---------------------------------------------------------------- the verdict


def judge(one: Recording) -> Verdict:
    """What the telemetry in a directory says of its rack."""
    rack, profile = one.file.rack, one.file.profile
    covered = coverage(one)
    steps, broken = _limits(one)
    same, baseline = said(one.baseline, key(one))
    seen = readings(one, one.baseline, same)
    found = look(seen, one.catalogue.signatures, one.log)
    folded = fold.findings(_named(one, [*broken, *_not_reached(seen.unloaded), *_xids(one), *found]))
    findings = Windows(one.telemetry, one.catalogue).attached(folded)
    holds = fold.holds(_holds(one, seen, covered), {}, profile.topology, rack.compute())
    return Verdict(
        run=one.name,
        rack=rack.rack,
        profile=profile.profile,
        suite=None,
        ships=False,
        whole=set(rack.compute()) == set(profile.topology.trays()),
        word=fold.word(findings, holds, steps, covered),
        started=None,
        ended=None,
        coverage=covered,
        findings=findings,
        holds=holds,
        steps=steps,
        versions={
            "burnin": burnin.__version__,
            "baseline": baseline,
            **soak.said(one.telemetry, one.catalogue, findings),
            **soak.felt(seen, one.catalogue),
        },
    )


def coverage(one: Recording) -> Coverage:
    """Slots (part, metric, phase) of unloaded and loaded phases that the files carry of any part, for all its peers."""
    slots: dict[tuple[str, str], dict[str, int]] = {}
    for (part, metric, phase), count in one.recorded.counts.items():
        if phase.startswith(("idle", "load")):
            slots.setdefault((metric, phase), {})[part] = count
    required, missing = 0, []
    for (metric, phase), counts in sorted(slots.items()):
        groups: dict[str, list[str]] = {}
        for part in counts:
            groups.setdefault(kind(part), []).append(part)
        for name, parts in groups.items():
            wanted = _peers(one, name, parts)
            least = PEERS_SHARE * float(np.median([counts[part] for part in parts]))
            required += len(wanted)
            missing += [(part, metric, phase) for part in wanted if counts.get(part, 0) < max(1.0, least)]
    return Coverage(required, required - len(missing), tuple(sorted(missing)))


def _peers(one: Recording, name: str, parts: list[str]) -> list[str]:
    """All parts of the rack that must have what these have."""
    trays, topology = one.file.rack.compute(), one.file.profile.topology
    gpus = [gpu for tray in trays for gpu in topology.gpus(tray)]
    if name == "GPU":
        return gpus
    if name == "NVLink":
        numbers = sorted({part.rsplit(".", 1)[1] for part in parts})
        return [f"{gpu}.{number}" for gpu in gpus for number in numbers] if _is_gpus(parts) else parts
    if name == "compute tray":
        return trays
    if name in ("CPU", "NIC", "NVMe"):
        names = sorted({part.split(".")[1] for part in parts})
        return [f"{tray}.{word}" for tray in trays for word in names]
    return parts


def _is_gpus(parts: list[str]) -> bool:
    return all(kind(parent(part) or "rack") == "GPU" for part in parts)


def _holds(one: Recording, seen: Readings, covered: Coverage) -> Iterator[Hold]:
    phases = {stretch.phase for stretch in one.telemetry.stretches}
    again = "record it again with every part of the rack"
    trays = {tray_of(part) for part in one.telemetry.parts("gpu.temp")}
    if not any(phase.startswith("load") for phase in phases):
        yield Hold("unmeasured", "rack", "there is no loaded phase in it: nothing was put to the test", again)
    elif len(seen.trays) < MIN_TRAYS:
        why = f"a rack of {len(seen.trays)} trays is no family that a part can be out of ({MIN_TRAYS} are)"
        yield Hold("unmeasured", "rack", why, "burn it in with a suite, whose limits need no peers")
    elif len(trays) < MIN_TRAYS:
        why = f"trays with GPU temperatures: {len(trays)}; fewer than {MIN_TRAYS} have no family to be out of"
        yield Hold("unmeasured", "rack", why, again)
    elif not any(seen.enough(seen.slopes(idle, load)) for idle, load in seen.pairs()):
        why = f"the thermal resistance of fewer than {MIN_TRAYS} trays can be told: no cold plate was judged"
        yield Hold("unmeasured", "rack", why, "record gpu.temp and gpu.power in an idle phase and in a loaded one after it")
    for stretch in one.telemetry.stretches:
        if stretch.phase.startswith(("idle", "load")):
            for tray, t0_s, t1_s in stretch.own:
                if not t1_s - t0_s > stretch.settle_s:
                    why = f"it went through the phases at times of its own, and hardly through {stretch.stage}"
                    yield Hold("unmeasured", tray, why, again)
    groups: dict[str, dict[str, list[str]]] = {}
    for part, metric, phase in covered.missing:
        groups.setdefault(part, {}).setdefault(phase, []).append(metric)
    for part, by_phase in groups.items():
        texts = [f"{phase}: {', '.join(names[:3])}{_more(names)}" for phase, names in by_phase.items()]
        yield Hold("unmeasured", part, f"read of its peers, not of it, in {'; '.join(texts)}", again)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


# ---------------------------------------------------------------- limits, load and log


def _limits(one: Recording) -> tuple[tuple[Step, ...], list[Finding]]:
    """One step per compute tray: the profile's limits over the loaded phases; what violates one is a finding, too."""
    quantities = {q.name: q for check in CHECKS.values() for q in check.quantities}
    by_tray: dict[str, list[Measurement]] = {tray: [] for tray in one.file.rack.compute()}
    findings = []
    for name, (metric, value) in _RULES.items():
        if name not in one.file.profile.limits or not one.file.profile.limits[name].known:
            continue
        quantity = quantities[name]
        for part in one.telemetry.parts(metric):
            if tray_of(part) in by_tray:
                judged = quantity.judge(part, _loaded(one.telemetry, part, metric, value), one.file.profile.limits)
                if judged.result is Result.FAIL and isinstance(judged.value, float) and not math.isnan(judged.value):
                    by_tray[tray_of(part)].append(judged)
                    findings.append(_violated(quantity, judged))
    read = {tray_of(part) for part, _, _ in one.recorded.counts}
    steps = [
        Step("limits", "all", tray, Status.COMPLETE, _result(many, tray in read), 1, tuple(many))
        for tray, many in by_tray.items()
    ]
    return tuple(steps), findings


def _result(violated: list[Measurement], read: bool) -> Result:
    """Of a tray of which nothing was read, nothing is known."""
    return Result.FAIL if violated else Result.PASS if read else Result.UNKNOWN


def _loaded(telemetry: Telemetry, part: str, metric: str, value: object) -> float:
    """`value` of the readings in loaded phases, their beginning included; growth is that of the whole file."""
    series = telemetry.of(part, metric)
    if value is Series.growth:
        return series.growth()
    pieces = [series.between(s.t0_s, s.t1_s) for s in telemetry.phase("load")]
    values = [x for piece in pieces for x in ([piece.lowest()] if value is Series.lowest else [piece.highest()]) if x == x]
    return math.nan if not values else min(values) if value is Series.lowest else max(values)


def _violated(quantity: Quantity, one: Measurement) -> Finding:
    value = one.value if isinstance(one.value, float) else None
    unit = "" if one.unit == "1" else f" {one.unit}"
    why = f"{one.name} is {one.value:g}{unit}, limit {one.limit}"
    return Finding(one.part, one.name, Severity.FAIL, value, None, one.unit, why, quantity.action, evidence={"limit": one.limit})


def _unloaded(one: Recording) -> Iterator[tuple[str, frozenset[str]]]:
    """Stage -> GPUs that stayed below their power limit, where the files carry it. A locked clock is not meant to reach it."""
    telemetry = one.telemetry
    gpus = telemetry.parts("gpu.power_limit")
    for load in telemetry.phase("load"):
        if "@" not in load.phase:
            mean = {g: telemetry.window(g, "gpu.power", load).mean() for g in gpus}
            most = {g: telemetry.window(g, "gpu.power_limit", load).mean() for g in gpus}
            yield load.stage, frozenset(g for g in gpus if mean[g] < LOAD_FRACTION * most[g])


def _not_reached(unloaded: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    for stage, gpus in unloaded.items():
        for gpu in sorted(gpus):
            why = f"the load was not reached: less than {LOAD_FRACTION:g} of its power limit"
            action = f"find out why {gpu} does not reach its power, then run again"
            yield Finding(gpu, "load.not_attained", Severity.HOLD, None, None, "1", why, action, evidence={"stage": stage})


def _xids(one: Recording) -> Iterator[Finding]:
    seen: dict[tuple[str, int], list[LogLine]] = {}
    for line in one.log:
        if line.kind == "xid":
            seen.setdefault((line.part, int(line.code)), []).append(line)
    heads = _heads([line for lines in seen.values() for line in lines])
    for (part, code), lines in sorted(seen.items()):
        row = one.catalogue.xids.get(code)
        name = row.name if row else "not in the catalogue"
        first = min(line.t_s for line in lines)
        often = "once, at" if len(lines) == 1 else f"{len(lines)} times, first at"
        why = f"XID {code} ({name}), {often} {first:.1f} s"
        head = heads[first]
        if head.part != part:
            why += f"; {first - head.t_s:.1f} s before it XID {head.code} came on {head.part}: look there first"
        action = row.action if row else "look it up in NVIDIA's XID catalogue, and repeat the run"
        yield Finding(part, f"xid.{code}", Severity(row.gate) if row else Severity.HOLD, float(code), None, "1", why, action)


def _heads(lines: list[LogLine]) -> dict[float, LogLine]:
    """When an XID came -> the first of those that came with it, each within seconds of the one before."""
    out: dict[float, LogLine] = {}
    head: LogLine | None = None
    last = -math.inf
    for line in sorted(lines, key=lambda x: x.t_s):
        head = line if head is None or line.t_s - last > TOGETHER_S else head
        out.setdefault(line.t_s, head)
        last = line.t_s
    return out


def _named(one: Recording, findings: list[Finding]) -> Iterator[Finding]:
    """With FRU, and the serial where the build record in the rack file says it."""
    for finding in findings:
        fru = finding.fru or one.file.profile.frus.get(kind(finding.part), kind(finding.part))
        yield replace(finding, fru=fru, serial=_serial(one, finding.part))


def _serial(one: Recording, part: str) -> str:
    record = one.file.rack.expect.get(tray_of(part))
    if record is None:
        return ""
    if part == tray_of(part):
        return record.serial or ""
    name = part.split(".")[1]
    gpus = record.gpus or []
    return gpus[int(name[1:])] if name.startswith("g") and int(name[1:]) < len(gpus) else ""
