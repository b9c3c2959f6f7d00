"""`nv show` of NVLink switch trays: platform, firmware, environment, leak detectors, ports, cluster (NMX-C, NMX-T), partitions.

Each parser takes JSON (`-o json`) or text. What a manual's example shows as normal is good, what it shows as a fault is bad, and
any other word proves nothing. A port that says two things at once (Polling, yet Active, as a manual prints it) proves nothing.
Link diagnostics: 0 nothing was seen, 1 closed by command, everything else a fault; an empty front-panel port is no fault.
Sources: NVIDIA's NVOS manuals for NVLink switches 25.02, Cumulus Linux reference (the same command line), as captured.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from burnin.checks.tools.nvos_text import Shown, Tree, begin, read
from burnin.checks.tools.reading import Outcome, Page, Parse, Unreadable, number, parser, part_of, word

P, F, U, M = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN, Outcome.MEASURED
ACCESS = re.compile(r"acp(\d{1,4})", re.ASCII)
"""A port to a GPU; fnmN run between switch trays, swXpYsZ on the front panel, eth0 and lo are not NVLink."""
COUNTERS = {
    "in-symbol-errors": "symbol_errors",
    "in-errors": "in_errors",
    "out-errors": "out_errors",
    "in-drops": "in_drops",
    "link-error-recovery": "recoveries",
    "link-downed": "downed",
    "local-link-integrity-errors": "integrity_errors",
    "buffer-overrun-errors": "overruns",
}
"""Name in NVOS -> name of our row. Other counters are not judged."""
_WORDS = {"ok": P, "normal": P, "not ok": F, "bad": F, "failed": F, "fault": F, "critical": F}
_MOST = 4096


def _entries(shown: Shown, tool: str, *needs: str) -> dict[str, Mapping[str, Any]]:
    """Name -> what is said of it, each with all of `needs`; of one thing alone, named as the prompt does."""
    tree: Mapping[str, Any] = shown.tree
    if not shown.listed and all(isinstance(tree.get(need), str) for need in needs):
        return {(shown.asked.rsplit(" ", 1)[-1] if shown.asked else ""): tree}
    if not tree or len(tree) > _MOST:
        raise Unreadable(f"{len(tree)} entries are no {tool}")
    for name, one in tree.items():
        if not isinstance(one, dict) or not all(need in one for need in needs):
            raise Unreadable(f"not of {tool}: {name[:60]!r} has no {' and no '.join(needs)}")
    return dict(tree)


def _flat(tool: str, *needs: str) -> Callable[[str], Page]:
    """A list of properties, none of which is a verdict."""

    def reader(text: str) -> Page:
        shown, page = read(tool, text), Page()
        begin(page, shown)
        if shown.listed or not all(need in shown.tree for need in needs):
            raise Unreadable(f"not of {tool}: it has no {' and no '.join(needs)}")
        for name, value in shown.tree.items():
            if (said := word(value)) is not None:
                page.add(name, "", said, "", M if said else U, "" if said else "it is empty")
        for need in needs:
            if not word(shown.tree[need]):
                page.gap(f"{need} is empty")
        return page

    return reader


def _inventory(text: str) -> Page:
    tool = "nv show platform inventory"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in _entries(shown, tool, "state", "type", "model", "serial").items():
        _state(page, "state", name, word(one["state"]))
        for what in ("type", "model", "serial", "hardware-version", "hw-version"):
            if said := word(one.get(what)):
                page.add(what.replace("hw-", "hardware-"), name, said)
    return page


def _firmware(text: str) -> Page:
    tool = "nv show platform firmware"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in _entries(shown, tool, "actual-firmware").items():
        said = word(one["actual-firmware"])
        known = bool(said) and said not in ("N/A", "-")
        page.add("actual-firmware", name, said, "", M if known else U, "" if known else "no version is said")
    return page


def _environment(text: str) -> Page:
    tool = "nv show platform environment"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in _entries(shown, tool, "type", "state").items():
        if "serial" in one or "model" in one:
            raise Unreadable(f"not of {tool}: {name[:60]!r} has a serial or model")
        if word(one["type"]) == "led":
            page.add("led", name, word(one["state"]))
        else:
            _state(page, "state", name, word(one["state"]))
    return page


def _leakage(text: str) -> Page:
    tool = "nv show platform environment leakage"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in _entries(shown, tool, "state").items():
        if "leak" not in name.lower() or len(one) > 4:
            raise Unreadable(f"not of {tool}: {name[:60]!r} is no leak detector")
        said = word(one["state"]) or ""
        result = P if said.lower() in ("normal", "ok") else F if "leak" in said.lower() or said.lower() == "critical" else U
        page.add("leak", name, said, "", result, "" if result is P else f"it says {said[:60]!r}, not normal")
    return page


def _state(page: Page, name: str, part: str, said: str | None) -> None:
    result = _WORDS.get((said or "").lower(), U)
    page.add(name, part, said, "", result, "" if result is P else f"{part[:60] or 'it'} is {(said or 'silent')[:60]!r}, not ok")


# ---------------------------------------------------------------- ports


_PORT = re.compile(r"(acp|fnm|swp?|eth|lo|ib|mgmt|usb|docker|bond|br)[a-zA-Z0-9_-]{0,24}", re.ASCII)


def _interface(text: str) -> Page:
    tool = "nv show interface"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    alone = not shown.listed and "link" in shown.tree and "type" in shown.tree
    for name, one in (_alone(shown) if alone else _entries(shown, tool, "type")).items():
        if not alone and not _PORT.fullmatch(name):
            raise Unreadable(f"not of {tool}: {name[:60]!r} is no port")
        link = part_of(one, "link") or one
        if not isinstance(link.get("state"), str | dict):
            if word(one.get("type")) == "nvl":
                page.add("port", name, None, "", U, "its state is not said")
            continue
        _port(
            page, name, link, bool(ACCESS.fullmatch(name)) or (not shown.listed and word(one.get("type")) == "nvl" and not name)
        )
    if not any(row.name == "port" for row in page.rows):
        raise Unreadable(f"not of {tool}: it shows no port")
    return page


def _alone(shown: Shown) -> dict[str, Tree]:
    """`nv show interface acp21`: the port's own properties."""
    match = re.search(r"\b(?:acp|fnm|sw|eth)\w{1,20}", shown.asked)
    return {match[0] if match else "": shown.tree}


