"""Plans with storage tiers: optimal when transfers block, bounded when they overlap, legal always."""

from __future__ import annotations

import random
from math import isclose

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner_service.chain import BudgetTooSmall, Chain, InvalidChain, Stage, StageRun
from planner_service.chain.tiers import Tier
from planner_service.chain.tiers_policy import expand_tiers, tiered_policy_from_record
from planner_service.chain.tiers_simulator import simulate_tiers
from planner_service.solvers import Cancellation, Cancelled, minimum_budget_bytes, solve
from planner_service.solvers.offload.search import ChainTooLong
from planner_service.solvers.offload.slots import Level, hrevolve_cost
from planner_service.solvers.offload.solve import OffloadSolution, solve_offload
from tests.oracles.chains import chains
from tests.oracles.offload import exhaustive_offload_optimum

UNIT = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=4)


def host(budget_bytes: int, *, seconds: float = 1.0, overlapped: bool = False) -> Tier:
    """Host memory that moves a byte in `seconds`, either way."""
    return Tier(
        name="host",
        budget_bytes=budget_bytes,
        write_seconds_per_byte=seconds,
        read_seconds_per_byte=seconds,
        overlapped=overlapped,
    )


quarters = st.integers(0, 12).map(lambda number: number / 4)


@st.composite
def tier_lists(draw: st.DrawFn, *, overlapped: bool | None = None, most: int = 2) -> list[Tier]:
    """One or two tiers with times in quarters, so that sums are exact."""
    overlaps = st.booleans() if overlapped is None else st.just(overlapped)
    return [
        Tier(
            name=name,
            budget_bytes=draw(st.integers(0, 30)),
            write_seconds_per_byte=draw(quarters),
            read_seconds_per_byte=draw(quarters),
            write_latency_seconds=draw(quarters),
            read_latency_seconds=draw(quarters),
            overlapped=draw(overlaps),
        )
        for name in ("host", "disk")[: draw(st.integers(1, most))]
    ]


def solved(chain: Chain, budget_bytes: int, tiers: list[Tier]) -> OffloadSolution | None:
    """The solution, or None where nothing fits."""
    try:
        return solve_offload(chain, budget_bytes, tiers)
    except BudgetTooSmall:
        return None


def random_stage(rng: random.Random) -> Stage:
    """Small whole numbers, the tape at least as large as the state."""
    state, forward = rng.randint(0, 4), rng.randint(1, 5)
    return Stage(
        forward_cost=forward,
        taped_forward_cost=forward + rng.randint(0, 1),
        backward_cost=rng.randint(1, 4),
        state_bytes=state,
        tape_bytes=state + rng.randint(0, 6),
        forward_workspace_bytes=rng.choice([0, 0, 1]),
        taped_forward_workspace_bytes=rng.choice([0, 0, 1]),
        backward_workspace_bytes=rng.choice([0, 0, 2]),
        gradient_bytes=rng.choice([None, 0]),
    )


def random_case(rng: random.Random, *, homogeneous: bool) -> tuple[Chain, int, list[Tier]]:
    """A chain of up to four stages, a budget and one or two tiers that block."""
    length = rng.randint(1, 4)
    stages = [random_stage(rng)] * length if homogeneous else [random_stage(rng) for _ in range(length)]
    chain = Chain.of(stages, input_bytes=rng.randint(0, 2), loss_gradient_bytes=rng.randint(0, 2))
    tiers = [
        Tier(
            name=name,
            budget_bytes=rng.choice([0, 2, 4, 8, 30]),
            write_seconds_per_byte=rng.choice([0, 0.25, 0.5, 1]),
            read_seconds_per_byte=rng.choice([0, 0.25, 0.5, 1]),
            write_latency_seconds=rng.choice([0, 0, 1]),
        )
        for name in rng.choice([["host"], ["host"], ["host", "disk"]])
    ]
    return chain, rng.randint(2, 30), tiers


