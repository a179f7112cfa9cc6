"""Plans and measurements."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "plans",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("reply", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("plans_by_age", "plans", ["created_at"])
    op.create_table(
        "measurements",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("plan_id", sa.Text),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("torch", sa.Text, nullable=False),
        sa.Column("budget_bytes", sa.BigInteger, nullable=False),
        sa.Column("projected_peak_bytes", sa.BigInteger, nullable=False),
        sa.Column("measured_peak_bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds_per_iteration", sa.Float, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("report", sa.LargeBinary, nullable=False),
    )
    op.create_index("measurements_by_plan", "measurements", ["plan_id"])
    op.create_index("measurements_by_job", "measurements", ["job"])


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("measurements")
    op.drop_table("plans")