def _port(page: Page, name: str, link: Mapping[str, Any], judged: bool) -> None:
    states = link["state"]
    state = (next(iter(states), "") if isinstance(states, dict) and len(states) == 1 else word(states) or "").lower()
    physical, logical = word(link.get("physical-state")) or "", word(link.get("logical-state")) or ""
    up = [state == "up", *(physical == "LinkUp" for _ in [0] if physical), *(logical == "Active" for _ in [0] if logical)]
    said = ", ".join(filter(None, (state, physical, logical)))
    result = M if not judged else P if all(up) else U if any(up) or state not in ("up", "down") else F
    page.add("port", name, said, "", result, "" if result in (P, M) else f"it says {said[:80] or 'nothing'}")
    for key in ("speed", "supported-speed", "lanes", "asic", "local-port"):
        if value := word(link.get(key)):
            page.add(key, name, value)
    for key, count in _counters(link):
        page.add(key, name, count, "1")
    for code, why in _codes(link.get("diagnostics")):
        _code(page, name, code, why)


def _counters(link: Mapping[str, Any]) -> list[tuple[str, float]]:
    said = part_of(link, "counters") or part_of(link, "stats")
    known = [(ours, number(said.get(theirs))) for theirs, ours in COUNTERS.items()]
    return [(name, value) for name, value in known if value is not None]


def _codes(said: object) -> list[tuple[str, str]]:
    """{"2": {"status": "Negotiation failure"}} -> [("2", "Negotiation failure")]."""
    if not isinstance(said, dict):
        return []
    return [(str(code), word(one.get("status") if isinstance(one, dict) else one) or "") for code, one in said.items() if code]


def _code(page: Page, name: str, code: str, why: str) -> None:
    if code == "0":
        result = P
    elif code == "1" or number(code) is None:
        result = U
    elif not ACCESS.fullmatch(name) and code == "1024":
        result = M  # nothing is plugged into the front panel of an NVL72
    else:
        result = F
    page.add("diagnostics", name, code[:20], "", result, "" if result in (P, M) else why[:120])


def _diagnostics(text: str) -> Page:
    tool = "nv show interface link-diagnostics"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in shown.tree.items():
        if shown.listed and isinstance(one, dict) and {"code", "status"} <= set(one):
            codes = [(one["code"], one["status"])]
        else:
            link = part_of(one, "link") if isinstance(one, dict) and set(one) == {"link"} else one
            codes = _codes(link.get("diagnostics")) if isinstance(link, dict) and set(link) == {"diagnostics"} else []
        if not codes:
            raise Unreadable(f"not of {tool}: {name[:60]!r} has no code")
        for code, why in codes:
            _code(page, name, code, why)
    return page


