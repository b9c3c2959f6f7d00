"""What was measured and judged -> findings and holds that name part, serial, slot, reason and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from burnin.assess.case import Case, last_state
from burnin.assess.went import cut_off, kept_off, last
from burnin.checks import CHECKS
from burnin.checks.base import TO_DO
from burnin.checks.gpu_load import FRACTION
from burnin.events import Coverage, Finding, Hold, LogLine, Measurement, Result, Severity, Status, Step
from burnin.rack.parts import kind, tray_of
from burnin.signatures import thermal
from burnin.verdict.fold import REPEAT

_UNLOCK = {
    "rack_identity": "compare the rack file's address with the place of this tray; nothing is loaded before they agree",
    "gpu_margin": "look at coolant and cold plate of this GPU before any load, then run again",
    "fabric": "look at the fabric manager (NMX-C) and this GPU's NVLinks, reset the GPU, then run again",
    "leak": "isolate power and liquid of the tray, find the water; nothing is loaded before every detector is dry",
    "leak_policy": "enable the leak detection policy of these BMCs, or waive it by name, then run again",
    "coolant_flow": "look at the CDU's pumps, valve and filter, and at the rack's valves, then run again",
    "coolant_supply": "look at the CDU's set point and the facility's water, then run again",
    "coolant_pressure": "look at the fill of the loop and the CDU's valve, then run again",
    "dew_point": "raise the CDU's set point or dry the room's air before any load: water condenses in the rack",
    "power_shelves": "look at the feed and the supplies of the shelf that is named, then run again",
    "switch_trays": "look at power and network of the switch trays that are named, then run again",
}
_UNREAD = "find out why it is not read (what is not read is not good), or waive {name} by name in the rack file; then run again"
_GO_ON = "go on with it: burnin run SUITE RACK.yaml --resume {run}"
_HELPS = {
    "not_supported": "again is no better: it cannot be read here; update what should tell it, or take it out of the suite",
    "no_permission": "give the login this right (`burnin doctor RACK.yaml` says which), then run this stage again on {part}",
}
"""By the reason of a value that is missing, where doing the same again does not help."""


@dataclass(frozen=True, slots=True)
class Who:
    """A part as a person finds it: what is pulled, its serial, the slot it sits in."""

    fru: str
    serial: str
    slot: str


def who(case: Case, part: str) -> Who:
    """FRU name, serial and slot of a part, as far as the tray itself said."""
    fru = case.profile.frus.get(kind(part), kind(part))
    identity = case.identities.get(tray_of(part), {})
    gpus = {gpu["gpu"]: gpu for gpu in identity.get("gpus", [])}
    slots = {gpu.get("slot") for gpu in gpus.values()} - {None}
    slot = f"slot {slots.pop()}" if len(slots) == 1 else ""
    name = part.split(".")[1] if "." in part else ""
    if name in gpus:
        gpu = gpus[name]
        return Who(fru, gpu.get("serial") or gpu.get("uuid") or "", f"{slot}, module {int(name[1:]) + 1}" if slot else "")
    serial = identity.get("host", {}).get("serial") if part == tray_of(part) else None
    return Who(fru, serial or "", slot)


def named(case: Case, one: Finding) -> Finding:
    """A finding with serial and slot, and the FRU's name where the signature does not give one."""
    found = who(case, one.part)
    return replace(one, fru=one.fru or found.fru, serial=found.serial, slot=found.slot)


# ---------------------------------------------------------------- findings


THERMAL = ("gpu.tlimit.load", "hbm.temp.load", "throttle.sw_thermal.fraction", "throttle.hw_thermal.growth")


def attributed(findings: list[Finding]) -> list[Finding]:
    """The same findings, where what a hot tray or a bad cold plate explains does not condemn a board.

    It stays measured and bad; but the part to see to is the one that explains it, and the board is judged again after.
    """
    weak = {f.part: f for f in findings if f.signature in (thermal.TRAY_ROW, thermal.GPU_ROW)}
    out = []
    for one in findings:
        cause = weak.get(tray_of(one.part)) or weak.get(one.part)
        if one.signature in THERMAL and cause is not None:
            again = f"see to {cause.part} first ({cause.signature}), then run again"
            one = replace(one, fru=cause.fru, action=cause.action if cause.part == one.part else again)
        out.append(one)
    return out


