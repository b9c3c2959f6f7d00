"""dcgmi diag: what it would find in a tray as it is; JSON and table, of DCGM 4 and of DCGM 3. It ends at once, and heats nothing.

Forms: captures of DCGM 3.0.4, 3.3.9, 4.4.2; NVIDIA's JSON schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..state import State
from . import across
from .smi import Said
from .versions import version

_BW_FAILS = 0.2
"""Share of its PCIe or NVLink bandwidth that a GPU may lack before DCGM's pcie test fails (assumption)."""
_TESTS = {"software": 1, "memory": 2, "pcie": 2, "diagnostic": 3, "targeted_power": 3, "memtest": 4}
"""Test of DCGM 4 -> the lowest level that has it."""
_SECTIONS = {"software": "Deployment", "memory": "Hardware", "pcie": "Integration", "diagnostic": "Hardware",
             "targeted_power": "Stress", "memtest": "Hardware"}  # fmt: skip
_DEPLOYMENT = ("Denylist", "NVML Library", "CUDA Main Library", "Permissions and OS Blocks", "Persistence Mode",
               "Environment Variables", "Page Retirement/Row Remap", "Graphics Processes", "Inforom")  # fmt: skip
_OLD = {"memory": "GPU Memory", "pcie": "PCIe", "diagnostic": "Diagnostic", "targeted_power": "Targeted Power",
        "memtest": "Memtest"}  # fmt: skip
_BORDER = f"+{'-' * 27}+{'-' * 48}+\n"
_WRAP = 45
Found = dict[str, dict[int, str]]
"""Test -> GPU index -> complaint; "" is none, "Skip" that it was left out."""


def _complaint(test: str, row: Any) -> str:
    """What a test finds in a GPU; "" is nothing."""
    if row["lost"]:
        return "GPU is lost. Drain the GPU and run a field diagnostic." if test == "software" else ""
    if test == "memory" and (row["ecc_ue_volatile"] or row["remap_pending"]):
        return "There are uncorrectable memory errors or pending row remappings."
    if test == "pcie" and row["bw_lost_ppm"] / 1e6 > _BW_FAILS:
        return "The bandwidth between host and GPU is below the minimum."
    return "A computation gave a wrong result." if test == "diagnostic" and row["sdc_ppm"] else ""


