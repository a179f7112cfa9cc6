"""The strategies beside the optimum: what each one guarantees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import BudgetTooSmall, Chain, Stage, StageRun, expand, merge_runs, simulate
from planner_service.solvers import STRATEGIES, Cancellation, UnknownStrategy, minimum_budget_bytes, solve
from planner_service.solvers.chen import recursive_policy
from planner_service.solvers.papers import hidden_operations, internal_operations
from planner_service.solvers.slots import hidden_policy, internal_policy
from planner_service.solvers.truncated import replay_windows
from tests.oracles.chains import chains

# A backward cost of 0 makes the makespan the paper's count of forward operations.
UNIT = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=0, state_bytes=1, tape_bytes=4)
EXACT = [name for name in STRATEGIES if name != "truncated"]


def unit_chain(length: int) -> Chain:
    return Chain((StageRun(length, UNIT),))


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_slot_policies_cost_what_the_closed_forms_say(slots):
    for length in range(1, 41):
        hidden = simulate(unit_chain(length), expand(hidden_policy(length, slots)))
        internal = simulate(unit_chain(length), expand(internal_policy(length, slots)))
        assert hidden.legal
        assert internal.legal
        assert hidden.makespan == hidden_operations(length, slots)
        assert internal.makespan == internal_operations(length, slots)


@pytest.mark.parametrize("strategy", EXACT)
def test_every_strategy_refuses_one_byte_below_the_least_budget_it_names(strategy):
    chain = unit_chain(30)
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, 0, strategy)
    least = refusal.value.minimum_budget_bytes
    assert solve(chain, least, strategy).verdict.peak_bytes <= least
    with pytest.raises(BudgetTooSmall):
        solve(chain, least - 1, strategy)


@pytest.mark.parametrize("strategy", EXACT)
def test_no_strategy_beats_the_optimum(strategy):
    chain = unit_chain(60)
    for budget_bytes in (60, 90, 150, 300):
        best = solve(chain, budget_bytes, "optimal").verdict.makespan
        solution = solve(chain, budget_bytes, strategy) if strategy != "store_all" else None
        if solution is not None:
            assert solution.exact_gradient
            assert solution.lower_bound <= best <= solution.verdict.makespan


def test_auto_stores_everything_as_soon_as_it_fits():
    chain = unit_chain(10)
    full = solve(chain, 10**6, "store_all").verdict.peak_bytes
    assert solve(chain, full).strategy == "store_all"
    assert solve(chain, full - 1).strategy == "optimal"


def test_truncation_is_flagged_and_runs_every_stage_once():
    solution = solve(unit_chain(100), 25, "truncated")
    assert not solution.exact_gradient
    assert solution.verdict.makespan == 100
    assert solution.verdict.peak_bytes <= 25


def held_by_windows(chain: Chain, window: int) -> int:
    """Most bytes live when windows are taped and reversed one by one, counted stage by stage."""
    stages, most = [None, *chain.stages()], 0
    for first in range(1, chain.length + 1, window):
        last = min(first + window - 1, chain.length)
        held = chain.static_bytes + chain.input_bytes + (chain.state_bytes(first - 1) if first > 1 else 0)
        tapes = 0
        for index in range(first, last + 1):
            tapes += stages[index].tape_bytes
            workspace = stages[index].taped_forward_workspace_bytes
            most = max(most, held + tapes + chain.gradient_bytes(last) + workspace)
        for index in range(last, first - 1, -1):
            gradients = chain.gradient_bytes(index) + chain.gradient_bytes(index - 1)
            most = max(most, held + tapes + gradients + stages[index].backward_workspace_bytes)
            tapes -= stages[index].tape_bytes
            if index == last < chain.length:  # the next window starts from it
                held += chain.state_bytes(last)
    return most


@given(chains(max_length=6), st.integers(0, 120))
def test_truncation_takes_the_longest_window_that_fits_or_names_the_least_bytes_of_any(chain, budget):
    held = {window: held_by_windows(chain, window) for window in range(1, chain.length + 1)}
    longest = max((window for window in held if held[window] <= budget), default=None)
    if longest is None:
        with pytest.raises(BudgetTooSmall) as refusal:
            solve(chain, budget, "truncated")
        assert refusal.value.minimum_budget_bytes == min(held.values())
        return
    solution = solve(chain, budget, "truncated")
    assert solution.policy.length == longest
    assert solution.verdict.peak_bytes == held[longest]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(1, 25), st.data())
def test_windows_amid_equal_stages_are_counted_without_a_look_at_each(counts, window, data):
    """Peak and makespan are those of the windows one by one"""
    stages = [data.draw(chains(max_length=1)) for _ in counts]
    runs = (StageRun(count, one.stage(1)) for count, one in zip(counts, stages, strict=True))
    chain = Chain(merge_runs(runs), input_bytes=data.draw(st.integers(0, 5)), loss_gradient_bytes=3)
    verdict = replay_windows(chain, min(window, chain.length), Cancellation())
    assert verdict.peak_bytes == held_by_windows(chain, window)
    assert verdict.makespan == pytest.approx(chain.store_all_makespan)


def test_truncation_of_a_million_equal_stages_takes_no_look_at_each():
    looks = 0

    class Counted(Cancellation):
        def check(self):
            nonlocal looks
            looks += 1

    solution = solve(unit_chain(10**6), 14, "truncated", cancellation=Counted())
    assert solution.policy.length == 2
    assert looks < 1000


def test_truncation_holds_sizes_whose_sum_is_beyond_that_of_one():
    chain = Chain((StageRun(2, UNIT),), input_bytes=2**62, static_bytes=2**62)
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, 2**62, "truncated")
    assert refusal.value.minimum_budget_bytes == held_by_windows(chain, 1)


def test_truncation_to_the_whole_chain_is_exact():
    assert solve(unit_chain(5), 10**6, "truncated").exact_gradient


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_chens_recursion_with_one_cut_holds_a_logarithm_of_states(cuts):
    for length in range(1, 65):
        verdict = simulate(unit_chain(length), expand(recursive_policy(length, cuts)))
        assert verdict.legal
        assert verdict.tape_count == length


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(UnknownStrategy, match="optimal"):
        solve(unit_chain(3), 100, "magic")


def test_mixed_charges_the_input_of_every_tape_so_it_needs_no_less_than_optimal():
    chain = unit_chain(20)
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, 0, "mixed")
    assert refusal.value.minimum_budget_bytes >= minimum_budget_bytes(chain)
