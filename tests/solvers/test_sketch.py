"""The sketch is never too good, hardly ever far off, and says nothing where it cannot."""

from __future__ import annotations

import random

import numpy as np
import pytest

from planner_service.chain import Chain, Stage, StageRun
from planner_service.solvers import minimum_budget_bytes, solve
from planner_service.solvers.sketch import Outline, frontier_sketch

ROUNDING = 1 + 1e-9


def some_stage(draw: random.Random) -> Stage:
    return Stage(
        forward_cost=draw.choice([1, 2.5]),
        taped_forward_cost=draw.choice([1, 1.5]),
        backward_cost=2,
        state_bytes=draw.randrange(12),
        tape_bytes=draw.randrange(40),
        forward_workspace_bytes=draw.randrange(9),
        taped_forward_workspace_bytes=draw.randrange(9),
        backward_workspace_bytes=draw.randrange(9),
        gradient_bytes=draw.choice([None, 0, 5]),
    )


def some_chain(draw: random.Random) -> Chain:
    """Equal stages, at times with another one before or after them."""
    runs = [StageRun(draw.randrange(1, 40), some_stage(draw))]
    if draw.random() < 0.5:
        runs.append(StageRun(1, some_stage(draw)))
    if draw.random() < 0.3:
        runs.insert(0, StageRun(1, some_stage(draw)))
    return Chain(
        tuple(runs),
        input_bytes=draw.randrange(9),
        static_bytes=draw.randrange(50),
        loss_gradient_bytes=draw.randrange(9),
    )


@pytest.mark.parametrize("seed", range(80))
def test_the_optimum_of_a_budget_costs_no_more_than_the_sketch_says(seed):
    draw = random.Random(seed)
    chain = some_chain(draw)
    sketch = frontier_sketch([Outline.of(chain)])
    for index in draw.sample(range(len(sketch.makespan)), min(5, len(sketch.makespan))):
        optimum = solve(chain, int(sketch.budget_bytes[index])).verdict.makespan
        assert optimum <= sketch.makespan[index] * ROUNDING


@pytest.mark.parametrize("seed", range(80, 120))
def test_the_leanest_plan_costs_no_more_than_advancing_from_the_input_every_time(seed):
    chain = some_chain(random.Random(seed))
    leanest = solve(chain, minimum_budget_bytes(chain))
    assert leanest.verdict.makespan <= Outline.of(chain).quadratic_makespan * ROUNDING


@pytest.mark.parametrize(("length", "tape_bytes"), [(100, 10), (400, 40), (1000, 4)])
def test_the_sketch_is_near_the_optimum(length, tape_bytes):
    """Within 8 % where a chain runs up to about twice as long; mostly within 1 %."""
    stage = Stage(
        forward_cost=1,
        taped_forward_cost=1,
        backward_cost=2,
        state_bytes=1_000,
        tape_bytes=1_000 * tape_bytes,
        backward_workspace_bytes=3_000,
    )
    chain = Chain((StageRun(length, stage),), input_bytes=1_000)
    sketch = frontier_sketch([Outline.of(chain)])
    order = np.argsort(sketch.budget_bytes)
    budgets, makespans = sketch.budget_bytes[order], np.minimum.accumulate(sketch.makespan[order])
    ratios = []
    for budget_bytes in np.geomspace(budgets[10], budgets[-1], 12).astype(int):
        index = np.searchsorted(budgets, budget_bytes, side="right") - 1
        optimum = solve(chain, int(budget_bytes)).verdict.makespan
        ratios.append(makespans[index] / optimum)
    assert max(ratios) <= 1.08
    assert np.median(ratios) <= 1.01


def test_full_bptt_is_on_the_sketch():
    chain = Chain((StageRun(50, some_stage(random.Random(1))),))
    assert frontier_sketch([Outline.of(chain)]).makespan.min() == chain.store_all_makespan


def test_a_chain_of_many_different_stages_has_no_sketch():
    draw = random.Random(0)
    assert Outline.of(Chain.of([some_stage(draw) for _ in range(9)])) is None


def test_sizes_that_leave_64_bits_have_no_sketch():
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=2**60)
    assert Outline.of(Chain((StageRun(100, stage),))) is None


def test_several_chains_are_sketched_as_each_alone():
    draw = random.Random(4)
    outlines = [Outline.of(some_chain(draw)) for _ in range(5)]
    together = frontier_sketch(outlines)
    alone = [frontier_sketch([outline]) for outline in outlines]
    assert together.budget_bytes.tolist() == [b for each in alone for b in each.budget_bytes.tolist()]
    assert together.makespan.tolist() == [m for each in alone for m in each.makespan.tolist()]
