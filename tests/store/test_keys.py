"""Keys and the audit log, in both kinds of database."""

from __future__ import annotations

from sqlalchemy import inspect

from planner_service.security import Scope, new_api_key
from planner_service.store import AuditStore, KeyStore
from planner_service.store.database import NEWEST_REVISION, migrate, schema_revision


def test_a_key_comes_back_as_it_was_kept_and_stays_when_revoked(engine):
    store = KeyStore(engine)
    _, key = new_api_key("ada", frozenset({Scope.READ, Scope.PLAN}), now=5, expires_at=9)
    store.add(key)
    assert store.all() == [key]
    assert store.revoke("unknown") is None
    revoked = store.revoke(key.id, now=7)
    assert revoked is not None
    assert revoked.revoked_at == 7
    assert store.revoke(key.id, now=8) == revoked
    assert store.all() == [revoked]


def test_audit_entries_come_in_pages_and_go_with_their_retention(engine):
    audit = AuditStore(engine)
    for number in range(5):
        audit.add(caller=f"c{number % 2}", action="submit_job", subject="/v1/jobs", now=float(number))
    first = audit.page(limit=2)
    assert [entry.at.timestamp() for entry in first.entries] == [4, 3]
    assert first.next_cursor is not None
    rest = audit.page(limit=5, before=int(first.next_cursor))
    assert [entry.at.timestamp() for entry in rest.entries] == [2, 1, 0]
    assert rest.next_cursor is None
    assert {entry.caller for entry in audit.page(limit=5, caller="c1").entries} == {"c1"}
    assert audit.page(limit=5, action="cancel_job").entries == []
    assert audit.delete_older_than(3, now=5) == 2
    assert len(audit.page(limit=5).entries) == 3


def test_the_schema_goes_down_and_up_again_over_the_keys(engine):
    assert schema_revision(engine) == NEWEST_REVISION
    migrate(engine, "0003")
    assert schema_revision(engine) == "0003"
    assert "api_keys" not in inspect(engine).get_table_names()
    migrate(engine)
    assert KeyStore(engine).all() == []
