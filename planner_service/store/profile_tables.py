"""The tables of what calibrates: probes of models, and how their plans' peaks came out."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text

from planner_service.store.tables import metadata

_NUMBER = BigInteger().with_variant(Integer, "sqlite")

profiles = Table(
    "profiles",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("device_name", Text, nullable=False),
    Column("torch", Text, nullable=False),
    Column("cell", Text, nullable=False),
    Column("implementation", Text, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("subject", Text, nullable=False),  # hash of all that a request must match
    Column("received_at", Float, nullable=False),  # Unix seconds
    Column("record", LargeBinary, nullable=False),  # canonical JSON
    Index("profiles_by_family", "device_name", "cell", "implementation", "dtype"),
    Index("profiles_by_subject", "device_name", "subject"),
)

residuals = Table(
    "residuals",
    metadata,
    Column("measurement_id", Text, primary_key=True),
    Column("device_name", Text, nullable=False),
    Column("cell", Text, nullable=False),
    Column("implementation", Text, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("segment_steps", Integer, nullable=False),
    Column("projected_bytes", BigInteger, nullable=False),
    Column("measured_bytes", BigInteger, nullable=False),
    Index("residuals_by_family", "device_name", "cell", "implementation", "dtype"),
)
