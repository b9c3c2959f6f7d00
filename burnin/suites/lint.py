"""Looks at files without touching a tray: is each one right, and can what it asks for be met at all?

A file's kind shows in its keys. What a model refuses is found by loading it; here stands what only becomes visible across
several values: limits that no hardware can meet, windows too short for their samples, loads that never end.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from burnin.errors import InputError, Problem
from burnin.rack.document import Document, one_of, read
from burnin.rack.load import Kernel, Metrics, Signatures, Xids, list_profiles, load_profile, load_rack, load_site, unknown_metrics
from burnin.rack.schema import WHERE_READ, Limit, Metric, Profile
from burnin.rack.yamlfile import check, in_order
from burnin.suites.load import Offer, check_suite, misfits
from burnin.suites.schema import Stage, Suite

_MARGIN_MOST_C = 87.0
"""T.Limit counts down from the maximum operating temperature, 87 Cel on GB200, GB300 and H200 (nvidia-smi captures)."""
_SHARES = (".fraction", "_util", ".util")
_COUNTS = (".growth", ".mismatches")
_KINDS = {
    "rack": "rack", "trays": "rack",  # a rack also names its profile, so it is looked for first
    "suite": "suite", "stages": "suite", "profile": "profile", "topology": "profile",
    "metrics": "metrics", "xids": "xids", "kernel": "kernel", "signatures": "signatures", "ships_after": "site",
}  # fmt: skip


def lint(paths: Sequence[Path], checks: Mapping[str, Offer], metrics: Mapping[str, Metric]) -> list[Problem]:
    """Every mistake in every file, by file and place."""
    problems: list[Problem] = []
    for path in paths:
        try:
            document = read(path)
        except InputError as error:
            problems += error.problems
            continue
        keys = document.data if isinstance(document.data, dict) else {}
        kind = next((kind for key, kind in _KINDS.items() if key in keys), None)
        if kind is None:
            expected = f"a key that says what it is: {one_of(dict.fromkeys(_KINDS))}"
            problems.append(document.problem((), "this is no file of burnin's", expected))
        else:
            problems += _LINT[kind](path, document, checks, metrics)
    return in_order(problems)


def warnings(paths: Sequence[Path], today: dt.date) -> list[Problem]:
    """What is no mistake but wants a person's eye: waivers that have run out, or that set nothing aside."""
    problems: list[Problem] = []
    for path in paths:
        try:
            file = load_rack(path, need_known_hosts=False, need_keys=False)
            document = read(path)
        except InputError:
            continue
        for i, waiver in enumerate(file.rack.waive):
            if waiver.until < today:
                what = f"the waiver of {waiver.interlock} by {waiver.by} ran out on {waiver.until}"
                problems.append(document.problem(("waive", i, "until"), what, "a later day, or the interlock itself"))
            elif waiver.interlock not in (*file.profile.interlocks, *file.profile.guard, *WHERE_READ):
                what = f"a {file.profile.profile} does not ask for {waiver.interlock}: there is nothing to waive"
                problems.append(document.problem(("waive", i, "interlock"), what))
    return in_order(problems)


_Lint = Callable[[Path, Document, Mapping[str, Offer], Mapping[str, Metric]], list[Problem]]


def _loaded(load: Callable[[Path], object]) -> _Lint:
    def run(path: Path, document: Document, checks: Mapping[str, Offer], metrics: Mapping[str, Metric]) -> list[Problem]:
        try:
            load(path)
        except InputError as error:
            return error.problems
        return []

    return run


def _profile(path: Path, document: Document, checks: Mapping[str, Offer], metrics: Mapping[str, Metric]) -> list[Problem]:
    try:
        profile = load_profile(path)
    except InputError as error:
        return error.problems
    return [
        *unknown_metrics(document, ("lacks", "*"), metrics),
        *_limits(document, profile.limits, metrics),
        *_power(document, profile.limits, [profile]),
        *(_margins(document, profile.limits, profile.limits) or ()),
    ]


def _suite(path: Path, document: Document, checks: Mapping[str, Offer], metrics: Mapping[str, Metric]) -> list[Problem]:
    suite, problems, document = check_suite(document, checks, metrics)
    if suite is not None:
        profiles = list(_profiles())
        problems += [
            *_limits(document, suite.limits, metrics),
            *_overrides(document, suite, profiles),
            *_power(document, suite.limits, profiles),
            *_stages(document, suite),
            *_samples(document, suite, metrics),
            *(misfits(document, suite, checks, profiles) if not problems else ()),
        ]
    return problems


def _profiles() -> Iterator[Profile]:
    """Every profile that can be read; the others are told when they are looked at themselves."""
    for path in list_profiles().values():
        try:
            yield load_profile(path)
        except InputError:
            continue


