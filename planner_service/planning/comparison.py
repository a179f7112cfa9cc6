"""The use case `compare`: every strategy on one model, at equal bytes and at equal time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from planner_service.chain import BudgetTooSmall, PlanningError, Tier
from planner_service.contract import ComparedStrategy, ComparisonReply, ComparisonRequest, tiers_of
from planner_service.memory import Candidate, Profile
from planner_service.planning.candidates import candidates_of
from planner_service.planning.choice import Choice, choose
from planner_service.planning.full_bptt import full_bptt
from planner_service.planning.ratios import excess_ratio, is_within
from planner_service.planning.search import least_budget
from planner_service.planning.tiered import AUTO, solve_beside, strategies
from planner_service.solvers import Cancellation, Cancelled, sufficient_bytes


class _Planned(NamedTuple):
    """A plan and a budget that it is the plan of."""

    choice: Choice
    budget_bytes: int

    @classmethod
    def of(cls, choice: Choice, budget_bytes: int) -> _Planned:
        """The plan chosen in `budget_bytes`, with the least of them that are known to be enough."""
        return cls(choice, max(1, sufficient_bytes(choice.solution, budget_bytes)))

    @property
    def peak_bytes(self) -> int:
        return self.choice.solution.verdict.peak_bytes

    @property
    def makespan(self) -> float:
        return self.choice.solution.verdict.makespan


def comparison(
    request: ComparisonRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None = None
) -> ComparisonReply:
    """Each strategy's cheapest plan in the budget, and its leanest plan in the time of `auto`.

    A strategy without a plan is a row that says why. Raises what `candidates_of` raises, and Cancelled.
    """
    memory = request.memory
    candidates = candidates_of(request, known_profiles, reserved_bytes=memory.reserved_bytes)
    tiers = tiers_of(memory.tiers)
    contest = _Contest(candidates, memory.device_budget_bytes, tiers, cancellation)
    at_bytes = [
        contest.at_equal_bytes(name) for name in strategies(tiers, candidates[0].chain) if name != AUTO
    ]
    reference = contest.reference_makespan
    at_time = (
        [] if reference is None else [contest.at_equal_time(row.strategy, reference) for row in at_bytes]
    )
    return ComparisonReply(
        unit=candidates[0].cost_unit,
        budget_bytes=memory.device_budget_bytes,
        reference_makespan=reference,
        store_all_makespan=contest.full.makespan,
        exact_makespan=_exact_makespan(request, known_profiles, cancellation),
        at_equal_bytes=sorted(at_bytes, key=_by_makespan),
        at_equal_time=sorted(at_time, key=_by_bytes),
    )


def _exact_makespan(
    request: ComparisonRequest, known_profiles: Sequence[Profile], cancellation: Cancellation | None
) -> float | None:
    """What `auto` takes in the budget without sparsified gradients; None where that is not the question,
    or cannot be said: the profile was measured with them.
    """
    if request.training is None or request.training.gradient_sparsity is None or request.profile is not None:
        return None
    exact = request.model_copy(
        update={"training": request.training.model_copy(update={"gradient_sparsity": None})}
    )
    memory = request.memory
    candidates = candidates_of(exact, known_profiles, reserved_bytes=memory.reserved_bytes)
    contest = _Contest(candidates, memory.device_budget_bytes, tiers_of(memory.tiers), cancellation)
    return contest.reference_makespan if candidates[0].cost_unit == "forward" else None


class _Contest:
    """The strategies on the same candidates."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        budget_bytes: int,
        tiers: Sequence[Tier],
        cancellation: Cancellation | None,
    ) -> None:
        self._candidates = candidates
        self._budget_bytes = budget_bytes
        self._tiers = tiers
        self._cancellation = cancellation
        self._chosen: dict[str, Choice] = {}
        self.full = full_bptt(candidates)

    @property
    def reference_makespan(self) -> float | None:
        """The makespan of `auto` within the budget; None when it has no plan."""
        try:
            choice = self._choose(AUTO)
        except Cancelled:
            raise
        except PlanningError:
            return None
        self._chosen[AUTO] = choice
        return choice.solution.verdict.makespan

    def at_equal_bytes(self, strategy: str) -> ComparedStrategy:
        """The cheapest plan of `strategy` within the budget."""
        try:
            choice = self._choose(strategy)
        except Cancelled:
            raise
        except PlanningError as refusal:
            return _without_a_plan(strategy, refusal)
        self._chosen[strategy] = choice
        return self._row(strategy, _Planned(choice, self._budget_bytes))

    def at_equal_time(self, strategy: str, limit: float) -> ComparedStrategy:
        """The leanest plan found of `strategy` no slower than `limit`, at the segment length that it
        (or `auto`, where nothing fitted) has within the budget.
        """
        within_budget = self._chosen.get(strategy)
        candidate = (within_budget or self._chosen[AUTO]).candidate
        known = [] if within_budget is None else [_Planned.of(within_budget, self._budget_bytes)]
        known = [planned for planned in known if is_within(planned.makespan, limit)]
        known_minimum_bytes = 0

        def attempt(budget_bytes: int) -> _Planned | None:
            nonlocal known_minimum_bytes
            if budget_bytes < known_minimum_bytes:
                return None
            try:
                found = solve_beside(candidate.chain, budget_bytes, strategy, self._tiers, self._cancellation)
            except BudgetTooSmall as refusal:
                known_minimum_bytes = refusal.minimum_budget_bytes
                return None
            if not is_within(found.verdict.makespan, limit):
                return None
            return _Planned.of(Choice(candidate, found), budget_bytes)

        low = candidate.chain.static_bytes + candidate.chain.input_bytes + 1
        high = self._budget_bytes if known else 2 * self.full.peak_bytes
        try:
            found = least_budget(attempt, low_bytes=min(low, high), high_bytes=high)
        except Cancelled:
            raise
        except PlanningError as refusal:
            return _without_a_plan(strategy, refusal)
        known += [] if found is None else [found.plan]
        if not known:
            return _without_a_plan(strategy, f"no plan takes at most {limit:.6g} in any memory")
        return self._row(strategy, min(known, key=lambda planned: planned.peak_bytes))

    def _choose(self, strategy: str) -> Choice:
        return choose(self._candidates, self._budget_bytes, strategy, self._cancellation, tiers=self._tiers)

    def _row(self, strategy: str, planned: _Planned) -> ComparedStrategy:
        choice = planned.choice
        return ComparedStrategy(
            strategy=strategy,
            fits=True,
            exact_gradient=choice.exact_gradient,
            makespan=planned.makespan,
            overhead_ratio=excess_ratio(planned.makespan, self.full.makespan),
            peak_bytes=planned.peak_bytes,
            budget_bytes=planned.budget_bytes,
            minimum_budget_bytes=None,
            segment_steps=choice.candidate.segment_steps,
            reason=choice.solution.reason,
        )


def _without_a_plan(strategy: str, refusal: PlanningError | str) -> ComparedStrategy:
    least = refusal.minimum_budget_bytes if isinstance(refusal, BudgetTooSmall) else None
    return ComparedStrategy(
        strategy=strategy,
        fits=False,
        exact_gradient=None,
        makespan=None,
        overhead_ratio=None,
        peak_bytes=None,
        budget_bytes=None,
        minimum_budget_bytes=least,
        segment_steps=None,
        reason=str(refusal),
    )


def _by_makespan(row: ComparedStrategy) -> tuple[bool, float, str]:
    return row.makespan is None, row.makespan or 0.0, row.strategy


def _by_bytes(row: ComparedStrategy) -> tuple[bool, int, str]:
    return row.peak_bytes is None, row.peak_bytes or 0, row.strategy
