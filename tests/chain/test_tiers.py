"""Schedules with storage tiers: what is legal, how long it takes, what it holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import Advance, Backward, Chain, Free, InvalidChain, Stage, StageRun, Tape
from planner_service.chain.tiers import Tier
from planner_service.chain.tiers_actions import (
    Discard,
    Fetch,
    Move,
    Store,
    TieredAction,
    describe,
    tiered_action_from_record,
    tiered_action_record,
)
from planner_service.chain.tiers_simulator import simulate_tiers, timed_moments
from tests.oracles.chains import actions, chains
from tests.oracles.tiered_machine import judge_tiers

STAGE = Stage(forward_cost=2, taped_forward_cost=3, backward_cost=5, state_bytes=7, tape_bytes=17)
CHAIN = Chain((StageRun(3, STAGE),), input_bytes=1, static_bytes=100)


def slow(*, overlapped: bool, budget_bytes: int = 20) -> Tier:
    """Writes of x_i take 1 + 7 = 8, reads 2 + 14 = 16."""
    return Tier(
        name="host",
        budget_bytes=budget_bytes,
        write_seconds_per_byte=1,
        read_seconds_per_byte=2,
        write_latency_seconds=1,
        read_latency_seconds=2,
        overlapped=overlapped,
    )


THROUGH_HOST: list[TieredAction] = [
    Advance(1, 1),
    Store(1, "host"),
    Advance(2, 2),
    Free(1),
    Tape(3, 3),
    Fetch(1, "host"),
    Backward(3, 3),
    Free(2),
    Tape(2, 2),
    Backward(2, 2),
    Free(1),
    Discard(1, "host"),
    Tape(1, 1),
    Backward(1, 1),
]


def test_the_compute_stream_waits_for_every_transfer_of_a_tier_that_blocks():
    """2 advances, 3 tapes, 3 backwards, one write and one read, in a row."""
    verdict = simulate_tiers(CHAIN, [slow(overlapped=False)], THROUGH_HOST)
    assert verdict.legal
    assert verdict.compute_seconds == 2 * 2 + 3 * 3 + 3 * 5
    assert verdict.stall_seconds == 8 + 16


def test_overlapped_transfers_run_beside_the_compute_stream():
    """The write of x_1 ends at 2 + 8 and `free 1` waits for it; the read of x_1 starts at 13 and ends
    at 29, and `tape 2`, which needs it, waits from 18 to 29.
    """
    ends = [moment.ended_at for moment in timed_moments(CHAIN, [slow(overlapped=True)], THROUGH_HOST)]
    assert ends == [2, 2, 4, 10, 13, 13, 18, 18, 32, 37, 37, 37, 40, 45]
    moments = list(timed_moments(CHAIN, [slow(overlapped=True)], THROUGH_HOST))
    assert (moments[1].transfer_started_at, moments[1].transfer_ended_at) == (2, 10)
    assert (moments[5].transfer_started_at, moments[5].transfer_ended_at) == (13, 29)
    verdict = simulate_tiers(CHAIN, [slow(overlapped=True)], THROUGH_HOST)
    assert verdict.makespan == 45
    assert verdict.stall_seconds == 6 + 11


@pytest.mark.parametrize("overlapped", [False, True])
def test_peaks_do_not_depend_on_the_clocks(overlapped):
    """The most is live when stage 3 is reversed while x_1 is on its way: 100 + 1 + (7 + 7) + 17 + 7."""
    verdict = simulate_tiers(CHAIN, [slow(overlapped=overlapped)], THROUGH_HOST)
    assert verdict.peak_bytes == 100 + 1 + 14 + 17 + 7
    use = verdict.tiers[0]
    assert (use.name, use.peak_bytes, use.written_bytes, use.read_bytes) == ("host", 7, 7, 7)
    assert (use.write_count, use.read_count, use.write_seconds, use.read_seconds) == (1, 1, 8, 16)


def test_move_lets_the_state_go_that_it_read():
    """x_1 goes when stage 2 has run; only two states are ever live."""
    schedule = [Advance(1, 1), Move(2, 3)]
    verdict = simulate_tiers(CHAIN, [], schedule)
    assert verdict.peak_bytes == 101 + 14
    assert _moments_of([], schedule)[-1].live_after_bytes == 101 + 7


def test_move_waits_for_the_write_of_the_state_after_its_first_stage():
    """The write of x_1 ends at 10; stage 2 has run at 4, stage 3 runs from 10 to 12."""
    tiers = [slow(overlapped=True)]
    schedule = [Advance(1, 1), Store(1, "host"), Move(2, 3)]
    assert _clock_after(tiers, schedule) == 12


def test_transfers_of_one_direction_queue_and_the_other_direction_does_not():
    """Two writes end at 10 and 18; the read that starts at 10 ends at 26."""
    tiers = [slow(overlapped=True)]
    schedule = [
        Advance(1, 1), Store(1, "host"), Advance(2, 2), Store(2, "host"), Free(1), Fetch(1, "host"),
    ]  # fmt: skip
    ends = [moment.transfer_ended_at for moment in _moments_of(tiers, schedule)]
    assert (ends[1], ends[3], ends[5]) == (10, 18, 26)


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ([Store(1, "host")], "x_1 is not a checkpoint"),
        ([Advance(1, 1), Store(1, "disk")], "there is no tier 'disk'"),
        ([Advance(1, 1), Store(1, "host"), Store(1, "host")], "host holds x_1 already"),
        ([Fetch(1, "host")], "host does not hold x_1"),
        ([Fetch(-1, "host")], "host does not hold x_-1"),
        ([Advance(1, 1), Store(1, "host"), Fetch(1, "host")], "x_1 is stored already"),
        ([Discard(1, "host")], "host does not hold x_1"),
        ([Move(1, 2)], "x_0 is not a checkpoint that could go"),
        ([Advance(1, 1), Tape(2, 2), Move(2, 3)], "the tape of stage 2 still needs x_1"),
        ([Advance(1, 1), Move(2, 4)], "stages 2..4 are not a range inside 1..3"),
    ],
)
def test_an_illegal_action_is_named_with_its_reason(schedule, reason):
    """The verdict points at the last action of each schedule."""
    illegal = simulate_tiers(CHAIN, [slow(overlapped=True)], schedule).illegal
    assert illegal is not None
    assert illegal.index == len(schedule) - 1
    assert reason in str(illegal)


def test_a_tier_that_overflows_is_illegal():
    """Two states of 7 bytes do not fit 13."""
    schedule = [Advance(1, 1), Store(1, "host"), Advance(2, 2), Store(2, "host")]
    illegal = simulate_tiers(CHAIN, [slow(overlapped=True, budget_bytes=13)], schedule).illegal
    assert str(illegal) == "action 3 (store 2 host): host would hold 1 bytes more than its budget"


def test_a_device_that_overflows_is_illegal():
    """The buffer of a fetched state counts from the fetch on."""
    schedule = [Advance(1, 1), Store(1, "host"), Advance(2, 2), Free(1), Tape(3, 3), Fetch(1, "host")]
    verdict = simulate_tiers(CHAIN, [slow(overlapped=True)], schedule, budget_bytes=131)
    assert str(verdict.illegal).startswith("action 5 (fetch 1 host): 132 bytes would be live")
    assert verdict.tiers[0].read_count == 0


@pytest.mark.parametrize(
    "fields",
    [{"name": ""}, {"name": "device"}, {"budget_bytes": -1}, {"read_seconds_per_byte": float("nan")},
     {"write_latency_seconds": -1.0}],
)  # fmt: skip
def test_a_tier_that_makes_no_sense_is_refused(fields):
    """Negative, infinite or nameless."""
    with pytest.raises(InvalidChain):
        Tier(**{"name": "host", "budget_bytes": 1, **fields})


@pytest.mark.parametrize("action", [*THROUGH_HOST, Move(2, 3)])
def test_an_action_survives_the_wire(action):
    """The record of every kind of action gives it back."""
    returned = tiered_action_from_record(tiered_action_record(action))
    assert (type(returned), returned) == (type(action), action)


@pytest.mark.parametrize(
    "record",
    [
        {"action": "store", "state": 1},
        {"action": "store", "state": 1, "tier": 2},
        {"action": "store", "state": True, "tier": "host"},
        {"action": "fetch", "state": 1, "tier": "host", "first": 1},
        {"action": "move", "first": 1},
        {"action": "teleport", "state": 1},
        {},
    ],
)
def test_a_record_that_is_no_action_is_refused(record):
    """Wrong fields, wrong types, unknown names."""
    with pytest.raises(ValueError, match=r"action|takes|whole numbers"):
        tiered_action_from_record(record)


def test_actions_describe_themselves():
    """As errors and tables print them."""
    described = [describe(action) for action in (Store(3, "host"), Move(2, 5), Move(2, 2), Tape(1, 2))]
    assert described == ["store 3 host", "move 2..5", "move 2", "tape 1..2"]


def tiered_actions(length: int) -> st.SearchStrategy[TieredAction]:
    """Any action with indices around 0..length, sensible or not."""
    index = st.integers(-1, length + 1)
    tier = st.sampled_from(["host", "host", "disk"])
    pairs = st.tuples(index, index).map(sorted)
    return st.one_of(
        actions(length),
        pairs.map(lambda pair: Advance(*pair)),
        pairs.map(lambda pair: Move(*pair)),
        st.builds(Store, index, tier),
        st.builds(Fetch, index, tier),
        st.builds(Discard, index, tier),
    )


def every_action(length: int) -> list[TieredAction]:
    """Every action with indices inside the chain, by kind."""
    spans = [(first, last) for first in range(1, length + 1) for last in range(first, length + 1)]
    states = range(1, length + 1)
    return [
        *(kind(*span) for kind in (Advance, Tape, Move) for span in spans),
        *(Backward(last, first) for first, last in spans),
        *(Free(state) for state in states),
        *(
            kind(state, tier)
            for kind in (Store, Fetch, Discard)
            for state in states
            for tier in ("host", "disk")
        ),
    ]


@st.composite
def mostly_legal_schedules(draw: st.DrawFn, chain: Chain, tiers: list[Tier]) -> list[TieredAction]:
    """A walk over what the naive machine accepts, the rarest kinds likelier, and one arbitrary action."""
    schedule: list[TieredAction] = []
    for _ in range(draw(st.integers(5, 16))):
        legal: dict[type, list[TieredAction]] = {}
        for action in every_action(chain.length):
            if judge_tiers(chain, tiers, [*schedule, action]).illegal_index in (None, len(schedule) + 1):
                legal.setdefault(type(action), []).append(action)
        if not legal:
            break
        rarest = [kind for kind in (Fetch, Move) if kind in legal] * 2
        kind = draw(st.sampled_from([*rarest, *sorted(legal, key=lambda kind: kind.__name__)]))
        schedule.append(draw(st.sampled_from(legal[kind])))
    return [*schedule, draw(tiered_actions(chain.length))]


TIERS = [
    slow(overlapped=True, budget_bytes=12),
    Tier(name="disk", budget_bytes=30, write_seconds_per_byte=0.5, read_latency_seconds=3),
]


@given(data=st.data(), chain=chains(max_length=3), budget=st.none() | st.integers(10, 60))
def test_the_judge_agrees_with_a_naive_replay(data, chain, budget):
    """On makespan, peak and the first illegal action of any schedule."""
    schedule = data.draw(mostly_legal_schedules(chain, TIERS))
    expected = judge_tiers(chain, TIERS, schedule, budget)
    verdict = simulate_tiers(chain, TIERS, schedule, budget)
    assert (None if verdict.illegal is None else verdict.illegal.index) == expected.illegal_index
    assert (verdict.makespan, verdict.peak_bytes) == (expected.makespan, expected.peak_bytes)


def _moments_of(tiers: list[Tier], schedule: list[TieredAction]) -> list:
    """The moments of a schedule that need not reverse the chain."""
    stream = timed_moments(CHAIN, tiers, schedule)
    return [next(stream) for _ in schedule]


def _clock_after(tiers: list[Tier], schedule: list[TieredAction]) -> float:
    return _moments_of(tiers, schedule)[-1].ended_at