def test_blocking_transfers_on_equal_stages_are_optimal_over_all_schedules():
    """300 random chains of up to four equal stages against a search over every schedule."""
    rng = random.Random(21)
    for _ in range(300):
        chain, budget, tiers = random_case(rng, homogeneous=True)
        solution = solved(chain, budget, tiers)
        makespan = None if solution is None else solution.verdict.makespan
        assert makespan == exhaustive_offload_optimum(chain, budget, tiers), (chain, budget, tiers)


def test_blocking_transfers_on_unequal_stages_are_rarely_beaten():
    """Nothing is cheaper than the optimum of all schedules, and at most 2 % of chains have a cheaper one."""
    rng = random.Random(22)
    beaten = 0
    for _ in range(300):
        chain, budget, tiers = random_case(rng, homogeneous=False)
        solution = solved(chain, budget, tiers)
        optimum = exhaustive_offload_optimum(chain, budget, tiers)
        assert (solution is None) == (optimum is None)
        if solution is not None and optimum is not None:
            assert solution.lower_bound <= optimum <= solution.verdict.makespan
            beaten += solution.verdict.makespan > optimum
    assert beaten <= 6


@pytest.mark.parametrize("slots", [(1, 1), (1, 4), (2, 2), (2, 5), (3, 1), (4, 4)])
@pytest.mark.parametrize("seconds", [0, 0.5, 2, 7])
def test_room_for_a_tape_and_its_input_beside_the_slots_is_as_good_as_hrevolve(slots, seconds):
    """H-Revolve does not charge the step that runs; here its tape and the state that it reads are bytes."""
    memory, disk = slots
    tape = 1000
    for steps in (1, 2, 5, 11, 17):
        stage = Stage(
            forward_cost=1,
            taped_forward_cost=0,
            backward_cost=1,
            state_bytes=1,
            tape_bytes=tape,
            gradient_bytes=0,
        )
        chain = Chain((StageRun(steps, stage),))
        solution = solve_offload(chain, tape + 1 + memory, [host(disk, seconds=seconds)])
        levels = [Level(memory, 0, 0), Level(disk, seconds, seconds)]
        assert solution.verdict.makespan <= hrevolve_cost(steps, levels)[-1]


@given(chain=chains(), budget=st.integers(0, 90), tiers=tier_lists())
def test_a_solution_keeps_every_budget_and_its_bound(chain, budget, tiers):
    """The reported verdict is the simulator's, its peaks fit, and the bound lies below its makespan."""
    solution = solved(chain, budget, tiers)
    assume(solution is not None)
    assert solution.verdict == simulate_tiers(chain, tiers, expand_tiers(solution.policy), budget)
    assert solution.verdict.legal
    assert solution.verdict.peak_bytes <= budget
    assert solution.lower_bound <= solution.verdict.makespan * (1 + 1e-9)
    for tier, use in zip(tiers, solution.verdict.tiers, strict=True):
        assert use.peak_bytes <= tier.budget_bytes


@given(chain=chains(), budget=st.integers(0, 90), tiers=tier_lists())
def test_plans_are_deterministic_and_survive_the_wire(chain, budget, tiers):
    """The same request gives the same policy, and its record gives it back."""
    solution = solved(chain, budget, tiers)
    assume(solution is not None)
    assert solve_offload(chain, budget, tiers) == solution
    assert tiered_policy_from_record(solution.policy.record()) == solution.policy


@given(chain=chains(), budget=st.integers(0, 60), tiers=tier_lists())
def test_the_least_budget_of_a_refusal_is_the_least(chain, budget, tiers):
    """It is accepted, one byte less is not, and no chain needs more than without tiers."""
    try:
        solve_offload(chain, budget, tiers)
    except BudgetTooSmall as error:
        least = error.minimum_budget_bytes
    else:
        return
    assert budget < least <= minimum_budget_bytes(chain)
    assert solve_offload(chain, least, tiers).verdict.legal
    assert solved(chain, least - 1, tiers) is None


