"""Runs a site's pytest checks beside the controller, in a process of its own with none of this project's pytest configuration."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from burnin.errors import TrayError
from burnin.suites.load import find_test

_KEPT = 50_000
"""Characters of what pytest prints that are kept: its end says what became of it."""


class Pytests:
    """The door for `Order(via="pytest")`."""

    def __init__(self, rack_file: Path) -> None:
        self._rack_file = rack_file

    async def order(self, part: str, verb: str, args: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """{"exit", "stdout", "files", "tests", "errors"}. Raises TrayError when a file is not there or it does not end."""
        files = list[Path]()
        for name in args["files"]:
            if (file := find_test(str(name))) is None:
                raise TrayError(f"there is no file {name}, here or in test_suites/checks")
            files.append(file.resolve())
        with tempfile.TemporaryDirectory(prefix="burnin-pytest-") as folder:
            where = Path(folder)
            (where / "pytest.ini").write_text("[pytest]\n")
            words = ["-m", "pytest", "-p", "burnin.pytest_plugin", "-p", "no:cacheprovider", "-q", "--import-mode=importlib"]
            words += ["-c", str(where / "pytest.ini"), "--burnin-rack", str(self._rack_file.resolve())]
            words += ["--burnin-trays", ",".join(args["trays"]), "--burnin-report", str(where / "report.json"), *map(str, files)]
            code, out = await _run([sys.executable, *words], where, float(args["max_s"]))
            report = _read(where / "report.json")
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        return {"exit": code, "stdout": out[-_KEPT:], "files": hashes, **report}


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(path.read_text())
        if isinstance(said, dict):
            return said
    return {"tests": [], "errors": ["it left no report"]}


async def _run(words: list[str], where: Path, longest_s: float) -> tuple[int | None, str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        cwd=where, env=environ, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(longest_s):
            out, _ = await process.communicate()
    except TimeoutError:
        raise TrayError(f"pytest did not come to its end within {longest_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return process.returncode, out.decode("utf-8", "replace")
