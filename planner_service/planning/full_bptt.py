"""Full BPTT without a budget: what every plan is measured against."""

from __future__ import annotations

from collections.abc import Sequence

from planner_service.chain import Backward, Tape, Verdict, simulate
from planner_service.memory import Candidate


def full_bptt(candidates: Sequence[Candidate]) -> Verdict:
    """Everything taped once, at the fastest segment length, judged by the simulator."""
    fastest = min(candidates, key=lambda candidate: candidate.chain.store_all_makespan)
    length = fastest.chain.length
    return simulate(fastest.chain, [Tape(1, length), Backward(length, 1)])
