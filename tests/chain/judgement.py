"""What the judge says of a schedule against what the naive machine finds, for chains of every kind."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.chain import Action, Chain, simulate
from tests.oracles.machine import judge


def assert_same_judgement(chain: Chain, schedule: Sequence[Action], budget_bytes: int | None = None) -> None:
    """Both replays agree in every figure, and on the first action that is refused."""
    verdict, found = simulate(chain, schedule, budget_bytes), judge(chain, schedule, budget_bytes)
    assert (verdict.illegal.index if verdict.illegal else None) == found.illegal_index
    assert (verdict.makespan, verdict.peak_bytes) == (found.makespan, found.peak_bytes)
    assert (verdict.advance_count, verdict.tape_count) == (found.advance_count, found.tape_count)
    assert (verdict.backward_count, verdict.undo_count) == (found.backward_count, found.undo_count)
