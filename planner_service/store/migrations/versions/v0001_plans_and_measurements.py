"""Plans and measurements."""

import sqlalchemy as sa
from alembic import op

from planner_service.store.migrations.columns import key, optional, public_id, required, row_number

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "plans",
        *key(sa.Text, "id"),
        *required(sa.LargeBinary, "request", "reply"),
        *required(sa.Float, "created_at"),
    )
    op.create_index("plans_by_age", "plans", ["created_at"])
    op.create_table(
        "measurements",
        row_number(),
        public_id(),
        *required(sa.Text, "job"),
        *optional(sa.Text, "plan_id"),
        *required(sa.Text, "device", "torch"),
        *required(sa.BigInteger, "budget_bytes", "projected_peak_bytes", "measured_peak_bytes"),
        *required(sa.Float, "seconds_per_iteration", "received_at"),
        *required(sa.LargeBinary, "report"),
    )
    op.create_index("measurements_by_plan", "measurements", ["plan_id"])
    op.create_index("measurements_by_job", "measurements", ["job"])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("measurements")
    op.drop_table("plans")
