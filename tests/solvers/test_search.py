"""Planning by families: convex minorants bound every policy, and the search meets the table's optimum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import Chain, Stage, StageRun, expand, simulate
from planner_service.solvers.intervals import IntervalTable
from planner_service.solvers.leanest import least_free_bytes, least_of_intervals
from planner_service.solvers.levels import choose_levels
from planner_service.solvers.minorant import MinorantTable
from planner_service.solvers.needs import chain_needs
from planner_service.solvers.policies import build_policy
from planner_service.solvers.search import PolicySearch
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import Cancellation, Cancelled
from planner_service.solvers.solve import solve

GO = Cancellation()


@st.composite
def stages(draw: st.DrawFn, forward_cost: int | None = None) -> Stage:
    """Positive sizes, each workspace now and then large."""
    state = draw(st.integers(1, 4))
    return Stage(
        forward_cost=draw(st.integers(1, 3)) if forward_cost is None else forward_cost,
        taped_forward_cost=1,
        backward_cost=2,
        state_bytes=state,
        tape_bytes=draw(st.integers(1, 3)) + state * draw(st.integers(0, 3)),
        forward_workspace_bytes=draw(st.sampled_from([0, 0, 0, 3, 9])),
        taped_forward_workspace_bytes=draw(st.sampled_from([0, 0, 2])),
        backward_workspace_bytes=draw(st.sampled_from([0, 0, 2])),
        gradient_bytes=draw(st.sampled_from([None, None, 0])),
    )


@st.composite
def nearly_homogeneous(draw: st.DrawFn) -> Chain:
    """Up to two special stages at either end of a body of 9 to 40 equal ones."""
    body = draw(stages(forward_cost=1))
    ends = st.lists(stages(), max_size=2)
    return Chain.of(
        [*draw(ends), *[body] * draw(st.integers(9, 40)), *draw(ends)],
        input_bytes=draw(st.integers(0, 4)),
        loss_gradient_bytes=draw(st.integers(0, 4)),
    )


@given(st.data())
def test_the_search_finds_the_optimum_of_the_table_and_the_minorant_stays_below(data):
    chain = data.draw(nearly_homogeneous())
    needs = chain_needs(chain)
    sections = Sections(needs)
    if not sections.convex:
        return
    least = least_free_bytes(needs, GO)
    free = data.draw(st.integers(least, max(least, needs.store_all_bytes - 1)))
    levels = choose_levels(needs, free, 20_000)
    assert levels.exact
    optimum = IntervalTable(needs, levels, GO).cost(0, needs.length - 1)[-1]
    search = PolicySearch(MinorantTable(sections, levels, GO), GO)
    cost = search.run(free) * sections.unit_cost
    assert search.least_cost(free) * sections.unit_cost <= optimum * (1 + 1e-9)
    # The search may be cut short; it is then at most one advance per end and body stage above.
    assert optimum * (1 - 1e-9) <= cost <= optimum + 3 * sections.unit_cost
    verdict = simulate(chain, expand(build_policy(needs, free, search.decide)), free + chain.input_bytes)
    assert verdict.legal
    assert abs(verdict.makespan - chain.store_all_makespan - cost) <= 1e-9 * verdict.makespan


@given(nearly_homogeneous())
def test_the_least_memory_by_families_is_that_by_intervals(chain):
    needs = chain_needs(chain)
    assert least_free_bytes(needs, GO) == least_of_intervals(needs, GO)[0, -1]


def free_body(*, first_cost: float, body_cost: float) -> Chain:
    """2,500 equal stages of (next to) no cost between others, too many bytes' worth for a table."""

    def stage(cost: float, state_bytes: int, tape_bytes: int) -> Stage:
        return Stage(
            forward_cost=cost,
            taped_forward_cost=1,
            backward_cost=2,
            state_bytes=state_bytes,
            tape_bytes=tape_bytes,
        )

    runs = [(1, stage(first_cost, 5, 8)), (2_500, stage(body_cost, 1, 4)), (3, stage(7, 2, 6))]
    return Chain(tuple(StageRun(*run) for run in runs))


@pytest.mark.parametrize("budget_bytes", [60, 100, 200])
def test_stages_that_cost_nothing_are_run_again_rather_than_those_that_cost(budget_bytes):
    """Taping the few dear stages leaves nothing to pay; 30 bytes are enough for that"""
    chain = free_body(first_cost=1000, body_cost=0)
    assert solve(chain, budget_bytes).verdict.makespan == chain.store_all_makespan


@pytest.mark.parametrize("body_cost", [5e-324, 1e-300])
def test_costs_may_differ_by_more_than_a_double_can_tell(body_cost):
    """No ratio of them leaves the numbers; nothing is lost but what could not be seen anyway"""
    chain = free_body(first_cost=1e100, body_cost=body_cost)
    assert solve(chain, 100).verdict.makespan == chain.store_all_makespan


def test_a_descent_through_many_stages_is_cancelled_on_its_way():
    """A hundred thousand subproblems waited for each other before anybody looked: five seconds"""
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=2, tape_bytes=10**6)
    needs = chain_needs(Chain((StageRun(3_000, stage),)))
    cancellation = Cancellation()
    search = PolicySearch(
        MinorantTable(Sections(needs), choose_levels(needs, 10**6 + 200, 200), GO), cancellation
    )
    cancellation.cancel()
    opened = []
    frame_of = search._frame
    search._frame = lambda here: opened.append(here) or frame_of(here)
    with pytest.raises(Cancelled):
        search.run(10**6 + 200)
    assert len(opened) == 1
