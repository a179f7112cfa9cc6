"""The use case `plan`: a model and a budget in, the cheapest policy that fits out."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.chain import Tier, TieredVerdict, expand, expand_tiers, moments, timed_moments
from planner_service.contract import (
    PlanCost,
    PlanLedgerLine,
    PlanMemory,
    PlanReply,
    PlanRequest,
    TierUseRecord,
    content_id,
    tier_use_records,
    tiers_of,
)
from planner_service.memory import Candidate, LedgerLine, Profile
from planner_service.planning.candidates import candidates_of
from planner_service.planning.choice import Choice, choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.least import least_budget_bytes
from planner_service.planning.peak import peak_ledger, window_ledger
from planner_service.planning.ratios import excess_ratio
from planner_service.planning.tiered import tiers_used
from planner_service.planning.version import PLANNER_VERSION
from planner_service.solvers import Cancellation
from planner_service.solvers.offload.solve import OffloadSolution
from planner_service.solvers.polling import polled


def plan(
    request: PlanRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> PlanReply:
    """The plan for `request`; equal requests and profiles give equal plans.

    Raises PlanningError (BudgetTooSmall, UnknownStrategy, InvalidChain, Cancelled, …).
    """
    candidates = candidates_of(request, known_profiles, reserved_bytes=request.memory.reserved_bytes)
    budget_bytes = request.memory.device_budget_bytes
    tiers = tiers_used(request.strategy, tiers_of(request.memory.tiers))
    choice = choose(candidates, budget_bytes, request.strategy, cancellation, tiers=tiers)
    least_bytes = least_budget_bytes(candidates, cancellation, tiers=tiers)
    candidate, solution = choice.candidate, choice.solution
    full = full_bptt(candidates)
    return PlanReply(
        id=content_id(request, PLANNER_VERSION),
        planner_version=PLANNER_VERSION,
        strategy=solution.strategy,
        exact_gradient=choice.exact_gradient,
        reason=_reason(choice, candidates),
        cost=_cost(choice, full.makespan),
        memory=_memory(
            choice,
            tiers,
            cancellation or Cancellation(),
            budget_bytes=budget_bytes,
            store_all_peak_bytes=full.peak_bytes,
            # Beside tiers, and of long chains, the least is not always searched for; this budget is enough.
            minimum_budget_bytes=min(least_bytes, budget_bytes),
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
        undo_count=verdict.undo_count,
        lower_bound=solution.lower_bound,
        gap_ratio=excess_ratio(verdict.makespan, solution.lower_bound),
        optimality=solution.optimality,
        stall_seconds=max(0.0, verdict.stall_seconds) if isinstance(verdict, TieredVerdict) else 0.0,
    )


def _memory(
    choice: Choice,
    tiers: Sequence[Tier],
    cancellation: Cancellation,
    *,
    budget_bytes: int,
    store_all_peak_bytes: int,
    minimum_budget_bytes: int,
) -> PlanMemory:
    verdict = choice.solution.verdict
    uses = tier_use_records(tiers, verdict.tiers) if isinstance(verdict, TieredVerdict) else []
    return PlanMemory(
        budget_bytes=budget_bytes,
        projected_peak_bytes=verdict.peak_bytes,
        store_all_peak_bytes=store_all_peak_bytes,
        minimum_budget_bytes=minimum_budget_bytes,
        ledger=[PlanLedgerLine(**line._asdict()) for line in _device_ledger(choice, tiers, cancellation)]
        + [_tier_line(use) for use in uses],
        tiers=uses,
    )


def _device_ledger(choice: Choice, tiers: Sequence[Tier], cancellation: Cancellation) -> list[LedgerLine]:
    candidate, solution = choice.candidate, choice.solution
    peak_bytes = solution.verdict.peak_bytes
    if isinstance(solution, OffloadSolution):
        moves = polled(expand_tiers(solution.policy), cancellation)
        return peak_ledger(candidate, timed_moments(candidate.chain, tiers, moves), peak_bytes)
    policy = solution.policy
    if policy.length != candidate.chain.length:  # truncated: the policy is that of one window
        return window_ledger(candidate, policy.length, peak_bytes)
    actions = polled(expand(policy), cancellation)
    return peak_ledger(candidate, moments(candidate.chain, actions), peak_bytes)


def _tier_line(use: TierUseRecord) -> PlanLedgerLine:
    return PlanLedgerLine(
        name=f"{use.name} bytes",
        bytes=use.peak_bytes,
        formula=f"states in {use.name} at its fullest (pinned, if that is host memory), off the device",
        exactness="exact",
        tier=use.name,
    )


def _reason(choice: Choice, candidates: Sequence[Candidate]) -> str:
    reason, steps = choice.solution.reason, choice.candidate.segment_steps
    if isinstance(choice.solution, OffloadSolution) and choice.candidate.cost_unit == "forward":
        unit = "the chain's own" if steps is None else "forward passes of a step"
        reason += f"; the tiers' times were read in the unit of the costs, {unit}"
    if choice.candidate.gradient_sparsity is not None:
        reason += f"; {choice.candidate.gradient_sparsity}"
    if steps is None or len(candidates) == 1:
        return reason
    tried = ", ".join(str(candidate.segment_steps) for candidate in candidates)
    return f"{reason}; of segments of {tried} steps, {steps} is the cheapest in this budget"
