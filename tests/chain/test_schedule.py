"""Expansion: the order of actions, applied anywhere, lazily and in constant memory."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import (
    EMPTY,
    Advance,
    Backward,
    Chain,
    CheckpointNode,
    Free,
    Policy,
    Stage,
    StageRun,
    Tape,
    TapeNode,
    expand,
    simulate,
)
from tests.oracles.chains import policies


def halving(levels: int) -> Policy:
    """Checkpoint in the middle, again and again: 2**levels stages in levels + 1 nodes."""
    nodes = [TapeNode(1, EMPTY), *(CheckpointNode(2**level, level, level) for level in range(levels))]
    return Policy(tuple(nodes), levels)


def test_the_order_is_advance_right_free_left():
    policy = Policy((TapeNode(2, EMPTY), TapeNode(3, EMPTY), CheckpointNode(2, 1, 0)), 2)
    assert list(expand(policy)) == [
        Advance(1, 2),
        Tape(3, 5),
        Backward(5, 3),
        Free(2),
        Tape(1, 2),
        Backward(2, 1),
    ]


def test_a_tape_is_reversed_after_what_follows_it():
    policy = Policy((TapeNode(1, EMPTY), TapeNode(2, 0)), 1)
    assert list(expand(policy)) == [Tape(1, 2), Tape(3, 3), Backward(3, 3), Backward(2, 1)]


def test_the_empty_policy_has_no_actions():
    assert list(expand(Policy((), EMPTY))) == []


@given(st.integers(1, 12).flatmap(policies), st.integers(1, 50))
def test_starting_elsewhere_shifts_every_index(policy, first_stage):
    shift = first_stage - 1
    shifted = [type(action)(*(index + shift for index in action)) for action in expand(policy)]
    assert list(expand(policy, first_stage)) == shifted


@given(st.integers(1, 12).flatmap(policies))
def test_every_stage_is_reversed_once_from_last_to_first(policy):
    backwards = [action for action in expand(policy) if isinstance(action, Backward)]
    order = [index for action in backwards for index in range(action.first, action.last - 1, -1)]
    assert order == list(range(policy.length, 0, -1))


def test_expansion_is_lazy():
    """A schedule of a billion billion actions gives its first ones at once."""
    first = list(islice(expand(halving(60)), 3))
    assert first == [
        Advance(1, 2**59),
        Advance(2**59 + 1, 2**59 + 2**58),
        Advance(2**59 + 2**58 + 1, 2**60 - 2**57),
    ]


def test_expansion_takes_memory_for_the_depth_only():
    tracemalloc.start()
    try:
        count = sum(1 for _ in expand(halving(15)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4 * 2**15 - 2
    assert peak_bytes < 50_000


@pytest.mark.parametrize("levels", range(9))
def test_halving_costs_half_a_forward_per_level_and_stage(levels):
    """Closed form: each level advances half of its stages, and there are `levels` levels."""
    step = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=0, state_bytes=1, tape_bytes=1)
    verdict = simulate(Chain((StageRun(2**levels, step),)), expand(halving(levels)))
    assert verdict.advance_count == levels * 2**levels // 2
    assert verdict.tape_count == 2**levels