def error_rate(said: object) -> float | None:
    """`15E-255` and `15E-238` are NVIDIA's way to write none."""
    return 0.0 if word(said) in ("15E-255", "15E-238") else number(said)


def _phy(text: str) -> Page:
    tool = "nv show interface phy-detail"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    needs = ("effective-ber", "symbol-ber", "raw-ber", "symbol-errors", "effective-errors")
    if shown.listed or not all(need in shown.tree for need in needs):
        raise Unreadable(f"not of {tool}: it has no {' and no '.join(needs)}")
    name = next(iter(_alone(shown)))
    for need in needs:
        value = error_rate(shown.tree[need])
        page.add(need, name, value, "1", M if value is not None else U, "" if value is not None else "it is no number")
    return page


# ---------------------------------------------------------------- who manages the fabric


def _cluster(text: str) -> Page:
    tool = "nv show cluster"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    state, conn = word(shown.tree.get("state")), word(shown.tree.get("nmxc-conn"))
    if shown.listed or state not in ("enabled", "disabled") or set(shown.tree) - _CLUSTER:
        raise Unreadable(f"not of {tool}: it has no state of a cluster")
    page.add(
        "cluster", "", state, "", P if state == "enabled" else M, "" if state == "enabled" else "nothing is managed from here"
    )
    if state == "enabled" and conn is None:
        page.gap("nmxc-conn is missing: it was cut")
    elif state == "enabled":
        page.add(
            "nmxc-conn", "", conn, "", P if conn == "up" else F, "" if conn == "up" else "the fabric manager does not answer NVOS"
        )
    return page


_CLUSTER = {"state", "nmxc-conn", "apps", "log-level", "internal", "ha"}


def _apps(text: str) -> Page:
    tool = "nv show cluster apps"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in _entries(shown, tool, "status").items():
        if not name.startswith("nmx"):
            raise Unreadable(f"not of {tool}: {name[:60]!r} is no application of a cluster")
        _state(page, "app", name, word(one["status"]))
        more = f"{word(one.get('additional-information')) or ''} {word(one.get('reason')) or ''}".strip()
        if plane := re.search(r"CONTROL_PLANE_STATE_(\w{1,40})", more):
            result = P if plane[1] == "CONFIGURED" else F if plane[1] in ("OFFLINE", "UNHEALTHY", "ERROR", "FAILED") else U
            page.add("control plane", name, plane[1], "", result, "" if result is P else "it is not CONFIGURED")
    return page


def _partition(text: str) -> Page:
    tool = "nv show sdn partition"
    shown, page = read(tool, text), Page()
    begin(page, shown)
    for name, one in _entries(shown, tool, "health").items():
        said = (word(one["health"]) or "").lower()
        result = P if said == "healthy" else F if said in ("unhealthy", "degraded", "degraded bandwidth") else U
        page.add("health", name, said, "", result, "" if result is P else f"it is {said[:60]!r}, not healthy")
        gpus = number(one.get("num-gpus"))
        if gpus is not None:
            page.add("gpus", name, gpus, "1")
    return page


NVOS: dict[str, Parse] = {
    "nv show system": parser("nv show system", _flat("nv show system", "hostname"), measures=True),
    "nv show platform": parser("nv show platform", _flat("nv show platform", "product-name", "serial-number"), measures=True),
    "nv show platform chassis-location": parser(
        "nv show platform chassis-location",
        _flat("nv show platform chassis-location", "chassis-sn", "tray-index"),
        measures=True,
    ),
    "nv show platform inventory": parser("nv show platform inventory", _inventory),
    "nv show platform firmware": parser("nv show platform firmware", _firmware, measures=True),
    "nv show platform environment": parser("nv show platform environment", _environment),
    "nv show platform environment leakage": parser("nv show platform environment leakage", _leakage),
    "nv show interface": parser("nv show interface", _interface),
    "nv show interface link-diagnostics": parser("nv show interface link-diagnostics", _diagnostics),
    "nv show interface phy-detail": parser("nv show interface phy-detail", _phy, measures=True),
    "nv show cluster": parser("nv show cluster", _cluster),
    "nv show cluster apps": parser("nv show cluster apps", _apps),
    "nv show sdn partition": parser("nv show sdn partition", _partition),
}
"""By the command; `-o json` or text."""
