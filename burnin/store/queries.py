"""The questions that are asked of the database, each with a name. Every function reads within the connection's snapshot."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import zstandard
from sqlalchemy import ColumnElement, Connection, Table, and_, func, select

from burnin.events import LogLine, Result, Status, TrayState
from burnin.rack.parts import parent
from burnin.store import tables
from burnin.store.records import Attempt, Enrollment, Evidence, Place, Run, Session, Stage, Tray, Voided
from burnin.telemetry.blocks import Group, series, unpack, unpack_frames
from burnin.telemetry.rollup import Rollup
from burnin.telemetry.series import Stretch, Telemetry

_MAX_BODY = 1 << 30


def runs(connection: Connection, *where: ColumnElement[bool]) -> list[Run]:
    """Runs, oldest first."""
    run, verdict = tables.run, tables.verdict
    columns = [c for c in run.c if c.name != "config"]
    query = select(*columns, verdict.c.word).outerjoin(verdict, verdict.c.run == run.c.id).where(*where).order_by(run.c.number)
    return [Run(**{**row, "waivers": tuple(row["waivers"])}) for row in connection.execute(query).mappings()]


def starting_with(connection: Connection, prefix: str) -> list[Run]:
    """Runs whose id begins so; the one that is exactly so, alone."""
    many = runs(connection, func.substr(tables.run.c.id, 1, len(prefix)) == prefix)
    return [run for run in many if run.id == prefix] or many


def last(connection: Connection, rack: str | None = None, suite: str | None = None) -> Run | None:
    """The latest run begun: of all, of one rack, of one rack and suite."""
    run = tables.run
    where = [column == value for column, value in ((run.c.rack, rack), (run.c.suite, suite)) if value is not None]
    number = select(func.max(run.c.number)).where(*where).scalar_subquery()
    return next(iter(runs(connection, run.c.number == number)), None)


def config(connection: Connection, run: str) -> dict[str, Any]:
    """The run's own copy of what it was judged with."""
    found: dict[str, Any] = connection.execute(select(tables.run.c.config).where(tables.run.c.id == run)).scalar_one()
    return found


def trays(connection: Connection, run: str) -> list[Tray]:
    """Who answered, in order of part."""
    tray = tables.tray
    rows = connection.execute(select(tray).where(tray.c.run == run).order_by(tray.c.part))
    return [Tray(row.part, row.address, row.host_key, row.serial, row.identity) for row in rows]


def stages(connection: Connection, run: str) -> list[Stage]:
    """Stages as they went, in order."""
    s = tables.stage.c
    query = select(s.position, s.name, s.phase, s.planned_s, s.settle_s, s.t0_s, s.t1_s, s.status, s.why, s.trays).where(
        s.run == run
    )
    rows = connection.execute(query.order_by(s.id))
    return [
        Stage(
            **{
                **row,
                "status": Status(row["status"]) if row["status"] else None,
                "trays": tuple(row["trays"]) if row["trays"] is not None else None,
            }
        )
        for row in rows.mappings()
    ]


def sessions(connection: Connection, run: str) -> list[Session]:
    """Who kept the run when, in order."""
    s = tables.session
    rows = connection.execute(select(*[c for c in s.c if c.name != "run"]).where(s.c.run == run).order_by(s.c.number))
    return [Session(**row) for row in rows.mappings()]


def places(connection: Connection, run: str) -> dict[str, Place]:
    """How far each tray was heard."""
    p = tables.place.c
    rows = connection.execute(select(p.tray, p.holder, p.seq, p.logged_seq).where(p.run == run))
    return {tray: Place(*rest) for tray, *rest in rows}


def voided(connection: Connection, run: str) -> list[Voided]:
    """Parts that were replaced, in the order in which it was noticed."""
    v = tables.voided.c
    return [Voided(*row) for row in connection.execute(select(v.part, v.t_s, v.why).where(v.run == run).order_by(v.id))]


def last_moment(connection: Connection, run: str) -> float:
    """The latest run second of which anything was kept; blocks, which end with their window, aside."""
    t = tables
    moments: tuple[tuple[Table, ColumnElement[Any]], ...] = (
        (t.log, t.log.c.t_s), (t.tray_state, t.tray_state.c.t_s), (t.step, t.step.c.t1_s), (t.stage, t.stage.c.t0_s),
        (t.stage, t.stage.c.t1_s), (t.session, t.session.c.t0_s), (t.telemetry_frame, t.telemetry_frame.c.t1_ms / 1000.0),
    )  # fmt: skip
    found = [connection.execute(select(func.max(column)).where(table.c.run == run)).scalar() for table, column in moments]
    return max((float(moment) for moment in found if moment is not None), default=0.0)


