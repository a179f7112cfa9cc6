"""Single-level schedules: store everything, or a checkpoint every k stages.

Sources: store_all is plain backpropagation through time; a checkpoint every ⌈√L⌉ stages is Chen, Xu,
Zhang, Guestrin (2016), arXiv:1604.06174, section 4.1. All visit each stage at most twice forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt

from planner_service.chain import (
    EMPTY,
    BudgetTooSmall,
    Chain,
    CheckpointNode,
    Policy,
    PolicyNode,
    TapeNode,
)
from planner_service.solvers.draft import Draft
from planner_service.solvers.prices import Prices, price_list_of
from planner_service.solvers.solution import Cancellation

MOST_CANDIDATES = 128
MOST_CHECKPOINTS = 5_000
"""Checkpoints of the densest schedule that is tried on a long chain."""


def segments_policy(length: int, segment_stages: int) -> Policy:
    """A checkpoint after every `segment_stages` stages; each segment is taped when its turn comes.

    The last segment, possibly shorter, is taped at once: its stages run forward only once.
    """
    checkpoints = -(-length // segment_stages) - 1
    tail = length - checkpoints * segment_stages
    nodes: list[PolicyNode] = [TapeNode(segment_stages, EMPTY), TapeNode(tail, EMPTY)]
    for _ in range(checkpoints):
        nodes.append(CheckpointNode(segment_stages, len(nodes) - 1, 0))
    return Policy(tuple(nodes), len(nodes) - 1)


def draft_store_all(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """Tape every stage once. Raises BudgetTooSmall."""
    segment = _cheapest(chain, budget_bytes, [chain.length], cancellation)
    return Draft("store_all", segments_policy(chain.length, segment), "optimal", "nothing is run twice")


def draft_sqrt(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """A checkpoint every ⌈√L⌉ stages, whatever the budget. Raises BudgetTooSmall when it does not fit."""
    ceiling = isqrt(chain.length - 1) + 1
    segment = _cheapest(chain, budget_bytes, [ceiling], cancellation)
    return Draft("sqrt", segments_policy(chain.length, segment), "bounded", f"segments of {segment} stages")


def draft_every_k(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """The cheapest fixed distance between checkpoints that fits. Raises BudgetTooSmall."""
    segment = _cheapest(chain, budget_bytes, _candidates(chain.length), cancellation)
    return Draft(
        "every_k", segments_policy(chain.length, segment), "bounded", f"segments of {segment} stages"
    )


def _candidates(length: int) -> Iterable[int]:
    """Distances worth a try: all on short chains, about a hundred on long ones."""
    if length <= MOST_CANDIDATES:
        return range(1, length + 1)
    ratio = (length / max(1, length // MOST_CHECKPOINTS)) ** (1 / MOST_CANDIDATES)
    return sorted({min(length, round(length / ratio**power)) for power in range(MOST_CANDIDATES + 1)})


def _cheapest(chain: Chain, budget_bytes: int, segments: Iterable[int], cancellation: Cancellation) -> int:
    """The segment length of the cheapest policy that fits."""
    price_list = price_list_of(chain)
    best: tuple[int, Prices] | None = None
    leanest: int | None = None
    for segment in segments:
        cancellation.check()
        prices = price_list.prices(segments_policy, segment, cancellation)
        leanest = prices.peak_bytes if leanest is None else min(leanest, prices.peak_bytes)
        fits = prices.peak_bytes <= budget_bytes
        if fits and (best is None or prices.makespan < best[1].makespan):
            best = segment, prices
    if best is None:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=leanest or 0)
    return best[0]
