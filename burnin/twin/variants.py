"""Racks built otherwise than their model says (data/variants.yaml): other plumbing, leakage, sensors, spreads.

A detector that was made on the twin must be tried on racks that its makers did not have before them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from burnin.errors import InputError
from burnin.twin.model import Model, load


@cache
def variants() -> dict[str, dict[str, Any]]:
    """Name -> `about`, and what of a `model` it replaces."""
    found: dict[str, dict[str, Any]] = YAML(typ="safe").load(Path(__file__).parent / "data" / "variants.yaml")
    return found


def varied(profile: str, name: str) -> Model:
    """The profile's model with a variant's values in it. Raises InputError for a name that is none."""
    if name not in variants():
        raise InputError(f"there is no variant {name!r}; there are {', '.join(sorted(variants()))}")
    model = load(profile).model_dump(by_alias=True)
    for section, values in variants()[name]["model"].items():
        model[section] = model[section] | values
    return Model.model_validate(model)
