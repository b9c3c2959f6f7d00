"""Much of what a tool prints: 100 MB are refused at no cost; as much as is read at all costs bounded time and memory."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from functools import cache
from typing import Any

import pytest

from burnin.checks.tools import PARSERS, Outcome
from burnin.checks.tools.reading import LIMIT, ROWS, Page, Unreadable, parser
from tests.cost import within
from tests.sampled import some
from tests.unit.test_tools_captures import GOOD, met, needs_captures, sound, text_of
from tests.unit.test_tools_fuzz import printed

HUGE = 100_000_000


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An output of every tool that has one: the longest good capture, else what the twin's tool prints."""
    found: dict[str, str] = dict(printed(tmp_path_factory.mktemp("much")))
    for one in sorted(met(), key=lambda one: one.reading.outcome in GOOD):
        found[one.tool] = text_of(one.file)
    return found


def much(text: str, size: int) -> str:
    """The text again and again, then the first half of it: cut, as a runner cuts."""
    return (text * (size // len(text) + 1))[: size - len(text) // 2] if size > 2 * len(text) else text[: len(text) // 2]


@cache
def of_x() -> str:
    return "x" * HUGE


@pytest.mark.parametrize("tool", some(PARSERS))
def test_a_hundred_megabytes_of_its_own_lines_are_refused_at_no_cost(tool: str, own: dict[str, str]) -> None:
    """Also where a whole good report stands in its first kilobytes, or on stderr."""
    text = own.get(tool, "# nothing is known of its lines\n")
    for out, err in ((much(text, HUGE), ""), (of_x(), text)):
        tracemalloc.start()
        began = time.process_time()
        try:
            reading = sound(PARSERS[tool](out, 0, err))
            took_s, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (reading.outcome, reading.rows) == (Outcome.ERROR, ()) and str(LIMIT) in reading.whys[0]
        assert took_s < 1 and peak < 2**20


@pytest.mark.parametrize("tool", PARSERS)
def test_a_hundred_megabytes_on_stderr_turn_nothing_good(tool: str, own: dict[str, str]) -> None:
    """What was not read may say anything, so nothing good can be said."""
    text = own.get(tool, "")
    assert sound(within(1, lambda: PARSERS[tool](text, 0, of_x()))).outcome not in GOOD


@pytest.mark.parametrize("tool", some(PARSERS))
def test_as_much_as_is_read_at_all_costs_bounded_time(tool: str, own: dict[str, str]) -> None:
    """Its own lines up to the limit: seconds, on a machine that others use too; never a PASS."""
    text = own.get(tool, "# nothing is known of its lines\n")
    began = time.process_time()
    reading = sound(PARSERS[tool](much(text, LIMIT), 0))
    assert time.process_time() - began < 8
    assert reading.outcome not in GOOD and len(reading.rows) <= ROWS and len(reading.whys) < 2 * ROWS


@pytest.mark.long
def test_what_is_read_at_all_is_held_in_bounded_memory(own: dict[str, str]) -> None:
    """The two tools with the most rows for a megabyte (tracing makes this slow, so not all of them)."""
    for tool in ("nccl-tests", "nvidia-smi nvlink -s"):
        if tool not in own:
            pytest.skip("no captures beside the project: set BURNIN_CAPTURES")
        text = much(own[tool], LIMIT)
        tracemalloc.start()
        try:
            sound(PARSERS[tool](text, 0))
            assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
        finally:
            tracemalloc.stop()


def test_rows_without_end_are_refused_and_gaps_are_not_kept_without_end() -> None:
    def endless(text: str) -> Page:
        page = Page()
        for n in range(int(text)):
            page.add("row", str(n), 1.0)
            page.gap(f"gap {n}")
        return page

    parse = parser("endless", endless)
    assert len(parse("4000", 0).whys) < 300
    refused = parse(str(ROWS + 1), 0)
    assert (refused.outcome, refused.rows, refused.whys) == (Outcome.ERROR, (), (f"more than {ROWS} rows: not read",))
    with pytest.raises(Unreadable):
        endless(str(ROWS + 1))


SECOND: dict[str, Any] = {
    "smartctl": '{"smartctl": {"version": [7, 2], "exit_status": 8}, "smart_status": {"passed": false}}',
    "nvme smart-log": '{"critical_warning": 4, "media_errors": 9}',
    "fio": '{"fio version": "fio-3.28", "jobs": [{"jobname": "a", "error": 5}]}',
    "dcgmi diag": '{"DCGM Diagnostic": {}}',
}


@pytest.mark.parametrize("tool", SECOND)
@pytest.mark.parametrize("again", [None, "", "}\n"], ids=["another", "itself", "a bracket"])
def test_two_outputs_in_one_text_are_not_the_first_one(tool: str, again: str | None, own: dict[str, str]) -> None:
    """Only the first object is read: a second, that may be bad, must not be passed over."""
    good = [text_of(one.file) for one in met() if one.tool == tool and one.reading.outcome in GOOD]
    text = next((text for text in [*good, own.get(tool, "")] if text.lstrip().startswith("{")), "")
    if not text:
        pytest.skip("no captures beside the project: set BURNIN_CAPTURES")
    assert sound(PARSERS[tool](text, 0)).outcome in GOOD
    behind = SECOND[tool] if again is None else again or text
    assert sound(PARSERS[tool](f"{text.rstrip()}\n{behind}\n", 0)).outcome is Outcome.ERROR


DIED = (
    "Killed",
    "Segmentation fault (core dumped)",
    "slurmstepd: error: *** STEP 12.0 ON n7 CANCELLED DUE TO TIME LIMIT ***",
    "timeout: the monitored command dumped core",
    "command terminated with exit code 137",
    "tee: /var/log/out: No space left on device",
)


@pytest.mark.parametrize("tool", PARSERS)
def test_a_whole_report_with_something_that_died_behind_it_is_not_good(tool: str, own: dict[str, str]) -> None:
    text = own.get(tool, "")
    if tool not in own or sound(PARSERS[tool](text, 0)).outcome not in GOOD:
        pytest.skip("no good output of it")
    for line in DIED:
        assert sound(PARSERS[tool](f"{text.rstrip()}\n{line}\n", 0)).outcome is Outcome.ERROR, line


@needs_captures
@pytest.mark.parametrize("tool", ["nvidia-smi -q -x", "nvidia-smi -q"])
def test_a_gpu_that_is_cut_into_instances_is_not_a_whole_one(tool: str) -> None:
    """A real report with MIG switched on at its first GPU."""
    for one in met():
        text = text_of(one.file)
        cut = re.sub(r"(<current_mig>)\w+|(MIG Mode\n +Current +: )\S+", lambda m: f"{m[1] or m[2]}Enabled", text, count=1)
        if one.tool == tool and one.reading.outcome in GOOD and cut != text:
            reading = PARSERS[tool](cut, 0)
            assert reading.outcome is Outcome.UNKNOWN and any("MIG is on" in why for why in reading.whys)
            return
    pytest.fail("no capture to try it on")


@pytest.mark.parametrize(
    ("used", "outcome"), [(0, Outcome.PASS), (99, Outcome.PASS), (100, Outcome.UNKNOWN), (255, Outcome.UNKNOWN)]
)
def test_a_drive_whose_life_is_used_up_is_not_simply_good(used: int, outcome: Outcome) -> None:
    log = {"critical_warning": 0, "avail_spare": 100, "spare_thresh": 10, "percent_used": used, "media_errors": 0,
           "power_cycles": 3, "power_on_hours": 9, "num_err_log_entries": 0, "unsafe_shutdowns": 0}  # fmt: skip
    assert PARSERS["nvme smart-log"](json.dumps(log), 0).outcome is outcome


def test_the_end_of_a_line_that_was_cut_is_not_how_a_line_begins() -> None:
    """Whether something died is looked for in the last 4,000 characters: one long line of them may be cut anywhere."""

    def read(text: str) -> Page:
        page = Page()
        page.add("all", "", None, "", Outcome.PASS)
        return page

    parse = parser("x", read)
    line = f"no {'error rates are listed, '.ljust(4000, '.')}"
    assert parse(line, 0).outcome is Outcome.PASS
    assert parse(f"{line}\nKilled\n", 0).outcome is not Outcome.PASS
