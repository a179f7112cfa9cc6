"""Probes that nodes are asked for."""

import sqlalchemy as sa
from alembic import op

from planner_service.store.migrations.columns import optional, public_id, required, row_number

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "probes",
        row_number(),
        public_id(),
        *required(sa.Text, "node", "state"),
        *required(sa.LargeBinary, "request"),
        *required(sa.Integer, "handovers"),
        *optional(sa.Text, "profile_id", "detail"),
        *required(sa.Float, "created_at", "updated_at"),
    )
    op.create_index("probes_by_node", "probes", ["node", "state", "number"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("probes")
