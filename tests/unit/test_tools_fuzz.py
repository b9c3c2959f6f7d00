"""What test_tools_captures does to good captures, done to the rest: failing captures, formats without a capture (as the twin
prints them), answers that are not what they should be, and the tree of a real BMC with any value of it replaced."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.captures import Met
from burnin.checks import CHECKS, toolbox
from burnin.checks.base import Answer, Evidence, Order
from burnin.checks.tools import PARSERS, Outcome
from burnin.events import Result
from burnin.telemetry import bmc, facility
from tests import build
from tests.redfish_files import Body, needs_captures, tree
from tests.sampled import some
from tests.unit.test_checks_tools import WHO, context
from tests.unit.test_tools_captures import GOOD, met, sound, text_of
from tests.unit.test_twin_toolbox import FORMS, OTHERS, Tools

NASTY = (
    "\x00",
    "\n",
    "{",
    "}",
    '"',
    "|",
    "<",
    "&a;",
    "9" * 400,
    "1e999",
    "-",
    "NaN",
    "\x1b[2J",
    "\u2028",
    "\ud800",
    "é",
    " " * 999,
)
BAD = [one for one in met() if one.reading.outcome is Outcome.FAIL]


@needs_captures
@pytest.mark.parametrize("one", BAD, ids=lambda one: one.file)
def test_a_failing_output_that_is_cut_or_garbled_never_turns_good(one: Met) -> None:
    """A cut keeps FAIL, or says that it cannot be known. One blow elsewhere than at the bad word leaves it bad, too."""
    text, parse, chance = text_of(one.file), PARSERS[one.tool], random.Random(one.file)
    for end in sorted({chance.randrange(len(text)) for _ in range(120 if len(text) < 20_000 else 10)}):
        assert sound(parse(text[:end], 0)).outcome is not Outcome.PASS
    words = [str(row.value) for row in one.reading.rows if row.result is Outcome.FAIL and row.value is not None] + [
        "Fail",
        "FAIL",
    ]
    for _ in range(60 if len(text) < 20_000 else 6):
        at = chance.randrange(len(text))
        if not any(word in text[max(0, at - 200) : at + 200] for word in words):
            assert sound(parse(text[:at] + chance.choice(NASTY) + text[at + 1 :], 0)).outcome not in GOOD


@cache
def printed(where: Any) -> Any:
    """(parser, text) of everything that the twin's tools print."""
    tools = Tools(where / "rack", seconds=0)
    words = [*(form for (_, kind), forms in FORMS.items() for form in forms), *OTHERS]
    words += [
        ("stress-ng", ("stress-ng", "--cpu", "0", "--vm", "2", "--verify", "--metrics", "--timeout", "60s")),
        ("stream", ("stream",)),
    ]
    words += [("gpu_burn", ("gpu_burn", "-tc", "60")), ("smartctl", ("smartctl", "-j", "-a", "/dev/nvme1"))]
    words += [("fio", ("fio", "--name=x", "--output-format=json", "--filename=/dev/nvme1n1", "--rw=read", "--runtime=5"))]
    return [(parser, tools.say(*argv)[0]) for parser, argv in words]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = printed(tmp_path_factory.mktemp("fuzz"))
    return found


def test_the_twins_texts_too_are_cut_anywhere_and_have_lost_nothing(texts: list[tuple[str, str]]) -> None:
    """Of tools without a public capture this is all there is."""
    assert {parser for parser, _ in texts} >= {"hpl-mxp", "nvme smart-log", "mlxlink", "stress-ng"}
    for parser, text in texts:
        whole = sound(PARSERS[parser](text, 0))
        endless = any("no end mark" in why for why in whole.whys)
        for end in sorted({*range(0, len(text), max(1, len(text) // 120)), *range(max(0, len(text) - 60), len(text))}):
            cut = sound(PARSERS[parser](text[:end], 0))
            assert cut.outcome is not Outcome.PASS or not endless
            if cut.outcome in GOOD and not endless:
                assert cut.rows == whole.rows, (parser, end)


@pytest.mark.long
def test_the_twins_texts_too_are_garbled(texts: list[tuple[str, str]]) -> None:
    chance = random.Random(7)
    for parser, text in texts:
        for _ in range(40):
            at, to = sorted(chance.randrange(len(text)) for _ in range(2))
            sound(PARSERS[parser](text[:at] + chance.choice(NASTY) + text[at + 1 :], 0))
            sound(PARSERS[parser](text[:at] + text[to:], 0))
            sound(PARSERS[parser](text[to:] + text[:at], 0))


@pytest.mark.parametrize("tool", some(PARSERS))
@given(raw=st.binary(max_size=300), code=st.sampled_from([0, None, -9, 256, 10**9]))
@settings(max_examples=40, deadline=None)
def test_any_bytes_are_refused(tool: str, raw: bytes, code: int | None) -> None:
    assert sound(PARSERS[tool](raw.decode("utf-8", "replace"), code)).outcome is Outcome.ERROR
    assert sound(PARSERS[tool]("\n".join([*("{" * 3), raw.decode("latin-1")]), code)).outcome is Outcome.ERROR


def test_a_billion_laughs_cost_nothing() -> None:
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    head = f'<?xml version="1.0"?><!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd" [<!ENTITY l0 "lol">{lines}]>'
    for tool, parse in PARSERS.items():
        assert (
            sound(parse(f"{head}<nvidia_smi_log><driver_version>&l11;</driver_version></nvidia_smi_log>", 0)).outcome
            is Outcome.ERROR
        ), tool


# ---------------------------------------------------------------- answers that are not what they should be

ATOM = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=20))
ANY = st.recursive(
    ATOM, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=3), max_leaves=8
)
FIELDS = st.sampled_from(["exit", "signal", "stdout", "stderr", "ended", "cut", "left", "gpus", "host"])


@pytest.mark.parametrize("tool", some(toolbox.TOOLS), ids=lambda tool: tool.name)
@given(bodies=st.lists(st.dictionaries(FIELDS, ANY, max_size=6) | ANY, min_size=1, max_size=3))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_an_answer_that_is_anything_never_raises_and_never_passes(tool: Any, bodies: list[Any]) -> None:
    rounds = [[Answer(Order("t07", "identify"), True, WHO)], *([Answer(Order("t07", "program"), True, body)] for body in bodies)]
    got = CHECKS[tool.name].judge(context(tool.name), Evidence(answers=rounds))
    assert got
    assert Result.PASS not in {m.result for m in got}


# ---------------------------------------------------------------- a BMC's tree

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 10**400, 1e308, float("nan"), float("inf"), "", "OK", "Critical", "N/A", "x" * 10_000, [], {}, [None],
    {"Reading": "x"}, [[[[]]]], {"@odata.id": 7}, {"Members": 3}, "\x00",
)  # fmt: skip