def dcgmi(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """`diag -r LEVEL [-j]`; exit 226 where a test failed. `mndiag ...` is another."""
    if argv[:1] == ["mndiag"]:
        return across.mndiag(argv[1:], facts, state, peers)
    rows = [(own["index"], state.gpus[own["position"]]) for own in facts["gpus"]]
    if any(row["hung"] for _, row in rows):
        return None
    if argv[:2] != ["diag", "-r"] or argv[2:3] not in (["1"], ["2"], ["3"], ["4"]):
        return "", f"dcgmi: error: unknown arguments {' '.join(argv)}\n", 1
    gone, found = any(row["lost"] for _, row in rows), Found()
    for test in [test for test, least in _TESTS.items() if least <= int(argv[2])]:
        skips = gone and test != "software"
        found[test] = {index: "Skip" if skips else _complaint(test, row) for index, row in rows}
    failed = any(said not in ("", "Skip") for gpus in found.values() for said in gpus.values())
    new, as_json = not version(facts, "dcgmi").startswith("3"), "-j" in argv
    forms = {(True, True): _json, (True, False): _table, (False, True): _old_json, (False, False): _old_table}
    return forms[new, as_json](facts, found), "", 226 if failed else 0


def _word(said: str) -> str:
    return {"": "Pass", "Skip": "Skip"}.get(said, "Fail")


def _worst(gpus: Mapping[int, str]) -> str:
    words = {_word(said) for said in gpus.values()}
    return next(word for word in ("Fail", "Skip", "Pass") if word in words)


def _json(facts: Mapping[str, Any], found: Found) -> str:
    tests = list[dict[str, Any]]()
    for name, gpus in found.items():
        results = list[dict[str, Any]]()
        for index, said in gpus.items():
            result: dict[str, Any] = {"entity_group": "GPU", "entity_group_id": 1, "entity_id": index, "status": _word(said)}
            if _word(said) == "Fail":
                result["warnings"] = [{"warning": f"GPU {index}: {said}", "error_id": 1}]
            results.append(result)
        tests.append({"name": name, "results": results, "test_summary": {"status": _worst(gpus)}})
    who = [{"entity_id": own["index"]} for own in facts["gpus"]]
    body = {
        "DCGM Diagnostic": {"test_categories": [{"category": "Integration", "tests": tests}]},
        "entity_groups": [{"entity_group": "GPU", "entity_group_id": 1, "entities": who}],
        "metadata": {"version": version(facts, "dcgmi"), "Driver Version Detected": facts["driver"]},
    }
    return json.dumps(body, indent=2) + "\n"


def _old_json(facts: Mapping[str, Any], found: Found) -> str:
    """DCGM 3: its own names, GPUs as a list in a text."""
    categories: dict[str, list[dict[str, Any]]] = {"Deployment": []}
    bad = next((said for said in found["software"].values() if said), "")
    for name in _DEPLOYMENT:
        result = {"status": "Fail", "warnings": bad} if bad and name == "Inforom" else {"status": "Pass"}
        categories["Deployment"].append({"name": name, "results": [result]})
    for name, gpus in found.items():
        if name == "software":
            continue
        results = list[dict[str, Any]]()
        for word in ("Pass", "Fail", "Skip"):
            mine = [index for index, said in gpus.items() if _word(said) == word]
            if mine:
                warning = {"warnings": "; ".join(f"GPU {i} {gpus[i]}" for i in mine)} if word == "Fail" else {}
                results.append({"gpu_ids": ",".join(map(str, mine)), "status": word, **warning})
        categories.setdefault(_SECTIONS[name], []).append({"name": _OLD[name], "results": results})
    body = [{"category": name, "tests": tests} for name, tests in categories.items()]
    return json.dumps({"DCGM GPU Diagnostic": {"test_categories": body}}, indent=2) + "\n"


def _row(name: str, info: str) -> str:
    return f"| {name:<25} | {info:<46} |\n"


def _head(sections: Mapping[str, str]) -> str:
    out = f"Successfully ran diagnostic for group.\n{_BORDER}{_row('Diagnostic', 'Result')}+{'=' * 27}+{'=' * 48}+\n"
    for name, rows in sections.items():
        edge = "|" if name in ("Metadata", "Deployment") else "+"
        out += f"{edge}-----  {name}  {'-' * (18 - len(name))}+{'-' * 48}{edge}\n{rows}"
    return out + _BORDER


def _wrapped(kind: str, said: str) -> str:
    pieces = [said[at : at + _WRAP] for at in range(0, len(said), _WRAP)]
    return "".join(_row(kind if n == 0 else "", piece) for n, piece in enumerate(pieces))


def _table(facts: Mapping[str, Any], found: Found) -> str:
    devices = ", ".join(f"{facts['facts']['pci_device'] >> 16:04x}" for _ in facts["gpus"])
    meta = _row("DCGM Version", version(facts, "dcgmi")) + _row("Driver Version Detected", facts["driver"])
    sections = {"Metadata": meta + _row("GPU Device IDs Detected", devices)}
    for name, gpus in found.items():
        rows = _row(name, _worst(gpus))
        for index, said in gpus.items():
            rows += _row("", f"GPU{index}: {_word(said)}")
            if _word(said) == "Fail":
                rows += _wrapped("Warning", f"GPU {index}: {said}")
        sections[_SECTIONS[name]] = sections.get(_SECTIONS[name], "") + rows
    return _head(sections)


def _old_table(facts: Mapping[str, Any], found: Found) -> str:
    bad = next((said for said in found["software"].values() if said), "")
    rows = "".join(_row(name, "Fail" if bad and name == "Inforom" else "Pass") for name in _DEPLOYMENT)
    sections = {"Deployment": rows + (_wrapped("Warning", bad) if bad else "")}
    for name, gpus in found.items():
        if name == "software":
            continue
        words = {word: [i for i, said in gpus.items() if _word(said) == word] for word in ("Pass", "Fail", "Skip")}
        only = next((word for word, mine in words.items() if len(mine) == len(gpus)), "")
        lines = [f"{only} - All"] if only else [f"{word} - GPU{'s' * (len(mine) > 1)}: {', '.join(map(str, mine))}"
                                                for word, mine in words.items() if mine]  # fmt: skip
        text = "".join(_row(_OLD[name] if n == 0 else "", said) for n, said in enumerate(lines))
        text += "".join(_wrapped("Warning", f"GPU {i} {gpus[i]}") for i in words["Fail"])
        sections[_SECTIONS[name]] = sections.get(_SECTIONS[name], "") + text
    return _head(sections)
