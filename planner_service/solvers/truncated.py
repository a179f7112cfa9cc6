"""Truncated backpropagation: windows of stages, each reversed by itself. Not the gradient of the chain.

A baseline for comparison: fast and lean, because dependencies longer than a window are cut. The chain is
run window by window, each taped and reversed with nothing carried back. O(log L) replays.
"""

from __future__ import annotations

from collections.abc import Iterator

from planner_service.chain import (
    EMPTY,
    BudgetTooSmall,
    Chain,
    Policy,
    StageRun,
    TapeNode,
    Verdict,
    expand,
    simulate,
)
from planner_service.solvers.bounds import knapsack_bound
from planner_service.solvers.solution import Cancellation, Solution


def solve_truncated(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Solution:
    """The longest window that fits; `exact_gradient` is False.

    The policy is that of one window, to be applied window after window (the last may be shorter); the
    verdict sums the windows' replays. Raises BudgetTooSmall, Cancelled.
    """
    low, high = 0, chain.length + 1
    while high - low > 1:
        cancellation.check()
        window = (low + high) // 2
        low, high = (
            (window, high) if _peak_bytes(chain, window, cancellation) <= budget_bytes else (low, window)
        )
    if low == 0:
        raise BudgetTooSmall(
            budget_bytes=budget_bytes, minimum_budget_bytes=_peak_bytes(chain, 1, cancellation)
        )
    verdict = _replay(chain, low, cancellation)
    exact = low >= chain.length
    bound = knapsack_bound(chain, budget_bytes) if exact else verdict.makespan
    return Solution(
        strategy="truncated",
        policy=Policy((TapeNode(low, EMPTY),), 0),
        verdict=verdict,
        lower_bound=min(bound, verdict.makespan),
        optimality="bounded",
        exact_gradient=exact,
        reason=f"windows of {low} stages; what reaches further back is cut",
    )


def _windows(chain: Chain, window: int, cancellation: Cancellation) -> Iterator[tuple[int, Chain]]:
    """How many times each different window comes, and the window as a chain of its own."""
    first, previous, times = 1, None, 0
    while first <= chain.length:
        cancellation.check()
        last = min(first + window - 1, chain.length)
        parts = chain.parts(first, last)
        piece = Chain(
            tuple(StageRun(part.last - part.first + 1, part.stage) for part in parts),
            input_bytes=chain.state_bytes(first - 1),
            static_bytes=chain.static_bytes,
            loss_gradient_bytes=chain.gradient_bytes(last),
            input_gradient_bytes=chain.gradient_bytes(first - 1),
        )
        if piece != previous and previous is not None:
            yield times, previous
            times = 0
        previous, times, first = piece, times + 1, last + 1
    if previous is not None:
        yield times, previous


def _peak_bytes(chain: Chain, window: int, cancellation: Cancellation) -> int:
    return _replay(chain, window, cancellation).peak_bytes


def _replay(chain: Chain, window: int, cancellation: Cancellation) -> Verdict:
    total = Verdict(0, 0, 0, 0, 0, 0, 0, None)
    for times, piece in _windows(chain, window, cancellation):
        verdict = simulate(piece, expand(Policy((TapeNode(piece.length, EMPTY),), 0)))
        total = Verdict(
            makespan=total.makespan + times * verdict.makespan,
            peak_bytes=max(total.peak_bytes, verdict.peak_bytes),
            advance_count=total.advance_count + times * verdict.advance_count,
            tape_count=total.tape_count + times * verdict.tape_count,
            backward_count=total.backward_count + times * verdict.backward_count,
            undo_count=0,
            action_count=total.action_count + times * verdict.action_count,
            illegal=verdict.illegal,
        )
    return total
