"""The two-branch recurrence: the cheapest memory-persistent policy, in bytes.

Source: DESIGN.md section 3; the homogeneous case is equation 10 of Gruslys, Munos, Danihelka, Lanctot,
Graves (2016), arXiv:1606.03401, section 3.4, with the working memory of every action charged; the
heterogeneous case follows Herrmann, Beaumont et al. (2019), arXiv:1911.13214.

Guarantee: optimal among memory-persistent schedules when the levels are exact; on homogeneous chains
optimal among all schedules (checked exhaustively on small ones).
"""

from __future__ import annotations

from planner_service.chain import EMPTY, BudgetTooSmall, Chain, Policy, TapeNode
from planner_service.solvers.draft import Draft
from planner_service.solvers.intervals import IntervalTable, least_free_bytes
from planner_service.solvers.levels import choose_levels
from planner_service.solvers.needs import ChainNeeds, chain_needs
from planner_service.solvers.solution import Cancellation, Optimality

MOST_LEVELS = 2_000


def draft_optimal(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """The cheapest persistent policy of `chain` in `budget_bytes`. Raises BudgetTooSmall, Cancelled."""
    needs = chain_needs(chain)
    held = chain.static_bytes + chain.input_bytes
    least = least_free_bytes(needs, cancellation)
    free = budget_bytes - held
    if free < least:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=held + least)
    if free >= needs.store_all_bytes:
        policy = Policy((TapeNode(chain.length, EMPTY),), 0)
        return Draft("optimal", policy, "optimal", "the whole tape fits: nothing is run twice")
    levels = choose_levels(needs, free, MOST_LEVELS)
    policy = IntervalTable(needs, levels, cancellation).policy(free)
    if not levels.exact:
        return Draft("optimal", policy, "bounded", f"free bytes were rounded down to {MOST_LEVELS} levels")
    return Draft("optimal", policy, _optimality(needs), "every byte counted")


def _optimality(needs: ChainNeeds) -> Optimality:
    """Persistent schedules are the best of all where stages are interchangeable and taping is no
    leaner way to advance (DESIGN.md, section 3).
    """
    if len(needs.runs) > 1:
        return "persistent"
    stage = needs.runs[0].needs
    return "optimal" if stage.tape_bytes > stage.state_bytes else "persistent"


def minimum_budget_bytes(chain: Chain) -> int:
    """Least budget for which some policy of `chain` fits, in bytes."""
    least = least_free_bytes(chain_needs(chain), Cancellation())
    return chain.static_bytes + chain.input_bytes + least
