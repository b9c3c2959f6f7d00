"""Views for people with a plain `sqlite3`."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""CREATE VIEW rollup AS
        SELECT s.run, s.part, s.metric, r.t0_s, r.t0_s + 60 * r.minutes AS t1_s, r.n,
               r.low AS min, r.total / r.n AS mean, r.high AS max
        FROM rollup_row AS r JOIN series AS s ON s.id = r.series""")
    op.execute("""CREATE VIEW v_runs AS
        SELECT r.number, r.id, r.rack, r.profile, r.suite, r.operator, r.started, r.ended, r.status, v.word
        FROM run AS r LEFT JOIN verdict AS v ON v.run = r.id""")
    op.execute("""CREATE VIEW v_measurements AS
        SELECT r.rack, m.run, m.stage, m.step, m.name, m.part, m.value, m.text, m.unit, m.bound,
               m.result, m.reason, m.why
        FROM measurement AS m JOIN run AS r ON r.id = m.run""")
