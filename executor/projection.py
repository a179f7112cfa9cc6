"""The peak of a plan on a probed loop, pass by pass.

A chain counts the gradients of parameters and outputs from the start, though none lives in the first pass.
Where that pass holds the most (everything is taped, and the last segment is a short remainder) a plan takes
less than the chain says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

from executor.plan import ExecutionPlan
from executor.probe_report import ProbeReport
from planner_service.chain import Backward, Chain, Moment, Policy, TimedMoment, expand, moments, timed_moments


def projected_peak_bytes(plan: ExecutionPlan, report: ProbeReport) -> int:
    """Upper bound of the bytes that a run under `plan` adds to what was live before.

    At most what the simulator says of the chain; for plans that undo stages it is that, and more where
    several stretches are archived at once: the chain counts the begun words and blocks of one. Raises
    ValueError for a plan whose segment length `report` does not have.
    """
    chain = report.chain(plan.length, plan.segment_steps)
    if isinstance(plan.policy, Policy) and plan.undoes:
        slack_bytes = 0 if report.needs.lost is None else report.needs.lost.slack_bytes
        return plan.replayed(chain).peak_bytes + slack_bytes * (plan.most_stretches - 1)
    first_pass_bytes, later_bytes = _peaks(_replay(plan, chain))
    if first_pass_bytes > later_bytes:
        early = report.first_pass_chain(plan.length, plan.segment_steps)
        first_pass_bytes, _ = _peaks(takewhile(_is_not_backward, _replay(plan, early)))
    return max(first_pass_bytes, later_bytes)


def _replay(plan: ExecutionPlan, chain: Chain) -> Iterator[Moment] | Iterator[TimedMoment]:
    if isinstance(plan.policy, Policy):
        return moments(chain, expand(plan.policy))
    return timed_moments(chain, plan.tiers, plan.schedule())


def _peaks(replay: Iterable[Moment | TimedMoment]) -> tuple[int, int]:
    """The most bytes in the first pass, and from the first Backward on."""
    first_pass_bytes = later_bytes = 0
    has_begun = False
    for moment in replay:
        has_begun = has_begun or isinstance(moment.action, Backward)
        if has_begun:
            later_bytes = max(later_bytes, moment.peak_bytes)
        else:
            first_pass_bytes = max(first_pass_bytes, moment.peak_bytes)
    return first_pass_bytes, later_bytes


def _is_not_backward(moment: Moment | TimedMoment) -> bool:
    return not isinstance(moment.action, Backward)
