"""What the judge says of a schedule against what the naive machine finds, for chains of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from planner_service.chain import Action, Chain, simulate
from tests.oracles.chains import actions, legal_schedules
from tests.oracles.machine import judge

Chains = Callable[..., st.SearchStrategy[Chain]]


def assert_same_judgement(chain: Chain, schedule: Sequence[Action], budget_bytes: int | None = None) -> None:
    """Both replays agree in every figure, and on the first action that is refused."""
    verdict, found = simulate(chain, schedule, budget_bytes), judge(chain, schedule, budget_bytes)
    assert (verdict.illegal.index if verdict.illegal else None) == found.illegal_index
    assert (verdict.makespan, verdict.peak_bytes) == (found.makespan, found.peak_bytes)
    assert (verdict.advance_count, verdict.tape_count) == (found.advance_count, found.tape_count)
    assert (verdict.backward_count, verdict.undo_count) == (found.backward_count, found.undo_count)


def assert_legal_schedules_are_judged_alike(
    data: Any, chains: Chains, *, max_length: int, most_bytes: int
) -> None:
    """A legal schedule of a drawn chain, without a budget and under a drawn one."""
    chain = data.draw(chains(max_length=max_length))
    schedule = data.draw(legal_schedules(chain))
    assert simulate(chain, schedule).legal
    assert_same_judgement(chain, schedule)
    assert_same_judgement(chain, schedule, data.draw(st.integers(0, most_bytes)))


def assert_arbitrary_actions_are_judged_alike(
    data: Any, chains: Chains, *, max_length: int, most_actions: int
) -> None:
    """Actions in any order, sensible or not, legal or not."""
    chain = data.draw(chains(max_length=max_length))
    assert_same_judgement(chain, data.draw(st.lists(actions(chain.length), max_size=most_actions)))
