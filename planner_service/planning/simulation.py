"""The use case `simulate`: any schedule or policy on a chain, judged action by action."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from planner_service.chain import (
    EMPTY,
    Action,
    Chain,
    IllegalAction,
    IllegalSchedule,
    InvalidChain,
    Moment,
    PlanningError,
    Policy,
    action_from_record,
    action_record,
    expand,
    moments,
    policy_from_record,
    simulate,
)
from planner_service.contract import IllegalRecord, SimulationReply, SimulationRequest, TimelinePoint
from planner_service.memory import Candidate, Profile
from planner_service.planning.candidates import candidates_of, segmented_as
from planner_service.planning.ratios import excess_ratio
from planner_service.solvers import Cancellation

ACTIONS_PER_POLL = 4096
MOST_ACTIONS = 5_000_000
"""As many as a request may spell out; about ten seconds of replay."""


class InvalidSchedule(PlanningError, ValueError):
    """A record of a schedule is no action; `index` says which."""

    def __init__(self, index: int, reason: str) -> None:
        self.index = index
        self.reason = reason
        self.field = f"schedule[{index}]"
        super().__init__(f"schedule[{index}]: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return (InvalidSchedule, (self.index, self.reason))


class ScheduleTooLong(PlanningError):
    """A policy expands to more actions than are judged in one request."""

    field = "policy"

    def __init__(self, action_count: int) -> None:
        self.action_count = action_count
        self.most_actions = MOST_ACTIONS
        super().__init__(f"the policy expands to {action_count} actions, the most are {MOST_ACTIONS}")

    def __reduce__(self) -> tuple[object, ...]:
        return (ScheduleTooLong, (self.action_count,))


def simulation(
    request: SimulationRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> SimulationReply:
    """The judgement of the request's schedule; an illegal one is an answer, no error.

    Raises InvalidSchedule for a record that is no action, InvalidChain for a policy that is none,
    ScheduleTooLong and Cancelled.
    """
    candidate = _candidate(request, known_profiles)
    actions = _Polled(_actions(request, candidate.chain), cancellation or Cancellation())
    budget_bytes = request.memory.device_budget_bytes
    verdict = simulate(candidate.chain, actions, budget_bytes)
    store_all_makespan = candidate.chain.store_all_makespan
    return SimulationReply(
        legal=verdict.legal,
        illegal=None if verdict.illegal is None else _illegal_record(verdict.illegal),
        makespan=verdict.makespan,
        unit=candidate.cost_unit,
        peak_bytes=verdict.peak_bytes,
        advance_count=verdict.advance_count,
        tape_count=verdict.tape_count,
        backward_count=verdict.backward_count,
        action_count=verdict.action_count,
        store_all_makespan=store_all_makespan,
        overhead_ratio=excess_ratio(verdict.makespan, store_all_makespan),
        timeline=_timeline(
            _legal_moments(candidate, actions, budget_bytes), verdict.action_count, request.timeline_points
        ),
    )


class _Polled:
    """Actions to iterate over, as often as needed, until somebody cancels."""

    def __init__(self, actions: Sequence[Action], cancellation: Cancellation) -> None:
        self._actions = actions
        self._cancellation = cancellation

    def __iter__(self) -> Iterator[Action]:
        for position, action in enumerate(self._actions):
            if position % ACTIONS_PER_POLL == 0:
                self._cancellation.check()
            yield action


def _candidate(request: SimulationRequest, known_profiles: Sequence[Profile]) -> Candidate:
    reserved_bytes = request.memory.reserved_bytes
    if request.segment_steps is None:
        return candidates_of(request, known_profiles, reserved_bytes=reserved_bytes)[0]
    return segmented_as(request, known_profiles, request.segment_steps, reserved_bytes=reserved_bytes)


def _actions(request: SimulationRequest, chain: Chain) -> list[Action]:
    if request.policy is not None:
        return _expanded(policy_from_record(request.policy), chain)
    actions = []
    for index, record in enumerate(request.schedule or ()):
        try:
            actions.append(action_from_record(record))
        except ValueError as error:
            raise InvalidSchedule(index, str(error)) from None
    return actions


def _expanded(policy: Policy, chain: Chain) -> list[Action]:
    if policy.length != chain.length:
        raise InvalidChain(
            f"the policy reverses {policy.length} stages of a chain of {chain.length}", field="policy"
        )
    count = action_count(policy)
    if count > MOST_ACTIONS:
        raise ScheduleTooLong(count)
    return list(expand(policy))


def action_count(policy: Policy) -> int:
    """How many records `policy` expands to, found without expanding it: nodes are shared."""
    counts: list[int] = []
    for node in policy.nodes:
        counts.append(2 + sum(counts[child] for child in node[1:] if child != EMPTY))
    return 0 if policy.root == EMPTY else counts[policy.root]


def _legal_moments(candidate: Candidate, actions: Iterable[Action], budget: int | None) -> Iterator[Moment]:
    try:
        yield from moments(candidate.chain, actions, budget)
    except IllegalSchedule:
        return


def _timeline(legal: Iterator[Moment], count: int, most_points: int) -> list[TimelinePoint]:
    """At most `most_points` points over `count` moments; where several share one, their peak is kept."""
    if most_points == 0:
        return []
    width = max(1, -(-count // most_points))
    points: list[TimelinePoint] = []
    elapsed = 0.0
    peak = 0
    for moment in legal:
        elapsed += moment.cost
        peak = max(peak, moment.peak_bytes)
        if (moment.position + 1) % width == 0 or moment.position == count - 1:
            points.append(
                TimelinePoint(
                    index=moment.position,
                    elapsed_cost=elapsed,
                    peak_bytes=peak,
                    live_bytes=moment.live_after_bytes,
                )
            )
            peak = 0
    return points


def _illegal_record(illegal: IllegalAction) -> IllegalRecord:
    action = illegal.action
    if not isinstance(action, Action | None):
        raise InvalidChain(f"{action} moves a state between tiers, and this chain has one tier")
    return IllegalRecord(
        index=illegal.index,
        action=None if action is None else action_record(action),
        reason=illegal.reason,
    )
