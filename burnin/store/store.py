"""burnin.db as an object: what a run keeps goes in by one thread, what anybody asks comes out by any.

A Store keeps at most one run at a time, the one it began. Results are on the disk when a method returns, and survive a
power cut; ticks are there after at most ten seconds of their own time (`burnin.store.hot`). No transaction outlives a call.
Every failure of the database is a StoreError in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from burnin.errors import InputError, StoreError
from burnin.events import Attached, LogLine, StageBegan, StageEnded, Status, Tick, TrayState, Verdict
from burnin.rack.parts import tray_of
from burnin.store import queries, tables
from burnin.store.compaction import Window, compact, open_windows
from burnin.store.failures import told
from burnin.store.hot import WINDOW_MS, Hot
from burnin.store.records import (
    RUNNING,
    Attempt,
    Enrollment,
    Evidence,
    Place,
    Run,
    RunStart,
    Session,
    Stage,
    Tray,
    Voided,
)
from burnin.suites.schema import seconds
from burnin.telemetry.rollup import Rollup
from burnin.telemetry.series import Telemetry

Item = Attached | Tick | LogLine | TrayState | StageBegan | StageEnded

_LATE_MS = 60_000
"""A window is compacted when ticks are so far beyond its end; what comes later still is put into its block again."""


@dataclass(slots=True)
class _Kept:
    """The run that is being kept."""

    id: str
    settle_s: Mapping[str, float]
    session: int = 1
    hot: Hot = field(default_factory=Hot)
    windows: set[Window] = field(default_factory=set)
    places: dict[str, Place] = field(default_factory=dict)


class Store:
    """An open database; made by `burnin.store.open_store`. Keeping is for one thread, asking for any."""

    def __init__(self, path: Path, write: Engine, read: Engine, clock: Callable[[], str]) -> None:
        self.path = path
        self._write, self._read, self._clock = write, read, clock
        self._kept: _Kept | None = None

    def close(self) -> None:
        """Gives the file back. Ticks that were not flushed are lost: `end_run` or `flush` first."""
        self._write.dispose()
        self._read.dispose()

    # ---------------------------------------------------------------- keeping a run

    def begin_run(self, start: RunStart, session: Session | None = None) -> None:
        """Makes the run exist; what is kept from now on is its own, until `end_run`. Raises StoreError when it exists."""
        self._free_for(start.id)
        first = session or Session(start.host, "", start.pid, "", start.operator, start.started, 0.0, 0.0)
        values = {**asdict(start), "waivers": list(start.waivers), "status": RUNNING}
        with self._writing() as connection:
            connection.execute(insert(tables.run).values(values))
            connection.execute(insert(tables.session).values(run=start.id, **asdict(first)))
        self._kept = _Kept(start.id, _settle(start.config))

    def continue_run(self, run: str, session: Session, config: Mapping[str, Any], left: str | None = None) -> float:
        """Goes on with a run that was stopped or whose controller is gone: the run second at which it had ended.

        What it was in the middle of is closed as ABORTED, but for stage `left`, which may be going on. `config` takes the place
        of the run's own: it may differ in the rack's addresses and build record. The session's number must be the next one: two
        who try are told apart by it.
        """
        self._free_for(run)
        with self._writing() as connection:
            newest = queries.sessions(connection, run)
            if session.number != (newest[-1].number if newest else 0) + 1:
                raise StoreError(f"run {run} was taken on by another controller just now ({newest[-1].host})")
            last_s = queries.last_moment(connection, run)
            s, st = tables.session, tables.stage
            connection.execute(update(s).where((s.c.run == run) & s.c.t1_s.is_(None)).values(t1_s=last_s))
            cut = {"t1_s": func.max(last_s, st.c.t0_s), "status": Status.ABORTED, "why": "its controller was gone"}
            open_ = (st.c.run == run) & st.c.t1_s.is_(None) & (st.c.name != (left or ""))
            connection.execute(update(st).where(open_).values(cut))
            connection.execute(insert(s).values(run=run, **asdict(session)))
            now = {"status": RUNNING, "ended": None, "host": session.host, "pid": session.pid, "config": dict(config)}
            connection.execute(update(tables.run).where(tables.run.c.id == run).values(now))
            places = queries.places(connection, run)
        self._kept = _Kept(run, _settle(config), session.number, windows=set(open_windows(self._read, run)), places=places)
        return last_s

    def void(self, voided: Iterable[Voided]) -> None:
        """Parts that were replaced since: what was kept of them no longer counts, and stays."""
        kept = self._current()
        with self._writing() as connection:
            for one in voided:
                connection.execute(insert(tables.voided).values(run=kept.id, **asdict(one)))
                part = tables.absence.c.part
                below = (part == one.part) | part.startswith(f"{one.part}.", autoescape=True)
                connection.execute(delete(tables.absence).where((tables.absence.c.run == kept.id) & below))

    def keep(self, items: Iterable[Item]) -> None:
        """Takes what flows, in order. Ticks wait in memory until they are due; all else is on the disk at return."""
        kept = self._current()
        lines, states, stages = [], [], []
        heard: set[str] = set()
        for item in items:
            match item:
                case Tick():
                    kept.hot.add(item)
                case LogLine():
                    lines.append({"run": kept.id, **asdict(item)})
                    if item.seq is not None and (tray := tray_of(item.part)) in kept.places:
                        kept.places[tray] = replace(kept.places[tray], logged_seq=item.seq)
                        heard.add(tray)
                case TrayState():
                    states.append({"run": kept.id, **asdict(item)})
                case Attached():
                    _attached(kept, item)
                case _:
                    stages.append(item)
        if kept.hot.due or lines or states or stages:
            with self._writing() as connection:
                for table, rows in ((tables.log, lines), (tables.tray_state, states)):
                    if rows:
                        connection.execute(insert(table), rows)
                for stage in stages:
                    _keep_stage(connection, kept, stage)
                _keep_places(connection, kept, heard)
                if kept.hot.due:
                    _keep_ticks(connection, kept)
            if kept.hot.due:
                kept.hot.clear()
        self._compact_one(kept)

    def flush(self) -> None:
        """Puts on the disk what waits in memory, if anything does."""
        kept = self._kept
        if kept is None or kept.hot.empty:
            return
        with self._writing() as connection:
            _keep_ticks(connection, kept)
        kept.hot.clear()

    def keep_tray(self, tray: Tray) -> None:
        """Who answers as this tray, now; takes the place of what was known before."""
        run = self._current().id
        with self._writing() as connection:
            connection.execute(delete(tables.tray).where((tables.tray.c.run == run) & (tables.tray.c.part == tray.part)))
            connection.execute(insert(tables.tray).values(run=run, **asdict(tray)))

    def keep_evidence(self, evidence: Evidence) -> None:
        """What one round of a check brought back."""
        form, body = queries.make_body(evidence.body)
        with self._writing() as connection:
            row = {**asdict(evidence), "run": self._current().id, "form": form, "body": body}
            connection.execute(insert(tables.evidence).values(row))

    def end_attempt(self, attempt: Attempt, evidence: Sequence[Evidence] = ()) -> None:
        """How one try of a check ended, with what its rounds brought back: all or nothing. Each can end once."""
        run = self._current().id
        with self._writing() as connection:
            for one in evidence:
                form, body = queries.make_body(one.body)
                connection.execute(insert(tables.evidence).values({**asdict(one), "run": run, "form": form, "body": body}))
            connection.execute(insert(tables.step).values(run=run, **asdict(attempt)))

    def end_run(self, run: str, ended: str, status: str) -> None:
        """Closes a run, also one that another process left behind; its ticks become blocks and rollups."""
        kept = self._kept if self._kept is not None and self._kept.id == run else None
        with self._writing() as connection:
            if kept is not None:
                _keep_ticks(connection, kept)
            connection.execute(update(tables.run).where(tables.run.c.id == run).values(ended=ended, status=status))
            over = (tables.session.c.run == run) & tables.session.c.t1_s.is_(None)
            last_s = queries.last_moment(connection, run)
            connection.execute(update(tables.session).where(over).values(t1_s=last_s))
        if kept is not None:
            self._kept = None
        with told(self.path):
            for window in open_windows(self._read, run):
                compact(self._write, self._read, run, window)

    def keep_verdict(self, verdict: Verdict, canonical: str) -> None:
        """What is said about a run, with its measurements, findings and holds; takes the place of what was said before."""
        run = verdict.run
        measurements = [
            {"run": run, "stage": step.stage, "step": step.name, "step_part": step.part, **_measured(asdict(one))}
            for step in verdict.steps
            for one in step.measurements
        ]
        findings = [{"run": run, **_bounded(asdict(one))} for one in verdict.findings]
        holds = [{"run": run, **asdict(one)} for one in verdict.holds]
        said = {"run": run, "word": verdict.word, "canonical": canonical, "derived_at": self._clock()}
        with self._writing() as connection:
            for table, rows in (
                (tables.measurement, measurements),
                (tables.finding, findings),
                (tables.hold, holds),
                (tables.verdict, [said]),
            ):
                connection.execute(delete(table).where(table.c.run == run))
                if rows:
                    connection.execute(insert(table), rows)

    def keep_enrollment(self, enrollment: Enrollment) -> None:
        """A host key that a person accepted."""
        with self._writing() as connection:
            connection.execute(insert(tables.enrollment).values(asdict(enrollment)))

    # ---------------------------------------------------------------- asking

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        with self._reading() as connection:
            return queries.runs(connection)

    def run(self, name: str) -> Run:
        """The run with this id, the beginning of one, or `last`. Raises InputError when that is none, or several."""
        with self._reading() as connection:
            if name == "last":
                latest = queries.last(connection)
                if latest is None:
                    raise InputError(f"{self.path} holds no runs yet")
                return latest
            found = queries.starting_with(connection, name) if name else []
        if not found:
            raise InputError(f"{self.path} holds no run {name!r}: `burnin runs` lists them")
        if len(found) > 1:
            raise InputError(
                f"{name!r} begins {len(found)} runs ({', '.join(run.id for run in found[-3:])} ...): give more of it"
            )
        return found[0]

    def last_run(self, rack: str, suite: str | None = None) -> Run | None:
        """The rack's latest run (of this suite), whatever became of it."""
        with self._reading() as connection:
            return queries.last(connection, rack, suite)

    def config(self, run: str) -> dict[str, Any]:
        """The run's own copy of rack, profile, suite, catalogue and versions."""
        with self._reading() as connection:
            return queries.config(connection, run)

    def trays(self, run: str) -> list[Tray]:
        """Who answered, in order of part."""
        with self._reading() as connection:
            return queries.trays(connection, run)

    def stages(self, run: str) -> list[Stage]:
        """Stages as they went, in order."""
        with self._reading() as connection:
            return queries.stages(connection, run)

    def sessions(self, run: str) -> list[Session]:
        """Who kept the run when, in order."""
        with self._reading() as connection:
            return queries.sessions(connection, run)

    def places(self, run: str) -> dict[str, Place]:
        """How far each tray was heard."""
        with self._reading() as connection:
            return queries.places(connection, run)

    def voided(self, run: str) -> list[Voided]:
        """Parts that were replaced during the run, in order."""
        with self._reading() as connection:
            return queries.voided(connection, run)

    def last_moment(self, run: str) -> float:
        """The latest run second of which anything was kept."""
        with self._reading() as connection:
            return queries.last_moment(connection, run)

    def attempts(self, run: str) -> list[Attempt]:
        """Every try of every check, in the order in which they ended."""
        with self._reading() as connection:
            return queries.attempts(connection, run)

    def evidence(self, run: str) -> list[Evidence]:
        """Everything that checks brought back, in order."""
        with self._reading() as connection:
            return queries.evidence(connection, run)

    def log(self, run: str) -> list[LogLine]:
        """What happened, by time."""
        with self._reading() as connection:
            return queries.log(connection, run)

    def states(self, run: str) -> list[TrayState]:
        """What became of each tray, in order."""
        with self._reading() as connection:
            return queries.states(connection, run)

    def telemetry(self, run: str, parts: Collection[str] | None = None, metrics: Collection[str] | None = None) -> Telemetry:
        """Everything that was read and is on the disk, bit for bit, or only these parts and metrics."""
        with self._reading() as connection:
            return queries.telemetry(connection, run, parts, metrics)

    def rollups(self, run: str, metric: str, part: str | None = None) -> dict[str, list[Rollup]]:
        """Minutes of one metric, by part, of what is compacted."""
        with self._reading() as connection:
            return queries.rollups(connection, run, metric, part)

    def verdict(self, run: str) -> str | None:
        """The canonical JSON, letter for letter; None when no verdict was derived."""
        with self._reading() as connection:
            return queries.verdict(connection, run)

    def enrollments(self, rack: str) -> list[Enrollment]:
        """Host keys accepted for this rack, in order."""
        with self._reading() as connection:
            return queries.enrollments(connection, rack)

    # ---------------------------------------------------------------- inside

    def _free_for(self, run: str) -> None:
        if self._kept is not None:
            raise StoreError(f"run {self._kept.id} is still being kept: end it before {run} begins")

    def _current(self) -> _Kept:
        if self._kept is None:
            raise StoreError("no run is being kept: begin one first")
        return self._kept

    def _compact_one(self, kept: _Kept) -> None:
        """At most one window, so that a rack's worth of them does not stop the writer at once."""
        over = [w for w in kept.windows if (w[1] + 1) * WINDOW_MS + _LATE_MS <= kept.hot.newest_ms]
        if over:
            window = min(over, key=lambda w: (w[1], w[0]))
            with told(self.path):
                compact(self._write, self._read, kept.id, window)
            kept.windows.discard(window)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with told(self.path), self._write.begin() as connection:
            if self._kept is not None:
                _still_ours(connection, self._kept)
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with told(self.path), self._read.begin() as connection:
            yield connection


