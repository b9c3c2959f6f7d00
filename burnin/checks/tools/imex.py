"""nvidia-imex-ctl -N, text and JSON: the nodes, who is connected to whom, the state of the domain.

A first "READY" is the local daemon's only; alone (-q) it says nothing of the domain: UNKNOWN. Complete is the line of the
domain's state below a matrix with as many rows and columns as there are nodes, or a JSON object that closes.
Sources: the tool's own legend; NVIDIA's IMEX guide; captures of 570.
"""

from __future__ import annotations

import re
from typing import Any

from burnin.checks.tools.reading import Outcome, Page, Unreadable, complaint, load_json, parser, part_of, stranger, word

P, F, U, E = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.ERROR

_DOMAIN = {"UP": P, "DEGRADED": F, "DOWN": F}
_NODE = {"READY": P, "INITIALIZING": U, "WAITING_FOR_RECOVERY": U, "RECOVERING": U}
_CELL = {"C": P, "A": U, "R": U, "I": F, "N": F, "D": F, "!V!": F, "!M!": F}
_CELL_WHY = {
    "A": "authenticating", "R": "recovering", "I": "not reachable", "N": "never connected", "D": "disconnected",
    "!V!": "versions do not match", "!M!": "node maps do not match",
}  # fmt: skip
_CONNECTION = {"CONNECTED": P, "AUTHENTICATING": U, "RECOVERING": U}
_LINE = re.compile(r"Node #(\d{1,5}) *- (\S{1,80}) *- ([A-Z_]{1,40}|[A-Za-z_ ]{1,40}?)(?: *- Version: (\S{1,40}))?")
_BAD = re.compile(
    r"UNAVAILABLE|UNREACHABLE|NOT_READY|DOWN|LOST|INVALID|DISCONNECTED|NEVER_CONNECTED|[A-Z_]{0,30}(MISMATCH|FAILED|ERROR)"
)
_LOCAL = re.compile(r"(READY|NOT_READY|UNAVAILABLE|INITIALIZING|WAITING_FOR_\w{1,20})\b")


def _add_node(page: Page, node: str, host: str | None, state: str, version: str | None) -> None:
    result = _NODE.get(state, F if _BAD.fullmatch(state) else E)
    page.add("node", f"node {node}", state, "", result, "" if result is P else f"{host or '?'} is {state}, not READY")
    if version:
        page.add("version", f"node {node}", version)


def _add_domain(page: Page, state: str) -> None:
    page.add("domain", "", state, "", _DOMAIN.get(state, E), "" if state == "UP" else f"the domain is {state}, not UP")


def _check_versions(page: Page) -> None:
    versions = sorted({str(row.value) for row in page.rows if row.name == "version"})
    page.version = versions[0] if len(versions) == 1 else None
    if len(versions) > 1:
        page.add("version", "", " ".join(versions)[:200], "", U, "the nodes run different versions of IMEX")


def _read_text(text: str) -> Page:
    page, nodes, cells = Page(), list[str](), dict[str, list[str]]()
    columns: list[str] = []
    domain = ""
    for line in text.split("\n"):
        line = line.strip()
        if match := _LINE.fullmatch(line[:400]):
            nodes.append(match[1])
            _add_node(page, match[1], match[2], match[3], match[4])
        elif line.startswith("Nodes From\\To"):
            columns = line.split(maxsplit=4096)[2:]
        elif line.startswith("Domain State:"):
            domain = line.split(":", 1)[1].strip()[:40]
            _add_domain(page, domain)
        elif columns and not domain and line:
            name, *said = line.split(maxsplit=4096)
            if name in cells or name not in columns or len(said) != len(columns):
                page.gap(f"a row of the matrix was not understood: {line[:80]!r}")
            cells[name] = said
        elif line.startswith("Node #"):
            page.gap(f"a node was not understood: {line[:80]!r}")
        elif (said_ := complaint([line])) and not line.startswith(("I - ", "D - ", "R - ")):
            page.gap(said_)
        elif (match := _LOCAL.match(line)) and match[1] != "READY":
            page.add("local", "", match[1], "", F if match[1] == "UNAVAILABLE" else U, "the local daemon is not READY")
    if not nodes and not columns and not domain:
        if not _LOCAL.match(text.strip()):
            raise stranger("nvidia-imex-ctl", text)
        page.add("domain", "", None, "", U, "only the local daemon was asked: ask for -N")
        return page
    _check_matrix(page, nodes, columns, cells)
    _check_versions(page)
    if not domain:
        page.gap("the state of the domain is missing: it was cut")
    return page


def _check_matrix(page: Page, nodes: list[str], columns: list[str], cells: dict[str, list[str]]) -> None:
    if not nodes or sorted(nodes) != sorted(columns) or sorted(cells) != sorted(columns) or len(set(nodes)) != len(nodes):
        page.gap(f"{len(nodes)} nodes, {len(columns)} columns and {len(cells)} rows of the matrix: it was cut")
    good = 0
    for start, row in cells.items():
        for end, said in zip(columns, row, strict=False):
            result = _CELL.get(said, E)
            good += result is P
            if result is not P:
                page.add("connection", f"node {start} to {end}", said[:20], "", result, _CELL_WHY.get(said, "not in the legend"))
    if good:
        page.add("connections", "", float(good), "1", P)


def _read_json(text: str) -> Page:
    document = load_json(text)
    root, page = document.root, Page()
    nodes = part_of(root, "nodes")
    if "nodes" not in root or "status" not in root:
        raise Unreadable("the JSON is not of nvidia-imex-ctl -N")
    if said := document.beside:
        page.gap(f"beside the JSON: {said}")
    if not 0 < len(nodes) <= 4096:
        page.gap(f"{len(nodes)} nodes are in it")
        return page
    good = 0
    for name in nodes:
        node = part_of(nodes, name)
        _add_node(page, name, word(node.get("host")), word(node.get("status")) or "?", word(node.get("version")))
        good += _connections(page, name, part_of(node, "connections"), nodes)
    if good:
        page.add("connections", "", float(good), "1", P)
    _check_versions(page)
    _add_domain(page, word(root.get("status")) or "?")
    return page


def _connections(page: Page, name: str, connections: dict[str, Any], nodes: dict[str, Any]) -> int:
    good = 0
    if set(connections) | {name} != set(nodes):
        page.gap(f"node {name} shows {len(connections)} connections of {len(nodes)}")
    for end in connections:
        state = word(part_of(connections, end).get("status")) or "?"
        result = _CONNECTION.get(state, F if _BAD.fullmatch(state) else E)
        good += result is P
        if result is not P:
            page.add("connection", f"node {name} to {end}", state, "", result, "not CONNECTED")
    return good


def _read(text: str) -> Page:
    return _read_json(text) if re.search(r"^[ \t]*\{", text, re.MULTILINE) else _read_text(text)


imex_ctl = parser("nvidia-imex-ctl", _read)