def _signatures(path: Path, document: Document, checks: Mapping[str, Offer], metrics: Mapping[str, Metric]) -> list[Problem]:
    return [*check(document, Signatures)[1], *unknown_metrics(document, ("signatures", "*", "signals", "*"), metrics)]


_LINT: dict[str, _Lint] = {
    "rack": _loaded(lambda path: load_rack(path, need_known_hosts=False, need_keys=False)),
    "profile": _profile,
    "suite": _suite,
    "metrics": lambda path, document, checks, metrics: check(document, Metrics)[1],
    "xids": lambda path, document, checks, metrics: check(document, Xids)[1],
    "kernel": lambda path, document, checks, metrics: check(document, Kernel)[1],
    "signatures": _signatures,
    "site": _loaded(load_site),
}


# ---------------------------------------------------------------- limits


def _limits(document: Document, limits: Mapping[str, Limit], metrics: Mapping[str, Metric]) -> Iterator[Problem]:
    """Limits that nothing can meet, or whose unit is not that of what they limit."""
    for name, limit in limits.items():
        where = ("limits", name)
        if ".tlimit" in name and limit.min is not None and limit.min >= _MARGIN_MOST_C:
            what = f"{name} can never be met: no GPU has {limit.min:g} Cel of margin"
            yield document.problem((*where, "min"), what, f"less than {_MARGIN_MOST_C:g}")
        if ".tlimit" in name and "min" not in limit.model_fields_set:
            yield document.problem(where, f"{name} is a margin, and has no min", "min, the least that must be left", key=True)
        if name.endswith(_COUNTS) and "max" not in limit.model_fields_set:
            yield document.problem(where, f"{name} is counted, and has no max", "max, the most that may be counted", key=True)
        if not name.endswith(_SHARES) and limit.max is not None and limit.max < 0:
            yield document.problem((*where, "max"), f"{name} can never be met: it is never below 0", "0 or more")
        if name.endswith(_SHARES) and any(bound is not None and not 0 <= bound <= 1 for bound in (limit.min, limit.max)):
            yield document.problem(where, f"{name} is a share, but its limit is {limit}", "bounds from 0 to 1", key=True)
        unit = _unit(name, metrics)
        if unit is not None and unit != limit.unit:
            yield document.problem((*where, "unit"), f"{name} is in {limit.unit}, but measured in {unit}", f"the unit {unit}")
        if unit is not None and isinstance(limit.equals, str):
            what = f"{name} can never be met: it is a number, and {limit.equals!r} is text"
            yield document.problem((*where, "equals"), what, "a number, without quotes")


def _unit(name: str, metrics: Mapping[str, Metric]) -> str | None:
    """Unit of the metric that a limit's name begins with; a share has none of its own."""
    if name.endswith(_SHARES):
        return "1"
    words = name.split(".")
    stems = (".".join(words[:n]) for n in range(len(words), 1, -1))
    return next((metrics[stem].unit for stem in stems if stem in metrics), None)


def _power(document: Document, limits: Mapping[str, Limit], profiles: Sequence[Profile]) -> Iterator[Problem]:
    """Power that none of these GPUs can be set to, or that an idle GPU could not exceed if it tried."""
    limit, idle = limits.get("gpu.power_limit"), limits.get("gpu.idle_power")
    known = [(gpu.power_limit_min_w or 0, gpu.power_limit_w) for gpu in (p.gpu for p in profiles) if gpu.power_limit_w]
    if not known:
        return
    says = " or ".join(dict.fromkeys(f"{low:g} to {high:g} W" for low, high in known))
    if limit is not None and isinstance(limit.equals, float) and not any(lo <= limit.equals <= hi for lo, hi in known):
        what = f"gpu.power_limit can never be met: {limit.equals:g} W cannot be set"
        yield document.problem(("limits", "gpu.power_limit", "equals"), what, says)
    most = max(high for _, high in known)
    if idle is not None and idle.max is not None and idle.max >= most:
        what = f"gpu.idle_power can never be violated: {idle.max:g} W is all that a GPU may draw"
        yield document.problem(("limits", "gpu.idle_power", "max"), what, f"less than {most:g}")


def _margins(document: Document, own: Mapping[str, Limit], limits: Mapping[str, Limit]) -> list[Problem] | None:
    """A load that would be cut at the margin it may start with, None where one is not known. `own` are this file's limits."""
    start, cutoff = limits.get("gpu.tlimit.start"), limits.get("gpu.tlimit.cutoff")
    if start is None or cutoff is None or start.min is None or cutoff.min is None:
        return None
    if start.min > cutoff.min:
        return []
    name = "gpu.tlimit.start" if "gpu.tlimit.start" in own else "gpu.tlimit.cutoff"
    what = f"a load may start at {start.min:g} Cel of margin and is cut at {cutoff.min:g}: it would never run"
    return [document.problem(("limits", name, "min"), what, "gpu.tlimit.start above gpu.tlimit.cutoff")]