@given(chain=chains(), budget=st.integers(0, 90), overlapped=st.booleans())
def test_a_tier_without_room_changes_nothing(chain, budget, overlapped):
    """With zero bytes of host memory the answer is the optimum of the device alone."""
    assume(min(stage.state_bytes for stage in chain.stages()) > 0)
    solution = solved(chain, budget, [host(0, overlapped=overlapped)])
    if solution is None:
        with pytest.raises(BudgetTooSmall):
            solve(chain, budget, "optimal")
    else:
        assert isclose(solution.verdict.makespan, solve(chain, budget, "optimal").verdict.makespan)


@given(chain=chains(), budget=st.integers(0, 90), more=st.integers(0, 20), tiers=tier_lists(overlapped=False))
def test_more_of_any_budget_never_costs_more_when_transfers_block(chain, budget, more, tiers):
    """On the device and on every tier, whatever the stages."""
    _assert_monotone(chain, budget, more, tiers)


@given(
    chain=chains(homogeneous=True),
    budget=st.integers(0, 90),
    more=st.integers(0, 20),
    tiers=tier_lists(most=1),
)
def test_more_of_any_budget_never_costs_more_when_states_are_equal(chain, budget, more, tiers):
    """The same with overlapped transfers, whose model is exact for states of one size."""
    _assert_monotone(chain, budget, more, tiers)


def _assert_monotone(chain: Chain, budget: int, more: int, tiers: list[Tier]) -> None:
    before = solved(chain, budget, tiers)
    assume(before is not None)
    larger = [Tier(**{**_fields(tier), "budget_bytes": tier.budget_bytes + more}) for tier in tiers]
    for after in (
        solve_offload(chain, budget + more, tiers),
        solve_offload(chain, budget, larger),
        solve_offload(chain, budget + more, larger),
    ):
        assert after.verdict.makespan <= before.verdict.makespan + 1e-9


def _fields(tier: Tier) -> dict[str, object]:
    return {name: getattr(tier, name) for name in Tier.__slots__}


@given(chain=chains(), budget=st.integers(0, 90), tier=tier_lists(overlapped=False, most=1))
def test_overlapping_transfers_is_never_slower_than_waiting_for_them(chain, budget, tier):
    """The same tier, blocking and overlapped, on chains whose states have one size."""
    assume(len({stage.state_bytes for stage in chain.stages()}) == 1)
    waiting = solved(chain, budget, tier)
    assume(waiting is not None)
    beside = solve_offload(chain, budget, [Tier(**{**_fields(tier[0]), "overlapped": True})])
    assert beside.verdict.makespan <= waiting.verdict.makespan + 1e-9


@given(chain=chains(), budget=st.integers(0, 90), overlapped=st.booleans())
def test_free_transfers_reach_storing_every_state(chain, budget, overlapped):
    """With a free, unlimited tier no stage runs more than twice without and with tape, if that fits."""
    solution = solved(chain, budget, [host(10**6, seconds=0, overlapped=overlapped)])
    assume(solution is not None)
    once_more = sum(stage.forward_cost for stage in chain.stages()) - chain.stage(chain.length).forward_cost
    assert solution.verdict.makespan <= chain.store_all_makespan + once_more
    assert solution.verdict.stall_seconds == 0


def test_a_write_hides_behind_the_next_advance_and_a_read_behind_a_reversal():
    """25 writes of a host with room for all: overlapped no stall is left, and the bound is 1 away."""
    chain = Chain((StageRun(30, UNIT),))
    waiting = solve_offload(chain, 12, [host(30)])
    beside = solve_offload(chain, 12, [host(30, overlapped=True)])
    assert waiting.verdict.stall_seconds > 0
    assert beside.verdict.stall_seconds == 0
    assert beside.verdict.makespan < waiting.verdict.makespan
    assert beside.verdict.makespan <= beside.lower_bound + 1


