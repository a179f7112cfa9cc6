"""Jobs, their attempts, events and logs; nodes; idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the six tables."""
    op.create_table(
        "jobs",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("submitted_by", sa.Text, nullable=False),
        sa.Column("queue_rank", sa.Integer, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("maximum_failures", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("budget", sa.Text, nullable=False),
        sa.Column("is_tightened", sa.Boolean, nullable=False),
        sa.Column("cpu_held_bytes", sa.BigInteger, nullable=False),
        sa.Column("cpu_least_bytes", sa.BigInteger, nullable=False),
        sa.Column("cpu_needed_bytes", sa.BigInteger, nullable=False),
        sa.Column("cuda_held_bytes", sa.BigInteger, nullable=False),
        sa.Column("cuda_least_bytes", sa.BigInteger, nullable=False),
        sa.Column("cuda_needed_bytes", sa.BigInteger, nullable=False),
        sa.Column("granted_bytes", sa.BigInteger),
        sa.Column("handovers", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("attempt_open", sa.Boolean, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("node", sa.Text),
        sa.Column("engine_reference", sa.Text),
        sa.Column("launch_hash", sa.Text),
        sa.Column("renewals", sa.BigInteger, nullable=False),
        sa.Column("iteration", sa.BigInteger, nullable=False),
        sa.Column("loss", sa.Float),
        sa.Column("measurement_id", sa.Text),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    queued, live = sa.text("state = 'queued'"), sa.text("state IN ('assigned', 'running')")
    op.create_index(
        "jobs_queue", "jobs", ["queue_rank", "number"], sqlite_where=queued, postgresql_where=queued
    )
    op.create_index("jobs_live", "jobs", ["number"], sqlite_where=live, postgresql_where=live)
    op.create_index("jobs_by_state", "jobs", ["state", "number"])
    op.create_table(
        "attempts",
        sa.Column("job", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token_hash", sa.Text, nullable=False),
        sa.Column("node", sa.Text),
        sa.Column("engine_reference", sa.Text),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.Float, nullable=False),
        sa.Column("memory_used_bytes", sa.BigInteger),
        sa.Column("ended_at", sa.Float),
        sa.Column("outcome", sa.Text),
        sa.Column("detail", sa.Text),
        sa.Column("budget_bytes", sa.BigInteger),
        sa.Column("excess_bytes", sa.BigInteger),
        sa.Column("measurement_id", sa.Text),
        sa.Column("report_digest", sa.Text),
    )
    op.create_table(
        "job_events",
        sa.Column("job", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("event", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "job_logs",
        sa.Column("job", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("line", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("device_kind", sa.Text, nullable=False),
        sa.Column("memory_free_bytes", sa.BigInteger, nullable=False),
        sa.Column("registration", sa.LargeBinary, nullable=False),
        sa.Column("registered_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("job", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_by_job", "idempotency_keys", ["job"])
    op.create_index("measurements_by_age", "measurements", ["received_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("measurements_by_age", "measurements")
    for name in ("idempotency_keys", "nodes", "job_logs", "job_events", "attempts", "jobs"):
        op.drop_table(name)
