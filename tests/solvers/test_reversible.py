"""The strategy `reversible`: optimal within its class, never below the optimum of all schedules."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
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
from planner_service.solvers import NotReversible, frontier, solve, stretches
from planner_service.solvers.stretch_tables import Stretches
from tests.oracles.chains import reversible_chains
from tests.oracles.exhaustive import exhaustive_optimum
from tests.oracles.undoing import UndoingPolicies

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
        solve(of, -1, strategy)
    return refusal.value.minimum_budget_bytes


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
            undo_cost=max(0, f + b + v),
            undo_workspace_bytes=u,
            archive_cost=k,
            archive_workspace_bytes=wk,
        ),
    ),
    small, small, small, st.integers(0, 30), st.integers(0, 6), st.integers(-3, 2), st.integers(0, 30), small,
    st.none() | st.integers(0, 12), st.none() | st.integers(0, 30),
)  # fmt: skip


@st.composite
def equal_chains(draw, *, max_length=12):
    """Equal stages between ends of any size: the input, its gradient and that of the loss."""
    runs = (StageRun(draw(st.integers(1, max_length)), draw(equal_stages)),)
    ends = st.integers(0, 12)
    return Chain(
        runs,
        input_bytes=draw(ends),
        static_bytes=draw(ends),
        loss_gradient_bytes=draw(ends),
        input_gradient_bytes=draw(st.none() | ends),
    )


@given(equal_chains(), st.integers(0, 120), st.none() | st.integers(0, 12))
@settings(deadline=None, max_examples=100)
def test_on_equal_stages_it_is_the_cheapest_of_its_class_and_its_least_budget_is_the_least(of, spare, most):
    """With and without a limit of stages archived at once, against all policies of the class, replayed"""
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(of, -1, "reversible", most_archived=most)
    least = refusal.value.minimum_budget_bytes
    policies = UndoingPolicies(of, most)
    assert policies.cheapest(least - 1) == inf
    with pytest.raises(BudgetTooSmall):
        solve(of, least - 1, "reversible", most_archived=most)
    for budget_bytes in (least, least + spare):
        solution = solve(of, budget_bytes, "reversible", most_archived=most)
        assert solution.verdict.makespan == policies.cheapest(budget_bytes)
        assert solution.verdict.peak_bytes <= budget_bytes
        assert solution.exact_gradient
        assert solution.lower_bound <= solution.verdict.makespan
        limit = of.length if most is None else most
        assert max((n.span for n in solution.policy.nodes if isinstance(n, ArchiveNode)), default=0) <= limit
    # A plan is found again within its own peak: equal stages are counted as they are.
    again = solve(of, solution.verdict.peak_bytes, "reversible", most_archived=most)
    assert again.verdict.makespan == solution.verdict.makespan


@given(reversible_chains())
@settings(deadline=None, max_examples=60)
def test_where_stages_differ_more_bytes_never_cost_more(of):
    """Budget by budget from the least one; no plan is below the cheapest of the class"""
    least, makespan = least_bytes(of), inf
    policies = UndoingPolicies(of)
    assert policies.cheapest(least) < inf
    with pytest.raises(BudgetTooSmall):
        solve(of, least - 1, "reversible")
    for budget_bytes in range(least, least + 60, 2):
        now = solve(of, budget_bytes, "reversible").verdict
        assert policies.cheapest(budget_bytes) <= now.makespan <= makespan
        assert now.peak_bytes <= budget_bytes
        makespan = now.makespan


def test_neither_does_auto_cost_more():
    """The case that was found: 16 in 70 bytes, 18 in 108 and 20 in 139"""
    cheap = Stage(
        forward_cost=0, taped_forward_cost=2, backward_cost=2, state_bytes=0, tape_bytes=0,
        backward_workspace_bytes=2,
        reversal=Reversal(archive_bytes=0, undo_cost=3, undo_workspace_bytes=3, archive_cost=1),
    )  # fmt: skip
    large = Stage(
        forward_cost=1, taped_forward_cost=4, backward_cost=2, state_bytes=0, tape_bytes=31,
        forward_workspace_bytes=3, taped_forward_workspace_bytes=27, backward_workspace_bytes=10,
        gradient_bytes=31, reversal=Reversal(archive_bytes=0, undo_cost=3),
    )  # fmt: skip
    of = Chain((StageRun(2, cheap), StageRun(2, large)), static_bytes=5, input_gradient_bytes=2)
    least = least_bytes(of, "auto")
    makespans = [solve(of, budget_bytes).verdict.makespan for budget_bytes in range(least, 240)]
    assert makespans == sorted(makespans, reverse=True)
    assert makespans[-1] == 16


def test_stages_that_differ_all_along_have_fewer_places():
    """Every stage as a place would take tables of 20,000 stretches; more bytes never cost more"""
    of = Chain.of(replace(STAGE, forward_cost=1 + index / 64) for index in range(100))
    makespan = inf
    for budget_bytes in (least_bytes(of), 100, 200, 400):
        solution = solve(of, budget_bytes, "reversible")
        assert all(n.span % 2 == 0 for n in solution.policy.nodes if isinstance(n, CheckpointNode))
        assert solution.verdict.makespan <= makespan
        makespan = solution.verdict.makespan


@given(st.lists(equal_stages, min_size=1, max_size=3), st.data())
@settings(deadline=None, max_examples=60)
def test_on_long_stretches_as_good_a_turn_is_found_as_by_trying_all(pool, data):
    """The number of stages to archive for every room; few numbers are tried where MOST_TRIED is small"""
    counts = data.draw(st.lists(st.integers(1, 12), min_size=len(pool), max_size=len(pool)))
    of = Chain(tuple(map(StageRun, counts, pool)), input_bytes=3, loss_gradient_bytes=5)
    most = data.draw(st.none() | st.integers(0, 36))
    stretch = Stretches.of(of, of.length, most).stretch(0)
    rooms = np.arange(600, -1, -1)
    every = stretch.leaf(rooms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "MOST_TRIED", 0)
        few = stretch.leaf(rooms)
        assert stretch.least_bytes() == 601 - np.isfinite(every.cost).sum() or every.cost[0] == inf
    np.testing.assert_array_equal(few.cost, every.cost)


def test_sizes_beyond_64_bits_are_planned_the_same():
    """Sizes multiplied by 2**55 change no decision"""
    scale = 2**55
    sizes = ("state_bytes", "tape_bytes", "backward_workspace_bytes")
    big = replace(
        STAGE,
        **{name: getattr(STAGE, name) * scale for name in sizes},
        reversal=replace(REVERSAL, archive_bytes=scale, undo_workspace_bytes=20 * scale),
    )
    wide = replace(chain(30, big), input_bytes=4 * scale, loss_gradient_bytes=4 * scale)
    for budget_bytes in (least_bytes(chain(30)), 60, 100, 300):
        assert (
            solve(wide, budget_bytes * scale, "reversible").policy
            == solve(chain(30), budget_bytes, "reversible").policy
        )
    assert least_bytes(wide) == least_bytes(chain(30)) * scale


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


def test_auto_is_called_reversible_only_where_something_is_undone():
    """Undoing takes so long here that it never pays; the leaner of two policies of checkpoints still wins"""
    slow = Reversal(archive_bytes=1, undo_cost=30, undo_workspace_bytes=16)
    last = replace(STAGE, tape_bytes=16, reversal=slow)
    of = Chain(
        (StageRun(7, replace(STAGE, reversal=slow)), StageRun(1, last)), input_bytes=4, loss_gradient_bytes=4
    )
    leaner = 0
    for budget_bytes in range(least_bytes(of, "auto"), 180):
        auto, undoing = solve(of, budget_bytes), solve(of, budget_bytes, "reversible")
        assert (auto.strategy == "reversible") == (auto.verdict.undo_count > 0)
        leaner += auto.policy == undoing.policy and auto.strategy == "optimal"
    assert leaner


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


@given(equal_chains(max_length=8) | reversible_chains())
@settings(deadline=None, max_examples=40)
def test_every_point_of_a_frontier_is_planned_within_its_budget(of):
    """From the least budget to that of full BPTT"""
    points = frontier(of, most_points=12)
    for point in points:
        assert solve(of, point.budget_bytes).verdict.makespan == pytest.approx(point.makespan)


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


def test_costs_of_undoing_that_drown_in_those_of_taping_are_bounded_as_they_are():
    """The bound took them as a difference, lost their last digits, and called the plan unsound"""
    cheap = Reversal(archive_bytes=4, undo_cost=1e-9, undo_workspace_bytes=7, archive_cost=1e-9)
    stage = Stage(
        forward_cost=1 / 3,
        taped_forward_cost=0.6,
        backward_cost=0.1,
        state_bytes=2,
        tape_bytes=11,
        reversal=cheap,
    )
    solution = solve(Chain((StageRun(2, stage),)), 40)
    assert solution.verdict.makespan == solution.lower_bound == pytest.approx(4e-9, rel=1e-12)