def test_a_disk_takes_what_the_host_has_no_room_for():
    """Three tiers: device, a host of two states, a slow disk."""
    chain = Chain((StageRun(200, UNIT),))
    disk = Tier(name="disk", budget_bytes=200, write_seconds_per_byte=3, read_seconds_per_byte=3)
    without = solve_offload(chain, 12, [host(2)])
    with_disk = solve_offload(chain, 12, [host(2), disk])
    assert with_disk.verdict.makespan < without.verdict.makespan
    assert [use.write_count > 0 for use in with_disk.verdict.tiers] == [True, True]


@pytest.mark.parametrize("budget_bytes", [13, 15, 35])
@pytest.mark.parametrize("room", [10, 50])
def test_a_slow_disk_beside_a_quick_host_makes_no_plan_slower(budget_bytes, room):
    """Whatever was being written to the host was waited for as if it were written to the disk"""
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=1, tape_bytes=10)
    chain = Chain((StageRun(50, stage),))
    memory = host(room, seconds=0.25, overlapped=True)
    disk = Tier(name="disk", budget_bytes=1000, write_seconds_per_byte=20, overlapped=True)
    alone = solve_offload(chain, budget_bytes, [memory]).verdict.makespan
    assert solve_offload(chain, budget_bytes, [memory, disk]).verdict.makespan <= alone * (1 + 1e-9)


def test_a_handful_of_free_bytes_is_not_taken_for_the_number_of_a_tier():
    """In units of a state budgets are as small as the tiers' numbers; subproblems of both kinds meet here"""
    stage = Stage(
        forward_cost=5,
        taped_forward_cost=1,
        backward_cost=2,
        state_bytes=1,
        tape_bytes=1,
        gradient_bytes=0,
    )
    fast = Tier(name="fast", budget_bytes=3, read_seconds_per_byte=3, overlapped=True)
    wide = Tier(name="wide", budget_bytes=30, write_seconds_per_byte=0.5, overlapped=True)
    solution = solve_offload(Chain((StageRun(9, stage),), input_bytes=2), 5, [fast, wide])
    assert solution.verdict.legal


def test_byte_counts_are_exact():
    """Sizes multiplied by 1,000,003 change no decision."""
    scale = 1_000_003
    small = solve_offload(Chain((StageRun(40, UNIT),)), 12, [host(5)])
    stage = Stage(
        forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=scale, tape_bytes=4 * scale
    )
    large = solve_offload(Chain((StageRun(40, stage),)), 12 * scale, [host(5 * scale, seconds=1 / scale)])
    assert large.policy == small.policy
    assert large.verdict.peak_bytes == small.verdict.peak_bytes * scale


def test_bytes_beyond_64_bits_are_planned_on_the_device_alone():
    """The tables of tiers are of machine words."""
    stage = Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=2**60, tape_bytes=2**62)
    chain = Chain((StageRun(4, stage),))
    with pytest.raises(BudgetTooSmall) as caught:
        solve_offload(chain, 2**62, [host(5)])
    least = caught.value.minimum_budget_bytes
    assert least == minimum_budget_bytes(chain)
    assert solve_offload(chain, least, [host(5)]).verdict.peak_bytes <= least


def test_two_tiers_of_one_name_are_refused():
    """An action could not say which one it means."""
    with pytest.raises(InvalidChain, match="2 tiers are called 'host'"):
        solve_offload(Chain((StageRun(3, UNIT),)), 100, [host(1), host(2)])


def test_a_cancelled_solve_stops():
    """The flag is looked at before a table is believed."""
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        solve_offload(Chain((StageRun(50, UNIT),)), 12, [host(5)], cancellation=cancellation)


def test_a_chain_that_is_too_long_to_tabulate_is_refused_by_its_length():
    """Rather than with a plan that rounding has made worthless."""
    with pytest.raises(ChainTooLong) as caught:
        solve_offload(Chain((StageRun(1_000_000, UNIT),)), 12, [host(5)])
    assert caught.value.length == 1_000_000