def _settle(config: Mapping[str, Any]) -> dict[str, float]:
    """Seconds left out of statistics at the start of each stage, from the suite that the run carries."""
    suite = config.get("suite") or {}
    return {stage["stage"]: seconds(stage.get("settle", "0 s")) for stage in suite.get("stages", ())}


def _still_ours(connection: Connection, kept: _Kept) -> None:
    """A controller that was frozen while another took its run on must not write into it any more."""
    newest = connection.execute(select(func.max(tables.session.c.number)).where(tables.session.c.run == kept.id)).scalar()
    if newest is not None and newest != kept.session:
        raise StoreError(f"run {kept.id} was taken on by another controller: this one keeps nothing more")


def _attached(kept: _Kept, item: Attached) -> None:
    """From now on the tray's records are numbered by this holder; what an earlier one said is kept as far as it came."""
    if item.tray not in kept.places or kept.places[item.tray].holder != item.holder:
        kept.places[item.tray] = Place(item.holder)
        kept.hot.seen.pop(item.tray, None)


def _keep_places(connection: Connection, kept: _Kept, trays: Iterable[str]) -> None:
    place = tables.place
    for tray in trays:
        key = {"run": kept.id, "tray": tray}
        connection.execute(delete(place).filter_by(**key))
        connection.execute(insert(place).values(**key, **asdict(kept.places[tray])))


