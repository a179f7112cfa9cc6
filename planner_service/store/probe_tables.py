"""The table of probes that nodes are asked for."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, Table, Text

from planner_service.store.tables import metadata

probes = Table(
    "probes",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("node", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("request", LargeBinary, nullable=False),  # canonical JSON
    Column("handovers", Integer, nullable=False),
    Column("profile_id", Text),
    Column("detail", Text),
    Column("created_at", Float, nullable=False),  # Unix seconds, for people: nothing is decided by it
    Column("updated_at", Float, nullable=False),
    Index("probes_by_node", "node", "state", "number"),
)
