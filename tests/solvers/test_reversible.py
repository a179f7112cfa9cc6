"""The strategy `reversible`: optimal within its class, never below the optimum of all schedules."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner_service.chain import (
    ArchiveNode,
    BudgetTooSmall,
    Chain,
    CheckpointNode,
    Reversal,
    Stage,
    StageRun,
    TapeNode,
    expand,
    simulate,
)
from planner_service.solvers import NotReversible, solve
from planner_service.solvers.stretches import Sizes
from tests.oracles.exhaustive import exhaustive_optimum

REVERSAL = Reversal(archive_bytes=1, undo_cost=3, undo_workspace_bytes=20)
STAGE = Stage(
    forward_cost=1,
    taped_forward_cost=1,
    backward_cost=2,
    state_bytes=4,
    tape_bytes=20,
    backward_workspace_bytes=2,
    reversal=REVERSAL,
)


def chain(length: int, stage: Stage = STAGE) -> Chain:
    return Chain((StageRun(length, stage),), input_bytes=4, loss_gradient_bytes=4)


def least_bytes(of: Chain, strategy: str = "reversible") -> int:
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(of, 0, strategy)
    return refusal.value.minimum_budget_bytes


def cheapest_of_the_class(of: Chain, budget_bytes: int, most_archived: int | None = None) -> float:
    """The recurrence once more, every number of archived stages tried; nothing shared but leaf_bytes."""
    sizes = Sizes.of(of)
    most = of.length if most_archived is None else most_archived
    room = budget_bytes - of.static_bytes - of.input_bytes

    def leaf(length: int, free: int) -> float:
        fitting = [y for y in range(min(length, most) + 1) if sizes.leaf_bytes(y, length - y) <= free]
        return min((sizes.leaf_cost(y, length - y) for y in fitting), default=inf)

    @cache
    def best(length: int, held: int) -> float:
        free = room - held * sizes.state
        if free < 0:
            return inf
        tried = [leaf(length, free)]
        if free >= sizes.advance_bytes:
            tried += [
                y * sizes.forward_cost + best(length - y, held + 1) + best(y, held) for y in range(1, length)
            ]
        return min(tried)

    return best(of.length, 0)


small = st.integers(1, 9)
equal_stages = st.builds(
    lambda f, b, a, e, r, v, u, ws, k, wk: Stage(
        forward_cost=f,
        taped_forward_cost=f,
        backward_cost=b,
        state_bytes=a,
        tape_bytes=a + e,
        backward_workspace_bytes=ws,
        reversal=Reversal(
            archive_bytes=r,
            undo_cost=f + b + v,
            undo_workspace_bytes=u,
            archive_cost=k,
            archive_workspace_bytes=wk,
        ),
    ),
    small, small, small, st.integers(0, 30), st.integers(0, 6), st.integers(-3, 2), st.integers(0, 30), small,
    st.none() | st.integers(0, 12), st.none() | st.integers(0, 30),
)  # fmt: skip


@given(equal_stages, st.integers(1, 12), st.integers(0, 120))
@settings(deadline=None, max_examples=60)
def test_it_is_the_cheapest_of_its_class_and_fits(stage, length, spare):
    """Every budget from the least one on; the simulator is the judge"""
    of = chain(length, stage)
    least = least_bytes(of)
    solution = solve(of, least + spare, "reversible")
    assert solution.verdict.makespan == cheapest_of_the_class(of, least + spare)
    assert solution.verdict.peak_bytes <= least + spare
    assert solution.exact_gradient
    assert solution.lower_bound <= solution.verdict.makespan
    assert cheapest_of_the_class(of, least - 1) == inf
    with pytest.raises(BudgetTooSmall):
        solve(of, least - 1, "reversible")


@given(equal_stages, st.integers(2, 5), st.integers(0, 60))
@settings(deadline=None, max_examples=40)
def test_no_schedule_is_cheaper_than_the_bound_and_auto_is_never_above_the_strategies(stage, length, spare):
    """Against the search over all schedules of the machine"""
    of = chain(length, stage)
    budget_bytes = least_bytes(of, "auto") + spare
    optimum = exhaustive_optimum(of, budget_bytes)
    auto = solve(of, budget_bytes)
    assert optimum is not None
    assert auto.lower_bound <= optimum <= auto.verdict.makespan
    for strategy in ("reversible", "optimal"):
        try:
            other = solve(of, budget_bytes, strategy)
        except BudgetTooSmall:
            continue
        assert auto.verdict.makespan <= other.verdict.makespan
        assert other.lower_bound <= optimum


@given(equal_stages, st.integers(1, 12), st.integers(0, 120), st.integers(0, 12))
@settings(deadline=None, max_examples=60)
def test_no_more_stages_are_archived_at_once_than_there_is_room_for(stage, length, spare, most):
    """The cheapest of its class under a limit, from the least budget on that such a policy has"""
    of = chain(length, stage)
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(of, 0, "reversible", most_archived=most)
    least = refusal.value.minimum_budget_bytes
    assert cheapest_of_the_class(of, least - 1, most) == inf
    solution = solve(of, least + spare, "reversible", most_archived=most)
    assert solution.verdict.makespan == cheapest_of_the_class(of, least + spare, most)
    assert max((n.span for n in solution.policy.nodes if isinstance(n, ArchiveNode)), default=0) <= most


def test_on_chains_like_reversible_cells_auto_is_near_the_optimum_of_all_schedules():
    """Chains of up to 6 stages, budget by budget: off in at most 6 % of them, and by at most 25 %"""
    ratios = []
    for length in range(1, 7):
        of = chain(length)
        for budget_bytes in range(least_bytes(of, "auto"), 4 + length * 20 + 20, 3):
            optimum = exhaustive_optimum(of, budget_bytes)
            ratios.append(solve(of, budget_bytes).verdict.makespan / optimum)
    assert sum(ratio > 1 for ratio in ratios) <= 0.06 * len(ratios)
    assert max(ratios) <= 1.25


def test_more_bytes_never_cost_more():
    """Budget by budget, from the least one to that of full BPTT, on short and on long chains"""
    for length, count in ((40, 40), (1000, 8)):
        of, makespan = chain(length), inf
        least, most = least_bytes(of), 4 + length * 20 + 40
        for step in range(count + 1):
            now = solve(of, least + (most - least) * step // count, "reversible").verdict.makespan
            assert now <= makespan
            makespan = now
        assert makespan == of.store_all_makespan


def test_where_the_archive_fits_and_tapes_are_large_every_stage_is_undone():
    """A pure reversal: nothing is advanced twice; only the last stage, whose tape takes no more, is taped"""
    of = chain(
        150, replace(STAGE, tape_bytes=10_000, reversal=replace(REVERSAL, undo_workspace_bytes=10_000))
    )
    solution = solve(of, 4 + 150 + 2 * 4 + 2 * 4 + 10_000, "reversible")
    assert solution.policy.nodes == (TapeNode(1, -1), ArchiveNode(149, 0))
    assert solution.verdict.makespan == 149 * 4 + 3


def test_where_it_does_not_fit_stretches_are_undone_between_checkpoints():
    """Reversal and checkpoints together, cheaper than checkpoints alone in the same bytes"""
    of = chain(2000)
    solution = solve(of, 300, "reversible")
    kinds = {type(node) for node in solution.policy.nodes}
    assert {ArchiveNode, CheckpointNode} <= kinds
    assert solution.verdict.makespan < solve(of, 300, "optimal").verdict.makespan
    assert solve(of, 300).strategy == "reversible"
    assert solution.optimality == "bounded"
    assert "archive" in solution.reason


def test_what_never_forgets_needs_no_archive():
    """With 0 archived bytes the least memory of all undoes a chain of any length"""
    stage = Stage(
        forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=4, tape_bytes=20,
        reversal=Reversal(archive_bytes=0, undo_cost=3, undo_workspace_bytes=20),
    )  # fmt: skip
    of = chain(100_000, stage)
    solution = solve(of, least_bytes(of), "reversible")
    assert solution.verdict.undo_count >= 99_999
    assert solution.verdict.advance_count == solution.verdict.undo_count


def test_stages_that_differ_count_as_large_as_the_largest():
    """The plan is replayed with the true sizes: it fits, and the least budget is a promise"""
    other = Stage(
        forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=6, tape_bytes=30,
        reversal=Reversal(archive_bytes=3, undo_cost=3, undo_workspace_bytes=25),
    )  # fmt: skip
    of = Chain((StageRun(30, STAGE), StageRun(5, other)), input_bytes=4)
    least = least_bytes(of)
    for budget_bytes in range(least, least + 200, 20):
        solution = solve(of, budget_bytes, "reversible")
        assert simulate(of, expand(solution.policy), budget_bytes).legal


def test_chains_that_cannot_be_undone_are_refused():
    """With what would do instead"""
    plain = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=1, state_bytes=1, tape_bytes=1)
    with pytest.raises(NotReversible, match="rev_gru"):
        solve(Chain((StageRun(3, plain),)), 100, "reversible")
