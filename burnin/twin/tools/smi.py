"""nvidia-smi: -q -x, nvlink -s, --query-gpu, --gpu-reset. Layout: a 4-GPU GB300 node, driver 580 (NVIDIA/k8s-test-infra)."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from ..state import State
from .smi_xml import document

Said = tuple[str, str, int]
"""Standard output, standard error, exit status."""


def _nvlink(facts: Mapping[str, Any], state: State) -> str:
    out, speed = [], f"{facts['facts']['nvlink_mbps'] / 1000:.3f} GB/s"
    for own in facts["gpus"]:
        out.append(f"GPU {own['index']}: {facts['facts']['name']} (UUID: {own['uuid']})")
        links = state.links[own["position"]][: facts["facts"]["nvlinks"]]
        out += [f"\t Link {n}: {'<inactive>' if link['down'] else speed}" for n, link in enumerate(links)]
    return "\n".join(out) + "\n"


def _query(facts: Mapping[str, Any], state: State, argv: list[str]) -> Said:
    fields = next(word for word in argv if word.startswith("--query-gpu=")).partition("=")[2].split(",")
    wanted = argv[argv.index("-i") + 1] if "-i" in argv else ""
    lines = []
    for own in facts["gpus"]:
        row = state.gpus[own["position"]]
        known = {
            "index": own["index"], "name": facts["facts"]["name"], "uuid": own["uuid"], "serial": own["serial"],
            "pci.bus_id": own["bdf"].upper(), "temperature.gpu": row["temp_c"], "power.draw": f"{row['power_mw'] / 1000:.2f}",
            "clocks.sm": row["clock_mhz"], "driver_version": facts["driver"], "ecc.errors.uncorrected.volatile.total":
            row["ecc_ue_volatile"],
        }  # fmt: skip
        if bad := next((field for field in fields if field not in known), ""):
            return f'Field "{bad}" is not a valid field to query.\n', "", 2
        if wanted in ("", str(own["index"])):
            lines.append(", ".join("[GPU is lost]" if row["lost"] else str(known[field]) for field in fields))
    return ("\n".join(lines) + "\n", "", 0) if lines else ("No devices were found\n", "", 6)


def _reset(facts: Mapping[str, Any], state: State) -> Said:
    """All GPUs at once; one that is lost cannot be. Words as nvidia-smi has them; who else holds the driver is not known here."""
    rows = [(own["bdf"].upper(), state.gpus[own["position"]]) for own in facts["gpus"]]
    if gone := [bdf for bdf, row in rows if row["lost"]]:
        return "", "".join(f"Unable to determine the device handle for GPU {bdf}: GPU is lost.\n" for bdf in gone), 255
    for bdf, row in rows:
        row["remap_pending"] = row["recovery_action"] = 0
        row["resets"] += 1
        if Random(f"{facts['chassis']}/{bdf}/{row['resets']}").random() * 1e6 < row["reset_ppm"]:
            row["lost"] = 1
    return "".join(f"GPU {bdf} was successfully reset.\n" for bdf, _ in rows) + "All done.\n", "", 0


def nvidia_smi(argv: list[str], facts: Mapping[str, Any], state: State, peers: Mapping[str, bool]) -> Said | None:
    """None where a GPU hangs the driver."""
    if any(state.gpus[own["position"]]["hung"] for own in facts["gpus"]):
        return None
    if argv[:2] == ["-q", "-x"]:
        return document(facts, state), "", 0
    if argv in (["--gpu-reset"], ["-r"]):
        return _reset(facts, state)
    if argv[:2] == ["nvlink", "-s"]:
        return _nvlink(facts, state), "", 0
    if any(word.startswith("--query-gpu=") for word in argv):
        return _query(facts, state, argv)
    return f"Invalid combination of input arguments: {' '.join(argv)}\n", "", 2
