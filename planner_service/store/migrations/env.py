"""Alembic's entry: runs the migrations on the connection that `store.database.migrate` hands over."""

from alembic import context

from planner_service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
