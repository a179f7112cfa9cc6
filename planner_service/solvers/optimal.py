"""The two-branch recurrence: the cheapest memory-persistent policy, in bytes.

Source: DESIGN.md section 3; the homogeneous case is equation 10 of Gruslys, Munos, Danihelka, Lanctot,
Graves (2016), arXiv:1606.03401, section 3.4, with the working memory of every action charged; the
heterogeneous case follows Herrmann, Beaumont et al. (2019), arXiv:1911.13214.

Guarantee: optimal among memory-persistent schedules when the levels are exact; on homogeneous chains
optimal among all schedules (checked exhaustively on small ones).
"""

from __future__ import annotations

from dataclasses import replace

from planner_service.chain import EMPTY, BudgetTooSmall, Chain, Policy, TapeNode
from planner_service.solvers.draft import Draft
from planner_service.solvers.intervals import IntervalTable, interval_additions
from planner_service.solvers.leanest import least_free_bytes
from planner_service.solvers.levels import Levels, choose_levels
from planner_service.solvers.minorant import MinorantTable
from planner_service.solvers.needs import ChainNeeds, chain_needs
from planner_service.solvers.policies import build_policy
from planner_service.solvers.search import PolicySearch
from planner_service.solvers.sections import Sections
from planner_service.solvers.solution import ROUNDING, Cancellation, Optimality
from planner_service.solvers.wide import WidePlanner, is_wide

MOST_LEVELS = 20_000
"""Levels of a table by families; few enough that it takes a second at most."""
MOST_INTERVAL_LEVELS = 2_000
CHEAP_INTERVALS = 20_000_000
"""Additions that a table of intervals may take when there is a faster way: a few hundredths of a second."""
AFFORDABLE_INTERVALS = 2_000_000_000


def draft_optimal(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """The cheapest persistent policy of `chain` in `budget_bytes`. Raises BudgetTooSmall, Cancelled."""
    needs = chain_needs(chain)
    held = chain.static_bytes + chain.input_bytes
    free = budget_bytes - held
    wide = WidePlanner(needs) if is_wide(needs) and free < needs.store_all_bytes else None
    least = _least(needs, wide, cancellation) if free < needs.store_all_bytes else 0
    if free < least:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=held + least)
    if free >= needs.store_all_bytes:
        policy = Policy((TapeNode(chain.length, EMPTY),), 0)
        return Draft("optimal", policy, "optimal", "the whole tape fits: nothing is run twice")
    exact = _optimality(chain)
    if wide:
        return Draft("optimal", wide.policy(free), exact, "every byte counted, in wide numbers")
    draft = _tabulated(needs, free, cancellation)
    return replace(draft, optimality=exact) if draft.optimality == "persistent" else draft


def _least(needs: ChainNeeds, wide: WidePlanner | None, cancellation: Cancellation) -> int:
    return wide.least_bytes(0, needs.length - 1) if wide else least_free_bytes(needs, cancellation)


def _tabulated(needs: ChainNeeds, free_bytes: int, cancellation: Cancellation) -> Draft:
    sections = Sections(needs)
    levels = choose_levels(needs, free_bytes, MOST_INTERVAL_LEVELS)
    additions = interval_additions(needs, levels)
    if levels.exact and additions <= CHEAP_INTERVALS:
        return _by_intervals(needs, levels, free_bytes, cancellation)
    if not sections.convex:
        return _by_intervals(needs, levels, free_bytes, cancellation)
    draft = _by_families(sections, free_bytes, cancellation)
    if draft.optimality == "bounded" and levels.exact and additions <= AFFORDABLE_INTERVALS:
        return _by_intervals(needs, levels, free_bytes, cancellation)
    return draft


def _by_intervals(needs: ChainNeeds, levels: Levels, free_bytes: int, cancellation: Cancellation) -> Draft:
    policy = build_policy(needs, free_bytes, IntervalTable(needs, levels, cancellation).decide)
    if levels.exact:
        return Draft("optimal", policy, "persistent", "every interval tabulated, every byte counted")
    count = len(levels.free_bytes)
    return Draft("optimal", policy, "bounded", f"free bytes rounded down to {count} levels")


def _by_families(sections: Sections, free_bytes: int, cancellation: Cancellation) -> Draft:
    levels = choose_levels(sections.needs, free_bytes, MOST_LEVELS)
    search = PolicySearch(MinorantTable(sections, levels, cancellation), cancellation)
    cost = search.run(free_bytes)
    bound = search.least_cost(free_bytes)
    policy = build_policy(sections.needs, free_bytes, search.decide)
    if not levels.exact:
        count = len(levels.free_bytes)
        return Draft("optimal", policy, "bounded", f"free bytes rounded down to {count} levels")
    if cost <= bound * (1 + ROUNDING):
        return Draft("optimal", policy, "persistent", "meets the convex minorant")
    return Draft("optimal", policy, "bounded", f"at most {cost - bound:.3g} advances above the minorant")


def _optimality(chain: Chain) -> Optimality:
    """Whether the recurrence's optimum is that of all schedules.

    On equal stages it is, whatever surrounds them: exhaustive search has found no exception but where
    taping is a leaner way to advance (DESIGN.md, section 3). Where the first or last stage differs it
    is nearly always, which is no guarantee.
    """
    stage = chain.runs[0].stage
    lean = (
        stage.tape_bytes <= stage.state_bytes
        and stage.taped_forward_workspace_bytes < stage.forward_workspace_bytes
    )
    return "persistent" if len(chain.runs) > 1 or lean else "optimal"


def minimum_budget_bytes(chain: Chain) -> int:
    """Least budget for which some policy of `chain` fits, in bytes."""
    needs = chain_needs(chain)
    wide = WidePlanner(needs) if is_wide(needs) else None
    return chain.static_bytes + chain.input_bytes + _least(needs, wide, Cancellation())
