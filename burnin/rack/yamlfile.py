"""YAML file -> model, or every mistake in it at once: file:line:column, the value, and in plain words what was expected.

pydantic says what is wrong and where in the data; the document knows where that stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from burnin.errors import InputError, Problem
from burnin.rack.document import Document, Loc, one_of, read

M = TypeVar("M", bound=BaseModel)
_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "date_type": "a day (2026-12-31)",
}
_BOUNDS = {"greater_than": "above {gt}", "greater_than_equal": "at least {ge}"}
_BOUNDS |= {"less_than": "below {lt}", "less_than_equal": "at most {le}"}


def load(path: str | Path, model: type[M]) -> M:
    """Reads and validates one file. Raises InputError with every mistake in it."""
    valid, problems = check(read(path), model)
    if valid is None:
        raise InputError(problems)
    return valid


def check(document: Document, model: type[M]) -> tuple[M | None, list[Problem]]:
    """The model, or None; and every mistake in the file, in the order of its lines."""
    valid, problems = None, list(document.problems)
    try:
        valid = model.model_validate(document.data, strict=True)
    except ValidationError as error:
        problems += _explain(document, model, error)
    return (None if problems else valid), in_order(problems)


def in_order(problems: list[Problem]) -> list[Problem]:
    """Without repetitions, by file and place."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line or 0, p.column or 0))


def _explain(document: Document, model: type[BaseModel], error: ValidationError) -> Iterator[Problem]:
    errors = error.errors(include_url=False, include_input=False)
    unknown = {(document.find(e["loc"][:-1]), str(e["loc"][-1])) for e in errors if e["type"] == "extra_forbidden"}
    told: set[Loc] = set()
    choices: dict[Loc, list[str]] = {}
    for e in errors:
        if e["type"] in _TYPES:
            choices.setdefault(document.find(_plain(e["loc"])), []).append(_TYPES[e["type"]])
    for e in errors:
        loc = _plain(e["loc"])
        at, key = document.find(loc), e["loc"][-1:] == ("[key]",)
        match e["type"]:
            case "mistake":
                if at not in told:
                    yield document.problem(loc, str(e["ctx"]["text"]), key=key)
                told.add(at)
            case _ if at in told:
                pass
            case "missing":
                misspelt = [name for where, name in unknown if where == at and _alike(name, str(loc[-1]))]
                if not misspelt:
                    about = _field(model, loc)
                    yield document.problem(loc, f"{_name((*at, loc[-1]))} is missing", about.description or "" if about else "")
            case "extra_forbidden" | "invalid_key":
                inside = f"{_name(at[:-1])}: " if at[:-1] else ""
                known = _keys(_type(model, loc[:-1]))
                yield document.problem(loc, f"{inside}unknown key {str(loc[-1])!r}", one_of(known, str(loc[-1])), key=True)
            case "value_error":
                yield document.problem(loc, f"{_name(at) or 'the file'}: {e['ctx']['error']}", key=key)
            case kind:
                about = _field(model, loc)
                expected = _expected(document, kind, e.get("ctx", {}), at, choices.get(at, []), about)
                yield document.problem(loc, f"{_name(at) or 'the file'} {_shown(document, at, key)}", expected, key=key)


def _plain(loc: Loc) -> Loc:
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


def _alike(one: str, other: str) -> bool:
    return "did you mean" in one_of([other], one)


def _name(loc: Loc) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return text.removeprefix(".")


def _shown(document: Document, at: Loc, key: bool) -> str:
    """`is 'abc'`, without ever showing what may be a secret."""
    if key:
        return "is no name for an entry"
    value: Any = document.data
    for step in at:
        value = value[step]
    if value is None:
        return "is empty (null)"
    if isinstance(value, dict | list):
        return ("is an empty " if not value else "is a ") + ("mapping" if isinstance(value, dict) else "list")
    if "secret" in at:
        return "is not what it should be"
    return f"is {value!r}" if isinstance(value, str) else f"is {document.places[at].text}"


def _expected(document: Document, kind: str, ctx: dict[str, Any], at: Loc, choices: list[str], about: FieldInfo | None) -> str:
    text = document.places[at].text
    if "secret" in at:
        return "env:NAME, file:PATH or keyring:SERVICE/USER, never the secret itself"
    if kind in _TYPES:
        words = " or ".join(dict.fromkeys(choices))
        if "text" in choices and text:
            return f'{words} (in quotes: "{text}")'
        return words + (" (without quotes)" if "number" in words and text and re.fullmatch(r"-?\d+(\.\d+)?", text) else "")
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**ctx)
    if kind == "literal_error":
        return one_of([a or b for a, b in re.findall(r"'([^']*)'|\b(\d+)\b", str(ctx["expected"]))], text)
    if kind in ("too_short", "string_too_short"):
        return (about.description if about else None) or f"at least {ctx['min_length']}"
    if kind == "string_pattern_mismatch" and not (about and about.description):
        return f"what matches {ctx['pattern']}"
    return (about.description if about else None) or f"something else ({kind.replace('_', ' ')})"


# ---------------------------------------------------------------- what a model expects at a place


def _type(annotation: Any, loc: Loc) -> Any:
    """The annotation at `loc` below `annotation`, or None where pydantic's loc leaves the types."""
    annotation = _bare(annotation)
    if not loc:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        about = _named(annotation, loc[0])
        return _type(about.annotation, loc[1:]) if about else None
    if get_origin(annotation) in (dict, list):
        return _type(get_args(annotation)[-1], loc[1:])
    return None


def _bare(annotation: Any) -> Any:
    """Without Annotated, and of `X | None` the X."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation


def _named(model: type[BaseModel], key: str | int) -> FieldInfo | None:
    return next((f for name, f in model.model_fields.items() if (f.alias or name) == key), None)


def _field(model: type[BaseModel], loc: Loc) -> FieldInfo | None:
    holder = _type(model, loc[:-1]) if loc else None
    return _named(holder, loc[-1]) if isinstance(holder, type) and issubclass(holder, BaseModel) else None


def _keys(annotation: Any) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [f.alias or name for name, f in annotation.model_fields.items()]
    return []
