"""Jobs, their attempts, events and logs; nodes; idempotency keys."""

import sqlalchemy as sa
from alembic import op

from planner_service.store.migrations.columns import (
    Columns,
    key,
    optional,
    public_id,
    required,
    row_number,
)

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the six tables."""
    _make_jobs()
    _make_attempts()
    _make_events_and_logs()
    _make_nodes()
    _make_idempotency_keys()
    op.create_index("measurements_by_age", "measurements", ["received_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("measurements_by_age", "measurements")
    for name in ("idempotency_keys", "nodes", "job_logs", "job_events", "attempts", "jobs"):
        op.drop_table(name)


def _make_jobs() -> None:
    op.create_table("jobs", *_asked(), *_budget(), *_progress())
    queued, live = sa.text("state = 'queued'"), sa.text("state IN ('assigned', 'running')")
    op.create_index(
        "jobs_queue", "jobs", ["queue_rank", "number"], sqlite_where=queued, postgresql_where=queued
    )
    op.create_index("jobs_live", "jobs", ["number"], sqlite_where=live, postgresql_where=live)
    op.create_index("jobs_by_state", "jobs", ["state", "number"])


def _asked() -> Columns:
    """What was asked for, and what became of it."""
    return [
        row_number(),
        public_id(),
        *required(sa.Text, "name"),
        *required(sa.LargeBinary, "request"),
        *required(sa.Text, "submitted_by"),
        *required(sa.Integer, "queue_rank"),
        *required(sa.Text, "engine"),
        *required(sa.Integer, "maximum_failures"),
        *required(sa.Text, "state"),
        *optional(sa.Text, "reason", "detail"),
        *required(sa.Boolean, "cancel_requested"),
    ]


def _budget() -> Columns:
    """What the job may take, and what it needs of a node of each kind."""
    return [
        *required(sa.Text, "budget"),
        *required(sa.Boolean, "is_tightened"),
        *required(sa.BigInteger, "cpu_held_bytes", "cpu_least_bytes", "cpu_needed_bytes"),
        *required(sa.BigInteger, "cuda_held_bytes", "cuda_least_bytes", "cuda_needed_bytes"),
        *optional(sa.BigInteger, "granted_bytes"),
    ]


def _progress() -> Columns:
    """Who runs it, and how far it has come."""
    return [
        *required(sa.Integer, "handovers", "attempt"),
        *required(sa.Boolean, "attempt_open"),
        *required(sa.Integer, "failures"),
        *optional(sa.Text, "node", "engine_reference", "launch_hash"),
        *required(sa.BigInteger, "renewals", "iteration"),
        *optional(sa.Float, "loss"),
        *optional(sa.Text, "measurement_id"),
        *required(sa.BigInteger, "event_count"),
        *required(sa.Float, "created_at", "updated_at"),
    ]


def _make_attempts() -> None:
    op.create_table(
        "attempts",
        *key(sa.BigInteger, "job"),
        *key(sa.Integer, "number"),
        *required(sa.Text, "token_hash"),
        *optional(sa.Text, "node", "engine_reference"),
        *required(sa.Float, "opened_at", "heartbeat_at"),
        *optional(sa.BigInteger, "memory_used_bytes"),
        *optional(sa.Float, "ended_at"),
        *optional(sa.Text, "outcome", "detail"),
        *optional(sa.BigInteger, "budget_bytes", "excess_bytes"),
        *optional(sa.Text, "measurement_id", "report_digest"),
    )


def _make_events_and_logs() -> None:
    op.create_table(
        "job_events",
        *key(sa.BigInteger, "job", "number"),
        *required(sa.Text, "kind"),
        *required(sa.LargeBinary, "event"),
    )
    op.create_table(
        "job_logs",
        *key(sa.BigInteger, "job"),
        *key(sa.Integer, "attempt"),
        *key(sa.BigInteger, "line"),
        *required(sa.Float, "at"),
        *required(sa.Text, "text"),
    )


def _make_nodes() -> None:
    op.create_table(
        "nodes",
        *key(sa.Text, "name"),
        *required(sa.Text, "device_kind"),
        *required(sa.BigInteger, "memory_free_bytes"),
        *required(sa.LargeBinary, "registration"),
        *required(sa.Float, "registered_at", "seen_at"),
    )


def _make_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        *key(sa.Text, "caller", "key"),
        *required(sa.Text, "request_digest"),
        *required(sa.BigInteger, "job"),
    )
    op.create_index("idempotency_keys_by_job", "idempotency_keys", ["job"])
