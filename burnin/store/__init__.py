"""What was run, read and said, in one SQLite file: the only place that speaks SQL.

Importing this imports SQLAlchemy, which is dear: commands import it inside.
"""

from burnin.store.opening import open_store
from burnin.store.records import (
    REFUSED,
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
from burnin.store.store import Store
from burnin.store.writer import Writer

__all__ = [
    "REFUSED",
    "RUNNING",
    "Attempt",
    "Enrollment",
    "Evidence",
    "Place",
    "Run",
    "RunStart",
    "Session",
    "Stage",
    "Store",
    "Tray",
    "Voided",
    "Writer",
    "open_store",
]
