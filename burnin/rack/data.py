"""What every model of a file stands on: nothing unknown is let in, nothing changes, and every mistake is told at once.

pydantic stops a model's own checks where one of its fields is wrong. `together` runs a check on the raw value beside the
ordinary validation, and `mistakes` gives each finding its own place, so that a file is mended in one round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Data(BaseModel):
    """Base of everything read from a file: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


Mistake = tuple[tuple[str | int, ...], str]
"""Where, from the value at hand down (a last "[key]" is the key itself, not its value), and a clause that says what is wrong."""


def mistakes(found: Iterable[Mistake], others: ValidationError | None = None) -> ValidationError:
    """All of these as one error, so that a file's author sees every mistake at once."""
    details = [
        InitErrorDetails(type=PydanticCustomError("mistake", "{text}", {"text": text}), loc=where, input=None)
        for where, text in found
    ]
    for error in others.errors(include_url=False) if others else ():
        kind_of: Any = error["type"] if error["type"] != "mistake" else PydanticCustomError("mistake", "{text}", error["ctx"])
        details.append(InitErrorDetails(type=kind_of, loc=error["loc"], input=error["input"], ctx=error.get("ctx", {})))
    return ValidationError.from_exception_data("", details)


def together(value: Any, handler: Any, found: list[Mistake]) -> Any:
    """Validates `value` and, where that or `found` says no, raises both at once."""
    try:
        valid = handler(value)
    except ValidationError as error:
        raise mistakes(found, error) from None
    if found:
        raise mistakes(found)
    return valid
