"""A run may be continued: who kept it when, how far each tray was heard, what was replaced since."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _of_run(primary_key: bool = False) -> sa.Column[str]:
    run = sa.ForeignKey("run.id", ondelete="CASCADE")
    return sa.Column("run", sa.String, run, nullable=False, primary_key=primary_key)


def upgrade() -> None:
    op.create_table(
        "session",
        _of_run(primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("boot", sa.String, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("pid_started", sa.String, nullable=False),
        sa.Column("operator", sa.String, nullable=False),
        sa.Column("started", sa.String, nullable=False),
        sa.Column("mono_s", sa.Double, nullable=False),
        sa.Column("t0_s", sa.Double, nullable=False),
        sa.Column("t1_s", sa.Double),
        sa.Column("rack", sa.JSON, nullable=False),
    )
    op.create_table(
        "place",
        _of_run(primary_key=True),
        sa.Column("tray", sa.String, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("logged_seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "voided",
        sa.Column("id", sa.Integer, primary_key=True),
        _of_run(),
        sa.Column("part", sa.String, nullable=False),
        sa.Column("t_s", sa.Double, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Index("voided_run", "run"),
    )
    op.add_column("stage", sa.Column("trays", sa.JSON))
    op.add_column("log", sa.Column("seq", sa.BigInteger))
