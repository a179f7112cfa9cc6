"""API keys, the audit log, and attempts found by their token."""

import sqlalchemy as sa
from alembic import op

from planner_service.store.migrations.columns import key, optional, required, row_number

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make both tables and the index."""
    op.create_table(
        "api_keys",
        *key(sa.Text, "id"),
        *required(sa.Text, "name", "scopes", "secret_hash"),
        *required(sa.Float, "created_at"),
        *optional(sa.Float, "expires_at", "revoked_at"),
    )
    op.create_table(
        "audit_entries",
        row_number(),
        *required(sa.Float, "at"),
        *required(sa.Text, "caller", "address", "action", "subject"),
        *required(sa.Integer, "status"),
        *required(sa.Text, "request_id"),
    )
    op.create_index("audit_entries_by_caller", "audit_entries", ["caller", "number"])
    op.create_index("audit_entries_by_age", "audit_entries", ["at"])
    op.create_index("attempts_by_token", "attempts", ["token_hash"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("attempts_by_token", "attempts")
    op.drop_table("audit_entries")
    op.drop_table("api_keys")
