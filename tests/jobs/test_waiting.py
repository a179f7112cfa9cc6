"""A queued job says why it would wait for ever."""

from __future__ import annotations

import pytest

from planner_service.jobs import Offer, why_it_waits

NEEDED = {"cpu": 100, "cuda": 70}


def offer(*engines: str, kind: str = "cpu", memory_bytes: int = 1000) -> Offer:
    return Offer(engines=frozenset(engines), device_kind=kind, memory_bytes=memory_bytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["agents", "local"])
def test_where_no_worker_takes_jobs_of_the_engine_the_reason_names_it(engine):
    other = offer(*{"agents", "local"} - {engine})
    for offers in ([], [other]):
        why = why_it_waits(engine, NEEDED, offers)
        assert why is not None
        assert repr(engine) in why
        assert "tightfit serve --with-worker" in why


def test_a_job_waits_without_a_reason_where_a_worker_has_the_memory():
    assert (
        why_it_waits("agents", NEEDED, [offer("agents", memory_bytes=99), offer("agents", "local")]) is None
    )
    assert why_it_waits("agents", NEEDED, [offer("agents", kind="cuda", memory_bytes=70)]) is None


def test_where_no_worker_has_the_memory_the_nearest_is_told():
    offers = [offer("agents", memory_bytes=40), offer("agents", kind="cuda", memory_bytes=69)]
    why = why_it_waits("agents", NEEDED, offers)
    assert why == "no worker has the memory: it needs 70 bytes, and the nearest has 69"
