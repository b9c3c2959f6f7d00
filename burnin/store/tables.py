"""The tables of burnin.db: what a run was, what it did, what it read, and what was said about the rack.

Plain types only, so that the same tables stand on PostgreSQL. Names avoid SQL's own words (a limit is a `bound`, a
check's name is `step`), so that nobody has to quote anything in a plain `sqlite3`. Drawn in docs/schema.md.

A change here is a new revision under migrations/versions and a new last entry of REVISIONS.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
)

REVISIONS = ("0001", "0002", "0003")
"""Every revision of this schema, oldest first; a database is stamped with one of them."""


class Prose(TypeDecorator[str]):
    """Text from somebody else (kernel logs, tools, errors): what no database takes is written as its escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Lone surrogates and NULs become \\udc80, \\x00."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


metadata = MetaData()

alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table, written here so that a new database needs no alembic."""


def _of_run(**options: Any) -> Column[str]:
    """The run that a row belongs to; the row goes when the run goes."""
    return Column("run", String, ForeignKey("run.id", ondelete="CASCADE"), nullable=False, **options)


def _word(name: str, **options: Any) -> Column[str]:
    return Column(name, String, nullable=False, **options)


def _prose(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Prose, nullable=nullable)


def _real(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _whole(name: str, *, nullable: bool = False, **options: Any) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable, **options)


def _body() -> Column[bytes]:
    return Column("body", LargeBinary, nullable=False)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


run = Table(
    "run",
    metadata,
    Column("number", Integer, primary_key=True, comment="rises with time"),
    _word("id", unique=True),
    _word("rack"),
    _word("profile"),
    Column("suite", String),
    Column("ships", Boolean, nullable=False),
    Column("whole", Boolean, nullable=False),
    _word("operator"),
    _word("host"),
    Column("pid", Integer, nullable=False),
    _word("started"),
    Column("ended", String),
    _word("status"),
    Column("waivers", JSON, nullable=False),
    Column("config", JSON, nullable=False),
    Index("run_rack", "rack", "suite"),
)

session = Table(
    "session",
    metadata,
    _of_run(primary_key=True),
    Column("number", Integer, primary_key=True),
    _word("host"),
    _word("boot"),
    Column("pid", Integer, nullable=False),
    _word("pid_started"),
    _word("operator"),
    _word("started"),
    _real("mono_s"),
    _real("t0_s"),
    _real("t1_s", nullable=True),
    Column("rack", JSON, nullable=False),
)

place = Table(
    "place",
    metadata,
    _of_run(primary_key=True),
    _word("tray", primary_key=True),
    _word("holder"),
    _whole("seq"),
    _whole("logged_seq"),
)

voided = Table(
    "voided",
    metadata,
    _id(),
    _of_run(),
    _word("part"),
    _real("t_s"),
    _prose("why"),
    Index("voided_run", "run"),
)

tray = Table(
    "tray",
    metadata,
    _of_run(primary_key=True),
    _word("part", primary_key=True),
    _prose("address"),
    Column("host_key", String),
    _prose("serial", nullable=True),
    Column("identity", JSON, nullable=False),
)

stage = Table(
    "stage",
    metadata,
    _id(),
    _of_run(),
    Column("position", Integer, nullable=False),
    _word("name"),
    Column("phase", String),
    _real("planned_s"),
    _real("settle_s"),
    _real("t0_s"),
    _real("t1_s", nullable=True),
    Column("status", String),
    _prose("why"),
    Column("trays", JSON(none_as_null=True)),
    Index("stage_run", "run", "position"),
)

step = Table(
    "step",
    metadata,
    _id(),
    _of_run(),
    _word("stage"),
    _word("name"),
    _word("part"),
    Column("attempt", Integer, nullable=False),
    _word("status"),
    _word("result"),
    _prose("why"),
    _real("t0_s"),
    _real("t1_s"),
    UniqueConstraint("run", "stage", "name", "part", "attempt", name="step_once"),
)

evidence = Table(
    "evidence",
    metadata,
    _id(),
    _of_run(),
    _word("stage"),
    _word("step"),
    _word("part"),
    Column("attempt", Integer, nullable=False),
    Column("round", Integer, nullable=False),
    _word("kind"),
    _word("form"),
    _body(),
    Index("evidence_step", "run", "stage", "step", "part", "attempt"),
)

log = Table(
    "log",
    metadata,
    _id(),
    _of_run(),
    _word("part"),
    _real("t_s"),
    _word("kind"),
    _prose("code"),
    _prose("text"),
    _prose("source"),
    _whole("seq", nullable=True),
    Index("log_run", "run", "kind"),
)

tray_state = Table(
    "tray_state",
    metadata,
    _id(),
    _of_run(),
    _word("tray"),
    _real("t_s"),
    _word("state"),
    _prose("why"),
    Index("tray_state_run", "run", "tray"),
)

measurement = Table(
    "measurement",
    metadata,
    _id(),
    _of_run(),
    _word("stage"),
    _word("step"),
    _word("step_part"),
    _word("name"),
    _word("part"),
    _real("value", nullable=True),
    _prose("text", nullable=True),
    _word("unit"),
    _word("bound"),
    _word("result"),
    _prose("reason", nullable=True),
    _prose("why"),
    Index("measurement_run", "run", "part"),
)

finding = Table(
    "finding",
    metadata,
    _id(),
    _of_run(),
    _word("part"),
    _word("signature"),
    _word("severity"),
    _real("value", nullable=True),
    _real("bound", nullable=True),
    _word("unit"),
    _prose("why"),
    _prose("action"),
    _prose("fru"),
    _prose("serial"),
    _prose("slot"),
    _real("statistic", nullable=True),
    Column("evidence", JSON, nullable=False),
    Index("finding_run", "run"),
    Index("finding_serial", "serial"),
)

hold = Table(
    "hold",
    metadata,
    _id(),
    _of_run(),
    _word("kind"),
    _word("part"),
    _prose("why"),
    _prose("next"),
    Index("hold_run", "run"),
)

verdict = Table(
    "verdict",
    metadata,
    _of_run(primary_key=True),
    _word("word"),
    Column("canonical", Text, nullable=False),
    _word("derived_at"),
)

telemetry_frame = Table(
    "telemetry_frame",
    metadata,
    _id(),
    _of_run(),
    _word("tray"),
    _whole("t0_ms"),
    _whole("t1_ms"),
    _body(),
    Index("telemetry_frame_tray", "run", "tray", "t0_ms"),
)

telemetry_block = Table(
    "telemetry_block",
    metadata,
    _id(),
    _of_run(),
    _word("tray"),
    _whole("t0_ms"),
    _whole("t1_ms"),
    _body(),
    Index("telemetry_block_tray", "run", "tray", "t0_ms", unique=True),
)

series = Table(
    "series",
    metadata,
    _id(),
    _of_run(),
    _word("part"),
    _word("metric"),
    UniqueConstraint("run", "part", "metric", name="series_once"),
)

# Without rowid: the key is the row's place, so no index repeats it. That is a third of the bytes of these many rows.
rollup_row = Table(
    "rollup_row",
    metadata,
    Column("series", Integer, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True),
    _whole("t0_s", primary_key=True),
    Column("minutes", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    _real("low"),
    _real("total", nullable=True),
    _real("high"),
    sqlite_with_rowid=False,
)

absence = Table(
    "absence",
    metadata,
    _of_run(primary_key=True),
    _word("part", primary_key=True),
    _word("metric", primary_key=True),
    _prose("reason"),
)

enrollment = Table(
    "enrollment",
    metadata,
    _id(),
    _word("time"),
    _word("rack"),
    _word("part"),
    _prose("address"),
    Column("old_fingerprint", String),
    _word("new_fingerprint"),
    _prose("replaced_serial", nullable=True),
    _word("operator"),
    _word("host"),
    Index("enrollment_rack", "rack"),
)

VIEWS = {
    "rollup": """
        SELECT s.run, s.part, s.metric, r.t0_s, r.t0_s + 60 * r.minutes AS t1_s, r.n,
               r.low AS min, r.total / r.n AS mean, r.high AS max
        FROM rollup_row AS r JOIN series AS s ON s.id = r.series""",
    "v_runs": """
        SELECT r.number, r.id, r.rack, r.profile, r.suite, r.operator, r.started, r.ended, r.status, v.word
        FROM run AS r LEFT JOIN verdict AS v ON v.run = r.id""",
    "v_measurements": """
        SELECT r.rack, m.run, m.stage, m.step, m.name, m.part, m.value, m.text, m.unit, m.bound,
               m.result, m.reason, m.why
        FROM measurement AS m JOIN run AS r ON r.id = m.run""",
}
"""For people with a plain `sqlite3`; burnin itself reads the tables."""


@event.listens_for(metadata, "after_create")
def _create_views(_target: MetaData, connection: Connection, **_: Any) -> None:
    for name, query in VIEWS.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")