def of_steps(case: Case, steps: list[Step]) -> Iterator[Finding]:
    """One finding per failed measurement, per XID, and per GPU whose load was not reached, unless an interlock kept it off, or it
    was reached and ended with its tray, which is named itself."""
    off = {(line.source, line.part) for line in kept_off(case.log, case.stages, case.sessions)}
    cut = cut_off(case.log, case.stages, case.voided)
    own = {line.part for line in case.log if line.kind == "cut" or (line.kind == "load" and line.code in ("failed", "gone"))}
    for step in steps:
        for one in step.measurements:
            if one.result is Result.FAIL:
                yield named(case, _failed(case, step, one))
            elif _load_not_attained(one):
                reached = isinstance(one.value, float) and one.value >= case.suite.load_fraction
                if {(step.stage, one.part), (step.stage, tray_of(one.part))} & off:
                    continue
                if reached and one.part not in own and _gone(case, one.part):
                    continue
                hold = replace(_failed(case, step, one), signature="load.not_attained", severity=Severity.HOLD)
                hold = replace(hold, action=_reach(case, cut.get((step.stage, one.part)), one.part))
                yield named(case, hold)
            elif one.name == "xid" and one.why:
                severity = Severity.HOLD if one.result is Result.UNKNOWN else Severity.WATCH
                yield named(case, replace(_failed(case, step, one), severity=severity))


def _reach(case: Case, cut: LogLine | None, part: str) -> str:
    """What to do about a load that was not reached; `cut`: an agent ended it, through no fault of the GPU."""
    if cut is None:
        return f"find out why {part} does not reach its power, then run again"
    what = f"the controller did not reach {tray_of(part)} in time" if cut.code == "lease" else "its margin was not read"
    return f"find out why {what}, then {_GO_ON.format(run=case.run.id)}"


def _failed(case: Case, step: Step, one: Measurement) -> Finding:
    quantity = next((q for q in CHECKS[step.name].quantities if q.name == one.name), None)
    action = quantity.action if quantity is not None else ""
    signature = one.name
    if one.name == "xid" and isinstance(one.value, float):
        row = case.catalogue.xids.get(int(one.value))
        action = row.action if row is not None else "look it up in NVIDIA's XID catalogue, and repeat the run"
        signature = f"xid.{int(one.value)}"
    if one.name == "kernel.event" and isinstance(one.value, str):
        word = case.catalogue.kernel.get(one.value)
        action, signature = word.action if word is not None else action, f"kernel.{one.value}"
    shown = f"{one.value:g}" if isinstance(one.value, float) else str(one.value)
    unit = "" if one.unit == "1" else f" {one.unit}"
    why = one.why or f"{one.name} is {shown}{unit}, limit {one.limit}"
    return Finding(
        part=one.part,
        signature=signature,
        severity=Severity.FAIL,
        value=one.value if isinstance(one.value, float) else None,
        limit=_number(one.limit),
        unit=one.unit,
        why=why,
        action=action,
        evidence={"stage": step.stage, "step": step.name, "limit": one.limit},
    )


def _number(limit: str) -> float | None:
    found = re.fullmatch(r"[<>=]=? (-?[\d.]+(?:e[+-]?\d+)?)(?: \S+)?", limit)
    return float(found[1]) if found else None


def _gone(case: Case, part: str) -> bool:
    """Was its tray not there at the end of the run?"""
    state = last_state(case, tray_of(part))
    return state is None or state.state != "ready"