def _keep_stage(connection: Connection, kept: _Kept, event: Item) -> None:
    stage = tables.stage
    if isinstance(event, StageBegan):
        if kept.settle_s and event.name not in kept.settle_s:
            raise StoreError(f"run {kept.id} begins a stage {event.name!r} that its suite does not have")
        row = {"position": event.index, "name": event.name, "phase": event.phase or None, "planned_s": event.planned_s}
        row["trays"] = list(event.trays) if event.trays is not None else None
        going_on = (stage.c.run == kept.id) & stage.c.t1_s.is_(None) & (stage.c.t0_s == event.t_s)
        if connection.execute(select(stage.c.id).where(going_on & (stage.c.position == event.index))).first():
            return  # an earlier session began it
        timing = {"settle_s": kept.settle_s.get(event.name, 0.0), "t0_s": event.t_s, "why": ""}
        connection.execute(insert(stage).values(run=kept.id, **row, **timing))
    elif isinstance(event, StageEnded):
        began = (stage.c.run == kept.id) & (stage.c.position == event.index) & stage.c.t1_s.is_(None)
        number = connection.execute(select(func.max(stage.c.id)).where(began)).scalar()
        ended = {"t1_s": event.t_s, "status": event.status, "why": event.why}
        if number is not None:
            connection.execute(update(stage).where(stage.c.id == number).values(ended))
        else:  # it was skipped: never begun, and over at once
            row = {"position": event.index, "name": event.name, "planned_s": 0.0, "settle_s": 0.0, "t0_s": event.t_s}
            connection.execute(insert(stage).values(run=kept.id, **row, **ended))
    else:
        raise TypeError(f"{event!r} is nothing that a run keeps")


def _keep_ticks(connection: Connection, kept: _Kept) -> None:
    frames = kept.hot.frames()
    if frames:
        rows = [{"run": kept.id, "tray": f.tray, "t0_ms": f.t0_ms, "t1_ms": f.t1_ms, "body": f.body} for f in frames]
        connection.execute(insert(tables.telemetry_frame), rows)
    absence = tables.absence
    for (part, metric), reason in kept.hot.absences().items():
        key = {"run": kept.id, "part": part, "metric": metric}
        connection.execute(delete(absence).filter_by(**key))
        connection.execute(insert(absence).values(**key, reason=reason))
    heard = [tray for tray in kept.hot.seen if tray in kept.places]
    for tray in heard:
        kept.places[tray] = replace(kept.places[tray], seq=kept.hot.seen[tray])
    _keep_places(connection, kept, heard)
    kept.windows |= {(frame.tray, frame.t0_ms // WINDOW_MS) for frame in frames}


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    value = row["value"]
    row["bound"] = row.pop("limit")
    text = value if isinstance(value, str) else None
    return {**row, "value": None if text is not None else value, "text": text}


def _bounded(row: dict[str, Any]) -> dict[str, Any]:
    row["bound"] = row.pop("limit")
    return row
