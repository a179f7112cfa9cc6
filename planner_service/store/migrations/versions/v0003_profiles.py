"""Profiles, and the residuals of measured peaks."""

import sqlalchemy as sa
from alembic import op

from planner_service.store.migrations.columns import key, public_id, required, row_number

revision = "0003"
down_revision = "0002"

FAMILY = ["device_name", "cell", "implementation", "dtype"]


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "profiles",
        row_number(),
        public_id(),
        *required(sa.Text, "device_name", "torch", "cell", "implementation", "dtype", "subject"),
        *required(sa.Float, "received_at"),
        *required(sa.LargeBinary, "record"),
    )
    op.create_index("profiles_by_family", "profiles", FAMILY)
    op.create_index("profiles_by_subject", "profiles", ["device_name", "subject"])
    op.create_table(
        "residuals",
        *key(sa.Text, "measurement_id"),
        *required(sa.Text, *FAMILY),
        *required(sa.Integer, "segment_steps"),
        *required(sa.BigInteger, "projected_bytes", "measured_bytes"),
    )
    op.create_index("residuals_by_family", "residuals", FAMILY)


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("residuals")
    op.drop_table("profiles")
