"""Pages end where they hold enough, however many rows were asked for, and the next one goes on there."""

from __future__ import annotations

import pytest

from planner_service.contract.attempts import LogChunk
from planner_service.store import pages
from tests.store.desk import Desk, call_of


def read_through(read):
    """What each page of `read(cursor)` holds, up to the last."""
    found, cursor = [], None
    while True:
        shown, cursor = read(cursor)
        found.append(shown)
        if cursor is None:
            return found


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(pages, "MOST_BYTES", 1000)


def test_log_lines_of_any_length(desk: Desk):
    """Ten thousand of four thousand characters were forty megabytes in one answer"""
    desk.node()
    job, attempt = desk.submit(), desk.take()
    lines = ["x" * 400, "x" * 601, "y" * 4000, "short", "short"]
    desk.attempts.add_logs(call_of(attempt), LogChunk(first_line=1, lines=lines))

    def read(cursor):
        last_attempt, _, last_line = (cursor or "0.0").partition(".")
        page = desk.history.logs(job.id, limit=100, after=(int(last_attempt), int(last_line)))
        return [line.text for line in page.lines], page.next_cursor

    assert read_through(read) == [lines[:2], lines[2:3], lines[3:]]


def test_nodes_that_have_much_to_say(desk: Desk):
    for name in "abcd":
        desk.node(name, facts={"note": "x" * (900 if name in "bd" else 10)})

    def read(cursor):
        page = desk.nodes.page(limit=100, after=cursor or "")
        return [node.name for node in page.nodes], page.next_cursor

    assert read_through(read) == [["a", "b"], ["c", "d"]]
