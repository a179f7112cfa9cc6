"""The two-branch recurrence: the cheapest memory-persistent policy, in bytes.

Source: docs/memory_model.md; the homogeneous case is equation 10 of Gruslys, Munos, Danihelka, Lanctot,
Graves (2016), arXiv:1606.03401, section 3.4, with the working memory of every action charged; the
heterogeneous case follows Herrmann, Beaumont et al. (2019), arXiv:1911.13214.

Guarantee: optimal among memory-persistent schedules when the levels are exact; on homogeneous chains
optimal among all schedules (checked exhaustively on small ones).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from planner_service.chain import EMPTY, BudgetTooSmall, Chain, InvalidChain, Policy, TapeNode
from planner_service.solvers.draft import Draft
from planner_service.solvers.grouping import Grouping, group_body, group_evenly, ungrouped
from planner_service.solvers.intervals import IntervalTable, additions_per_level, interval_additions
from planner_service.solvers.leanest import least_free_bytes
from planner_service.solvers.levels import Levels, choose_levels
from planner_service.solvers.minorant import MinorantTable
from planner_service.solvers.needs import ChainNeeds, NeedsRun, StageNeeds, chain_needs
from planner_service.solvers.policies import build_policy
from planner_service.solvers.search import PolicySearch
from planner_service.solvers.sections import Sections
from planner_service.solvers.slots import draft_hidden
from planner_service.solvers.solution import ROUNDING, Cancellation, Optimality
from planner_service.solvers.wide import WidePlanner, is_wide

MOST_LEVELS = 20_000
"""Levels of a table by families; few enough that it takes a second at most."""
MOST_ROWS = 80_000
"""Levels times families, where free bytes are rounded anyway."""
FEWEST_GROUPS = 32
"""Grouped into fewer, a body loses more than it does by rounding."""
INTERVAL_LEVELS = 500, 4_000
"""Fewest and most levels of a table by intervals."""
CHEAP_ADDITIONS = 20_000_000
"""What a table of intervals may take when there is another way: a few hundredths of a second."""
MOST_CHEAP_STAGES = 2_000
"""Decisions are looked up in time proportional to the length."""
AFFORDABLE_ADDITIONS = 4_000_000_000
"""What it may take when there is none: a few seconds."""
MOST_GROUPS = 256
MOST_REPLAYED_RUNS = 4_000
"""Different stages for which storing single states is tried where groups of them do not fit."""
MOST_REPLAYED_STAGES = 200_000
"""And stages of any kind: replays of a million take minutes."""
MOST_RUNS = 200_000
"""Runs of different stages that are planned within about ten seconds."""


def draft_optimal(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """The cheapest persistent policy of `chain` in `budget_bytes`. Raises BudgetTooSmall, Cancelled."""
    needs = _needs(chain)
    held = chain.static_bytes + chain.input_bytes
    free = budget_bytes - held
    if free >= needs.store_all_bytes:
        policy = Policy((TapeNode(chain.length, EMPTY),), 0)
        return Draft("optimal", policy, "optimal", "the whole tape fits: nothing is run twice")
    planner = _planner(needs)
    least = planner.least_bytes(cancellation)
    if free < least:
        return _leaner_than_groups(chain, budget_bytes, held + least, cancellation)
    draft = planner.draft(free, cancellation) or _of_states(chain, budget_bytes, cancellation)
    exact = _optimality(chain)
    return replace(draft, optimality=exact) if draft.optimality == "persistent" else draft


def _leaner_than_groups(
    chain: Chain, budget_bytes: int, refused_below_bytes: int, cancellation: Cancellation
) -> Draft:
    """Below what the recurrence's own policies need: for a chain that was planned in groups, hidden
    states stored stage by stage, which need less. Raises BudgetTooSmall, Cancelled.
    """
    least = min(refused_below_bytes, _least_of_states(chain, refused_below_bytes, cancellation))
    if budget_bytes < least:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=least)
    return _of_states(chain, budget_bytes, cancellation)


def _of_states(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """Hidden states stored stage by stage. Raises BudgetTooSmall, Cancelled."""
    draft = draft_hidden(chain, budget_bytes, cancellation)
    reason = f"too little for groups of stages, or for rounded bytes: {draft.reason}"
    return replace(draft, strategy="optimal", optimality="bounded", reason=reason)


def _least_of_states(chain: Chain, otherwise: int, cancellation: Cancellation) -> int:
    """Least budget of storing hidden states only, in bytes; `otherwise` where groups are not in the way
    or the replay of so many stages would take too long.
    """
    planner = _planner(_needs(chain))
    grouped = isinstance(planner, _ByIntervals) and max(planner.grouping.widths) > 1
    if not grouped or len(chain.runs) > MOST_REPLAYED_RUNS or chain.length > MOST_REPLAYED_STAGES:
        return otherwise
    try:
        draft_hidden(chain, 0, cancellation)
    except BudgetTooSmall as refusal:
        return refusal.minimum_budget_bytes
    return otherwise


def draft_mixed(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """MSM by equation 7 in bytes: an internal state is charged its own copy of its input state.

    Equation 10, without the copy, is what `optimal` solves. Raises BudgetTooSmall, Cancelled.
    """
    shared = _needs(chain)
    needs = replace(shared, runs=tuple(NeedsRun(run.count, _with_input(run.needs)) for run in shared.runs))
    held = chain.static_bytes + chain.input_bytes
    free = budget_bytes - held
    planner = _planner(needs)
    least = planner.least_bytes(cancellation)
    if free < least:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=held + least)
    # More than every tape takes is of no use, and would only make for more levels.
    draft = planner.draft(min(free, needs.store_all_bytes), cancellation)
    draft = draft or _of_states(chain, budget_bytes, cancellation)
    return replace(draft, strategy="mixed", optimality="bounded")


def _with_input(stage: StageNeeds) -> StageNeeds:
    input_bytes = stage.next_advance_bytes - stage.first_advance_bytes
    return stage._replace(
        tape_bytes=stage.tape_bytes + input_bytes,
        tape_need_bytes=stage.tape_need_bytes + input_bytes,
        reverse_need_bytes=stage.reverse_need_bytes + input_bytes,
    )


def minimum_budget_bytes(chain: Chain, *, cancellation: Cancellation | None = None) -> int:
    """Least budget for which some policy of `chain` is found, in bytes. Raises Cancelled."""
    cancellation = cancellation or Cancellation()
    least = _planner(_needs(chain)).least_bytes(cancellation)
    budget_bytes = chain.static_bytes + chain.input_bytes + least
    return min(budget_bytes, _least_of_states(chain, budget_bytes, cancellation))


def _needs(chain: Chain) -> ChainNeeds:
    if len(chain.runs) > MOST_RUNS:
        raise InvalidChain(
            f"{len(chain.runs)} runs of different stages: up to {MOST_RUNS} are planned; "
            "merge neighbours into segments",
            field="model.stages",
        )
    return chain_needs(chain)


class _Planner(Protocol):
    def least_bytes(self, cancellation: Cancellation) -> int: ...

    def draft(self, free_bytes: int, cancellation: Cancellation) -> Draft | None:
        """The best policy that is found; None where rounding the bytes left none."""


def _planner(needs: ChainNeeds) -> _Planner:
    """The way to plan this chain, by its size and shape."""
    if is_wide(needs):
        return WidePlanner(needs)
    if Sections(needs).convex:
        return _ByFamilies(Sections(needs))
    if additions_per_level(needs) * INTERVAL_LEVELS[0] > AFFORDABLE_ADDITIONS:
        return _ByIntervals(group_evenly(needs, MOST_GROUPS))
    return _ByIntervals(ungrouped(needs))


@dataclass(frozen=True)
class _ByIntervals:
    """One table over all intervals of stages, or of groups of them."""

    grouping: Grouping

    def least_bytes(self, cancellation: Cancellation) -> int:
        return least_free_bytes(self.grouping.needs, cancellation)

    def draft(self, free_bytes: int, cancellation: Cancellation) -> Draft:
        needs, before = self.grouping.needs, self.grouping.stages_before
        fewest, most = INTERVAL_LEVELS
        affordable = AFFORDABLE_ADDITIONS // max(1, additions_per_level(needs))
        levels = choose_levels(needs, free_bytes, min(max(affordable, fewest), most))
        table = IntervalTable(needs, levels, cancellation)
        policy = build_policy(needs, free_bytes, table.decide, before, cancellation)
        count = len(levels.free_bytes)
        if max(self.grouping.widths) > 1:
            reason = f"planned in {needs.length} groups of stages, free bytes rounded to {count} levels"
            return Draft("optimal", policy, "bounded", reason)
        if levels.exact:
            return Draft("optimal", policy, "persistent", "every interval tabulated, every byte counted")
        return Draft("optimal", policy, "bounded", f"free bytes rounded down to {count} levels")


@dataclass(frozen=True)
class _ByFamilies:
    """Convex minorants along the body, or a table of intervals where that is as quick."""

    sections: Sections

    def least_bytes(self, cancellation: Cancellation) -> int:
        return least_free_bytes(self.sections.needs, cancellation)

    def draft(self, free_bytes: int, cancellation: Cancellation) -> Draft | None:
        needs = self.sections.needs
        levels = choose_levels(needs, free_bytes, MOST_LEVELS)
        additions = interval_additions(needs, levels)
        by_intervals = _ByIntervals(ungrouped(needs))
        if levels.exact and additions <= CHEAP_ADDITIONS and needs.length <= MOST_CHEAP_STAGES:
            return by_intervals.draft(free_bytes, cancellation)
        if not levels.exact:
            return self._grouped(free_bytes, cancellation) or self._rounded(free_bytes, cancellation)
        draft = _search(self.sections, ungrouped(needs), levels, free_bytes, cancellation)
        if (draft is None or draft.optimality == "bounded") and additions <= AFFORDABLE_ADDITIONS // 4:
            return by_intervals.draft(free_bytes, cancellation)
        return draft

    def _grouped(self, free_bytes: int, cancellation: Cancellation) -> Draft | None:
        """With so much memory that levels abound, few of them are lost by taping several at a time. None
        where that does not fit, or the stages around the body make levels abound however it is grouped.
        """
        width = 2
        while self.sections.body_stages // width >= FEWEST_GROUPS:
            grouping = group_body(self.sections.needs, width)
            levels = choose_levels(grouping.needs, free_bytes, MOST_LEVELS)
            if levels.exact:
                return _search(Sections(grouping.needs), grouping, levels, free_bytes, cancellation)
            width *= 2
        return None

    def _rounded(self, free_bytes: int, cancellation: Cancellation) -> Draft | None:
        """Stage by stage, at fewer levels than there are; None where nothing is left at these."""
        needs = self.sections.needs
        if additions_per_level(needs) * INTERVAL_LEVELS[1] <= AFFORDABLE_ADDITIONS:
            return _ByIntervals(ungrouped(needs)).draft(free_bytes, cancellation)
        most_levels = min(MOST_LEVELS, max(INTERVAL_LEVELS[1], MOST_ROWS // self.sections.families))
        levels = choose_levels(needs, free_bytes, most_levels)
        draft = _search(self.sections, ungrouped(needs), levels, free_bytes, cancellation)
        if draft is None or levels.exact:
            return draft
        reason = f"free bytes rounded down to {len(levels.free_bytes)} levels"
        return replace(draft, optimality="bounded", reason=reason)


def _search(
    sections: Sections, grouping: Grouping, levels: Levels, free_bytes: int, cancellation: Cancellation
) -> Draft | None:
    """The policy that the minorants lead to; None where nothing fits at these levels, in these groups."""
    search = PolicySearch(MinorantTable(sections, levels, cancellation), cancellation)
    cost, least = search.run(free_bytes), search.least_cost(free_bytes)
    if cost == inf:
        return None
    policy = build_policy(grouping.needs, free_bytes, search.decide, grouping.stages_before, cancellation)
    if max(grouping.widths) > 1:
        return Draft("optimal", policy, "bounded", f"planned in groups of {max(grouping.widths)} stages")
    if cost <= least * (1 + ROUNDING):
        return Draft("optimal", policy, "persistent", "meets the convex minorant")
    return Draft("optimal", policy, "bounded", f"at most {cost - least:.3g} advances above the minorant")


def _optimality(chain: Chain) -> Optimality:
    """Whether the recurrence's optimum is that of all schedules.

    On equal stages it is, whatever surrounds them: exhaustive search has found no exception but where
    taping is a leaner way to advance (docs/memory_model.md). Where the first or last stage differs it
    is nearly always, which is no guarantee.
    """
    stage = chain.runs[0].stage
    lean = (
        stage.tape_bytes <= stage.state_bytes
        and stage.taped_forward_workspace_bytes < stage.forward_workspace_bytes
    )
    return "persistent" if len(chain.runs) > 1 or lean else "optimal"
