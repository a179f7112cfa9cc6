"""Optimality on the whole small domain: every budget of every chain of a grid, against all schedules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import BudgetTooSmall, Chain, Stage, StageRun
from planner_service.solvers import minimum_budget_bytes, solve
from tests.oracles.chains import chains
from tests.oracles.exhaustive import exhaustive_optimum
from tests.oracles.recurrence import least_budget, persistent_optimum


def stage(costs: tuple[int, int, int], sizes: tuple[int, int], workspaces: tuple[int, int, int]) -> Stage:
    forward, taped, backward = costs
    return Stage(
        forward_cost=forward,
        taped_forward_cost=taped,
        backward_cost=backward,
        state_bytes=sizes[0],
        tape_bytes=sizes[1],
        forward_workspace_bytes=workspaces[0],
        taped_forward_workspace_bytes=workspaces[1],
        backward_workspace_bytes=workspaces[2],
    )


SHAPES = [
    stage((1, 1, 2), (1, 1), (0, 0, 0)),
    stage((1, 1, 2), (1, 2), (0, 0, 0)),
    stage((1, 1, 2), (1, 4), (0, 0, 0)),
    stage((1, 1, 2), (1, 7), (0, 0, 0)),
    stage((1, 1, 2), (2, 5), (0, 0, 0)),
    stage((2, 3, 5), (2, 7), (1, 2, 3)),
    stage((3, 4, 1), (3, 4), (5, 0, 0)),
    stage((1, 5, 2), (1, 3), (0, 4, 0)),
    stage((4, 4, 9), (2, 3), (0, 0, 6)),
    stage((1, 1, 1), (0, 2), (0, 0, 0)),
]
"""Homogeneous stages: tapes from one to seven states, each workspace large in turn, a free state."""

SURROUNDINGS = [{}, {"input_bytes": 2, "static_bytes": 3, "loss_gradient_bytes": 4}]


def budgets(chain: Chain) -> Iterator[int]:
    """From one byte below the least budget to one byte above what full BPTT takes."""
    store_all = solve(chain, 10**9, "store_all").verdict.peak_bytes
    yield from range(minimum_budget_bytes(chain) - 1, store_all + 2)


@pytest.mark.parametrize("surroundings", SURROUNDINGS, ids=["bare", "held"])
@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_homogeneous_plans_are_the_optimum_over_all_schedules(shape, surroundings):
    for length in range(1, 8):
        chain = Chain((StageRun(length, shape),), **surroundings)
        for budget_bytes in budgets(chain):
            best = exhaustive_optimum(chain, budget_bytes)
            if best is None:
                with pytest.raises(BudgetTooSmall):
                    solve(chain, budget_bytes)
                continue
            solution = solve(chain, budget_bytes)
            assert solution.verdict.makespan == best, (length, budget_bytes)
            assert solution.lower_bound <= best
            assert solution.optimality == "optimal"


@given(st.data())
def test_heterogeneous_plans_are_the_persistent_optimum_and_say_how_good_they_are(data):
    chain = data.draw(chains(max_length=6, homogeneous=False))
    budget_bytes = minimum_budget_bytes(chain) + data.draw(st.integers(0, 40))
    solution = solve(chain, budget_bytes)
    best = exhaustive_optimum(chain, budget_bytes)
    assert solution.verdict.makespan == persistent_optimum(chain, budget_bytes)
    assert solution.lower_bound <= best <= solution.verdict.makespan
    assert solution.optimality in {"optimal", "persistent"}
    if solution.optimality == "optimal":
        assert solution.verdict.makespan == solution.lower_bound == best


@given(chains(max_length=6))
def test_the_least_budget_is_that_of_the_recurrence(chain):
    assert minimum_budget_bytes(chain) == least_budget(chain)


@given(st.data())
def test_homogeneous_answers_called_optimal_are(data):
    chain = data.draw(chains(max_length=6, homogeneous=True))
    budget_bytes = minimum_budget_bytes(chain) + data.draw(st.integers(0, 40))
    solution = solve(chain, budget_bytes)
    assert solution.verdict.makespan == persistent_optimum(chain, budget_bytes)
    if solution.optimality == "optimal":
        assert solution.verdict.makespan == exhaustive_optimum(chain, budget_bytes)


@given(st.data())
def test_longer_chains_cost_what_the_recurrence_says(data):
    """Too long to search all schedules: the plain recursion is the oracle."""
    chain = data.draw(chains(max_length=16))
    budget_bytes = minimum_budget_bytes(chain) + data.draw(st.integers(0, 60))
    assert solve(chain, budget_bytes, "optimal").verdict.makespan == persistent_optimum(chain, budget_bytes)


@pytest.mark.parametrize("tape_bytes", [1, 2, 5])
@pytest.mark.parametrize("length", [17, 31])
def test_long_homogeneous_chains_cost_what_the_recurrence_says(length, tape_bytes):
    chain = Chain((StageRun(length, stage((1, 1, 2), (1, tape_bytes), (0, 0, 0))),), input_bytes=1)
    for extra_bytes in [0, 1, 3, 8, 21]:
        budget_bytes = minimum_budget_bytes(chain) + extra_bytes
        expected = persistent_optimum(chain, budget_bytes)
        assert solve(chain, budget_bytes, "optimal").verdict.makespan == expected
