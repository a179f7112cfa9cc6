"""An index that orders the queue also before the database has statistics; the budget that ran out last."""

import sqlalchemy as sa
from alembic import op

from planner_service.store.migrations.columns import optional

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Put the index of all jobs by state in the place of the partial one, and add the column."""
    op.drop_index("jobs_queue", "jobs")
    op.create_index("jobs_queue", "jobs", ["state", "queue_rank", "number"])
    for column in optional(sa.BigInteger, "exhausted_bytes"):
        op.add_column("jobs", column)


def downgrade() -> None:
    """The partial index again, and no column."""
    op.drop_column("jobs", "exhausted_bytes")
    op.drop_index("jobs_queue", "jobs")
    queued = sa.text("state = 'queued'")
    op.create_index(
        "jobs_queue", "jobs", ["queue_rank", "number"], sqlite_where=queued, postgresql_where=queued
    )
