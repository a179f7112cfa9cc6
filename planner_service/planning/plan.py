"""The use case `plan`: a model and a budget in, the cheapest policy that fits out."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.chain import expand
from planner_service.contract import (
    LedgerLineRecord,
    PlanCost,
    PlanMemory,
    PlanReply,
    PlanRequest,
    content_id,
)
from planner_service.memory import Candidate, LedgerLine, Profile
from planner_service.planning.candidates import candidates_of
from planner_service.planning.choice import Choice, choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.planning.peak import peak_ledger, window_ledger
from planner_service.planning.ratios import excess_ratio
from planner_service.planning.version import PLANNER_VERSION
from planner_service.solvers import Cancellation


def plan(
    request: PlanRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> PlanReply:
    """The plan for `request`; equal requests and profiles give equal plans.

    Raises PlanningError (BudgetTooSmall, UnknownStrategy, InvalidChain, Cancelled, …).
    """
    candidates = candidates_of(request, known_profiles, reserved_bytes=request.memory.reserved_bytes)
    choice = choose(candidates, request.memory.device_budget_bytes, request.strategy, cancellation)
    candidate, solution = choice.candidate, choice.solution
    full = full_bptt(candidates)
    return PlanReply(
        id=content_id(request, PLANNER_VERSION),
        planner_version=PLANNER_VERSION,
        strategy=solution.strategy,
        exact_gradient=solution.exact_gradient,
        reason=_reason(choice, candidates),
        cost=_cost(choice, full.makespan),
        memory=_memory(
            choice,
            budget_bytes=request.memory.device_budget_bytes,
            store_all_peak_bytes=full.peak_bytes,
            minimum_budget_bytes=least_budget_bytes(candidates, cancellation),
        ),
        segment_steps=candidate.segment_steps,
        segment_count=candidate.chain.length,
        last_segment_steps=candidate.last_steps,
        policy=solution.policy.record(),
    )


def _cost(choice: Choice, store_all_makespan: float) -> PlanCost:
    solution, verdict = choice.solution, choice.solution.verdict
    return PlanCost(
        makespan=verdict.makespan,
        unit=choice.candidate.cost_unit,
        store_all_makespan=store_all_makespan,
        overhead_ratio=excess_ratio(verdict.makespan, store_all_makespan),
        advance_count=verdict.advance_count,
        tape_count=verdict.tape_count,
        lower_bound=solution.lower_bound,
        gap_ratio=excess_ratio(verdict.makespan, solution.lower_bound),
        optimality=solution.optimality,
    )


def _memory(
    choice: Choice, *, budget_bytes: int, store_all_peak_bytes: int, minimum_budget_bytes: int
) -> PlanMemory:
    verdict = choice.solution.verdict
    return PlanMemory(
        budget_bytes=budget_bytes,
        projected_peak_bytes=verdict.peak_bytes,
        store_all_peak_bytes=store_all_peak_bytes,
        minimum_budget_bytes=minimum_budget_bytes,
        ledger=[LedgerLineRecord(**line._asdict()) for line in _ledger(choice)],
    )


def _ledger(choice: Choice) -> list[LedgerLine]:
    candidate, policy, peak_bytes = (
        choice.candidate,
        choice.solution.policy,
        choice.solution.verdict.peak_bytes,
    )
    if policy.length != candidate.chain.length:  # truncated: the policy is that of one window
        return window_ledger(candidate, policy.length, peak_bytes)
    return peak_ledger(candidate, expand(policy), peak_bytes)


def _reason(choice: Choice, candidates: Sequence[Candidate]) -> str:
    steps = choice.candidate.segment_steps
    if steps is None or len(candidates) == 1:
        return choice.solution.reason
    tried = ", ".join(str(candidate.segment_steps) for candidate in candidates)
    return f"{choice.solution.reason}; of segments of {tried} steps, {steps} is the cheapest in this budget"