def attempts(connection: Connection, run: str) -> list[Attempt]:
    """Every try of every check, in the order in which they ended."""
    s = tables.step.c
    rows = connection.execute(select(tables.step).where(s.run == run).order_by(s.id))
    return [Attempt(r.stage, r.name, r.part, r.attempt, Status(r.status), Result(r.result), r.t0_s, r.t1_s, r.why) for r in rows]


def evidence(connection: Connection, run: str) -> list[Evidence]:
    """Everything that checks brought back, in order."""
    e = tables.evidence.c
    rows = connection.execute(select(tables.evidence).where(e.run == run).order_by(e.id))
    return [Evidence(r.stage, r.step, r.part, r.attempt, r.round, r.kind, read_body(r.form, r.body)) for r in rows]


def make_body(body: object) -> tuple[str, bytes]:
    """(form, bytes) of one piece of evidence. JSON may hold NaN; text may hold what is not UTF-8."""
    text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
    packed = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(text.encode("utf-8", "surrogatepass"))
    return "text" if isinstance(body, str) else "json", packed


def read_body(form: str, body: bytes) -> Any:
    """What was given to `make_body`; tuples come back as lists."""
    text = zstandard.ZstdDecompressor().decompress(body, max_output_size=_MAX_BODY).decode("utf-8", "surrogatepass")
    return text if form == "text" else json.loads(text)


def log(connection: Connection, run: str) -> list[LogLine]:
    """What happened, by time."""
    line = tables.log.c
    rows = connection.execute(select(tables.log).where(line.run == run).order_by(line.t_s, line.id))
    return [LogLine(r.part, r.t_s, r.kind, r.code, r.text, r.source, r.seq) for r in rows]


def states(connection: Connection, run: str) -> list[TrayState]:
    """What became of each tray, in the order in which it was noticed."""
    s = tables.tray_state.c
    rows = connection.execute(select(s.tray, s.t_s, s.state, s.why).where(s.run == run).order_by(s.id))
    return [TrayState(*row) for row in rows]


def telemetry(
    connection: Connection, run: str, parts: Collection[str] | None = None, metrics: Collection[str] | None = None
) -> Telemetry:
    """Everything that was read, or only these parts and metrics; stretches are the stages that ended and had a phase."""

    def bodies(table: Table) -> Iterable[bytes]:
        where = [table.c.run == run]
        if parts is not None:
            where.append(table.c.tray.in_({above for part in parts for above in _upwards(part)}))
        return connection.execute(select(table.c.body).where(*where).order_by(table.c.t0_ms, table.c.id)).scalars()

    def groups() -> Iterator[Group]:
        for block in bodies(tables.telemetry_block):
            yield from unpack(block, parts, metrics)
        yield from unpack_frames(bodies(tables.telemetry_frame), parts, metrics)

    stretches = tuple(
        Stretch(s.name, s.phase, s.t0_s, s.t1_s, s.settle_s)
        for s in stages(connection, run)
        if s.phase is not None and s.t1_s is not None
    )
    absent = tables.absence.c
    rows = connection.execute(select(absent.part, absent.metric, absent.reason).where(absent.run == run))
    return Telemetry(series(groups()), stretches, {(part, metric): reason for part, metric, reason in rows})


def _upwards(part: str) -> list[str]:
    """The part and everything it sits in: whose ticks may carry its readings."""
    above = parent(part)
    return [part] if above is None else [part, *_upwards(above)]


def rollups(connection: Connection, run: str, metric: str, part: str | None = None) -> dict[str, list[Rollup]]:
    """Minutes of one metric, by part; only of what is in blocks, so a running run's last half hour is not there yet."""
    s, r = tables.series.c, tables.rollup_row.c
    where = and_(s.run == run, s.metric == metric, *([s.part == part] if part else []))
    query = (
        select(s.part, r.t0_s, r.minutes, r.n, r.low, r.total, r.high).join_from(tables.series, tables.rollup_row).where(where)
    )
    out: dict[str, list[Rollup]] = {}
    for name, t0_s, minutes, n, low, total, high in connection.execute(query.order_by(s.part, r.t0_s)):
        row = Rollup(t0_s, minutes, n, low, math.nan if total is None else total, high)
        out.setdefault(name, []).append(row)
    return out


def verdict(connection: Connection, run: str) -> str | None:
    """The canonical JSON, letter for letter, if a verdict was derived."""
    v = tables.verdict.c
    return connection.execute(select(v.canonical).where(v.run == run)).scalar_one_or_none()


def enrollments(connection: Connection, rack: str) -> list[Enrollment]:
    """Host keys accepted for this rack, in order."""
    e = tables.enrollment
    rows = connection.execute(select(*[c for c in e.c if c.name != "id"]).where(e.c.rack == rack).order_by(e.c.id))
    return [Enrollment(**row) for row in rows.mappings()]
