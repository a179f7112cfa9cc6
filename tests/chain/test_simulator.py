"""The judge against a naive machine that shares no code with it, and every rule by name."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import (
    Advance,
    Backward,
    Chain,
    Free,
    IllegalSchedule,
    Stage,
    StageRun,
    Tape,
    expand,
    moments,
    simulate,
)
from tests.chain.judgement import assert_same_judgement
from tests.oracles.chains import actions, chains, legal_schedules, policies, reversible_chains


@pytest.mark.parametrize(
    ("drawn", "most_bytes"),
    [(chains(max_length=8), 120), (reversible_chains(max_length=6), 150)],
    ids=["taped", "reversible"],
)
@given(st.data())
def test_legal_schedules_are_judged_as_the_naive_machine_does(drawn, most_bytes, data):
    """Tapes and checkpoints, and archives where stages can be undone, in any legal order"""
    chain = data.draw(drawn)
    schedule = data.draw(legal_schedules(chain))
    assert simulate(chain, schedule).legal
    assert_same_judgement(chain, schedule)
    assert_same_judgement(chain, schedule, data.draw(st.integers(0, most_bytes)))


@pytest.mark.parametrize(
    ("drawn", "most_actions"),
    [(chains(max_length=6), 12), (reversible_chains(max_length=5), 10)],
    ids=["taped", "reversible"],
)
@given(st.data())
def test_arbitrary_actions_are_judged_as_the_naive_machine_does(drawn, most_actions, data):
    """Sensible or not, legal or not"""
    chain = data.draw(drawn)
    assert_same_judgement(chain, data.draw(st.lists(actions(chain.length), max_size=most_actions)))


@given(st.data())
def test_a_legal_schedule_with_one_change_is_judged_as_the_naive_machine_does(data):
    chain = data.draw(chains(max_length=6))
    schedule = data.draw(legal_schedules(chain))
    position = data.draw(st.integers(0, len(schedule) - 1))
    change = data.draw(st.sampled_from(["drop", "insert", "swap"]))
    if change == "drop":
        del schedule[position]
    elif change == "insert":
        schedule.insert(position, data.draw(actions(chain.length)))
    else:
        other = data.draw(st.integers(0, len(schedule) - 1))
        schedule[position], schedule[other] = schedule[other], schedule[position]
    assert_same_judgement(chain, schedule)


@given(st.data())
def test_every_policy_expands_to_a_legal_schedule(data):
    chain = data.draw(chains(max_length=12))
    schedule = list(expand(data.draw(policies(chain.length))))
    verdict = simulate(chain, schedule)
    assert verdict.legal
    assert verdict.tape_count == verdict.backward_count == chain.length
    assert_same_judgement(chain, schedule)


@given(st.data())
def test_the_peak_is_the_least_budget_that_passes(data):
    chain = data.draw(chains(max_length=6))
    schedule = data.draw(legal_schedules(chain))
    peak = simulate(chain, schedule).peak_bytes
    assert simulate(chain, schedule, peak).legal
    over = simulate(chain, schedule, peak - 1)
    assert over.illegal is not None
    assert f"1 over the budget of {peak - 1}" in over.illegal.reason


@given(st.data())
def test_moments_chain_up_and_agree_with_the_verdict(data):
    chain = data.draw(chains(max_length=6))
    schedule = data.draw(legal_schedules(chain))
    seen = list(moments(chain, schedule))
    verdict = simulate(chain, schedule)
    assert [moment.action for moment in seen] == schedule
    assert [moment.position for moment in seen] == list(range(len(schedule)))
    assert sum(moment.cost for moment in seen) == verdict.makespan
    assert max(moment.peak_bytes for moment in seen) == verdict.peak_bytes
    assert all(before.live_after_bytes == after.live_before_bytes for before, after in pairwise(seen))
    assert all(moment.peak_bytes >= moment.live_before_bytes for moment in seen if moment.cost)


# Distinct primes, so that a term in the wrong place cannot cancel out.
FIRST = Stage(
    forward_cost=2,
    taped_forward_cost=3,
    backward_cost=5,
    state_bytes=7,
    tape_bytes=29,
    forward_workspace_bytes=11,
    taped_forward_workspace_bytes=13,
    backward_workspace_bytes=17,
    gradient_bytes=19,
)
SECOND = Stage(
    forward_cost=23,
    taped_forward_cost=31,
    backward_cost=37,
    state_bytes=41,
    tape_bytes=59,
    forward_workspace_bytes=43,
    taped_forward_workspace_bytes=47,
    backward_workspace_bytes=53,
)
PRIMES = Chain.of(
    [FIRST, SECOND], input_bytes=101, static_bytes=1009, loss_gradient_bytes=211, input_gradient_bytes=307
)
HELD = 1009 + 101  # static and the input, throughout


def test_bytes_of_taping_everything_follow_the_table_term_by_term():
    timeline = list(moments(PRIMES, [Tape(1, 1), Tape(2, 2), Backward(2, 2), Backward(1, 1)]))
    assert [(moment.cost, moment.live_before_bytes, moment.peak_bytes) for moment in timeline] == [
        (3, HELD + 211, HELD + 211 + 29 + 13),
        (31, HELD + 211 + 29, HELD + 211 + 29 + 59 + 47),
        (37, HELD + 211 + 29 + 59, HELD + 211 + 29 + 59 + 19 + 53),
        (5, HELD + 19 + 29, HELD + 19 + 29 + 307 + 17),
    ]
    assert timeline[-1].live_after_bytes == HELD + 307


def test_bytes_of_recomputing_follow_the_table_term_by_term():
    schedule = [Advance(1, 1), Tape(2, 2), Backward(2, 2), Free(1), Tape(1, 1), Backward(1, 1)]
    timeline = list(moments(PRIMES, schedule))
    assert [(moment.cost, moment.live_before_bytes, moment.peak_bytes) for moment in timeline] == [
        (2, HELD + 211, HELD + 211 + 7 + 11),
        (31, HELD + 211 + 7, HELD + 211 + 7 + 59 + 47),
        (37, HELD + 211 + 7 + 59, HELD + 211 + 7 + 59 + 19 + 53),
        (0, HELD + 19 + 7, HELD + 19 + 7),
        (3, HELD + 19, HELD + 19 + 29 + 13),
        (5, HELD + 19 + 29, HELD + 19 + 29 + 307 + 17),
    ]


def test_an_advance_over_two_stages_holds_both_states_while_the_second_runs():
    moment = next(moments(PRIMES, [Advance(1, 2)]))
    assert moment.peak_bytes == HELD + 211 + 7 + 41 + 43
    assert moment.live_after_bytes == HELD + 211 + 41


FOUR = Chain(
    (
        StageRun(
            4,
            Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4),
        ),
    )
)

ILLEGAL = {
    "advance from a state that is not live": ([Advance(3, 3)], 0, "x_2 is not live"),
    "advance from a freed state": ([Advance(1, 2), Free(2), Advance(3, 3)], 2, "x_2 is not live"),
    "advance from a state passed on the way": ([Advance(1, 3), Advance(3, 4)], 1, "x_2 is not live"),
    "advance to a stored state": ([Advance(1, 2), Advance(1, 2)], 1, "x_2 is stored already"),
    "advance past the end": ([Advance(1, 5)], 0, "not a range inside 1..4"),
    "advance stage 0": ([Advance(0, 1)], 0, "not a range inside 1..4"),
    "advance an empty range": ([Advance(2, 1)], 0, "not a range inside 1..4"),
    "tape from a state that is not live": ([Tape(2, 2)], 0, "x_1 is not live"),
    "tape twice": ([Tape(1, 2), Tape(1, 1)], 1, "stage 1 is taped already"),
    "tape over a live tape": ([Tape(1, 2), Tape(1, 4)], 1, "stage 1 is taped already"),
    "tape what was reversed": (
        [Advance(1, 3), Tape(4, 4), Backward(4, 4), Tape(4, 4)],
        3,
        "stage 4 was reversed already",
    ),
    "reverse without a tape": ([Backward(4, 4)], 0, "stage 4 is not taped"),
    "reverse across a gap between tapes": (
        [Advance(1, 3), Tape(4, 4), Backward(4, 3)],
        2,
        "stage 3 is not taped",
    ),
    "reverse below the gradient": (
        [Tape(1, 4), Backward(3, 3)],
        1,
        "gradient of x_3 is not live: that of x_4 is",
    ),
    "reverse twice": ([Tape(1, 4), Backward(4, 4), Backward(4, 4)], 2, "gradient of x_4 is not live"),
    "reverse a range given in forward order": ([Tape(1, 4), Backward(1, 4)], 1, "not a range"),
    "free what is not stored": ([Free(1)], 0, "x_1 is not a checkpoint"),
    "free the input": ([Free(0)], 0, "x_0 is not a checkpoint"),
    "free twice": ([Advance(1, 1), Free(1), Free(1)], 2, "x_1 is not a checkpoint"),
    "free the output of a tape": ([Tape(1, 1), Free(1)], 1, "x_1 is not a checkpoint"),
    "free under a live tape": ([Advance(1, 1), Tape(2, 2), Free(1)], 2, "tape of stage 2 still needs x_1"),
    "free what a tape refers to, with an equal state in another tape": (
        [Advance(1, 1), Tape(2, 2), Tape(1, 1), Free(1)],
        3,
        "tape of stage 2 still needs x_1",
    ),
    "end before the last stage is reversed": ([Tape(1, 4), Backward(4, 2)], 2, "stages 1..1 not reversed"),
    "no action at all": ([], 0, "stages 1..4 not reversed"),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_first_illegal_action_is_named(case):
    schedule, index, reason = ILLEGAL[case]
    verdict = simulate(FOUR, schedule)
    assert not verdict.legal
    assert verdict.illegal.index == index
    assert reason in verdict.illegal.reason
    assert verdict.action_count == index
    with pytest.raises(IllegalSchedule, match=str(index)) as caught:
        list(moments(FOUR, schedule))
    assert caught.value.illegal == verdict.illegal


def test_a_checkpoint_beside_the_tape_that_gave_the_state_may_go():
    """Stage 2 was taped from the output of tape 1, so the extra copy of x_1 is nobody's input."""
    schedule = [Tape(1, 1), Advance(1, 1), Tape(2, 4), Free(1), Backward(4, 1)]
    assert simulate(FOUR, schedule).legal


