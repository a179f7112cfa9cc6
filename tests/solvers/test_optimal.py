"""Long and odd chains: planned in time, inside the budget, or refused with a budget that works."""

from __future__ import annotations

import random
from threading import Timer

import pytest

from planner_service.chain import BudgetTooSmall, Chain, InvalidChain, Stage, StageRun
from planner_service.solvers import Cancellation, Cancelled, minimum_budget_bytes, solve
from planner_service.solvers.papers import hidden_operations, internal_operations, mixed_operations
from tests.oracles.golden import golden

UNIT = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)


def distinct(length: int) -> Chain:
    """Stages that have nothing in common; fixed seed."""
    rng = random.Random(length)
    stages = [
        Stage(
            forward_cost=rng.random(),
            taped_forward_cost=1.0,
            backward_cost=2.0,
            state_bytes=rng.randint(1, 1_000),
            tape_bytes=rng.randint(1_000, 5_000),
            forward_workspace_bytes=rng.randint(0, 500),
        )
        for _ in range(length)
    ]
    return Chain.of(stages, input_bytes=10)


def test_a_hundred_thousand_steps_are_planned_to_the_proven_optimum():
    solution = solve(Chain((StageRun(100_000, UNIT),)), 100)
    assert solution.optimality == "optimal"
    assert solution.verdict.makespan == 561_360
    assert solution.verdict.peak_bytes <= 100
    assert len(solution.policy.nodes) < 2_000


def test_a_minimum_budget_survives_rounding_to_levels():
    """60 stages without a common unit have more sums than levels: rounding may not lose the plan."""
    chain = distinct(60)
    least = minimum_budget_bytes(chain)
    assert solve(chain, least).verdict.peak_bytes <= least
    with pytest.raises(BudgetTooSmall):
        solve(chain, least - 1)


def test_more_stages_than_a_table_holds_are_planned_in_groups():
    chain = distinct(500)
    least = minimum_budget_bytes(chain)
    solution = solve(chain, 3 * least)
    assert solution.optimality == "bounded"
    assert "groups" in solution.reason
    assert solution.lower_bound <= solution.verdict.makespan <= 1.5 * solution.lower_bound


def test_too_many_different_stages_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr("planner_service.solvers.optimal.MOST_RUNS", 4)
    with pytest.raises(InvalidChain, match="merge neighbours"):
        solve(distinct(5), 10**6)


def test_memory_in_abundance_is_planned_near_the_bound():
    chain = Chain((StageRun(20_000, UNIT),))
    solution = solve(chain, 30_000)
    assert solution.verdict.makespan <= 1.01 * solution.lower_bound


def test_a_cancelled_solve_stops():
    """Cancelled while the kernel runs: the table of 330 different stages takes over a second."""
    chain, cancellation = distinct(330), Cancellation()
    budget_bytes = 2 * minimum_budget_bytes(chain)
    timer = Timer(0.05, cancellation.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        solve(chain, budget_bytes, cancellation=cancellation)
    timer.join()


class TestPaperRecurrences:
    """The strategies' own functions in the paper's units, entry by entry."""

    PAPERS = golden("papers")

    def test_hidden_and_internal(self):
        for name, cost in (("C_HSM", hidden_operations), ("C_ISM", internal_operations)):
            for steps, row in self.PAPERS[name].items():
                assert {slots: cost(int(steps), int(slots)) for slots in row} == row

    @pytest.mark.parametrize("name", ["C_MSM", "C_MSM_beta"])
    def test_mixed(self, name):
        for key, table in self.PAPERS[name].items():
            sizes = {part.split("=")[0]: int(part.split("=")[1]) for part in key.split(",")}
            costs = mixed_operations(24, 40, **sizes)
            for steps, row in table.items():
                assert {slots: costs[int(steps), int(slots)] for slots in row} == row
