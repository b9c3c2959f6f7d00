"""The tables of docs/detection.md, from the lines that bench.detection wrote: one JSON object a rack."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import burnin
from bench.detection_racks import BASELINES, FAULTS, PROFILE, Fault
from burnin.rack.parts import parent, related
from burnin.signatures.counts import binomial_bounds

LOSSY = "a link that loses code words"
"""Stands for the fault of a rack in which none was planted, but whose parts as they were drawn break the vendor's own rule."""


@dataclass
class Tally:
    """Racks by what was said of them: severities of any part, of the planted one, of others; `by`: racks by who said it."""

    racks: int = 0
    said: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)


Tables = dict[tuple[str | None, str], dict[str, Tally]]


def tables(lines: Iterable[Mapping[str, Any]]) -> Tables:
    """(fault or None, tails) -> judge -> tally."""
    faults = {fault.name: fault for fault in FAULTS}
    out: Tables = {}
    for line in lines:
        fault, lost = faults.get(line["fault"]), list(line["lost"]) if line["fault"] is None else []
        for judge, said in line["said"].items():
            tally = out.setdefault((LOSSY if lost else line["fault"], line["tails"]), {}).setdefault(judge, Tally())
            tally.racks += 1
            some = [tuple(one) for one in said]
            if lost:
                _count_lossy(tally, lost, some)
            elif fault is None:
                tally.said.update({grade for _, _, grade in some})
                tally.by.update({f"{why} {grade}" for _, why, grade in some})
            else:
                _count(tally, fault, some)
    return out


def _count(tally: Tally, fault: Fault, said: list[tuple[str, str, str]]) -> None:
    right = [one for one in said if one[0] == fault.part or one[0] in fault.also]
    wrong = [one for one in said if not any(related(one[0], part) for part in (fault.part, *fault.also))]
    tally.said.update({"named": bool(right), "FAIL": any(grade == "FAIL" for _, _, grade in right), "others": bool(wrong)})
    tally.by.update({f"{part} {why}" for part, why, _ in wrong} | {f"+ {why}" for _, why, _ in right})


def _count_lossy(tally: Tally, lost: list[str], said: list[tuple[str, str, str]]) -> None:
    """Right where each link that lost code words, or its parent, is FAIL or HOLD."""
    tally.said["named"] += all(any(part in (link, parent(link)) for part, _, _ in said) for link in lost)
    tally.said["FAIL"] += all(any(part == link and grade == "FAIL" for part, _, grade in said) for link in lost)
    tally.said["others"] += any(not any(related(part, link) for link in lost) for part, _, _ in said)


def page(header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> str:
    """Both tables, in Markdown."""
    found = tables(lines)
    return "\n".join([*_header(header), *_healthy(found), *_lossy(found), *_planted(found)]) + "\n"


def _header(header: Mapping[str, Any]) -> list[str]:
    return [
        f"{dt.date.today()}, burnin {burnin.__version__}, on the twin's batch path ({PROFILE}, 48 h), racks from seed",
        f"{header['seed']} on, baselines from others. Simulated, validated on 0 real racks. In brackets the 95 % interval of",
        "Clopper and Pearson.",
        "",
    ]


def _share(count: int, n: int) -> str:
    low, high = binomial_bounds(count, n)
    return f"{100 * count / n:.3g} ({100 * low:.2g} - {100 * high:.3g})"


def _healthy(found: Tables) -> list[str]:
    out = [
        "### False alarms",
        "",
        "Share of healthy racks, %, in which anybody is named; racks with a link that loses code words are in the next table.",
        "",
        "| parts | judge, baseline | n | FAIL | HOLD | by |",
        "|---|---|---|---|---|---|",
    ]
    for (fault, tails), judges in found.items():
        for judge, tally in judges.items() if fault is None else ():
            by = ", ".join(f"`{why}` {count}" for why, count in tally.by.most_common(5))
            shares = " | ".join(_share(tally.said[grade], tally.racks) for grade in ("FAIL", "HOLD"))
            out.append(f"| {tails} | {judge} | {tally.racks} | {shares} | {by} |")
    return [*out, ""]


def _lossy(found: Tables) -> list[str]:
    some = [(tails, judges) for (fault, tails), judges in found.items() if fault == LOSSY]
    out = [
        "### Racks that are not healthy by the vendor's rule",
        "",
        "Nothing was planted, but a link as it was drawn loses code words in the run (the twin's truth, whatever a judge says).",
        "Racks in which every such link is FAIL or HOLD, in which it is FAIL, and in which somebody else is.",
        "",
        "| parts | judge, baseline | n | named | FAIL | others |",
        "|---|---|---|---|---|---|",
        *(
            f"| {tails} | {judge} | {tally.racks} | {tally.said['named']} | {tally.said['FAIL']} | {tally.said['others']} |"
            for tails, judges in some
            for judge, tally in judges.items()
        ),
    ]
    return [*out, ""] if some else []


def _planted(found: Tables) -> list[str]:
    judges = list(next((by for (fault, _), by in found.items() if fault not in (None, LOSSY)), {}))
    out = [
        "### Detection",
        "",
        "Share of racks with one planted fault, %, in which its part is FAIL or HOLD; in brackets the interval, and behind / the",
        "racks in which another part is.",
        "",
        f"| fault | must / aim | n | {' | '.join(judges)} |",
        f"|---|---|---|{'---|' * len(judges)}",
    ]
    for fault in FAULTS:
        by = found.get((fault.name, "normal"))
        if by:
            asked = " / ".join(f"{100 * x:.0f}" for x in (fault.must, fault.aim) if x is not None)
            cells = [f"{_share(by[j].said['named'], by[j].racks)} / {by[j].said['others']}" for j in judges]
            out.append(f"| {fault.name} | {asked} | {next(iter(by.values())).racks} | {' | '.join(cells)} |")
    wrong = sorted(
        f"* {fault}, {judge}: {why}"
        for (fault, _), by in found.items()
        for judge, tally in (by.items() if fault and fault != LOSSY else ())
        for why in tally.by
        if judge in BASELINES and not why.startswith("+ ")
    )
    return [*out, "", *(["Wrong parts named by burnin:", "", *wrong, ""] if wrong else [])]
