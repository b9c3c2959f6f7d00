"""What rasdaemon wrote down since boot, where a tray has it: memory, PCIe and machine-check events. It only explains: the same
events stand in EDAC, AER and the kernel log, which are judged.

Its database is opened read-only and immutable: nothing is locked, no journal is made. A write at that moment may make it
unreadable, which is `missing` until the next reading.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Union

from burnin.agent.host import Roots
from burnin.agent.sysfs import Absent, File, Row, one

PLACES = ("lib/rasdaemon/ras-mc_event.db", "lib/misc/ras-mc_event.db")
"""Below /var: where rasdaemon keeps it, now and formerly."""
_TABLES = {"ras.mc": ("mc_event", "err_count"), "ras.aer": ("aer_event", "1"), "ras.mce": ("mce_record", "1")}
_ROWS = 20_000
"""More than this since boot is not counted: reading it every time would cost too much."""


class Database:
    """One tray's, read again only when the file changed."""

    def __init__(self, at: Roots) -> None:
        var = "/var" if at.proc == "/proc" else os.path.join(at.proc, "1/root/var")
        self._paths = [os.path.join(var, place) for place in PLACES]
        self._stat = File(at.proc, "stat")
        self._seen: tuple[float, int] = (0.0, -1)
        self._counts: dict[str, Union[float, str]] = {}

    def rows(self) -> list[Row]:
        """One row a table."""
        return [one(metric, partial(self._count, metric)) for metric in _TABLES]

    def _count(self, metric: str) -> float:
        path, known = self._file()
        if not os.access(path, os.R_OK):
            raise Absent("no_permission")
        if (known.st_mtime, known.st_size) != self._seen:
            self._counts = self._read(path)
            self._seen = (known.st_mtime, known.st_size)
        found = self._counts.get(metric, "missing")
        if isinstance(found, str):
            raise Absent(found)
        return found

    def _file(self) -> tuple[str, os.stat_result]:
        for path in self._paths:
            try:
                return path, os.stat(path)
            except PermissionError:
                raise Absent("no_permission") from None
            except OSError:
                continue
        raise Absent("not_supported")

    def _read(self, path: str) -> dict[str, Union[float, str]]:
        from urllib.parse import quote  # heavy, and few trays have a rasdaemon

        try:
            import sqlite3  # some trays' Python comes without
        except ImportError:
            return dict.fromkeys(_TABLES, "not_supported")
        boot = re.search(r"^btime (\d{1,12})$", self._stat.text(), re.MULTILINE)
        if boot is None:
            return {}
        out: dict[str, Union[float, str]] = {}
        try:
            opened = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1", uri=True)
        except sqlite3.Error:
            return {}
        try:
            for metric, (table, count) in _TABLES.items():
                try:
                    rows = opened.execute(f"SELECT timestamp, {count} FROM {table} ORDER BY id DESC LIMIT {_ROWS}").fetchall()
                    out[metric] = _since(rows, float(boot[1]))
                except (sqlite3.Error, ValueError, TypeError, OverflowError):
                    out[metric] = "missing"
        finally:
            opened.close()
        return out


def _since(rows: list[tuple[str, int]], boot_s: float) -> float:
    """Events at or after boot. Raises ValueError for a time that cannot be read, or more rows than are counted."""
    from datetime import datetime

    total = 0
    for stamp, count in rows:
        if datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S %z").timestamp() >= boot_s:
            total += count
    if len(rows) == _ROWS:
        raise ValueError
    return float(total)
