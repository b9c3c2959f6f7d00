"""Parsers of tools that lines already trust: text, exit code and stderr -> Reading. Pure; docs/tools.md has the table."""

from __future__ import annotations

from burnin.checks.tools import dcgm, nccl, nvbandwidth, nvidia_smi
from burnin.checks.tools.reading import Outcome, Parse, Reading, Row

PARSERS: dict[str, Parse] = {
    "dcgmi diag": dcgm.diag,
    "nccl-tests": nccl.nccl_tests,
    "nvbandwidth": nvbandwidth.nvbandwidth,
    "nvidia-smi -q -x": nvidia_smi.query_xml,
    "nvidia-smi -q": nvidia_smi.query_text,
    "nvidia-smi nvlink -s": nvidia_smi.nvlink,
}
"""By the name of the tool as its reading says it."""

__all__ = ["PARSERS", "Outcome", "Parse", "Reading", "Row"]
