"""A recursion over subproblems without Python's recursion, whose stack long chains would use up."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from planner_service.solvers.solution import Cancellation

Problem = TypeVar("Problem", bound=Hashable)
Decision = TypeVar("Decision")
Result = TypeVar("Result")


def fold(
    root: Problem,
    take: Callable[[Problem], tuple[Decision, Sequence[Problem]]],
    combine: Callable[[Decision, list[Result]], Result],
    cancellation: Cancellation | None = None,
) -> Result:
    """The result of `root`; each subproblem that it leads to is decided, and combined, once.

    take: what is decided for a subproblem, and the subproblems that it leaves; none may lead back to it.
    combine: the result of a decision out of those of what it leaves, in the same order.

    Raises Cancelled.
    """
    cancellation = cancellation or Cancellation()
    taken: dict[Problem, tuple[Decision, Sequence[Problem]]] = {}
    results: dict[Problem, Result] = {}
    pending = [root]
    while pending:
        here = pending[-1]
        if here not in taken:
            cancellation.check()
            taken[here] = take(here)
            pending.extend(left for left in taken[here][1] if left not in results)
            continue
        pending.pop()
        if here not in results:
            decision, remaining = taken[here]
            results[here] = combine(decision, [results[left] for left in remaining])
    return results[root]
