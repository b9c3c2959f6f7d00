"""Does every device come back in its slot, every time? Trays are power-cycled through their BMCs and looked at, N times.

Only with `allow: [power_cycle]` in the rack file, only in a stage without load, and never a tray whose leak detectors are wet or
do not say that they are dry. Switch trays first, then compute trays group after group; the next group begins when all of this one
are ready, or have had their time. Back is who has another boot id than before. Every device is found again by its PCI address,
every GPU by its position and UUID. Rounds are a pure function of what came back; waiting is an order like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from burnin.checks import asked
from burnin.checks.base import TO_DO, Answer, Check, Context, Evidence, Order, Quantity, not_allowed
from burnin.checks.leak import NAMES
from burnin.events import Measurement
from burnin.rack.data import Data
from burnin.rack.schema import Profile
from burnin.suites.schema import Stage
from burnin.telemetry.bmc import CHASSIS, SYSTEMS, detectors, reset

_BOOT_S, _POLL_S = 900.0, 20.0
_HOW = ("PowerCycle", "ForceRestart")
"""What is asked of a BMC, the first that it offers."""
_LOOK = (
    'printf \'boot \'; cat "${HOST_PROC:-/proc}/sys/kernel/random/boot_id"; ls "${HOST_SYS:-/sys}/bus/pci/devices" 2>/dev/null'
)
_RESEAT = "reseat this device, look at its connector and supply, and cycle again; replace it if it stays away once more"
CYCLES = Quantity("boot.cycles", "1", "power cycles after which everything was back in its slot", action=_RESEAT)
DEVICES = Quantity("boot.device", "1", "a device that did not come back, by its cycle", action=_RESEAT)
READY = Quantity("boot.ready", "s", "longest time from power cycle to a tray that can be asked again", action=_RESEAT)


_LOADED = "the stage is loaded: trays are cycled only at rest"


class Args(Data):
    """`with: {cycles: 3, group: 6, switches: true}`"""

    cycles: int = Field(default=3, ge=1, le=20, description="times every tray is power-cycled")
    group: int = Field(default=9, ge=1, le=18, description="compute trays that are cycled together")
    switches: bool = Field(default=True, description="switch trays too, before the compute trays")


# ---------------------------------------------------------------- rounds


def orders(context: Context, answers: Sequence[Sequence[Answer]]) -> list[Order]:
    """Look; then, for each cycle and group: reset, wait until all are ready, look."""
    if refused(context):
        return []
    if not answers:
        return [_mark("look", 0, 0), *(order for part in _all(context) for order in (*_look(part), *_bmc(part)))]
    resets, groups = _resets(context, answers[0]), _groups(context, answers[0])
    if not groups:
        return []
    round_, cycle, group, _ = _place(answers[-1])
    if round_ == "reset" or (round_ == "wait" and _waits(answers, cycle, group)):
        following = [_dryness(part) for part in groups[(group + 1) % len(groups)]]
        look = (order for part in groups[group] for order in _look(part))
        return [_mark("wait", cycle, group, _POLL_S), *look, *following]
    if round_ == "wait":
        group += 1
    else:
        cycle, group = 1, 0
    if group == len(groups):
        cycle, group = cycle + 1, 0
    if cycle > int(context.args.get("cycles", 3)):
        return []
    dry = [part for part in groups[group] if not _not_dry(answers, part)]
    posts = (Order(f"{part}.bmc", "post", resets[part], "redfish", 60.0) for part in dry)
    return [_mark("reset", cycle, group), *posts]


def refused(context: Context) -> str:
    """Why nothing may be switched off here; empty when it may."""
    if "power_cycle" not in context.rack.allow:
        return not_allowed("power_cycle")
    return _LOADED if context.stage.load is not None else ""


def _mark(round_: str, cycle: int, group: int, wait_s: float = 0.0) -> Order:
    """Says in the answers which round this is, and when; waits so long."""
    return Order("rack", "wait", {"round": round_, "cycle": cycle, "group": group, "wait_s": wait_s}, "clock", wait_s + 60.0)


def _place(given: Sequence[Answer]) -> tuple[str, int, int, float]:
    args, body = given[0].order.args, given[0].body
    return args["round"], args["cycle"], args["group"], float(body["t_s"]) if given[0].ok else 0.0


def _look(part: str) -> list[Order]:
    shell = Order(part, "script", {"script": _LOOK}, "shell", 30.0)
    return [shell, Order(part, "identify")] if part.startswith("t") else [shell]


def _bmc(part: str) -> list[Order]:
    return [asked.walk(f"{part}.bmc", (SYSTEMS,), 1, (), ("Actions", "Members")), _dryness(part)]


def _dryness(part: str) -> Order:
    return asked.walk(f"{part}.bmc", (CHASSIS,), 4, (*NAMES, "Sensors"))


def _all(context: Context) -> list[str]:
    """The trays of this step that have a BMC, switch trays first."""
    switches = context.rack.switches() if context.args.get("switches", True) else []
    return [part for part in (*switches, *context.trays) if part in context.rack.bmc]


def _of(given: Sequence[Answer], to: str, verb: str) -> list[Answer]:
    return [answer for answer in given if answer.order.to == to and answer.order.verb == verb]


def _keeps_out(context: Context, first: Sequence[Answer]) -> dict[str, str]:
    """Trays that are not touched, and why."""
    out, resets = dict[str, str](), _resets(context, first)
    for part in _all(context):
        if why := _not_dry([first], part):
            out[part] = why
        elif part not in resets:
            out[part] = f"the BMC of {part} offers no way to cycle its power"
        elif _boot(first, part) is None:
            out[part] = f"{part} does not say its boot id before the first cycle"
        elif part.startswith("t") and _devices(first, part) is None:
            out[part] = f"{part} does not say what is in it before the first cycle"
    return out


def _not_dry(answers: Sequence[Sequence[Answer]], part: str) -> str:
    """Why a tray may not be touched, by what its BMC said of its leak detectors last; empty where all of them are dry."""
    said = [a for given in answers for a in _of(given, f"{part}.bmc", "walk") if CHASSIS in a.order.args["from"]]
    if not said or not said[-1].ok:
        return str(said[-1].body) if said else f"the leak detectors of {part} were not read"
    found = detectors(said[-1].body)
    if any(one.wet for one in found):
        return f"{part} leaks: {next(one.why for one in found if one.wet)}"
    return next((one.why for one in found if one.wet is None), "" if found else f"the BMC of {part} shows no leak detector")


def _resets(context: Context, first: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Part -> path and body of its reset."""
    out = dict[str, dict[str, Any]]()
    for part in _all(context):
        for answer in _of(first, f"{part}.bmc", "walk"):
            for path, body in answer.body.items() if answer.ok else ():
                target, kinds = reset(body, "ComputerSystem.Reset") if path.startswith(SYSTEMS) else ("", ())
                how = next((kind for kind in _HOW if kind in kinds), None)
                if how and target:
                    out.setdefault(part, {"path": target, "body": {"ResetType": how}})
    return out


