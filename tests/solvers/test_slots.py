"""Strategies by slots: the least budget is the least, and more bytes never cost more."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings

from planner_service.chain import BudgetTooSmall, Chain, Stage, StageRun, expand, simulate
from planner_service.solvers import solve
from planner_service.solvers.slots import hidden_policy, internal_policy
from tests.oracles.chains import lean_chains

POLICIES = {"hidden": hidden_policy, "internal": internal_policy}


def assert_least_and_monotone(chain: Chain, strategy: str, *, step: int = 1) -> None:
    """From the refusal's minimum on every budget has a plan, and none is slower than with fewer bytes."""
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, -1, strategy)
    least, makespan = refusal.value.minimum_budget_bytes, inf
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, least - 1, strategy)
    assert refusal.value.minimum_budget_bytes == least
    for budget_bytes in range(least, least + 60 * step, step):
        now = solve(chain, budget_bytes, strategy).verdict.makespan
        assert now <= makespan
        makespan = now


@pytest.mark.parametrize("strategy", POLICIES)
@given(lean_chains())
@settings(deadline=None, max_examples=60)
def test_the_cheapest_number_of_slots_is_taken(strategy, chain):
    """Against the replays of all numbers of slots"""
    assert_least_and_monotone(chain, strategy)
    verdicts = [
        simulate(chain, expand(POLICIES[strategy](chain.length, slots)))
        for slots in range(1, chain.length + 1)
    ]
    least = min(verdict.peak_bytes for verdict in verdicts)
    for budget_bytes in range(least, least + 40, 5):
        cheapest = min(v.makespan for v in verdicts if v.peak_bytes <= budget_bytes)
        assert solve(chain, budget_bytes, strategy).verdict.makespan == cheapest
    with pytest.raises(BudgetTooSmall):
        solve(chain, least - 1, strategy)


@pytest.mark.parametrize("strategy", POLICIES)
@pytest.mark.parametrize("tape_bytes", [2, 30])
def test_on_long_chains_too(strategy, tape_bytes):
    """Where not every number of slots is replayed; 2: a tape is smaller than a state"""
    stage = Stage(
        forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=9, tape_bytes=tape_bytes,
        forward_workspace_bytes=5,
    )  # fmt: skip
    assert_least_and_monotone(Chain((StageRun(300, stage),), input_bytes=9), strategy, step=20)
