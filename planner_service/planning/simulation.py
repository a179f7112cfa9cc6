"""The use case `simulate`: any schedule or policy on a chain, judged action by action."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from planner_service.chain import (
    Action,
    Chain,
    IllegalAction,
    IllegalSchedule,
    Tier,
    TieredAction,
    TieredVerdict,
    Verdict,
    moments,
    simulate,
    simulate_tiers,
    tiered_action_record,
    timed_moments,
)
from planner_service.contract import (
    IllegalRecord,
    SimulationReply,
    SimulationRequest,
    TimelinePoint,
    tier_use_records,
    tiers_of,
)
from planner_service.memory import Candidate, Profile
from planner_service.planning.candidates import all_candidates_of, segmented_as
from planner_service.planning.ratios import excess_ratio
from planner_service.planning.schedules import actions_of, tiered_actions_of
from planner_service.solvers import Cancellation
from planner_service.solvers.polling import polled

AnyAction = TypeVar("AnyAction")


def simulation(
    request: SimulationRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> SimulationReply:
    """The judgement of the request's schedule; an illegal one is an answer, no error.

    Raises InvalidSchedule for a record that is no action, InvalidChain for a policy that is none,
    ScheduleTooLong and Cancelled.
    """
    candidate = _candidate(request, known_profiles)
    tiers = tiers_of(request.memory.tiers)
    verdict, instants = _replayed(request, candidate.chain, tiers, cancellation or Cancellation())
    store_all_makespan = candidate.chain.store_all_makespan
    timed = verdict if isinstance(verdict, TieredVerdict) else None
    return SimulationReply(
        legal=verdict.legal,
        illegal=None if verdict.illegal is None else _illegal_record(verdict.illegal),
        makespan=verdict.makespan,
        unit=candidate.cost_unit,
        peak_bytes=verdict.peak_bytes,
        advance_count=verdict.advance_count,
        tape_count=verdict.tape_count,
        undo_count=verdict.undo_count,
        backward_count=verdict.backward_count,
        action_count=verdict.action_count,
        store_all_makespan=store_all_makespan,
        overhead_ratio=excess_ratio(verdict.makespan, store_all_makespan),
        stall_seconds=0.0 if timed is None else max(0.0, timed.stall_seconds),
        tiers=[] if timed is None else tier_use_records(tiers, timed.tiers),
        timeline=_timeline(instants, verdict.action_count, request.timeline_points),
    )


class _Instant(NamedTuple):
    """One legal action of a replay."""

    position: int
    elapsed_cost: float
    """From the start to the end of the action."""
    peak_bytes: int
    live_bytes: int
    """On the device, after it."""


class _Replayed(NamedTuple):
    verdict: Verdict
    instants: Iterator[_Instant]


def _replayed(
    request: SimulationRequest, chain: Chain, tiers: Sequence[Tier], cancellation: Cancellation
) -> _Replayed:
    budget_bytes = request.memory.device_budget_bytes
    if not tiers:
        actions = _Polled(actions_of(request, chain, cancellation), cancellation)
        return _Replayed(simulate(chain, actions, budget_bytes), _instants(chain, actions, budget_bytes))
    timed = _Polled(tiered_actions_of(request, chain, cancellation), cancellation)
    verdict = simulate_tiers(chain, tiers, timed, budget_bytes)
    return _Replayed(verdict, _timed_instants(chain, tiers, timed, budget_bytes))


class _Polled(Generic[AnyAction]):
    """Actions to iterate over, as often as needed, until somebody cancels."""

    def __init__(self, actions: Sequence[AnyAction], cancellation: Cancellation) -> None:
        self._actions = actions
        self._cancellation = cancellation

    def __iter__(self) -> Iterator[AnyAction]:
        return polled(self._actions, self._cancellation)


def _candidate(request: SimulationRequest, known_profiles: Sequence[Profile]) -> Candidate:
    reserved_bytes = request.memory.reserved_bytes
    if request.segment_steps is None:
        return all_candidates_of(request, known_profiles, reserved_bytes=reserved_bytes)[0]
    return segmented_as(request, known_profiles, request.segment_steps, reserved_bytes=reserved_bytes)


def _instants(chain: Chain, actions: Iterable[Action], budget_bytes: int | None) -> Iterator[_Instant]:
    elapsed = 0.0
    try:
        for moment in moments(chain, actions, budget_bytes):
            elapsed += moment.cost
            yield _Instant(moment.position, elapsed, moment.peak_bytes, moment.live_after_bytes)
    except IllegalSchedule:
        return


def _timed_instants(
    chain: Chain, tiers: Sequence[Tier], actions: Iterable[TieredAction], budget_bytes: int | None
) -> Iterator[_Instant]:
    try:
        for moment in timed_moments(chain, tiers, actions, budget_bytes):
            yield _Instant(moment.position, moment.ended_at, moment.peak_bytes, moment.live_after_bytes)
    except IllegalSchedule:
        return


def _timeline(legal: Iterator[_Instant], count: int, most_points: int) -> list[TimelinePoint]:
    """At most `most_points` points over `count` instants; where several share one, their peak is kept."""
    if most_points == 0:
        return []
    width = max(1, -(-count // most_points))
    points: list[TimelinePoint] = []
    peak = 0
    for position, elapsed, peak_bytes, live_bytes in legal:
        peak = max(peak, peak_bytes)
        if (position + 1) % width == 0 or position == count - 1:
            points.append(
                TimelinePoint(index=position, elapsed_cost=elapsed, peak_bytes=peak, live_bytes=live_bytes)
            )
            peak = 0
    return points


def _illegal_record(illegal: IllegalAction) -> IllegalRecord:
    action = illegal.action
    return IllegalRecord(
        index=illegal.index,
        action=None if action is None else tiered_action_record(action),
        reason=illegal.reason,
    )
