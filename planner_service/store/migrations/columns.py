"""Column shapes that the migrations share, so that each of them is a list of names.

Frozen, as the migrations are: databases exist that were made with these shapes, and a migration has to make
tomorrow what it made then. Nothing here may change; a migration that needs another shape adds a function.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

Kind = type[TypeEngine[Any]]
Columns = list[sa.Column[Any]]


def row_number() -> sa.Column[int]:
    """The key `number`, counted up by the database: SQLite does so only in a column of exactly this type."""
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("number", kind, primary_key=True, autoincrement=True)


def public_id() -> sa.Column[str]:
    """The key that the world knows a numbered row by."""
    return sa.Column("id", sa.Text, nullable=False, unique=True)


def key(kind: Kind, *names: str) -> Columns:
    """Columns of the primary key whose values come from the program."""
    return [sa.Column(name, kind, primary_key=True, autoincrement=False) for name in names]


def required(kind: Kind, *names: str) -> Columns:
    """Columns that always have a value."""
    return [sa.Column(name, kind, nullable=False) for name in names]


def optional(kind: Kind, *names: str) -> Columns:
    """Columns that may be NULL."""
    return [sa.Column(name, kind) for name in names]