def _overrides(document: Document, suite: Suite, profiles: Sequence[Profile]) -> Iterator[Problem]:
    """Limits that no profile has, or that contradict all that have them."""
    names = {name for profile in profiles for name in profile.limits}
    for name, limit in suite.limits.items():
        if profiles and name not in names:
            yield document.problem(("limits", name), f"no profile has a limit {name!r}", one_of(names, name), key=True)
        theirs = [profile.limits[name] for profile in profiles if name in profile.limits]
        bounds = {"min", "max", "equals"}
        if theirs and all(not bounds & limit.model_fields_set & other.model_fields_set for other in theirs):
            meant = sorted({bound for other in theirs for bound in bounds & other.model_fields_set})
            what = f"{name} contradicts the profiles: its bound is {', '.join(sorted(bounds & limit.model_fields_set))}"
            yield document.problem(("limits", name), what, " or ".join(meant), key=True)
    margins = [_margins(document, suite.limits, {**profile.limits, **suite.limits}) for profile in profiles]
    wrong = [found for found in margins if found is not None]
    if wrong and all(wrong):
        yield from wrong[0]


# ---------------------------------------------------------------- stages


def _stages(document: Document, suite: Suite) -> Iterator[Problem]:
    """Loads that never end, re-tests of nothing, a PASS that would ship a rack and prove nothing."""
    loaded = [i for i, stage in enumerate(suite.stages) if stage.load is not None]
    for i in loaded:
        stage, later = suite.stages[i], suite.stages[i + 1 :]
        if not any(_unloaded(other) and other.when in ("always", stage.when) for other in later):
            what = f"stage {stage.stage}: the load never ends, no stage without load follows"
            yield document.problem(("stages", i, "phase"), what, "a cool-down, so that what shows after load is seen")
            break
    for i, stage in enumerate(suite.stages):
        if stage.when == "suspect" and not _may_suspect(suite.stages[:i]):
            what = f"stage {stage.stage}: nothing before it can raise a suspicion"
            yield document.problem(("stages", i, "when"), what, "an idle and a load stage before it")
    proven = any(suite.stages[i].when == "always" and _asked(suite, suite.stages[i]) for i in loaded)
    if suite.ships and not (suite.coverage.metrics and proven):
        what = "a PASS of this suite would ship a rack that was not loaded, or not measured under load"
        yield document.problem(("ships",), what, "coverage: {metrics: [...], phases: [idle, load]} and a load stage")


def _asked(suite: Suite, stage: Stage) -> bool:
    """Must the required metrics have been read in this stage?"""
    return stage.phase is not None and stage.phase.split("-")[0].split("@")[0] in suite.coverage.phases


def _unloaded(stage: Stage) -> bool:
    return stage.phase is not None and stage.load is None


def _may_suspect(earlier: Sequence[Stage]) -> bool:
    """Parts are compared by what they do between idle and load: both must have been, whatever was found."""
    always = [stage for stage in earlier if stage.when == "always" and stage.phase is not None]
    idle = next((i for i, stage in enumerate(always) if str(stage.phase).startswith("idle")), len(always))
    return any(str(stage.phase).startswith("load") for stage in always[idle:])


def _samples(document: Document, suite: Suite, metrics: Mapping[str, Metric]) -> Iterator[Problem]:
    """Required metrics that come too seldom for the stages they are required in."""
    named = [name for name in suite.coverage.metrics if name in metrics]
    quick = [name for name in named if metrics[name].transient]
    if quick and all(stage.sample_power is None for stage in suite.stages):
        yield document.problem(("coverage", "metrics"), f"no stage reads {quick[0]}", "sample_power: 200 ms in a stage")
    slowest = max(named, key=lambda name: suite.period(metrics[name]), default=None)
    if slowest is None or (period := suite.period(metrics[slowest])) == suite.sample:
        return
    key = "sample_links" if metrics[slowest].per_link else "sample_slow"
    for i, stage in enumerate(suite.stages):
        window = stage.duration - stage.settle
        if _asked(suite, stage) and window < 3 * period:
            often = f"{slowest} is read every {period:g} s, fewer than 3 times in the {window:g} s that are judged"
            expected = f"a longer stage, or {key}: {window / 3:.3g} s"
            yield document.problem(("stages", i, "for"), f"stage {stage.stage}: {often}", expected)