def test_an_action_over_the_budget_is_not_counted():
    verdict = simulate(FOUR, [Tape(1, 4), Backward(4, 1)], budget_bytes=15)
    assert verdict.illegal.index == 0
    assert "16 bytes would be live, 1 over the budget of 15" in verdict.illegal.reason
    assert (verdict.makespan, verdict.tape_count, verdict.peak_bytes) == (0, 0, 0)


def test_an_action_at_the_budget_is_allowed():
    assert simulate(FOUR, [Tape(1, 4), Backward(4, 1)], budget_bytes=17).legal


def test_what_is_held_from_the_start_counts_against_the_budget():
    chain = Chain(FOUR.runs, static_bytes=100)
    verdict = simulate(chain, [Advance(1, 1)], budget_bytes=100)
    assert verdict.illegal.index == 0
    assert verdict.peak_bytes == 100


def test_a_million_stages_cost_one_step_per_record():
    step = Stage(
        forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=10**15, tape_bytes=4 * 10**15
    )
    chain = Chain((StageRun(1_000_000, step),), loss_gradient_bytes=3)
    verdict = simulate(chain, [Tape(1, 1_000_000), Backward(1_000_000, 1)])
    assert verdict.legal
    assert verdict.makespan == 3_000_000
    assert verdict.peak_bytes == 1_000_000 * 4 * 10**15 + 3 + 10**15


def test_an_illegal_action_describes_itself():
    verdict = simulate(FOUR, [Advance(1, 3), Free(2)])
    assert str(verdict.illegal) == "action 1 (free 2): x_2 is not a checkpoint"
    assert (
        str(simulate(FOUR, []).illegal)
        == "action 0 (the end): the schedule ends with stages 1..4 not reversed"
    )
