"""The tables, as the queries see them. The migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

plans = Table(
    "plans",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request", LargeBinary, nullable=False),  # canonical JSON: what the id is a hash of
    Column("reply", LargeBinary, nullable=False),  # the very bytes that were first answered
    Column("created_at", Float, nullable=False),  # Unix seconds
    Index("plans_by_age", "created_at"),
)

measurements = Table(
    "measurements",
    metadata,
    # SQLite numbers rows by itself only in a column of exactly this type.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("job", Text, nullable=False),
    Column("plan_id", Text),
    Column("device", Text, nullable=False),
    Column("torch", Text, nullable=False),
    Column("budget_bytes", BigInteger, nullable=False),
    Column("projected_peak_bytes", BigInteger, nullable=False),
    Column("measured_peak_bytes", BigInteger, nullable=False),
    Column("seconds_per_iteration", Float, nullable=False),
    Column("received_at", Float, nullable=False),  # Unix seconds
    Column("report", LargeBinary, nullable=False),  # the whole report as canonical JSON
    Index("measurements_by_plan", "plan_id"),
    Index("measurements_by_job", "job"),
    Index("measurements_by_age", "received_at"),
)
