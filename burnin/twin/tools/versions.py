"""Which version of a tool a tray has: the first of its list unless `burnin twin up --tool NAME=VERSION` says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSIONS = {
    "dcgmi": ("4.4.2", "3.0.4"),
    "nvbandwidth": ("v0.8", "v0.7"),
    "nccl-tests": ("2.17.6", "2.20.0", "2.12"),
    "nvidia-imex-ctl": ("580", "550"),
    "hpl": ("24.9.0", "1.0.0"),
}
"""Tool -> versions that print differently, the default first. What prints both forms on demand (text and JSON) needs none."""


def version(facts: Mapping[str, Any], tool: str) -> str:
    """The version of this tray's tool."""
    return str(facts.get("tools", {}).get(tool, VERSIONS[tool][0]))
