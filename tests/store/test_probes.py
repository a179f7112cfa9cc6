"""Probes in both databases: given to their node's agent, given again when it was lost, ended once."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from planner_service.contract.probes import ProbeRequest
from planner_service.jobs import UnknownNode, UnknownProbe
from planner_service.store import ProbeStore
from planner_service.store.probe_tables import probes
from planner_service.store.probes import MOST_HANDOVERS


def request(node="a", hidden_size=8):
    return ProbeRequest.model_validate(
        {
            "node": node,
            "model": {"kind": "gru", "hidden_size": hidden_size},
            "sequence": {"length": 20, "batch_size": 2},
        }
    )


@pytest.fixture
def store(engine, desk):
    desk.node("a")
    desk.node("b")
    return ProbeStore(engine)


def test_a_node_is_given_its_own_probes_the_oldest_first(store):
    first, second, other = (store.add(request(node)) for node in ("a", "a", "b"))
    assert store.claim("b").id == other.id
    assert store.claim("a").id == first.id
    store.end(first.id, profile_id="p", detail=None)
    assert store.claim("a").id == second.id
    assert store.claim("c") is None


def test_a_probe_that_its_agent_lost_is_given_again_and_fails_after_the_third_time(store):
    lost, next_one = store.add(request()), store.add(request(hidden_size=10))
    assert [store.claim("a").handovers for _ in range(MOST_HANDOVERS)] == [1, 2, 3]
    assert store.claim("a").id == next_one.id
    ended = store.get(lost.id)
    assert (ended.state, ended.detail) == ("failed", "the agent was lost 3 times meanwhile")


def test_a_probe_of_a_newer_service_fails_and_is_shown(store, engine):
    """Not given to the agent without the field that this version does not know"""
    newer, known = store.add(request()), store.add(request(hidden_size=10))
    with engine.begin() as connection:
        asked = request().model_dump_json().replace("{", '{"heads": 2, ', 1).encode()
        connection.execute(update(probes).where(probes.c.id == newer.id).values(request=asked))
    assert store.claim("a").id == known.id
    assert "newer service" in store.get(newer.id).detail
    assert [probe.state for probe in store.page(limit=9).probes] == ["running", "failed"]


def test_the_first_report_counts(store):
    probe = store.add(request())
    store.claim("a")
    done = store.end(probe.id, profile_id="p", detail=None)
    assert (done.state, done.profile_id) == ("succeeded", "p")
    assert store.end(probe.id, profile_id=None, detail="no") == done
    assert store.claim("a") is None


def test_the_list_is_paged_the_latest_first_of_all_nodes_or_of_one(store):
    made = [store.add(request("ab"[number % 2])).id for number in range(5)]
    page = store.page(limit=3)
    rest = store.page(limit=3, before=int(page.next_cursor))
    assert [probe.id for probe in (*page.probes, *rest.probes)] == made[::-1]
    assert rest.next_cursor is None
    assert [probe.id for probe in store.page(limit=9, node="b").probes] == [made[3], made[1]]


def test_only_probes_that_ended_long_ago_are_forgotten(engine, desk):
    now = [1000.0]
    desk.node("a")
    store = ProbeStore(engine, clock=lambda: now[0])
    ended, waiting = store.add(request()), store.add(request())
    store.end(ended.id, profile_id=None, detail="no")
    now[0] += 100
    assert store.delete_older_than(200) == 0
    assert store.delete_older_than(50) == 1
    with pytest.raises(UnknownProbe):
        store.get(ended.id)
    assert store.get(waiting.id).state == "queued"


def test_only_registered_nodes_are_asked(store):
    with pytest.raises(UnknownNode):
        store.add(request("nobody"))
    with pytest.raises(UnknownProbe):
        store.end("none", profile_id=None, detail="no")
