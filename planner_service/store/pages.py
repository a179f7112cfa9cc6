"""Pages of a table, the latest rows first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Row, Select, Table


def latest_rows(
    engine: Engine,
    query: Select[Any],
    table: Table,
    *,
    limit: int,
    before: int | None = None,
    **wanted: object | None,
) -> tuple[Sequence[Row[Any]], str | None]:
    """At most `limit` rows of `query`, those numbered below `before`; and the cursor of the next page.

    `wanted` are values of columns of `table`; None wants any. The cursor is the number of the last row that
    is shown, None on the last page.
    """
    for name, value in wanted.items():
        query = query if value is None else query.where(table.c[name] == value)
    if before is not None:
        query = query.where(table.c.number < before)
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.number.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    return shown, str(shown[-1].number) if len(rows) > limit else None
