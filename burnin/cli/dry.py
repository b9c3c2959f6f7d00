"""A plan before anything is touched: stages, times, load, checks and the orders they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from burnin.checks import CHECKS
from burnin.checks.base import RACK, TO_DO, Answer, Check, Context, Order, not_allowed
from burnin.errors import InputError
from burnin.rack.parts import fold
from burnin.rack.schema import Catalogue, Profile, Rack
from burnin.run import ramp
from burnin.run.owed import Owed
from burnin.run.plan import Plan
from burnin.suites.schema import Suite
from burnin.views.terminal import clock

_ROUNDS = 8


def how_long(plan: Plan) -> str:
    """Its time for a person: about 0:50 (1:30 with a re-test)."""
    once, again = plan.seconds(), plan.seconds("suspect")
    return f"about {clock(once)}" + (f" ({clock(once + again)} with a re-test)" if again else "")


def show(suite: Suite, plan: Plan, profile: Profile, rack: Rack, catalogue: Catalogue, console: Console) -> None:
    """Print the plan."""
    parts = fold([*plan.trays, *plan.switches])
    console.print(f"{suite.suite} on rack {rack.rack} ({profile.profile}): {parts}, {how_long(plan)}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title, least in {"at": 0, "stage": 0, "phase": 0, "for": 0, "load": 35, "checks": 24}.items():
        table.add_column(title, no_wrap=not least, min_width=least or None)  # the longest name of a check has room
    at = 0.0
    for leg in plan.legs:
        stage = leg.stage
        gpus = len(plan.trays) * profile.topology.gpus_per_tray
        watts = profile.gpu.power_limit_w
        load = ""
        if stage.load is not None:
            power = f", {gpus * watts / 1000:.0f} kW" if watts else ""
            pulse = stage.load.pulse
            pulsed = f", pulses of {pulse.period:g} s, {pulse.duty:.0%}" if pulse is not None else ""
            beside = "".join(f", {what}" for what in ("nvlink", "cpu", "nic") if getattr(stage.load, what))
            load = f"{stage.load.kernel}: {gpus} GPUs{power}{beside}{', staggered' if stage.load.stagger else ''}{pulsed}"
        when = "" if stage.when == "always" else " (if suspicious)"
        hot = [step.check for step in leg.steps if CHECKS[step.check].heats]
        most = f", up to {gpus * watts / 1000:.0f} kW" if watts else ""
        load = f"{', '.join(hot)}: {gpus} GPUs{most}" if hot else load
        if stage.sample_power is not None:
            load = f"{load}{', ' if load else ''}power every {stage.sample_power:g} s"
        if stage.detach is not None:
            load = f"{load}; detached for up to {clock(stage.detach)}"
        checks = ", ".join(step.check for step in leg.steps)
        whole_s = stage.duration + leg.own_s
        table.add_row(clock(at), stage.stage + when, stage.phase or "", clock(whole_s), load, checks)
        at += whole_s if stage.when == "always" else 0.0
    console.print(table)
    console.print(f"interlocks before load: {', '.join(profile.interlocks)}")
    waived = [f"{w.interlock} (by {w.by} until {w.until})" for w in rack.waive]
    console.print(f"waived: {', '.join(waived) or 'none'}")
    console.print("on each compute tray: connect over SSH, put the agent into its private directory, start it, and ask")
    console.print(
        "  identify; state; sample; load and unload with a lease; state again; bye. All else that is asked, as each check begins:"
    )
    for name, where in ((step.check, leg.stage.stage) for leg in plan.legs for step in leg.steps):
        check = CHECKS[name]
        if check.acts and check.leave not in rack.allow:
            text = f"  {name} ({where}) will not be done, which is a HOLD: {not_allowed(check.leave)}"
            console.print(text.replace(TO_DO, "; "), markup=False, highlight=False, soft_wrap=True)
    _questions(suite, plan, profile, rack, catalogue, console)
    _rise(plan, profile, rack, console)
    _own_loads(suite, plan, profile, rack, catalogue, console)
    if not plan.whole:
        console.print("not whole: checks or trays are left out, so a PASS of this run ships nothing")


def _rise(plan: Plan, profile: Profile, rack: Rack, console: Console) -> None:
    """How load comes up, from nothing to all of it."""
    allow, watts = ramp.allowed(ramp.limits(profile, rack)), profile.gpu.power_limit_w
    if isinstance(allow, str):
        console.print(f"nothing will be loaded: {allow}", markup=False, highlight=False)
        return
    console.print(f"load stays within {allow.kw:.1f} kW of GPUs, and rises and falls by {allow.kw_per_s:g} kW/s", highlight=False)
    if watts is not None:
        units = [ramp.Unit(gpu, 0.0, watts / 1000) for tray in plan.trays for gpu in profile.topology.gpus(tray)]
        rise = ramp.rise(units, 0.0, allow)
        for step in (*rise.steps[:1], *rise.steps[1:][-1:]):
            console.print(f"  after {step.at_s:.1f} s: load of {fold(step.parts)}, {step.kw:.1f} kW in all", highlight=False)
        for stage, how in pulsed(plan, profile, rack).items():
            if isinstance(how, str):
                text = f"not pulsed, unless its GPUs idle high enough: {how}"
            else:
                text = "all GPUs pulse at once" if how == 1 else f"GPUs pulse in up to {how} groups, spread over the period"
            console.print(f"  {stage}: {text}", markup=False, highlight=False, soft_wrap=True)
        if rise.left_out:
            console.print(f"  not loaded, for want of power: {fold(rise.left_out)}", highlight=False)


def pulsed(plan: Plan, profile: Profile, rack: Rack, idle_kw: float = 0.0) -> dict[str, int | str]:
    """Stage with pulses -> in how many groups its GPUs swing within what rack and loop bear, or why they cannot.

    `idle_kw`: what a GPU draws between two pulses; nothing is the worst case.
    """
    allow, watts = ramp.allowed(ramp.limits(profile, rack)), profile.gpu.power_limit_w
    out: dict[str, int | str] = {}
    for stage in (leg.stage for leg in plan.legs):
        pulse = stage.load.pulse if stage.load is not None else None
        if pulse is None or watts is None or isinstance(allow, str):
            continue
        units = [ramp.Unit(gpu, idle_kw, watts / 1000) for tray in plan.trays for gpu in profile.topology.gpus(tray)]
        try:
            beats = ramp.pulses(units, len(units) * idle_kw, pulse.period, pulse.duty, allow)
            out[stage.stage] = len({beat.group for beat in beats.values()})
        except ValueError as error:
            out[stage.stage] = str(error)
    return out


def refuse_pulses(plan: Plan, profile: Profile, rack: Rack) -> None:
    """Raises InputError for pulses that could not begin even where GPUs idle at the most they may: found before the first
    stage, not after a day."""
    idle = profile.limits.get("gpu.idle_power")
    found = pulsed(plan, profile, rack, idle.max / 1000 if idle is not None and idle.max is not None else 0.0)
    help_ = "make them longer, take fewer trays, or state what rack and loop bear (`power` in the rack file)"
    if bad := [f"stage {stage}: {why}: {help_}" for stage, why in found.items() if isinstance(why, str)]:
        raise InputError("\n".join(bad))


def _questions(suite: Suite, plan: Plan, profile: Profile, rack: Rack, catalogue: Catalogue, console: Console) -> None:
    """The first orders of the other checks, once for equal ones, and what tools run. Later ones depend on the answers."""
    stages: dict[tuple[str, ...], list[str]] = {}
    for leg in plan.legs:
        for step in leg.steps:
            check = CHECKS[step.check]
            parts = [] if check.heats else check.parts([*plan.trays, *plan.switches])
            trays = plan.trays if check.scope == "rack" else ()
            context = Context(next(iter(parts), ""), rack, profile, suite, leg.stage, catalogue, step.args, trays)
            groups: dict[str, list[str]] = {}
            for order in _asked(check, context) if parts else ():
                groups.setdefault(_in_words(order), []).extend([order.to] if check.scope == "rack" else parts)
            for words, whom in groups.items():
                stages.setdefault((step.check, fold(dict.fromkeys(whom)), words), []).append(leg.stage.stage)
    for (name, to, words), when in stages.items():
        text = f"  {name} ({_some(when)}), {to}: {words}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _asked(check: Check, context: Context) -> list[Order]:
    """The first orders; and where these only ask who is there, what comes after them."""
    out, answers = list[Order](), list[list[Answer]]()
    while (orders := check.orders(context, answers)) and len(answers) < _ROUNDS:
        out += orders
        if not answers and any(order.verb != "identify" for order in orders):
            break
        answers.append([Answer(order, True, {"gpus": []}) for order in orders])
    return out


def _some(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _in_words(order: Order) -> str:
    """Its door and what goes through it; a script on lines of its own."""
    args = {key: value for key, value in order.args.items() if key not in ("job", "args_of")}
    script = str(args.pop("script", "")).strip()
    if order.via == "shell" and script:
        become = " (as root)" if args.pop("become", False) else ""
        return f"shell{become}:" + "".join(f"\n      {line}" for line in script.splitlines())
    return f"{order.via} {order.verb}" + (f" {args}" if args else "")


def _own_loads(suite: Suite, plan: Plan, profile: Profile, rack: Rack, catalogue: Catalogue, console: Console) -> None:
    """The first orders of checks that load GPUs by themselves. Later ones depend on the answers."""
    own = [(leg, step) for leg in plan.legs for step in leg.steps if CHECKS[step.check].heats]
    if own and plan.trays:
        console.print(
            "checks that load the GPUs by themselves, after their stage; their times are estimates, and each begins with"
        )
    lines: dict[tuple[str, str], list[str]] = {}
    for leg, step in own if plan.trays else ():
        check = CHECKS[step.check]
        part, trays = (RACK, plan.trays) if check.scope == "rack" else (plan.trays[0], ())
        orders = _asked(check, Context(part, rack, profile, suite, leg.stage, catalogue, step.args, trays))
        to = fold(dict.fromkeys(order.to for order in orders)) if check.scope == "rack" else fold(plan.trays)
        said = f" {step.args}" if step.args else ""
        took = clock(check.seconds(profile, step.args))
        words = dict.fromkeys(_in_words(order) for order in orders)
        lines.setdefault((f"{took}: {step.check}{said}", f"{'; then '.join(words)} to {to}"), []).append(leg.stage.stage)
    for (what, text), when in lines.items():
        console.print(f"  {_some(when)}, {what}: {text}", markup=False, highlight=False, soft_wrap=True)


def owed(run: str, suite: Suite, many: Sequence[Owed], replaced: Mapping[str, str], console: Console) -> None:
    """Print what is owed of a run, and why: one line per stage, step and reason."""
    for part, why in replaced.items():
        console.print(f"replaced: {part}: {why}", markup=False, highlight=False)
    if not many:
        console.print(f"nothing is owed of run {run}: all that {suite.suite} asks for was done")
        return
    groups: dict[tuple[int, str], dict[str, list[str]]] = {}
    for one in many:
        groups.setdefault((one.stage, one.why), {}).setdefault(one.check, []).append(one.part)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("owed", "on", "checks", "why"):
        table.add_column(title, no_wrap=title != "checks")
    for (stage, why), checks in groups.items():
        by_parts: dict[str, list[str]] = {}
        for check, on in checks.items():
            by_parts.setdefault("rack" if on == [RACK] else fold(on), []).append(check)
        for parts, names in by_parts.items():
            table.add_row(suite.stages[stage].stage, parts, ", ".join(names), why)
    console.print(table)
