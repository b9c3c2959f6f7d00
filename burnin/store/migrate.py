"""Brings an older database to today's schema. Imports alembic, which is dear: import this only when there is work."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Runs the missing revisions inside the connection's transaction: all of them, or none."""
    config = Config()
    config.set_main_option("script_location", "burnin.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
