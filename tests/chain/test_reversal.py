"""Stages that can be undone: what is archived, what undoing needs and leaves, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import (
    EMPTY,
    Advance,
    Archive,
    ArchiveNode,
    Backward,
    Chain,
    CheckpointNode,
    Free,
    InvalidChain,
    Policy,
    Reversal,
    Stage,
    StageRun,
    Tape,
    TapeNode,
    Undo,
    action_from_record,
    action_record,
    describe,
    expand,
    policy_from_record,
    simulate,
    stage_from_record,
    stage_record,
)
from tests.chain.judgement import assert_same_judgement
from tests.oracles.chains import policies, reversible_chains

# Distinct primes, so that a swapped term cannot cancel out.
STAGE = Stage(
    forward_cost=2,
    taped_forward_cost=3,
    backward_cost=5,
    state_bytes=7,
    tape_bytes=101,
    forward_workspace_bytes=11,
    taped_forward_workspace_bytes=13,
    backward_workspace_bytes=17,
    gradient_bytes=19,
    reversal=Reversal(archive_bytes=23, undo_cost=29, undo_workspace_bytes=131),
)


def chain(length: int) -> Chain:
    return Chain((StageRun(length, STAGE),), input_bytes=31, static_bytes=37, loss_gradient_bytes=41)


@given(st.data())
def test_policies_that_undo_expand_to_legal_schedules(data):
    """Any tree of tapes, checkpoints and archived stretches reverses every stage once"""
    chain = data.draw(reversible_chains(max_length=8))
    policy = data.draw(policies(chain.length, undoing=True))
    verdict = simulate(chain, expand(policy))
    assert verdict.legal
    assert verdict.backward_count == chain.length
    assert verdict.tape_count + verdict.undo_count == chain.length
    assert_same_judgement(chain, list(expand(policy)))
    assert policy_from_record(policy.record()) == policy


def test_undoing_all_stages_costs_and_holds_what_the_closed_form_says():
    """A pure reversal: L (f + v), and at its peak the archive, two states, two gradients, the workspace"""
    verdict = simulate(chain(10), expand(Policy((ArchiveNode(10, EMPTY),), 0)))
    assert verdict.makespan == 10 * (2 + 29)
    # Stage 9 has the greatest need: below the loss's gradient, a stage's bits less than stage 10.
    at_last = 37 + 31 + 10 * 23 + 7 + 7 + 41 + 19 + 131
    at_ninth = 37 + 31 + 9 * 23 + 7 + 7 + 19 + 19 + 131
    assert verdict.peak_bytes == max(at_last, at_ninth)
    assert (verdict.advance_count, verdict.tape_count, verdict.undo_count) == (10, 0, 10)


def test_a_stretch_is_undone_in_parts_and_leaves_its_first_state():
    """`undo 6..4` of an archived 2..6 leaves x_3, from which the rest is undone"""
    schedule = [Advance(1, 1), Archive(2, 6), Undo(6, 4), Undo(3, 2), Free(1), Archive(1, 1), Undo(1, 1)]
    assert simulate(chain(6), schedule).legal
    assert_same_judgement(chain(6), schedule)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ([Archive(1, 3), Undo(2, 1)], "the gradient of x_2 is not live"),
        ([Archive(1, 2), Tape(3, 3), Backward(3, 3), Free(2), Undo(2, 1)], "x_2 is not a checkpoint"),
        ([Advance(1, 2), Archive(3, 3), Undo(3, 2)], "stage 2 is not archived"),
        ([Archive(1, 3), Tape(2, 2)], "x_1 is not live"),
        ([Archive(1, 1), Archive(2, 3), Tape(2, 2)], "stage 2 is archived already"),
        ([Tape(1, 3), Archive(3, 3)], "stage 3 is taped already"),
        ([Archive(1, 3), Free(3), Archive(1, 3)], "stage 1 is archived already"),
        ([Archive(1, 3), Undo(3, 1), Archive(3, 3)], "x_2 is not live"),
        ([Advance(1, 3), Archive(2, 3)], "x_1 is not live"),
        ([Archive(2, 4)], "not a range inside 1..3"),
        ([Advance(1, 2), Advance(1, 3), Archive(3, 3)], "x_3 is stored already"),
        ([Archive(1, 3), Backward(3, 3)], "stage 3 is not taped"),
    ],
)
def test_what_the_rules_forbid_is_refused_with_the_reason(schedule, reason):
    """The first illegal action and why"""
    verdict = simulate(chain(3), schedule)
    assert verdict.illegal is not None
    assert reason in str(verdict.illegal)


def test_stages_without_a_reversal_cannot_be_archived():
    """The judge says which stage it is"""
    plain = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=1, state_bytes=1, tape_bytes=1)
    mixed = Chain((StageRun(2, STAGE), StageRun(1, plain)))
    assert mixed.has_reversals
    assert not mixed.is_reversible
    assert chain(3).has_reversals
    assert chain(3).is_reversible
    assert not Chain((StageRun(1, plain),)).has_reversals
    assert "stage 3 cannot be undone" in str(simulate(mixed, [Archive(1, 3)]).illegal)


@pytest.mark.parametrize("field", ["archive_bytes", "undo_workspace_bytes"])
@pytest.mark.parametrize("value", [-1, 1.5, 2**63])
def test_a_reversal_out_of_range_is_refused(field, value):
    """Bytes are whole numbers that the solvers can carry"""
    with pytest.raises(InvalidChain, match=field):
        Reversal(**{"archive_bytes": 1, "undo_cost": 1, field: value})
    with pytest.raises(InvalidChain, match="undo_cost"):
        Reversal(archive_bytes=1, undo_cost=float("nan"))


def test_records_come_back():
    """Actions and stages over the wire"""
    for action, text in ((Archive(1, 17), "archive 1..17"), (Undo(17, 1), "undo 17..1")):
        assert action_from_record(action_record(action)) == action
        assert type(action_from_record(action_record(action))) is type(action)
        assert describe(action) == text
    assert stage_from_record(stage_record(STAGE)) == STAGE


def test_an_archived_stretch_covers_its_rest():
    """The length of a policy counts archived stages once"""
    nodes = (TapeNode(2, EMPTY), ArchiveNode(3, 0), ArchiveNode(4, EMPTY), CheckpointNode(4, 1, 2))
    assert Policy(nodes, 3).length == 9
