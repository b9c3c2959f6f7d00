"""dcgmi mndiag (several nodes, DCGM 4.3 and later): JSON and table.

As with diag the banner is not the verdict: the row of the test counts, and every GPU of every host. When the run itself failed
there are no hosts in it; an error of MPI is ERROR, because it says which part is bad of no part.
Sources: NVIDIA/DCGM testing/python3/dcgm_mndiag_schema.json and dcgmi/MnDiag.cpp. No capture was found in public.
"""

from __future__ import annotations

import re
from typing import Any

from burnin.checks.tools.dcgm import BORDER, CELLS, SECTION, check_version, outcome_of
from burnin.checks.tools.reading import (
    Outcome,
    Page,
    Row,
    Unreadable,
    items,
    load_json,
    number,
    parser,
    part_of,
    stranger,
    word,
)

# --- JSON -------------------------------------------------------------------------------------------------------------

_NAME = "DCGM Multi-Node Diagnostic"


def _read_json(text: str) -> Page:
    document = load_json(text)
    root, page = document.root, Page()
    if _NAME not in root and root.get("name") != _NAME and _NAME not in root.values():
        raise Unreadable("the JSON is not of dcgmi mndiag")
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    if "runtime_error" in root:
        page.gap(f"the engine could not run it: {word(root['runtime_error'])}"[:300])
    hosts = [part_of(host) for host in items(root.get("hosts"))]
    versions = {word(host.get("dcgm_version")) or "" for host in hosts}
    for version in sorted(versions):
        check_version(page, version, "4")
    if len(versions) > 1:
        page.add("version", "", " ".join(sorted(versions))[:200], "", Outcome.UNKNOWN, "the hosts run different versions of DCGM")
    if not hosts or number(part_of(root, "metadata").get("num_hosts")) != len(hosts):
        page.gap(f"{len(hosts)} hosts are described of {word(part_of(root, 'metadata').get('num_hosts'))}")
    tests = [part_of(t) for c in items(root.get("test_categories")) for t in items(part_of(c).get("tests"))]
    if not tests:
        page.gap("no test is in it")
    expected = {
        f"host {word(host.get('host_id'))} {word(part_of(e).get('entity_group'))} {word(part_of(e).get('entity_id'))}"
        for host in hosts for e in items(host.get("entities"))
    }  # fmt: skip
    if len(tests) > 64:
        page.gap(f"{len(tests)} tests: only the first 64 were read")
    for test in tests[:64]:
        _test(page, test, expected)
    for error in items(root.get("global_errors")):
        page.add(
            "error",
            f"host {word(part_of(error).get('host_id'))}",
            None,
            "",
            Outcome.ERROR,
            word(part_of(error).get("warning")) or "no words",
        )
    return page


def _test(page: Page, test: dict[str, Any], expected: set[str]) -> None:
    name = word(test.get("name")) or "?"
    if mpi := part_of(test, "mpi_error"):
        page.gap(f"{name}: {word(mpi.get('warning')) or 'an error of MPI'}"[:300])
    for said in (test.get("status"), part_of(test, "test_summary").get("status")):
        result, why = outcome_of(said)
        # without a GPU's own error a failed test has failed to run, and names no part
        page.add(name, "", word(said), "", Outcome.ERROR if mpi and result is Outcome.FAIL else result, why)
    seen = set()
    for each in items(test.get("results")):
        each = part_of(each)
        part = f"host {word(each.get('host_id'))} {word(each.get('entity_group'))} {word(each.get('entity_id'))}"
        seen.add(part)
        result, why = outcome_of(each.get("status"))
        warnings = [word(part_of(w).get("warning")) or "a warning without words" for w in items(each.get("warnings"))]
        if warnings and result is Outcome.PASS:
            result, why = Outcome.UNKNOWN, "Pass, with a warning"
        page.add(name, part, word(each.get("status")), "", result, "; ".join([*([why] if why else []), *warnings]))
    if missing := sorted(expected - seen):
        page.gap(f"{name} has no result for {', '.join(missing)}"[:300])
    if not seen:
        page.gap(f"{name} has no result of any GPU")


