"""Profiles, and the residuals of measured peaks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "profiles",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("device_name", sa.Text, nullable=False),
        sa.Column("torch", sa.Text, nullable=False),
        sa.Column("cell", sa.Text, nullable=False),
        sa.Column("implementation", sa.Text, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
    )
    family = ["device_name", "cell", "implementation", "dtype"]
    op.create_index("profiles_by_family", "profiles", family)
    op.create_index("profiles_by_subject", "profiles", ["device_name", "subject"])
    op.create_table(
        "residuals",
        sa.Column("measurement_id", sa.Text, primary_key=True),
        sa.Column("device_name", sa.Text, nullable=False),
        sa.Column("cell", sa.Text, nullable=False),
        sa.Column("implementation", sa.Text, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("segment_steps", sa.Integer, nullable=False),
        sa.Column("projected_bytes", sa.BigInteger, nullable=False),
        sa.Column("measured_bytes", sa.BigInteger, nullable=False),
    )
    op.create_index("residuals_by_family", "residuals", family)


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("residuals")
    op.drop_table("profiles")
