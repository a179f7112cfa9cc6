"""`tightfit probe --wait`: until the node has measured, whatever the service does meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from planner_service.cli import probes
from planner_service.client import PlannerRefused, PlannerUnreachable
from planner_service.contract.probes import Probe

RUNNING = Probe.model_validate(
    {
        "id": "p",
        "node": "a",
        "request": {
            "node": "a",
            "model": {"kind": "gru", "hidden_size": 8},
            "sequence": {"length": 20, "batch_size": 2},
        },
        "state": "running",
        "handovers": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    }
)
DONE = RUNNING.model_copy(update={"state": "succeeded", "profile_id": "f"})
GONE = PlannerUnreachable("http://planner", "connection refused")


class Service:
    """Answers what the test says, one after the other."""

    def __init__(self, answers: Iterable[Probe | Exception]) -> None:
        self._answers = iter(answers)

    def probe(self, _probe_id: str) -> Probe:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every look at the clock is a minute later."""
    minutes = itertools.count(step=60)
    monkeypatch.setattr(probes.time, "monotonic", lambda: float(next(minutes)))
    monkeypatch.setattr(probes.time, "sleep", lambda _seconds: None)


def test_a_service_that_restarts_is_waited_for():
    busy = PlannerRefused(503, {"detail": "starting"})
    assert probes.ended(Service([GONE, busy, RUNNING, *[GONE] * 5, DONE]), RUNNING) == DONE


@pytest.mark.parametrize("error", [GONE, PlannerRefused(404, {"detail": "no probe has the id"})])
def test_one_that_stays_away_or_knows_nothing_of_it_is_not(error):
    answers = Service(itertools.repeat(error))
    with pytest.raises(type(error)):
        probes.ended(answers, RUNNING)