# --- table ------------------------------------------------------------------------------------------------------------

_NAMED = re.compile(r"Host (\d{1,5}) \(GPU (\d{1,4})\)")
_HOST = re.compile(r"Host (\d{1,5})")
_GPUS = re.compile(r"GPUs?:? ?([\d, ]*)")


class _Table:
    """One pass over the lines of the table."""

    def __init__(self) -> None:
        self.page = Page()
        self.state = "before"
        self.section = ""
        self.host = ""
        self.hosts: set[str] = set()
        self.gpus = 0
        self.meta: dict[str, str] = {}

    def read(self, text: str) -> Page:
        for line in text.split("\n"):
            self.line(line.strip())
        page, meta = self.page, self.meta
        if "DCGM Version" in meta:
            check_version(page, meta["DCGM Version"], "4")
        if self.state != "after":
            page.gap("the table has no closing border: it was cut")
        if number(meta.get("Hosts Found")) != len(self.hosts) or number(meta.get("Total GPUs")) != self.gpus or not self.gpus:
            page.gap(
                f"{len(self.hosts)} hosts of {meta.get('Hosts Found')} and {self.gpus} GPUs of {meta.get('Total GPUs')} are shown"
            )
        if number(meta.get("Hosts With Errors")) != 0:
            page.add("hosts with errors", "", meta.get("Hosts With Errors"), "", Outcome.UNKNOWN, "hosts are said to have errors")
        if not any(row.result is Outcome.FAIL and row.part for row in page.rows):
            page.rows = [_unable(row) if row.result is Outcome.FAIL else row for row in page.rows]
        return page

    def line(self, line: str) -> None:
        if re.fullmatch(r"\+=+\+=+\+", line):
            self.state = "in"
        elif BORDER.fullmatch(line):
            self.state = "after" if self.state == "in" else self.state
        elif match := SECTION.fullmatch(line):
            self.section = match[1]
        elif line.startswith("|"):
            cells = CELLS.fullmatch(line)
            if cells is None or not cells[3]:
                self.page.gap(f"a row was not understood: {line[:80]!r}")
            else:
                self.row(cells[1].strip(), cells[2].strip())
        elif self.state == "in" and line:
            self.page.gap(f"a line in the table was not understood: {line[:80]!r}")
        elif self.state == "after" and line:
            self.page.gap(f"after the table: {line[:200]}")
        elif line.startswith("Multi-node diagnostic failed"):
            self.page.notes.append(line)

    def row(self, name: str, info: str) -> None:
        result, why = outcome_of(info)
        if self.section == "Metadata":
            self.meta.setdefault(name, info)
            if name.endswith(" Test"):
                self.page.add(name, "", info, "", result, why)
        elif self.section == "Host Details" and (match := _HOST.fullmatch(name)):
            self.host = f"host {match[1]}"
            self.hosts.add(self.host)
            self.page.add("host", self.host, info, "", result, why)
        elif self.section == "Host Details" and self.host and (match := _GPUS.fullmatch(name)):
            for one in [n.strip() for n in match[1].split(",") if n.strip()] or ["?"]:
                self.gpus += 1
                self.page.add("gpu", f"{self.host} GPU {one}", info, "", result, why)
        elif match := _NAMED.fullmatch(name):
            self.page.add("error", f"host {match[1]} GPU {match[2]}", None, "", Outcome.FAIL, info)
        elif self.section not in ("", "Host Details") or info.startswith("Error"):
            self.page.notes.append(f"{name} {info}".strip()[:200])


def _unable(row: Row) -> Row:
    return Row(row.name, row.part, row.value, row.unit, Outcome.ERROR, "it failed, and names no GPU: it could not run")


def _read(text: str) -> Page:
    if "ulti-node diagnostic" in text and re.search(r"^\+=+\+=+\+", text, re.MULTILINE):
        return _Table().read(text)
    if re.search(r"^[ \t]*\{", text, re.MULTILINE):
        return _read_json(text)
    raise stranger("dcgmi mndiag", text)


mndiag = parser("dcgmi mndiag", _read)