def places(body: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand in a body."""
    rows = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, below in rows:
        yield (*at, key)
        yield from places(below, (*at, key))


def replaced(body: Body, at: tuple[Any, ...], value: Any) -> Body:
    """The body with one value replaced."""
    out = copy.deepcopy(body)
    holder: Any = out
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    return out


READ: tuple[Callable[[dict[str, Body]], Any], ...] = (
    bmc.sensors, bmc.detectors, bmc.leak_policy, bmc.system_serials, bmc.tray_power, bmc.entries, bmc.firmware,
    lambda bodies: list(bmc.unhealthy(bodies)), facility.shelf, lambda bodies: facility.loop(bodies, "rack"),
)  # fmt: skip


@needs_captures
def test_any_value_of_a_real_tree_may_be_anything() -> None:
    """Each reader, and each check, on the tree of a real tray in which one value of hundreds of bodies is hostile."""
    bodies, chance = tree(), random.Random(11)
    for path in chance.sample(sorted(bodies), 160):
        for at in chance.sample(spots, min(5, len(spots))) if (spots := list(places(bodies[path]))) else ():
            one = {path: replaced(bodies[path], at, chance.choice(HOSTILE))}
            for read in READ:
                read(one)
    for _ in range(6):
        many = dict(bodies)
        for path in chance.sample(sorted(bodies), 100):
            spots = list(places(bodies[path]))
            many[path] = replaced(bodies[path], chance.choice(spots), chance.choice(HOSTILE)) if spots else {}
        for check in ("bmc", "leak", "firmware"):
            around = ("t07",) if CHECKS[check].scope == "rack" else ()
            at = build_context(check, around)
            answer = Answer(Order("t07.bmc", "walk", {}, "redfish"), True, many)
            CHECKS[check].judge(at, Evidence(answers=[[answer]], stretch=build.LOAD))


def build_context(check: str, around: tuple[str, ...]) -> Any:
    from tests.unit.test_checks_redfish import context as of_redfish

    return of_redfish(check, trays=around) if around else of_redfish(check)


def test_a_number_beyond_all_numbers_is_none() -> None:
    """A BMC's 10^400 once ended the run that asked it."""
    at = "/redfish/v1/Chassis/a/Sensors/b"
    (found,) = bmc.sensors({at: {"Reading": 10**400, "Thresholds": {"UpperCritical": {"Reading": 10**400}}}})
    assert found.reading is None and not found.crossed


@needs_captures
@pytest.mark.parametrize("value", [*HOSTILE[:-1], "Detected", "ok"], ids=repr)
def test_a_detector_that_says_anything_but_ok_is_not_dry(value: Any) -> None:
    bodies = tree()
    path = next(path for path in sorted(bodies) if "/LeakDetectors/" in path)
    bodies[path] = {**bodies[path], "DetectorState": value}
    found = next(one for one in bmc.detectors(bodies) if path.endswith(one.name))
    assert (found.wet is False) == (value == "OK")


@needs_captures
def test_a_body_that_is_cut_is_no_body() -> None:
    """What is not whole JSON never comes this far: the client says `failed`, and that is not good."""
    body = json.dumps(next(iter(tree().values())))
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads(body[: len(body) // 2])
    assert bmc.sensors({"/redfish/v1/Chassis/a/Sensors/b": {"failed": "cut"}}) == []
