"""Frames become a block and its rollups: one window of one tray at a time, in a transaction of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Engine, delete, insert, select

from burnin.store.hot import WINDOW_MS
from burnin.store.tables import rollup_row, series, telemetry_block, telemetry_frame
from burnin.telemetry.blocks import Key, merge, pack, unpack, unpack_frames
from burnin.telemetry.blocks import series as as_series
from burnin.telemetry.rollup import Rollup, rollups

Window = tuple[str, int]
"""(tray, number of the window)."""

_frame, _block = telemetry_frame.c, telemetry_block.c


def open_windows(read: Engine, run: str) -> list[Window]:
    """Windows of a run that still have frames."""
    with read.begin() as connection:
        rows = connection.execute(select(_frame.tray, _frame.t0_ms).where(_frame.run == run)).all()
    return sorted({(tray, t0_ms // WINDOW_MS) for tray, t0_ms in rows})


def compact(write: Engine, read: Engine, run: str, window: Window) -> None:
    """The window's frames, and its block if late ticks came after it was made, as one block and its rollups."""
    tray, number = window
    t0_ms, t1_ms = number * WINDOW_MS, (number + 1) * WINDOW_MS
    own_frames = (_frame.run == run) & (_frame.tray == tray) & (_frame.t0_ms >= t0_ms) & (_frame.t0_ms < t1_ms)
    own_block = (_block.run == run) & (_block.tray == tray) & (_block.t0_ms == t0_ms)
    with read.begin() as connection:
        blocks = connection.execute(select(_block.body).where(own_block)).scalars().all()
        frames = connection.execute(select(_frame.id, _frame.body).where(own_frames).order_by(_frame.id)).all()
    if not frames:
        return
    groups = merge([group for body in blocks for group in unpack(body)] + unpack_frames(body for _, body in frames))
    block = pack(groups)
    rows = rollups(as_series(groups))
    with write.begin() as connection:
        connection.execute(delete(telemetry_block).where(own_block))
        connection.execute(insert(telemetry_block).values(run=run, tray=tray, t0_ms=t0_ms, t1_ms=t1_ms, body=block))
        _roll(connection, run, rows, (t0_ms // 1000, t1_ms // 1000) if blocks else None)
        connection.execute(delete(telemetry_frame).where(own_frames & (_frame.id <= frames[-1].id)))


def _roll(connection: Connection, run: str, rows: Mapping[Key, Sequence[Rollup]], again: tuple[int, int] | None) -> None:
    """Writes rollups; `again`: those of this stretch (seconds) were written before, and are replaced."""
    ids = _ids(connection, run, rows)
    if again:
        stale = rollup_row.c.series.in_(ids.values()) & rollup_row.c.t0_s.between(again[0], again[1] - 1)
        connection.execute(delete(rollup_row).where(stale))
    values = [(number, *row) for key, number in ids.items() for row in rows[key]]
    if values:
        # As tuples for the driver: a hundred thousand an hour, of which SQLAlchemy's names would be half the price.
        statement = insert(rollup_row).compile(dialect=connection.dialect)
        connection.exec_driver_sql(str(statement), values)


def _ids(connection: Connection, run: str, keys: Collection[Key]) -> dict[Key, int]:
    """The number of each series in `series`, given now to those that have none."""
    stored = select(series.c.part, series.c.metric, series.c.id).where(
        (series.c.run == run) & series.c.part.in_({part for part, _ in keys})
    )
    ids = {(part, metric): number for part, metric, number in connection.execute(stored) if (part, metric) in keys}
    new = [{"run": run, "part": part, "metric": metric} for part, metric in keys if (part, metric) not in ids]
    if new:
        connection.execute(insert(series), new)
        return _ids(connection, run, keys)
    return ids
