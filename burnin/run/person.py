"""Who answers what a suite asks of a person: a file of answers that was written beforehand, or somebody at the terminal."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from burnin.errors import InputError, TrayError
from burnin.rack.data import Data
from burnin.rack.document import read
from burnin.rack.yamlfile import check, in_order


class Given(Data):
    """One answer. `photo`: the path of a picture, beside the file of answers."""

    who: str
    value: bool | float | str
    photo: str = ""


class Answers(Data):
    """answers.yaml: {answers: {NAME: {who: ..., value: ..., photo: ...}}}"""

    answers: dict[str, Given]


def load(path: Path) -> dict[str, dict[str, Any]]:
    """A file of answers. Raises InputError; a picture that is not there is a mistake."""
    document = read(path)
    valid, problems = check(document, Answers)
    for name, given in valid.answers.items() if valid is not None else ():
        if given.photo and not (path.parent / given.photo).is_file():
            problems.append(document.problem(("answers", name, "photo"), f"there is no {given.photo}", "the picture's path"))
    if valid is None or problems:
        raise InputError(in_order(problems))
    return {name: _kept(given.model_dump(), path.parent) for name, given in valid.answers.items()}


def _kept(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    if isinstance(given["value"], bool):
        given["value"] = "yes" if given["value"] else "no"
    photo = folder / given["photo"] if given["photo"] else None
    digest = hashlib.sha256(photo.read_bytes()).hexdigest() if photo is not None and photo.is_file() else ""
    return {**given, "photo_sha256": digest}


class Person:
    """The door for `Order(via="person")`. `read` asks at the terminal; None where nobody sits there."""

    def __init__(self, given: Mapping[str, Mapping[str, Any]], operator: str, read: Callable[[str], str] | None) -> None:
        self._given, self._operator, self._read = given, operator, read

    async def order(self, part: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """{name: {"who", "value", "photo", "photo_sha256"}} of those that were answered."""
        out = {one["name"]: dict(self._given[one["name"]]) for one in args["questions"] if one["name"] in self._given}
        left = [one for one in args["questions"] if one["name"] not in out]
        if left and self._read is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    for one in left:
                        out[one["name"]] = await self._ask(one)
            except TimeoutError:
                if not out:
                    raise TrayError(f"nobody answered within {timeout_s:g} s") from None
        return out

    async def _ask(self, one: Mapping[str, Any]) -> dict[str, Any]:
        limit = one.get("limit")
        unit = f" [{limit['unit']}]" if limit else " [yes/no]"
        value = await _in_thread(self._read, f"{one['part']}: {one['ask']}{unit} (empty: not answered) ")
        photo = await _in_thread(self._read, "  path of the picture: ") if one.get("photo") and value.strip() else ""
        return _kept({"who": self._operator, "value": value.strip(), "photo": photo.strip()}, Path())


async def _in_thread(read: Callable[[str], str] | None, prompt: str) -> str:
    """In a daemon thread: a run that is stopped does not wait for somebody to press a key."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    said: list[str] = []

    def ask() -> None:
        try:
            said.append(read(prompt) if read is not None else "")
        except (EOFError, OSError):
            said.append("")
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=ask, daemon=True).start()
    await done.wait()
    return said[0]
