"""The tables of jobs, as the queries see them; children refer to a job by its number."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, Table, Text, text

from planner_service.store.tables import metadata

IS_LIVE = text("state IN ('assigned', 'running')")
"""The condition of a partial index. Queries use it in these very words, not with parameters: with those
neither database can tell that the index serves."""

jobs = Table(
    "jobs",
    metadata,
    # SQLite numbers rows by itself only in a column of exactly this type.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),  # canonical JSON
    Column("submitted_by", Text, nullable=False),
    Column("queue_rank", Integer, nullable=False),  # the negative priority: one ascending index serves
    Column("engine", Text, nullable=False),
    Column("maximum_failures", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("detail", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("budget", Text, nullable=False),  # digits for bytes, else "5%" or "free"
    Column("is_tightened", Boolean, nullable=False),
    Column("cpu_held_bytes", BigInteger, nullable=False),
    Column("cpu_least_bytes", BigInteger, nullable=False),
    Column("cpu_needed_bytes", BigInteger, nullable=False),
    Column("cuda_held_bytes", BigInteger, nullable=False),
    Column("cuda_least_bytes", BigInteger, nullable=False),
    Column("cuda_needed_bytes", BigInteger, nullable=False),
    Column("granted_bytes", BigInteger),
    Column("exhausted_bytes", BigInteger),  # the budget that ran out of memory last
    Column("handovers", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempt_open", Boolean, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("node", Text),
    Column("engine_reference", Text),
    Column("launch_hash", Text),
    Column("renewals", BigInteger, nullable=False),
    Column("iteration", BigInteger, nullable=False),
    Column("loss", Float),
    Column("measurement_id", Text),
    Column("event_count", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),  # Unix seconds, for people: nothing is decided by it
    Column("updated_at", Float, nullable=False),
    Index("jobs_queue", "state", "queue_rank", "number"),
    Index("jobs_live", "number", sqlite_where=IS_LIVE, postgresql_where=IS_LIVE),
    Index("jobs_by_state", "state", "number"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("token_hash", Text, nullable=False),
    Column("node", Text),
    Column("engine_reference", Text),
    Column("opened_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("memory_used_bytes", BigInteger),
    Column("ended_at", Float),
    Column("outcome", Text),
    Column("detail", Text),
    Column("budget_bytes", BigInteger),
    Column("excess_bytes", BigInteger),
    Column("measurement_id", Text),
    Column("report_digest", Text),  # of the accepted report: the same one again is the same answer
    Index("attempts_by_token", "token_hash"),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("event", LargeBinary, nullable=False),  # JSON as it is sent
)

job_logs = Table(
    "job_logs",
    metadata,
    Column("job", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("line", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("text", Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("device_kind", Text, nullable=False),
    Column("memory_free_bytes", BigInteger, nullable=False),
    Column("registration", LargeBinary, nullable=False),  # JSON
    Column("registered_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_digest", Text, nullable=False),
    Column("job", BigInteger, nullable=False),
    Index("idempotency_keys_by_job", "job"),
)