def of_trays(case: Case) -> Iterator[Finding]:
    """Trays that were lost or refused or belong elsewhere, and GPUs that the driver lost or hangs on."""
    for line in kept_off(case.log, case.stages, case.sessions):
        name = line.text.split(":")[0]
        if line.code == "bad":
            yield _trouble(case, line.part, f"interlock.{name}", line.text, _UNLOCK.get(name, "make it good, then run again"))
        elif line.part != "rack":
            yield _trouble(case, line.part, f"interlock.{name}", line.text, _UNREAD.format(name=name))
    yield from of_guard(case)
    yield from _of_services(case)
    for tray in case.trays:
        state = last_state(case, tray)
        if _gone(case, tray):
            why = state.why if state is not None and state.why else f"{tray} was never reached"
            what = "refused" if state is not None and state.state == "refused" else "lost"
            look = "power, cable and console of this tray"
            see = "what it says: login, host key, sudo, python3, or another run that has this tray"
            yield _trouble(case, tray, f"tray.{what}", why, f"look at {see if what == 'refused' else look}, then run again")
        else:
            times = sum(s.tray == tray and s.state == "LOST" for s in case.states)
            if times:
                text = f"the link to {tray} was lost and came back ({times} times)"
                watch = _trouble(case, tray, "tray.link", text, "look at the management network of this tray")
                yield replace(watch, severity=Severity.WATCH)
    for part, (reason, metrics) in sorted(_silent(case).items()):
        texts = {"hung": "the driver hangs on it", "lost": "the driver has lost it"}
        why = f"{part}: {texts[reason]} ({metrics} metrics no longer read)"
        action = "power-cycle the tray and run again; when it returns, replace it"
        yield _trouble(case, part, f"{kind(part).split()[-1].lower()}.{reason}", why, action)


def of_guard(case: Case) -> Iterator[Finding]:
    """What the guard ended load for, and that there was no guard any more."""
    for line in case.log:
        if line.kind == "guard" and line.code != "outcome":
            why, _, action = line.text.partition("; to do: ")
            yield _trouble(case, line.part, f"guard.{line.code}", why, action or "find out why the guard ended, then run again")


def _of_services(case: Case) -> Iterator[Finding]:
    """BMCs, shelves and CDUs that stopped answering: HOLD where they stayed away, written down where they came back."""
    last = {line.part: line for line in case.log if line.kind == "bmc" and line.code in ("lost", "back")}
    for part, line in sorted(last.items()):
        action = "look at power, cable and console of this controller, then run again"
        one = _trouble(case, part, "bmc.lost", line.text, action)
        yield one if line.code == "lost" else replace(one, severity=Severity.WATCH)


def _trouble(case: Case, part: str, signature: str, why: str, action: str) -> Finding:
    return named(case, Finding(part, signature, Severity.HOLD, None, None, "1", why, action))


def _silent(case: Case) -> dict[str, tuple[str, int]]:
    """Part -> why it is silent, and for how many metrics. Links are silent with their GPU: that is no trouble of theirs."""
    out: dict[str, tuple[str, int]] = {}
    for (part, _), reason in case.telemetry.absent.items():
        if reason in ("hung", "lost"):
            out[part] = (reason, out.get(part, (reason, 0))[1] + 1)
    return {part: said for part, said in out.items() if not any(part.startswith(f"{whole}.") for whole in out)}


# ---------------------------------------------------------------- holds


def causes(case: Case, trouble: list[Finding]) -> dict[str, str]:
    """Parts whose trouble explains what is missing beneath them, and the whole rack where load was refused."""
    found = {f.part: f.why for f in trouble if f.severity is Severity.HOLD}
    if stops := _stops(case):
        found["rack"] = stops[0].text
    return found


def _stops(case: Case) -> list[LogLine]:
    """What made the guard end the whole run, or the run end without it; first things first."""
    return [line for line in case.log if line.kind == "guard" and line.source in ("rack", "controller")]


