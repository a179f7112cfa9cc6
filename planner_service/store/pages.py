"""Pages of a table, the latest rows first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Engine, Row, Select, Table

MOST_BYTES = 4 * 2**20
"""Of the documents and texts in a page: the row that exceeds it is the last, however many were asked for. A
report may have megabytes of losses, and all of a page is read, checked and written again in memory.
"""
ROWS_AT_A_TIME = 20


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
    query = query.order_by(table.c.number.desc()).limit(limit + 1)
    query = query.execution_options(yield_per=ROWS_AT_A_TIME)
    with engine.connect() as connection, connection.execute(query) as rows:
        shown, has_more = page_of(rows, limit)
    return shown, str(shown[-1].number) if has_more else None


def page_of(rows: Iterable[Row[Any]], limit: int) -> tuple[Sequence[Row[Any]], bool]:
    """At most `limit` of the rows, fewer where they hold MOST_BYTES; and whether there are more."""
    shown: list[Row[Any]] = []
    used_bytes = 0
    for row in rows:
        if len(shown) == limit or used_bytes >= MOST_BYTES:
            return shown, True
        shown.append(row)
        used_bytes += sum(len(value) for value in row if isinstance(value, bytes | str))
    return shown, False
