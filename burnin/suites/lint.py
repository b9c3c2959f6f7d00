"""Looks at files without touching a tray: is each one right, and can what it asks for be met at all?

A file's kind shows in its first keys. What a model refuses is found by loading it; here stands what only becomes visible
across several values: limits that hardware cannot give, windows too short for their samples, loads that never end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from burnin.errors import InputError, Problem
from burnin.rack.document import Document, one_of, read
from burnin.rack.load import Metrics, Signatures, Xids, load_profile, load_rack, load_site
from burnin.rack.schema import Limit, Metric, Profile
from burnin.rack.yamlfile import check, in_order
from burnin.suites.load import check_suite
from burnin.suites.schema import Suite

_MARGIN_MOST_C = 120.0
"""T.Limit is at most the maximum operating temperature less that of freezing water: no GPU has more."""
_KINDS = ("rack", "profile", "suite", "metrics", "xids", "signatures", "ships_after")


def lint(paths: Sequence[Path], checks: Collection[str], metrics: Mapping[str, Metric]) -> list[Problem]:
    """Every mistake in every file, by file and place."""
    problems: list[Problem] = []
    for path in paths:
        try:
            document = read(path)
        except InputError as error:
            problems += error.problems
            continue
        keys = document.data if isinstance(document.data, dict) else {}
        # a rack names its profile, so `rack` is looked for first
        kind = next((kind for kind in _KINDS if kind in keys), None)
        if kind is None:
            problems.append(document.problem((), "this is no file of burnin's", f"a key that says what it is: {one_of(_KINDS)}"))
        else:
            problems += _LINT[kind](path, document, checks, metrics)
    return in_order(problems)


_Lint = Callable[[Path, Document, Collection[str], Mapping[str, Metric]], list[Problem]]


def _loaded(load: Callable[[Path], object]) -> _Lint:
    def run(path: Path, document: Document, checks: Collection[str], metrics: Mapping[str, Metric]) -> list[Problem]:
        try:
            load(path)
        except InputError as error:
            return error.problems
        return []

    return run


def _profile(path: Path, document: Document, checks: Collection[str], metrics: Mapping[str, Metric]) -> list[Problem]:
    try:
        profile = load_profile(path)
    except InputError as error:
        return error.problems
    return [*_limits(document, profile.limits, metrics), *_power(document, profile)]


def _suite(path: Path, document: Document, checks: Collection[str], metrics: Mapping[str, Metric]) -> list[Problem]:
    suite, problems = check_suite(document, checks, metrics)
    if suite is not None:
        problems += [*_limits(document, suite.limits, metrics), *_stages(document, suite), *_samples(document, suite, metrics)]
    return problems


_LINT: dict[str, _Lint] = {
    "rack": _loaded(lambda path: load_rack(path, need_known_hosts=False, need_keys=False)),
    "profile": _profile,
    "suite": _suite,
    "metrics": lambda path, document, checks, metrics: check(document, Metrics)[1],
    "xids": lambda path, document, checks, metrics: check(document, Xids)[1],
    "signatures": lambda path, document, checks, metrics: check(document, Signatures)[1],
    "ships_after": _loaded(load_site),
}


def _limits(document: Document, limits: Mapping[str, Limit], metrics: Mapping[str, Metric]) -> Iterator[Problem]:
    """Limits that no hardware can meet, or whose unit is not that of what they limit."""
    for name, limit in limits.items():
        where = ("limits", name)
        if "tlimit" in name and limit.min is not None and limit.min > _MARGIN_MOST_C:
            yield document.problem(
                (*where, "min"), f"{name} can never be met: no GPU has {limit.min:g} Cel of margin", "a margin in Cel"
            )
        if name.endswith((".growth", "_ue", "_ce", ".mismatches")) and limit.max is not None and limit.max < 0:
            yield document.problem((*where, "max"), f"{name} can never be met: a counter does not fall", "0 or more")
        if name.endswith((".fraction", "_util")) and any(b is not None and not 0 <= b <= 1 for b in (limit.min, limit.max)):
            yield document.problem(where, f"{name} is a share", "bounds from 0 to 1", key=True)
        metric = metrics.get(name) or metrics.get(name.removesuffix(".growth")) or metrics.get(name.removesuffix(".load"))
        if metric is not None and metric.unit != limit.unit:
            yield document.problem(
                (*where, "unit"), f"{name} is measured in {metric.unit}, this limit is in {limit.unit}", metric.unit
            )


def _power(document: Document, profile: Profile) -> Iterator[Problem]:
    limit, most = profile.limits.get("gpu.power_limit"), profile.gpu.power_limit_w
    if limit is not None and most is not None and isinstance(limit.equals, float | int) and limit.equals > most:
        what = f"gpu.power_limit can never be met: {limit.equals:g} W is above the GPU's own {most:g} W"
        yield document.problem(("limits", "gpu.power_limit", "equals"), what, f"at most {most:g}")


def _stages(document: Document, suite: Suite) -> Iterator[Problem]:
    """Loads that never end, re-tests of nothing, statistics without a baseline."""
    loaded = [i for i, stage in enumerate(suite.stages) if stage.load is not None]
    idle = [i for i, stage in enumerate(suite.stages) if stage.phase is not None and stage.phase.startswith("idle")]
    if loaded and all(stage.load is not None for stage in suite.stages[loaded[0] :]):
        last = len(suite.stages) - 1
        yield document.problem(
            ("stages", last),
            "the load never ends: no stage without load follows",
            "a cool-down, so that what shows after load is seen",
        )
    for i, stage in enumerate(suite.stages):
        earlier = [k for k in loaded if k < i and suite.stages[k].when == "always"]
        if stage.when == "suspect" and not (earlier and any(k < earlier[-1] for k in idle)):
            what = f"stage {stage.stage}: nothing before it can raise a suspicion"
            yield document.problem(("stages", i, "when"), what, "an idle and a load stage before it")


def _samples(document: Document, suite: Suite, metrics: Mapping[str, Metric]) -> Iterator[Problem]:
    """Required metrics that come too seldom for the stages they are required in."""
    slow = [name for name in suite.coverage.metrics if name in metrics and metrics[name].slow]
    for i, stage in enumerate(suite.stages):
        asked = stage.phase is not None and stage.phase.split("-")[0].split("@")[0] in suite.coverage.phases
        window = stage.duration - stage.settle
        if asked and slow and window < 3 * suite.sample_slow:
            what = f"{slow[0]} is read every {suite.sample_slow:g} s, fewer than 3 times in the {window:g} s that are judged"
            yield document.problem(("stages", i), what, f"a longer stage, or sample_slow of at most {window / 3:g} s")
