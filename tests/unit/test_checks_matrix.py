"""bench/checks.py in its short form: two rows against the twin, and that no check is without a row or a reason."""

from __future__ import annotations

import pytest

from bench import checks
from burnin.checks import CHECKS
from burnin.rack.parts import tray_of
from burnin.twin.faults import parse
from tests.sampled import some

SHORT = [row for row in checks.ROWS if row.check in ("nic", "ecc") and not row.plants[0].startswith("ecc_ce")]


@pytest.mark.parametrize("row", some(SHORT, 2), ids=lambda row: row.check)
def test_what_is_planted_is_found_and_nothing_else(row: checks.Row) -> None:
    got = checks.outcome(row)
    assert got.right, checks.line(got)


def test_a_check_that_finds_nothing_makes_its_row_wrong() -> None:
    """The matrix can fail: a fault that this check does not see, and a neighbour that it does."""
    blind = checks.Row("nic", ("nvme_media:t08.d4:1", "nvme_media:t08.d4:1"), "nic.link_flaps.growth", "nic_flap:t05.n3:2")
    got = checks.outcome(blind)
    assert got.found == ("", "")
    assert got.near == ("t05.n3 nic.link_flaps.growth",)
    assert not got.right


def test_every_check_has_a_row_or_says_why_it_has_none() -> None:
    assert CHECKS.keys() <= {row.check for row in checks.ROWS} | checks.WITHOUT.keys()
    assert not {row.check for row in checks.ROWS} & checks.WITHOUT.keys()


def test_each_row_has_two_parts_and_two_sizes() -> None:
    for row in checks.ROWS:
        one, two = map(parse, row.plants)
        assert one.part != two.part or tray_of(one.part) == "cdu", row
        assert one.severity != two.severity or not checks.sized(one.kind), row
