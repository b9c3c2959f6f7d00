"""A verdict as JSON: what other scripts rely on. Keys may be added, never renamed.

Canonical: the same verdict gives the same bytes, floats to 6 significant digits, keys in the order of the contract.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from burnin.events import Finding, Hold, Measurement, Step, Verdict


def document(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values. A WATCH finding weighs nothing and is listed with the others."""
    coverage = verdict.coverage
    plain: dict[str, Any] = {
        "run": verdict.run,
        "rack": verdict.rack,
        "profile": verdict.profile,
        "suite": verdict.suite,
        "ships": verdict.ships,
        "whole": verdict.whole,
        "verdict": str(verdict.word),
        "started": verdict.started,
        "ended": verdict.ended,
        "coverage": {
            "required": coverage.required,
            "measured": coverage.measured,
            "fraction": coverage.fraction,
            "missing": [" ".join(slot) for slot in coverage.missing],
        },
        "findings": [_finding(one) for one in verdict.findings],
        "holds": [_hold(one) for one in verdict.holds],
        "waivers": [dict(one) for one in verdict.waivers],
        "versions": dict(verdict.versions),
        "steps": [_step(one) for one in verdict.steps],
    }
    if verdict.sessions:
        plain["sessions"] = [dict(one) for one in verdict.sessions]
    rounded: dict[str, Any] = _rounded(plain)
    return rounded


def canonical(verdict: Verdict) -> str:
    """The JSON text, with a newline at its end."""
    return json.dumps(document(verdict), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "part": one.part,
        "signature": one.signature,
        "severity": str(one.severity),
        "fru": one.fru,
        "serial": one.serial,
        "slot": one.slot,
        "value": one.value,
        "limit": one.limit,
        "unit": one.unit,
        "why": one.why,
        "action": one.action,
        "statistic": one.statistic,
        "evidence": dict(one.evidence),
    }


def _hold(one: Hold) -> dict[str, Any]:
    return {"kind": one.kind, "part": one.part, "why": one.why, "next": one.next}


def _step(one: Step) -> dict[str, Any]:
    return {
        "name": one.name,
        "stage": one.stage,
        "part": one.part,
        "status": str(one.status),
        "result": str(one.result),
        "attempts": one.attempts,
        "why": one.why,
        "measurements": [_measurement(m) for m in one.measurements],
    }


def _measurement(one: Measurement) -> dict[str, Any]:
    return {
        "name": one.name,
        "part": one.part,
        "value": one.value,
        "unit": one.unit,
        "limit": one.limit,
        "result": str(one.result),
        "reason": one.reason,
        "why": one.why,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value) or math.isinf(value):
            return None
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
