"""The least budget that can be planned, over all segment lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from planner_service.chain import BudgetTooSmall, Chain, Stage, Tier
from planner_service.memory import Candidate
from planner_service.planning.tiered import AUTO, solve_beside
from planner_service.solvers import Cancellation
from planner_service.solvers.search import MOST_DECISIONS


def least_budget_bytes(
    candidates: Iterable[Candidate], cancellation: Cancellation | None, *, tiers: Sequence[Tier] = ()
) -> int:
    """Bytes on the device for which some policy of some candidate fits, and one less for which none does; 1
    where none are needed, for no budget is less.

    Beside `tiers`, chains too long to search count with what they need without tiers. Candidates that
    have no plan in their least bytes (`has_leanest_plan`) count only where all are such: a little less than
    what is named may do then.
    """
    chains = [candidate.chain for candidate in candidates]
    best: int | None = None
    # Most candidates cannot be the leanest, which is seen sooner than what they need.
    certain = [(_certain_bytes(chain), chain) for chain in [*filter(has_leanest_plan, chains)] or chains]
    for certain_bytes, chain in sorted(certain, key=lambda entry: entry[0]):
        if best is None or certain_bytes < best:
            needed = _least_bytes(chain, tiers, cancellation)
            best = needed if best is None else min(best, needed)
    if best is None:
        raise ValueError("there is no candidate")
    return max(1, best)


def has_leanest_plan(chain: Chain) -> bool:
    """Whether `chain` can be planned in the least bytes that it needs: not where nearly every one of too many
    stages takes a decision of its own. Where no candidate can, the bytes that it needs are still named.
    """
    return chain.length <= MOST_DECISIONS


def _certain_bytes(chain: Chain) -> int:
    """Bytes on the device that no plan of `chain` does without: every stage is reversed."""
    return chain.static_bytes + chain.input_bytes + max(_reversing_bytes(run.stage) for run in chain.runs)


def _reversing_bytes(stage: Stage) -> int:
    """What a stage takes at least, taped or undone."""
    taped = stage.tape_bytes + max(stage.taped_forward_workspace_bytes, stage.backward_workspace_bytes)
    if stage.reversal is None:
        return taped
    return min(taped, stage.reversal.archive_bytes + stage.reversal.undo_workspace_bytes)


def _least_bytes(chain: Chain, tiers: Sequence[Tier], cancellation: Cancellation | None) -> int:
    # The refusal of an impossible budget names the minimum, and unlike a plain query can be cancelled.
    try:
        return solve_beside(chain, 0, AUTO, tiers, cancellation).verdict.peak_bytes
    except BudgetTooSmall as refusal:
        return refusal.minimum_budget_bytes
