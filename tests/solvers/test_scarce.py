"""Many different stages and little memory: what fits is planned, and the refusal names what does."""

from __future__ import annotations

import pytest

from planner_service.chain import BudgetTooSmall, Chain, Stage, StageRun, simulate
from planner_service.chain.actions import Action, Advance, Backward, Free, Tape
from planner_service.solvers import ScheduleTooLong, minimum_budget_bytes, solve


def distinct_stages(count: int) -> Chain:
    """Stages whose sizes all differ, so that they are planned in groups."""
    return Chain.of(
        Stage(
            forward_cost=1 + index % 7,
            taped_forward_cost=1 + index % 7,
            backward_cost=2,
            state_bytes=100 + index % 1013,
            tape_bytes=1000 + index * 7919 % 100_003,
        )
        for index in range(count)
    )


def one_at_a_time(count: int) -> list[Action]:
    """Advance from the input to each stage, tape it alone, reverse it: nothing else is ever stored."""
    actions: list[Action] = []
    for stage in range(count, 1, -1):
        actions += [Advance(1, stage - 1), Tape(stage, stage), Backward(stage, stage), Free(stage - 1)]
    return [*actions, Tape(1, 1), Backward(1, 1)]


@pytest.mark.parametrize("count", [500, 1000])
def test_no_plain_schedule_needs_less_than_the_least_budget(count: int) -> None:
    """Groups of stages need several times as much; that is not what a refusal may name."""
    chain = distinct_stages(count)
    plain = simulate(chain, one_at_a_time(count))
    assert plain.legal
    least = minimum_budget_bytes(chain)
    assert least <= plain.peak_bytes
    assert solve(chain, least).verdict.peak_bytes <= least
    with pytest.raises(BudgetTooSmall) as refusal:
        solve(chain, least - 1)
    assert refusal.value.minimum_budget_bytes == least


def test_a_budget_between_the_leanest_and_the_groups_is_planned() -> None:
    """With room for more states than the leanest policy stores, and for fewer than groups need."""
    chain = distinct_stages(1000)
    least = minimum_budget_bytes(chain)
    leanest, roomier = (solve(chain, budget).verdict.makespan for budget in (least, 2 * least))
    assert roomier < leanest


def test_a_schedule_that_nobody_could_run_is_refused_with_the_reason() -> None:
    """A million steps from two states at a time would be run half a billion times over."""
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)
    chain = Chain((StageRun(1_000_000, stage),), input_bytes=1, loss_gradient_bytes=1)
    least = minimum_budget_bytes(chain)
    with pytest.raises(BudgetTooSmall):
        solve(chain, least - 1)
    with pytest.raises(ScheduleTooLong, match="more bytes"):
        solve(chain, least)
