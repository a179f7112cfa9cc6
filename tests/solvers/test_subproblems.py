"""Working off subproblems: each once, what it leaves first, however deep"""

import sys

import pytest

from planner_service.solvers import Cancellation, Cancelled
from planner_service.solvers.subproblems import fold


def test_each_subproblem_is_decided_and_combined_once_and_what_it_leaves_first() -> None:
    """Fibonacci's numbers, whose naive recursion is exponential"""
    taken: list[int] = []
    combined: list[int] = []

    def take(n: int) -> tuple[int, list[int]]:
        taken.append(n)
        return n, [n - 1, n - 2] if n > 1 else []

    def combine(n: int, results: list[int]) -> int:
        combined.append(n)
        return sum(results) if results else n

    assert fold(90, take, combine) == 2880067194370816120
    assert sorted(taken) == sorted(combined) == list(range(91))
    assert combined.index(89) < combined.index(90)


def test_results_come_in_the_order_of_what_is_left() -> None:
    def halves(word: str) -> tuple[str, list[str]]:
        middle = len(word) // 2
        return word, [word[:middle], word[middle:]] if middle else []

    assert fold("recurrent", halves, lambda word, parts: "".join(parts) or word) == "recurrent"


def test_depth_is_not_pythons() -> None:
    depth = 10 * sys.getrecursionlimit()
    assert fold(depth, lambda n: (n, [n - 1] if n else []), lambda _, below: 1 + sum(below)) == depth + 1


def test_it_stops_when_it_is_cancelled() -> None:
    """Ten million nodes were written before anyone looked"""
    cancellation = Cancellation()

    def take(n: int) -> tuple[int, list[int]]:
        if n == 5:
            cancellation.cancel()
        assert n < 7
        return n, [n + 1]

    with pytest.raises(Cancelled):
        fold(0, take, lambda n, _: n, cancellation)
