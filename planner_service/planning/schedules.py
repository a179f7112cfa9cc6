"""The actions that a simulation request asks to judge: spelled out, or a policy's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from planner_service.chain import (
    EMPTY,
    Action,
    Chain,
    InvalidChain,
    PlanningError,
    Policy,
    TieredAction,
    TieredPolicy,
    action_from_record,
    expand,
    expand_tiers,
    policy_from_record,
    tiered_action_from_record,
    tiered_policy_from_record,
)
from planner_service.contract import SimulationRequest
from planner_service.solvers import Cancellation
from planner_service.solvers.polling import polled

MOST_ACTIONS = 5_000_000
"""As many as a request may spell out; about ten seconds of replay."""

AnyAction = TypeVar("AnyAction")


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
        super().__init__(
            f"the policy expands to at least {action_count} actions, the most are {MOST_ACTIONS}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (ScheduleTooLong, (self.action_count,))


def actions_of(request: SimulationRequest, chain: Chain, cancellation: Cancellation) -> list[Action]:
    """The actions of a request without tiers.

    Raises InvalidSchedule for a record that is no action, InvalidChain for a policy that is none,
    ScheduleTooLong and Cancelled.
    """
    if request.policy is None:
        return _read(request, action_from_record)
    policy = policy_from_record(request.policy)
    _require_length(policy, chain)
    count = action_count(policy)
    if count > MOST_ACTIONS:
        raise ScheduleTooLong(count)
    return list(polled(expand(policy), cancellation))


def tiered_actions_of(
    request: SimulationRequest, chain: Chain, cancellation: Cancellation
) -> list[TieredAction]:
    """The actions of a request with tiers. Raises what `actions_of` raises."""
    if request.policy is None:
        return _read(request, tiered_action_from_record)
    policy = tiered_policy_from_record(request.policy)
    _require_length(policy, chain)
    actions = list(islice(polled(expand_tiers(policy), cancellation), MOST_ACTIONS + 1))
    if len(actions) > MOST_ACTIONS:
        raise ScheduleTooLong(len(actions))
    return actions


def action_count(policy: Policy) -> int:
    """How many records `policy` expands to, found without expanding it: nodes are shared."""
    counts: list[int] = []
    for node in policy.nodes:
        counts.append(2 + sum(counts[child] for child in node[1:] if child != EMPTY))
    return 0 if policy.root == EMPTY else counts[policy.root]


def _read(request: SimulationRequest, read: Callable[[dict[str, object]], AnyAction]) -> list[AnyAction]:
    actions = []
    for index, record in enumerate(request.schedule or ()):
        try:
            actions.append(read(record))
        except ValueError as error:
            raise InvalidSchedule(index, str(error)) from None
    return actions


def _require_length(policy: Policy | TieredPolicy, chain: Chain) -> None:
    if policy.length != chain.length:
        raise InvalidChain(
            f"the policy reverses {policy.length} stages of a chain of {chain.length}", field="policy"
        )
