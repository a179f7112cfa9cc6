"""The most time that a job lets its plan take."""

import random
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from executor.jobs.slowdown import WORTHWHILE_RATIO, SlowdownTooGreat, require_quick
from planner_service.chain import Backward, Chain, Stage, StageRun, Tape, simulate
from planner_service.planning import choice


def chain_of(draw):
    """A chain of 37 segments with costs as a clock has them."""
    costs = [draw.uniform(1e-5, 1e-3) for _ in range(3)]
    names = ("forward_cost", "taped_forward_cost", "backward_cost")
    inner, last = (
        Stage(**dict(zip(names, [part * cost for cost in costs], strict=True)), state_bytes=1, tape_bytes=5)
        for part in (1, 0.7)
    )
    return Chain((StageRun(36, inner), StageRun(1, last)))


def test_a_plan_that_runs_nothing_twice_is_quick_enough_for_any_job():
    """Its time is a sum in another order than that of full BPTT: greater by a last digit, now and then"""
    draw = random.Random(0)
    for _ in range(20):
        chain = chain_of(draw)
        segment = SimpleNamespace(segment_steps=1)
        prepared = SimpleNamespace(
            probe=SimpleNamespace(segments=[segment], chain=lambda length, steps, chain=chain: chain)
        )
        seconds = simulate(chain, [Tape(1, 37), Backward(37, 1)]).makespan
        require_quick(prepared, SimpleNamespace(length=37, makespan_seconds=seconds), 1.0)
        with pytest.raises(SlowdownTooGreat):
            require_quick(prepared, SimpleNamespace(length=37, makespan_seconds=1.01 * seconds), 1.0)


def test_what_the_planner_passes_over_is_not_held_against_its_plan():
    """Jobs cannot import the planner's constant, so that theirs is held equal here"""
    assert choice.WORTHWHILE_RATIO == WORTHWHILE_RATIO
