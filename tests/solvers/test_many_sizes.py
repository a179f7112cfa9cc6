"""Sizes so different that their sums abound: free bytes are rounded, and what fits is still planned."""

from __future__ import annotations

import itertools

import pytest

from planner_service.chain import Chain, Stage, StageRun
from planner_service.solvers import minimum_budget_bytes, optimal, solve


def body_among_others(body_stages: int, others: int) -> Chain:
    """Equal stages between others of which none is as large as another, as layers around a recurrent core."""
    first, *rest = (StageRun(1, stage(index)) for index in range(others))
    return Chain((first, StageRun(body_stages, stage(others)), *rest))


def stage(index: int) -> Stage:
    """A stage whose sizes are those of no other index."""
    state_bytes = 100_003 + index * 611_953 % 1_000_003
    return Stage(
        forward_cost=1,
        taped_forward_cost=1,
        backward_cost=2,
        state_bytes=state_bytes,
        tape_bytes=state_bytes + 1 + index * 372_161 % 900_001,
    )


@pytest.mark.parametrize("strategy", ["optimal", "mixed"])
@pytest.mark.parametrize("others", [6, 8])
def test_more_bytes_buy_no_slower_plan(others: int, strategy: str) -> None:
    """Grouped into a handful, the body did not fit (a KeyError) or took longer than in fewer bytes."""
    chain = body_among_others(40, others)
    least = minimum_budget_bytes(chain) + (1_500_000 if strategy == "mixed" else 0)
    full = solve(chain, 2**60, "store_all").verdict.peak_bytes
    budgets = [least + (full - least) * share // 5 for share in range(5)]
    makespans = [solve(chain, budget, strategy).verdict.makespan for budget in budgets]
    assert all(more <= less for less, more in itertools.pairwise(makespans))


def test_no_strategy_beats_auto_among_many_sizes() -> None:
    """The body in a few large groups was dearer than a state every few stages."""
    chain = body_among_others(40, 6)
    budget_bytes = solve(chain, 2**60, "every_k").verdict.peak_bytes * 2 // 3
    auto = solve(chain, budget_bytes).verdict.makespan
    assert auto <= solve(chain, budget_bytes, "chen_recursive").verdict.makespan


def test_a_long_chain_is_rounded_stage_by_stage() -> None:
    """Too long for a table of all intervals: the plan is found along the body, and proves nothing."""
    chain = body_among_others(1_500, 6)
    budget_bytes = minimum_budget_bytes(chain) + 100_000_000
    solution = solve(chain, budget_bytes)
    assert solution.optimality == "bounded"
    assert "rounded down" in solution.reason
    assert solution.verdict.makespan < 1.5 * chain.store_all_makespan


def test_tapes_far_larger_than_states_are_not_grouped_beyond_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Small states make many levels; two tapes at once, which would make fewer, do not fit."""
    monkeypatch.setattr(optimal, "MOST_LEVELS", 2_000)  # of 20,000, so that a chain of seconds is not needed
    cell = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=3, tape_bytes=500_001)
    chain = Chain((StageRun(2_500, cell),), input_bytes=3)
    budget_bytes = minimum_budget_bytes(chain) + 7_000
    assert solve(chain, budget_bytes).verdict.makespan < 2 * chain.store_all_makespan
