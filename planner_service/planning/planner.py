"""The planner as its callers see it: one object with the use cases as methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner_service.chain import (
    action_record,
    expand,
    expand_tiers,
    policy_from_record,
    tiered_action_record,
    tiered_policy_from_record,
)
from planner_service.contract import (
    ComparisonReply,
    ComparisonRequest,
    FrontierReply,
    FrontierRequest,
    PlacementReply,
    PlacementRequest,
    PlanReply,
    PlanRequest,
    SimulationReply,
    SimulationRequest,
    content_id,
)
from planner_service.contract.jobs import JobRequest
from planner_service.jobs import JobNeeds
from planner_service.memory import Profile, shipped_profiles
from planner_service.planning.comparison import comparison
from planner_service.planning.frontier import frontier
from planner_service.planning.job_needs import job_needs
from planner_service.planning.placement import MakePlan, placement
from planner_service.planning.plan import plan
from planner_service.planning.simulation import simulation
from planner_service.planning.version import PLANNER_VERSION
from planner_service.solvers import Cancellation


class Planner:
    """Answers requests of the wire. No clock, no I/O, no environment: equal requests, equal answers.

    Every method raises PlanningError for what it refuses. Safe to share between threads.
    """

    version = PLANNER_VERSION

    def __init__(self, known_profiles: Sequence[Profile] | None = None) -> None:
        """Plan with `known_profiles` where a request brings none; None means the shipped ones."""
        self._known_profiles = shipped_profiles() if known_profiles is None else tuple(known_profiles)

    def plan_id(self, request: PlanRequest) -> str:
        """The `id` that the answer to `request` has, without planning."""
        return content_id(request, PLANNER_VERSION)

    def plan(self, request: PlanRequest, cancellation: Cancellation | None = None) -> PlanReply:
        """The cheapest plan within the budget (see `planning.plan`)."""
        return plan(request, self._known_profiles, cancellation)

    def frontier(self, request: FrontierRequest, cancellation: Cancellation | None = None) -> FrontierReply:
        """What each budget buys, from the least one to that of full BPTT."""
        return frontier(request, self._known_profiles, cancellation)

    def compare(
        self, request: ComparisonRequest, cancellation: Cancellation | None = None
    ) -> ComparisonReply:
        """Every strategy, at equal bytes and at equal time."""
        return comparison(request, self._known_profiles, cancellation)

    def place(
        self,
        request: PlacementRequest,
        cancellation: Cancellation | None = None,
        make_plan: MakePlan | None = None,
    ) -> PlacementReply:
        """Where jobs fit; `make_plan` makes the plans that are asked for with it (default: `plan`)."""
        maker = make_plan or (lambda plan_request: self.plan(plan_request, cancellation))
        return placement(request, self._known_profiles, maker, cancellation)

    def simulate(
        self, request: SimulationRequest, cancellation: Cancellation | None = None
    ) -> SimulationReply:
        """The simulator's judgement of any schedule or policy."""
        return simulation(request, self._known_profiles, cancellation)

    def job_needs(self, request: JobRequest, cancellation: Cancellation | None = None) -> JobNeeds:
        """The free bytes that a node must have to be given the job."""
        return job_needs(request, self._known_profiles, cancellation)

    def schedule(self, plan: PlanReply) -> Iterator[dict[str, int | str]]:
        """The actions of a plan, one record at a time, in constant memory."""
        if plan.memory.tiers:
            return map(tiered_action_record, expand_tiers(tiered_policy_from_record(plan.policy)))
        return map(action_record, expand(policy_from_record(plan.policy)))