def _groups(context: Context, first: Sequence[Answer]) -> list[list[str]]:
    out_of = _keeps_out(context, first)
    parts = [part for part in _all(context) if part not in out_of]
    switches, trays = [p for p in parts if p.startswith("s")], [p for p in parts if p.startswith("t")]
    size = int(context.args.get("group", 9))
    return [one for one in (switches, *(trays[i : i + size] for i in range(0, len(trays), size))) if one]


def _boot(given: Sequence[Answer], part: str) -> str | None:
    for answer in _of(given, part, "script"):
        words = str(answer.body.get("stdout") or "").split(maxsplit=2) if answer.ok and answer.body.get("exit") == 0 else []
        if len(words) > 1 and words[0] == "boot":
            return words[1]
    return None


def _devices(given: Sequence[Answer], part: str) -> dict[str, str] | None:
    """What is in a compute tray: its PCI devices, and its GPUs by position (UUID); None where it does not say all of it."""
    boot, told = _boot(given, part), [answer.body for answer in _of(given, part, "identify") if answer.ok]
    if boot is None or not told:
        return None
    text = str(next(answer.body["stdout"] for answer in _of(given, part, "script") if answer.ok))
    pci = {f"PCI {word}": word for word in text.split()[2:]}
    return pci | {f"{part}.{gpu['gpu']}": str(gpu.get("uuid")) for gpu in told[-1].get("gpus", [])}


def _ready(context_boot: str | None, given: Sequence[Answer], part: str) -> bool:
    boot = _boot(given, part)
    return boot is not None and boot != context_boot and (part.startswith("s") or _devices(given, part) is not None)


def _waits(answers: Sequence[Sequence[Answer]], cycle: int, group: int) -> bool:
    """True while a tray of this group that was cycled is not ready, or was not yet seen so twice, and still has time."""
    mine = [given for given in answers if _place(given)[1:3] == (cycle, group)]
    cycled = [answer.order.to.removesuffix(".bmc") for answer in mine[0] if answer.order.verb == "post" and answer.ok]
    if _place(mine[-1])[3] - _place(mine[0])[3] >= _BOOT_S:
        return False
    return any(len(mine) < 3 or not all(_ready(_before(answers, part, cycle), g, part) for g in mine[-2:]) for part in cycled)


def _before(answers: Sequence[Sequence[Answer]], part: str, cycle: int) -> str | None:
    """The last boot id that a tray said before this cycle's reset."""
    said = (_boot(given, part) for given in answers if _place(given)[1] < cycle)
    return next((boot for boot in reversed(list(said)) if boot is not None), None)