def holds(case: Case, steps: list[Step], coverage: Coverage, trouble: list[Finding]) -> Iterator[Hold]:
    """Every reason that keeps the rack from PASS although no part is condemned."""
    for one in trouble:
        if one.severity is Severity.HOLD:
            guarded = one.signature.startswith("guard.")
            yield Hold("aborted" if guarded else "unmeasured", one.part, one.why, one.action)
    if case.run.status == "RUNNING" or case.run.ended is None:
        why = "the run was cut off: its controller ended without finishing it"
        yield Hold("aborted", "rack", why, _GO_ON.format(run=case.run.id))
    elif case.run.status != "COMPLETE" and (stops := _stops(case)):
        cause, _, action = stops[0].text.partition("; to do: ")
        why = "the run was stopped" + (f": {cause}" if stops[0].part != "rack" else "")
        yield Hold("aborted", "rack", why, action or "find out why the guard ended, then run the suite again")
    elif case.run.status != "COMPLETE":
        yield Hold("aborted", "rack", "the run was stopped before its end", _GO_ON.format(run=case.run.id))
    went = [row for stage in case.suite.stages if (row := last(case.stages, stage.stage)) is not None]
    for stage in went:
        if stage.status is Status.SKIPPED and stage.why.startswith("not loaded"):
            yield Hold("unmeasured", "rack", stage.why, "make the interlocks good, or waive them by name in the rack file")
    refused = {s.name for s in went if s.status is Status.SKIPPED}
    unloaded = {(s.stage, m.part) for s in steps for m in s.measurements if _load_not_attained(m)}
    for step in steps:
        if step.status is not Status.COMPLETE and step.stage not in refused:
            why, _, do = step.why.partition(TO_DO)
            yield Hold("unmeasured", step.part, f"{step.name} in {step.stage}: {why}", do or _again(case, step))
        elif step.status is Status.COMPLETE and not step.measurements:
            yield Hold("unmeasured", step.part, f"{step.name} in {step.stage} measured nothing", _again(case, step))
        for m in step.measurements:
            explained = m.reason == "not_attained" and (step.stage, m.part) in unloaded
            if m.result is Result.UNKNOWN and not explained and not _said_elsewhere(case, step, m):
                yield _unknown(step, m)
    for part, (text, reason) in _missing(case, coverage, refused).items():
        yield Hold("unmeasured", part, text, _HELPS.get(reason, REPEAT).format(part=tray_of(part)))


def _said_elsewhere(case: Case, step: Step, one: Measurement) -> bool:
    advisory = {q.name for q in CHECKS[step.name].quantities if q.advisory} if not case.suite.ships else set()
    return one.name in advisory or (one.name == "xid" and one.value is not None)


def _load_not_attained(one: Measurement) -> bool:
    """A GPU's load that fell short: one finding says so, for all that needed it."""
    return one.name == FRACTION.name and one.reason == "not_attained"


def _unknown(step: Step, one: Measurement) -> Hold:
    kind = "suspect" if step.name == "as-found" and one.value is not None else "unmeasured"
    why, _, do = one.why.partition(TO_DO)
    do = do or _HELPS.get(one.reason or "", REPEAT).format(part=tray_of(one.part))
    return Hold(kind, one.part, f"{one.name} in {step.stage}: {why or one.reason}", do)


def _again(case: Case, step: Step) -> str:
    """Of a step that did not come to its end: what a run that goes on owes, or this stage."""
    cut = step.status is Status.ABORTED and case.run.status != "COMPLETE"
    return _GO_ON.format(run=case.run.id) if cut else REPEAT.format(part=step.part)


def _missing(case: Case, coverage: Coverage, refused: set[str]) -> Mapping[str, tuple[str, str]]:
    """Missing slots, one line a part, and their reason where all have the same. Phases of stages that were refused are
    explained by the refusal."""
    not_run = {stage.phase for stage in case.suite.stages if stage.stage in refused}
    groups: dict[str, dict[str, list[str]]] = {}
    reasons: dict[str, set[str]] = {}
    for part, metric, phase in coverage.missing:
        if phase not in not_run:
            groups.setdefault(part, {}).setdefault(phase, []).append(metric)
            reasons.setdefault(part, set()).add(case.telemetry.absent.get((part, metric), ""))
    out = {}
    for part, phases in groups.items():
        texts = [f"{phase}: {_few(metrics)}" for phase, metrics in phases.items()]
        (reason,) = reasons[part] if len(reasons[part]) == 1 else ("",)
        out[part] = "not read often enough in " + "; ".join(texts), reason
    return out


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
