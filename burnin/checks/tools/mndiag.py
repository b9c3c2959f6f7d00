"""dcgmi mndiag (several nodes, DCGM 4.3 and later): JSON and table.

As with diag the banner is not the verdict: the row of the test counts, and every GPU of every host. When the run itself failed
there are no hosts in it; an error of MPI is ERROR, because it says which part is bad of no part.
Sources: NVIDIA/DCGM testing/python3/dcgm_mndiag_schema.json and dcgmi/MnDiag.cpp. No capture was found in public.
"""

from __future__ import annotations

import re
from typing import Any

from burnin.checks.tools.dcgm import BORDER, CELLS, check_version, outcome_of
from burnin.checks.tools.reading import (
    Outcome,
    Page,
    Unreadable,
    complaint,
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
    if said := complaint(document.around):
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

_HOST = re.compile(r"Host (\d{1,5})")
_GPUS = re.compile(r"GPUs?:? ?([\d, ]*)")


def _read_table(text: str) -> Page:
    page, section, state, host = Page(), "", "before", ""
    hosts, gpus, meta = set[str](), 0, dict[str, str]()
    for line in text.split("\n"):
        line = line.strip()
        if re.fullmatch(r"\+=+\+=+\+", line):
            state = "in"
        elif BORDER.fullmatch(line):
            state = "after" if state == "in" else state
        elif match := re.fullmatch(r"[|+]-{2,} {1,4}(\w[\w -]*?\w) {1,4}-{2,}\+-{8,}[|+]", line):
            section = match[1]
        elif line.startswith("|"):
            cells = CELLS.fullmatch(line)
            if cells is None or not cells[3]:
                page.gap(f"a row was not understood: {line[:80]!r}")
                continue
            name, info = cells[1].strip(), cells[2].strip()
            if section == "Metadata":
                meta.setdefault(name, info)
                if name.endswith(" Test"):
                    result, why = outcome_of(info)
                    page.add(name, "", info, "", result, why)
            elif section == "Host Details" and (match := _HOST.fullmatch(name)):
                host = f"host {match[1]}"
                hosts.add(host)
                result, why = outcome_of(info)
                page.add("host", host, info, "", result, why)
            elif host and section == "Host Details" and (match := _GPUS.fullmatch(name)):
                result, why = outcome_of(info)
                for one in [n.strip() for n in match[1].split(",") if n.strip()] or ["?"]:
                    gpus += 1
                    page.add("gpu", f"{host} GPU {one}", info, "", result, why)
            elif "rror" in name or info.startswith("Error"):
                page.notes.append(f"{name} {info}".strip())
            elif section not in ("", "Host Details"):
                page.notes.append(f"{section}: {name} {info}"[:200])
        elif state == "in" and line:
            page.gap(f"a line in the table was not understood: {line[:80]!r}")
        elif state == "after" and line:
            page.gap(f"after the table: {line[:200]}")
        elif line.startswith("Multi-node diagnostic failed"):
            page.notes.append(line)
    if "DCGM Version" in meta:
        check_version(page, meta["DCGM Version"], "4")
    if state != "after":
        page.gap("the table has no closing border: it was cut")
    if number(meta.get("Hosts Found")) != len(hosts) or number(meta.get("Total GPUs")) != gpus or not gpus:
        page.gap(f"{len(hosts)} hosts of {meta.get('Hosts Found')} and {gpus} GPUs of {meta.get('Total GPUs')} are shown")
    if number(meta.get("Hosts With Errors")) != 0:
        page.add("hosts with errors", "", meta.get("Hosts With Errors"), "", Outcome.UNKNOWN, "hosts are said to have errors")
    return page


def _read(text: str) -> Page:
    if "ulti-node diagnostic" in text and re.search(r"^\+=+\+=+\+", text, re.MULTILINE):
        return _read_table(text)
    if re.search(r"^[ \t]*\{", text, re.MULTILINE):
        return _read_json(text)
    raise stranger("dcgmi mndiag", text)


mndiag = parser("dcgmi mndiag", _read)
