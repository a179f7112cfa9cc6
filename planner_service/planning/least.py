"""The least budget that can be planned, over all segment lengths."""

from __future__ import annotations

from collections.abc import Iterable

from planner_service.chain import BudgetTooSmall, Chain
from planner_service.memory import Candidate
from planner_service.solvers import Cancellation, solve


def least_budget_bytes(candidates: Iterable[Candidate], cancellation: Cancellation | None) -> int:
    """Bytes for which some policy of some candidate fits, and one less for which none does."""
    return min(_least_bytes(candidate.chain, cancellation) for candidate in candidates)


def _least_bytes(chain: Chain, cancellation: Cancellation | None) -> int:
    # The refusal of an impossible budget names the minimum, and unlike a plain query can be cancelled.
    try:
        return solve(chain, 0, cancellation=cancellation).verdict.peak_bytes
    except BudgetTooSmall as refusal:
        return refusal.minimum_budget_bytes
