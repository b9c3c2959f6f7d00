"""Every parser against every capture of its tool: as they are, cut anywhere, garbled, of another tool, and hostile text."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.captures import EXPLAINED, PAGE, TOOLS, Met, folder, meet, page, unexplained
from burnin.checks.tools import PARSERS, Outcome, Reading
from tests.cost import within
from tests.sampled import some

GOOD = (Outcome.PASS, Outcome.MEASURED)
HERE = (folder() / "INDEX.tsv").is_file()
needs_captures = pytest.mark.skipif(not HERE, reason="no captures beside the project: set BURNIN_CAPTURES")


@cache
def met() -> tuple[Met, ...]:
    return tuple(meet(folder())) if HERE else ()


def text_of(file: str) -> str:
    return (folder() / file).read_bytes().decode("utf-8", "replace")


def sound(reading: Reading) -> Reading:
    """The net under the readers must never be needed."""
    assert not any("defect in the parser" in why for why in reading.whys), reading.whys
    return reading


GOOD_ONES = [m for m in met() if m.reading.outcome in GOOD]


@needs_captures
def test_the_page_says_what_the_parsers_say_and_every_difference_is_explained() -> None:
    assert unexplained(list(met())) == []
    assert PAGE.read_text(encoding="utf-8") == page(list(met())), "make captures"
    assert len(met()) >= 99 and len({m.tool for m in met()}) >= 17
    assert set(EXPLAINED) <= {m.file for m in met()}


def test_every_parser_is_in_the_table_and_says_its_own_name() -> None:
    assert set(TOOLS) == set(PARSERS)
    for tool, parse in PARSERS.items():
        assert parse("", 0).tool == tool


@needs_captures
@pytest.mark.parametrize("one", some(GOOD_ONES), ids=lambda m: m.file)
def test_a_cut_that_still_looks_good_has_lost_nothing_that_is_judged(one: Met) -> None:
    """A prefix may keep PASS or MEASURED only with the same rows as the whole. Without an end mark: never PASS."""
    text, parse = text_of(one.file), PARSERS[one.tool]
    endless = any("no end mark" in why for why in one.reading.whys)
    ends = {n for n, c in enumerate(text) if c == "\n"} if len(text) < 20_000 else set()
    ends |= set(range(max(0, len(text) - 300), len(text))) | set(range(0, len(text), max(1, len(text) // 150)))
    if len(text) > 60_000:
        ends = set(range(len(text) - 40, len(text))) | set(range(0, len(text), len(text) // 20))
    for end in sorted(ends):
        cut = sound(parse(text[:end], 0))
        assert cut.outcome is not Outcome.PASS or not endless
        if cut.outcome in GOOD and not endless:
            assert cut.rows == one.reading.rows, f"cut at {end} of {len(text)}"


@needs_captures
@pytest.mark.parametrize("one", [m for m in GOOD_ONES if m.reading.outcome is Outcome.PASS], ids=lambda m: m.file)
def test_a_pass_needs_exit_status_0_and_a_link(one: Met) -> None:
    text, parse = text_of(one.file), PARSERS[one.tool]
    assert parse(text, None).outcome is Outcome.ERROR and parse(text).outcome is Outcome.ERROR
    for code in (1, 2, 124, 127, 137, 143, 205, 226, -9):
        assert parse(text, code).outcome is Outcome.ERROR, code
    assert parse(text, 0, "Segmentation fault (core dumped)\n").outcome is Outcome.ERROR
    assert parse(text, 0, "Warning: Permanently added 'x' to the list of known hosts.\n").outcome is Outcome.PASS
    assert parse(text + "\n\n", 0) == one.reading


@needs_captures
@pytest.mark.parametrize("one", some(met()), ids=lambda m: m.file)
def test_garbled_text_never_raises(one: Met) -> None:
    text, parse = text_of(one.file), PARSERS[one.tool]
    chance = random.Random(one.file)
    for _ in range(30 if len(text) < 20_000 else 4):
        at = chance.randrange(len(text))
        sound(parse(text[:at] + chance.choice('\x00\n{}[]"|:-+#%9NA \u2028\ud800é') + text[at + 1 :], 0))
        start, end = sorted(chance.randrange(len(text)) for _ in range(2))
        sound(parse(text[:start] + text[end:], 0))
        sound(parse(text[start:] + text[:end], 0))


@needs_captures
def test_no_parser_takes_the_output_of_another_tool_for_its_own() -> None:
    for one in met():
        if len(text := text_of(one.file)) > 30_000:
            continue
        for tool, parse in PARSERS.items():
            if tool != one.tool:
                assert sound(parse(text, 0)).outcome is Outcome.ERROR, (tool, one.file)


@pytest.mark.parametrize("tool", some(PARSERS))
@given(text=st.text(max_size=400), code=st.sampled_from([0, 0, 0, None, 1]), stderr=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_text_is_refused(tool: str, text: str, code: int | None, stderr: str) -> None:
    assert sound(PARSERS[tool](text, code, stderr)).outcome is Outcome.ERROR


LINES = sorted({line for m in met() if len(text_of(m.file)) < 8000 for line in text_of(m.file).split("\n")}) or [
    "| Diagnostic | Result |"
]


@pytest.mark.parametrize("tool", some(PARSERS))
@given(lines=st.lists(st.sampled_from(LINES), max_size=30))
@settings(max_examples=40, deadline=None)
def test_lines_of_real_outputs_in_any_order_never_raise(tool: str, lines: list[str]) -> None:
    sound(PARSERS[tool]("\n".join(lines), 0))


HOSTILE = {
    "deep json": '{"a":' * 60_000,
    "deep lists": '{"DCGM Diagnostic": ' + "[" * 60_000,
    "long number": '{"nvbandwidth": ' + "9" * 30_000 + "}",
    "twice": '{"smartctl": {}, "smartctl": {}}',
    "nan": '{"fio version": NaN}',
    "one line": "| " + "a" * 150_000 + " |",
    "spaces": " " * 150_000 + "x",
    "hashes": "# " * 90_000,
    "pipes": "|" * 150_000,
    "dashes": "-" * 150_000 + "\n" + "+-" * 60_000,
    "numbers": "1 2 float " * 30_000,
    "words": "Link 0: " + "9" * 90_000,
    "bars": "||Ax-b||_oo/(" * 9_000,
    "burn": "50.0%  proc'd: " + "1 (1 Gflop/s) - " * 9_000,
    "open": "\n".join(["{"] * 30_000),
    "rows": "+====================+====================+\n" + "| x                         | Pass - All  \n" * 6_000,
    "laughs": '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd" [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    "<nvidia_smi_log>&b;</nvidia_smi_log>",
    "deep xml": '<?xml version="1.0"?><nvidia_smi_log>' + "<a>" * 30_000 + "</nvidia_smi_log>",
    "one message": "+====================+====================+\n| a                         | Fail                        |\n"
    "| Warning                   | x                           |\n"
    + "|                           | more and more            |\n"
    * 9_000,
    "messages": "+====================+====================+\n"
    "| a                         | Pass                        |\n"
    + "| Warning                   | x                           |\n" * 6_000
    + "|                           | GPU0: Pass               |\n" * 6_000,
    "cards": "".join(f"CA 'a{n}'\n" for n in range(18_000)),
    "gpus": '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd"><nvidia_smi_log>' + "<gpu/>" * 30_000 + "</nvidia_smi_log>",
    "gpus of text": "NVSMI LOG\n" + "GPU 00000000:01:00.0\n    Product Name : x\n" * 12_000,
    "gpus with links": "".join(f"GPU {n}: x (UUID: a)\n" for n in range(9_000)) + "Link 0: 1 GB/s\n" * 18_000,
    "nodes": '{"status": "UP", "nodes": {' + ",".join(f'"{n}": {{}}' for n in range(18_000)) + "}}",
    "sizes": "# size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
    + "8 2 float sum -1 1 1 1 0 1 1 1 0\n" * 6_000,
    "nul": "\x00" * 30_000,
    "escapes": "\x1b[" * 60_000,
}


@pytest.mark.parametrize("kind", some(HOSTILE))
def test_hostile_text_is_refused_and_costs_little(kind: str) -> None:
    """Never good, and linear: below 1.5 s of CPU for each parser on two cores that others use too."""
    for tool, parse in PARSERS.items():
        reading = within(1.5, lambda parse=parse: parse(HOSTILE[kind], 0))  # type: ignore[misc]
        assert sound(reading).outcome in (Outcome.ERROR, Outcome.FAIL), tool
