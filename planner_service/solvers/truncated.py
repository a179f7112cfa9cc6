"""Truncated backpropagation: windows of stages, each reversed by itself. Not the gradient of the chain.

A baseline for comparison: fast and lean, because dependencies longer than a window are cut. The chain is
run window by window, each taped and reversed with nothing carried back. O(log L) replays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from planner_service.chain import (
    EMPTY,
    Action,
    Backward,
    BudgetTooSmall,
    Chain,
    Policy,
    StageRun,
    Tape,
    TapeNode,
    Verdict,
    moments,
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


class _Window(NamedTuple):
    """Some stages as a chain of their own."""

    chain: Chain
    handed_on_bytes: int
    """The last state, which the next window starts from; 0 where none follows."""


def _windows(chain: Chain, window: int, cancellation: Cancellation) -> Iterator[tuple[int, _Window]]:
    """How many times each different window comes, and the window."""
    first, previous, times = 1, None, 0
    while first <= chain.length:
        cancellation.check()
        last = min(first + window - 1, chain.length)
        parts = chain.parts(first, last)
        piece = Chain(
            tuple(StageRun(part.last - part.first + 1, part.stage) for part in parts),
            input_bytes=chain.state_bytes(first - 1),
            # x_0 is the caller's from start to end; the first window counts it as its input.
            static_bytes=chain.static_bytes + (chain.input_bytes if first > 1 else 0),
            loss_gradient_bytes=chain.gradient_bytes(last),
            input_gradient_bytes=chain.gradient_bytes(first - 1),
        )
        here = _Window(piece, chain.state_bytes(last) if last < chain.length else 0)
        if here != previous and previous is not None:
            yield times, previous
            times = 0
        previous, times, first = here, times + 1, last + 1
    if previous is not None:
        yield times, previous


def _peak_bytes(chain: Chain, window: int, cancellation: Cancellation) -> int:
    return _replay(chain, window, cancellation).peak_bytes


def _replay(chain: Chain, window: int, cancellation: Cancellation) -> Verdict:
    makespan: float = 0
    peak_bytes = action_count = 0
    for times, piece in _windows(chain, window, cancellation):
        length = piece.chain.length
        # Reversed last stage first: while its tape lives, the state that is handed on is part of it.
        actions: list[Action] = [Tape(1, length), Backward(length, length)]
        kept_bytes = [0, 0]
        if length > 1:
            actions.append(Backward(length - 1, 1))
            kept_bytes.append(piece.handed_on_bytes)
        for moment, kept in zip(moments(piece.chain, actions), kept_bytes, strict=True):
            makespan += times * moment.cost
            peak_bytes = max(peak_bytes, moment.peak_bytes + kept)
        action_count += 2 * times
    return Verdict(
        makespan=makespan,
        peak_bytes=peak_bytes,
        advance_count=0,
        tape_count=chain.length,
        backward_count=chain.length,
        undo_count=0,
        action_count=action_count,
        illegal=None,
    )
