"""Chains of which some stages can be undone: what is said of a plan holds for schedules that undo them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_service.chain import BudgetTooSmall, Chain, Reversal, Stage, Tier
from planner_service.planning.tiered import solve_beside
from planner_service.solvers import STRATEGIES, solve
from planner_service.solvers.solution import ROUNDING
from tests.oracles.chains import partly_reversible_chains
from tests.oracles.exhaustive import exhaustive_optimum

UNDONE = Stage(
    forward_cost=1,
    taped_forward_cost=4,
    backward_cost=3,
    state_bytes=4,
    tape_bytes=16,
    reversal=Reversal(archive_bytes=1, undo_cost=3),
)
PLAIN = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=1, state_bytes=4, tape_bytes=8)
HOST = Tier(name="host", budget_bytes=20, write_seconds_per_byte=0.5, read_seconds_per_byte=0.5)


@given(partly_reversible_chains(), st.integers(0, 60), st.sampled_from([(), (HOST,)]))
@settings(deadline=None, max_examples=100)
def test_no_schedule_is_below_the_bound_and_an_optimum_is_one(chain, spare, tiers):
    """Against the search over all schedules of the device: tiers beside it can only add to them"""
    with pytest.raises(BudgetTooSmall) as refusal:
        solve_beside(chain, -1, "auto", tiers)
    budget_bytes = refusal.value.minimum_budget_bytes + spare
    optimum = exhaustive_optimum(chain, budget_bytes)
    for strategy in (*STRATEGIES, "auto"):
        try:
            planned = solve_beside(chain, budget_bytes, strategy, tiers if strategy == "auto" else ())
        except BudgetTooSmall:
            continue
        if not planned.exact_gradient or optimum is None:
            continue
        assert planned.lower_bound <= optimum * (1 + ROUNDING)
        if planned.optimality == "optimal":
            assert planned.verdict.makespan <= optimum * (1 + ROUNDING)


@pytest.mark.parametrize("tiers", [(), (HOST,)], ids=["alone", "beside a tier"])
def test_taping_all_is_not_called_optimal_where_one_stage_is_cheaper_to_undo(tiers):
    """The case that was found: 9 was `optimal`, and a schedule that undoes stage 1 takes 6"""
    chain = Chain.of([UNDONE, PLAIN])
    planned = solve_beside(chain, 1000, "auto", tiers)
    assert planned.verdict.makespan == 9
    assert planned.lower_bound == exhaustive_optimum(chain, 1000) == 6
    assert planned.optimality == "bounded"


def test_a_plan_that_meets_the_bound_of_such_a_chain_is_optimal():
    """Undoing that costs more than taping takes nothing from full BPTT where the tape fits"""
    dear = replace(PLAIN, reversal=UNDONE.reversal)
    solution = solve(Chain.of([dear, PLAIN]), 1000)
    assert (solution.optimality, solution.verdict.makespan) == ("optimal", 4)
