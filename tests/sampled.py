"""Which cases of a long table CI has time for; `make test-long` has time for the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], every: int = 6) -> list[Any]:
    """All cases, of which CI takes each `every`th. A tuple is one case's arguments."""
    return [case if n % every == 0 else _long(case) for n, case in enumerate(cases)]


def _long(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
