"""Run by alembic: the revisions on the connection that `burnin.store.migrate` hands over, in its one transaction."""

from alembic import context

from burnin.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
