"""The most time that a job lets its plan take."""

from __future__ import annotations

from executor.errors import ExecutorError
from executor.jobs.prepared import PreparedJob
from executor.plan import ExecutionPlan

WORTHWHILE_RATIO = 1e-3
"""The planner's constant of that name: it passes over segment lengths that are quicker by no more than this
fraction, in any budget; and sums of the same costs in another order differ by less.
"""


class SlowdownTooGreat(ExecutorError):
    """The plan is slower than the job allows; the ratios are of full BPTT's time without a budget."""

    def __init__(self, *, slowdown_ratio: float, maximum_slowdown_ratio: float) -> None:
        self.slowdown_ratio = slowdown_ratio
        self.maximum_slowdown_ratio = maximum_slowdown_ratio
        super().__init__(
            f"the plan takes {slowdown_ratio:.3f} times full BPTT's time where "
            f"maximum_slowdown_ratio={maximum_slowdown_ratio:g} is allowed: give a larger budget"
        )


def require_quick(prepared: PreparedJob, plan: ExecutionPlan, maximum_ratio: float | None) -> None:
    """Raise SlowdownTooGreat when the plan, by the probe's clock, is slower than allowed (by more than
    WORTHWHILE_RATIO); None allows any.
    """
    if maximum_ratio is None or plan.makespan_seconds is None:
        return
    lengths = [segment.segment_steps for segment in prepared.probe.segments]
    fastest = min(prepared.probe.chain(plan.length, steps).store_all_makespan for steps in lengths)
    ratio = plan.makespan_seconds / fastest
    if ratio > maximum_ratio * (1 + WORTHWHILE_RATIO):
        raise SlowdownTooGreat(slowdown_ratio=ratio, maximum_slowdown_ratio=maximum_ratio)
