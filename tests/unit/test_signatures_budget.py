"""The false-alarm budget is kept in three places that must agree: the catalogue, docs/signatures.md, and the racks themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from burnin.rack.load import load_catalogue
from burnin.signatures.tails import DOUBTED, limit, t5_above
from burnin.signatures.zones import number

ROWS = load_catalogue().signatures
PAGE = (Path(__file__).parents[2] / "docs/signatures.md").read_text()
BELOW = "<!-- below"
BUDGET = PAGE.split("## The budget")[1].split("## ")[0]


def budgeted(column: int) -> dict[str, float]:
    """Signature -> per cent of racks, of the families that have a number."""
    out: dict[str, float] = {}
    for line in BUDGET.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = re.match(r"[\d.]+", cells[column]) if len(cells) == 3 else None
        if found is not None:
            out |= dict.fromkeys(re.findall(r"`([a-z0-9._]+)`", cells[0]), float(found[0]))
    return out


def test_the_page_and_the_catalogue_have_the_same_rates() -> None:
    holds = {name: 100 * number(row, "hold") for name, row in ROWS.items() if "hold" in row.limits}
    fails = {name: 100 * number(row, "fail") for name, row in ROWS.items() if "fail" in row.limits}
    written = budgeted(2)
    assert written == pytest.approx(holds)
    assert {name: rate for name, rate in budgeted(1).items() if name in fails} == pytest.approx(fails)


def test_false_alarms_stay_below_half_a_percent_together() -> None:
    assert 0.2 < sum(budgeted(1).values()) < 0.5
    assert 0.2 < sum(budgeted(2).values()) < 0.5


def test_every_signature_says_what_it_sees_and_confuses() -> None:
    table = PAGE.split("## What each sees")[1].split(BELOW)[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z0-9._]+)`", row)} == set(ROWS)


@pytest.mark.parametrize(("n", "rate", "k"), re.findall(r"k\((\d+), ([\d.]+)\) = (\d+(?:\.\d+)?)", PAGE))
def test_the_limits_that_the_page_quotes_are_those_that_are_used(n: str, rate: str, k: str) -> None:
    assert limit(int(n), float(rate)) == pytest.approx(float(k), rel=0.02)


def test_sizes_from_which_no_tail_excuses_are_as_rare_as_they_say() -> None:
    """`sure` says how many spreads of healthy parts it is, and how many t5 racks hold a part beyond; all together within 12 %."""
    said = {}
    for name, row in ROWS.items():
        for limit_name, one in row.limits.items():
            if limit_name.startswith("sure"):
                times, share = (float(x) for x in re.findall(r"([\d.]+) times the .*: ([\d.]+) % of racks", one.source)[0])
                parts = 18 if "tray" in one.source else 72
                assert 100 * parts * t5_above(times / 0.6**0.5) == pytest.approx(share, rel=0.15, abs=0.06), name
                said[name] = share
    assert len(said) >= 12 and sum(said.values()) < 10.5
    assert sum(said.values()) + 3 * 100 * DOUBTED < 12, "trays, link numbers and boards; what is left is kept by its floors"
