"""The planner against recorded optima: every golden chain, and the chains of rotor's C solver."""

from __future__ import annotations

import pytest

from planner_service.chain import BudgetTooSmall, expand, simulate
from planner_service.solvers import minimum_budget_bytes, solve
from tests.oracles import rotor
from tests.oracles.chains import chain_of_record
from tests.oracles.exhaustive import exhaustive_optimum
from tests.oracles.golden import golden
from tests.oracles.recurrence import persistent_optimum

CASES = golden("chains")["cases"]
MANY = 1_000_003
"""A prime: byte counts multiplied by it share no factor with any grid a solver may use."""


def test_the_oracles_agree_with_the_recorded_optima():
    """What the rest of the suite is measured by reproduces numbers found by other people's code."""
    for case in CASES:
        chain, budget_bytes = chain_of_record(case), case["device_budget_bytes"]
        assert exhaustive_optimum(chain, budget_bytes) == case["optimum"]
        assert persistent_optimum(chain, budget_bytes) == case["persistent_optimum"]


@pytest.mark.parametrize("strategy", ["auto", "optimal"])
@pytest.mark.parametrize("scale", [1, MANY])
def test_every_golden_chain(strategy, scale):
    for number, case in enumerate(CASES):
        chain, budget_bytes = chain_of_record(case, scale=scale), case["device_budget_bytes"] * scale
        if case["persistent_optimum"] is None:
            with pytest.raises(BudgetTooSmall) as refused:
                solve(chain, budget_bytes, strategy)
            assert refused.value.minimum_budget_bytes > budget_bytes, number
            continue
        solution = solve(chain, budget_bytes, strategy)
        assert solution.verdict.makespan == case["persistent_optimum"], number
        assert solution.lower_bound <= case["optimum"], number
        assert simulate(chain, expand(solution.policy), budget_bytes) == solution.verdict, number


def test_the_least_budget_scales_with_the_bytes():
    """With no grid in the way, multiplying every size multiplies the least budget."""
    for case in CASES[::10]:
        least = minimum_budget_bytes(chain_of_record(case))
        assert minimum_budget_bytes(chain_of_record(case, scale=MANY)) == least * MANY


@pytest.mark.parametrize("length", rotor.LENGTHS)
def test_rotor_chains_on_rotors_own_grid(length):
    """500 units, sizes rounded up: rotor's optimum to the digits that were recorded."""
    solution = solve(*rotor.chain_on_the_grid(length), "optimal")
    assert solution.verdict.legal
    assert solution.verdict.makespan == pytest.approx(rotor.record(length)["rotor_c_makespan_ms"], abs=5e-4)


@pytest.mark.parametrize("length", rotor.LENGTHS)
def test_rotor_chains_in_whole_bytes_cost_no_more_than_on_the_grid(length):
    chain, budget_bytes = rotor.chain(length)
    solution = solve(chain, budget_bytes)
    assert solution.verdict.peak_bytes <= budget_bytes
    assert solution.verdict.makespan <= rotor.record(length)["rotor_c_makespan_ms"] + 5e-4