# ---------------------------------------------------------------- judging


def judge(context: Context, evidence: Evidence) -> list[Measurement]:
    """Every tray in every cycle: back, how soon, and with everything that was there before."""
    if why := refused(context):
        return [CYCLES.unknown("rack", "no_permission", why)]
    answers = evidence.answers
    if not answers or not _all(context):
        return [CYCLES.unknown("rack", "missing", "no tray with a BMC was asked")]
    out_of, wanted = _keeps_out(context, answers[0]), int(context.args.get("cycles", 3))
    out = [CYCLES.unknown(part, "missing", f"not cycled: {why}") for part, why in out_of.items()]
    silent = [part for part in context.trays if part not in context.rack.bmc]
    out += [
        CYCLES.unknown(part, "missing", f"not cycled: the rack file names no BMC of it{TO_DO}write it into the rack file (bmc:)")
        for part in silent
    ]
    for group, parts in enumerate(_groups(context, answers[0])):
        for part in parts:
            out += _tray(answers, part, group, wanted)
    return out


def _tray(answers: Sequence[Sequence[Answer]], part: str, group: int, wanted: int) -> Iterator[Measurement]:
    was, whole, longest = _devices(answers[0], part) or {}, 0, 0.0
    for cycle in range(1, wanted + 1):
        mine = [given for given in answers if _place(given)[1:3] == (cycle, group)]
        resets = [given for given in mine if _place(given)[0] == "reset"]
        posts = _of(resets[0], f"{part}.bmc", "post") if resets else []
        if not posts or not posts[0].ok:
            before_it = answers[: answers.index(resets[0])] if resets else answers
            why = str(posts[0].body) if posts else _not_dry(before_it, part) or "the run ended before it"
            yield CYCLES.unknown(part, "missing", f"cycle {cycle} was not made: {why}")
            return
        before = _before(answers, part, cycle)
        ready = [given for given in mine if _place(given)[0] == "wait" and _ready(before, given, part)]
        if not ready:
            yield _away(mine, part, before, float(whole), cycle, wanted)
            return
        longest = max(longest, _place(ready[0])[3] - _place(resets[0])[3])
        lost = _lost(was, _devices(ready[-1], part) or {}) if part.startswith("t") else []
        whole += not lost
        for device, why in lost:
            at, what = (device, "") if device.startswith("t") else (part, f"{device} ")
            yield asked.bad(DEVICES, at, float(cycle), f"{what}{why} after power cycle {cycle}")
    if whole == wanted:
        yield asked.good(CYCLES, part, float(whole), f"= {wanted}")
    else:
        yield asked.bad(CYCLES, part, float(whole), f"whole after {whole} of {wanted} power cycles", f"= {wanted}")
    yield asked.good(READY, part, longest)


def _away(mine: Sequence[Sequence[Answer]], part: str, before: str | None, whole: float, cycle: int, wanted: int) -> Measurement:
    """A tray that was not ready: bad when it had its time and nobody answered, else nobody knows."""
    if any(_boot(given, part) not in (None, before) for given in mine):
        return CYCLES.unknown(part, "lost", f"it booted after power cycle {cycle}, but its agent does not say what is in it")
    if _place(mine[-1])[3] - _place(mine[0])[3] < _BOOT_S:
        return CYCLES.unknown(part, "lost", f"the run ended while it booted after power cycle {cycle}")
    return asked.bad(CYCLES, part, whole, f"not back within {_BOOT_S:g} s after power cycle {cycle}", f"= {wanted}")


def _lost(was: Mapping[str, str], is_: Mapping[str, str]) -> list[tuple[str, str]]:
    """Devices that are not there any more, or are others."""
    gone = [(name, "is missing") for name in was if name not in is_]
    other = [(name, "is another one") for name in was if name in is_ and is_[name] != was[name]]
    return [*gone, *other]


def seconds(profile: Profile, args: Mapping[str, Any]) -> float:
    """About five minutes a boot, for each group of each cycle."""
    groups = -(-profile.topology.compute_trays // int(args.get("group", 9))) + bool(args.get("switches", True))
    return 300.0 * groups * int(args.get("cycles", 3))


def fits(stage: Stage, args: Mapping[str, Any], profile: Profile) -> str:
    """Only at rest."""
    return _LOADED if stage.load is not None else ""


CHECK = Check(
    name="boot-cycle",
    about="every device is back in its slot after every one of several power cycles",
    quantities=(CYCLES, DEVICES, READY),
    judge=judge,
    orders=orders,
    scope="rack",
    acts=True,
    args=Args,
    seconds=seconds,
    equipment=("BMC",),
    fits=fits,
)
