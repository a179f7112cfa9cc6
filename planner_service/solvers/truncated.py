"""Truncated backpropagation: windows of stages, each reversed by itself. Not the gradient of the chain.

A baseline for comparison: fast and lean, because dependencies longer than a window are cut. The chain is
run window by window, each taped and reversed with nothing carried back. O(log L) replays of long chains.
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

MOST_TRIED = 128
"""Up to so many stages windows of every length are replayed."""


def solve_truncated(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Solution:
    """The longest window that fits; `exact_gradient` is False.

    The policy is that of one window, to be applied window after window (the last may be shorter); the
    verdict sums the windows' replays. Raises BudgetTooSmall, Cancelled.
    """
    window = _longest_window(chain, budget_bytes, cancellation)
    verdict = replay_windows(chain, window, cancellation)
    exact = window >= chain.length
    bound = knapsack_bound(chain, budget_bytes) if exact else verdict.makespan
    return Solution(
        strategy="truncated",
        policy=Policy((TapeNode(window, EMPTY),), 0),
        verdict=verdict,
        lower_bound=min(bound, verdict.makespan),
        optimality="bounded",
        exact_gradient=exact,
        reason=f"windows of {window} stages; what reaches further back is cut",
    )


def _longest_window(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> int:
    """The most stages of a window that fits: of all lengths on short chains, where a cut at a large state can
    make the shorter window the larger one; of those of a bisection on long ones. Raises BudgetTooSmall.
    """
    is_long = chain.length > MOST_TRIED
    if is_long and (window := _by_bisection(chain, budget_bytes, cancellation)):
        return window
    peaks: list[int] = []
    for window in (1,) if is_long else range(chain.length, 0, -1):
        peaks.append(_peak_bytes(chain, window, cancellation))
        if peaks[-1] <= budget_bytes:
            return window
    raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=min(peaks))


def _by_bisection(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> int:
    """A window that fits, at equal stages the longest; 0 where none was met."""
    low, high = 0, chain.length + 1
    while high - low > 1:
        window = (low + high) // 2
        fits = _peak_bytes(chain, window, cancellation) <= budget_bytes
        low, high = (window, high) if fits else (low, window)
    return low


class _Window(NamedTuple):
    """Some stages as a chain of their own."""

    chain: Chain
    callers_bytes: int
    """x_0, which is the caller's from start to end; 0 in the first window, whose input it is."""
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
            static_bytes=chain.static_bytes,
            loss_gradient_bytes=chain.gradient_bytes(last),
            input_gradient_bytes=chain.gradient_bytes(first - 1),
        )
        callers_bytes = chain.input_bytes if first > 1 else 0
        here = _Window(piece, callers_bytes, chain.state_bytes(last) if last < chain.length else 0)
        if here != previous and previous is not None:
            yield times, previous
            times = 0
        alike = _alike(chain, first, window)
        previous, times, first = here, times + alike, first + alike * window
    if previous is not None:
        yield times, previous


def _alike(chain: Chain, first: int, window: int) -> int:
    """How many windows in a row, from that of stage `first` on, are equal because all their stages are."""
    run = next(chain.parts(max(first - 1, 1), chain.length))
    last = min(run.last, chain.length - 1)  # what the last window hands on differs
    return max(1, (last - first + 1) // window) if first > 1 else 1


def _peak_bytes(chain: Chain, window: int, cancellation: Cancellation) -> int:
    return replay_windows(chain, window, cancellation).peak_bytes


def replay_windows(chain: Chain, window: int, cancellation: Cancellation) -> Verdict:
    """What all windows of so many stages take, one after the other."""
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
            peak_bytes = max(peak_bytes, moment.peak_bytes + piece.callers_bytes + kept)
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
