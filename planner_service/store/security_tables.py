"""The tables of keys and of the audit log, as the queries see them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, Table, Text

from planner_service.store.tables import metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),  # words with spaces between
    Column("secret_hash", Text, nullable=False),  # SHA-256, hexadecimal
    Column("created_at", Float, nullable=False),  # Unix seconds, here and below
    Column("expires_at", Float),
    Column("revoked_at", Float),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    # SQLite numbers rows by itself only in a column of exactly this type.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("caller", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("request_id", Text, nullable=False),
    Index("audit_entries_by_caller", "caller", "number"),
    Index("audit_entries_by_age", "at"),
)
