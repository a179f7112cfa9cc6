"""What advancing any stretch of a chain takes, without a look at each of its stages."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from planner_service.solvers.needs import ChainNeeds, NeedsRun


class Advance(NamedTuple):
    """What an advance takes."""

    cost: float
    free_bytes: int
    """Beside its input state and the gradient that is live."""


class StretchSums:
    """The stages of a chain, counted from 0, with sums and maxima of its runs."""

    def __init__(self, needs: ChainNeeds) -> None:
        self._runs = needs.runs
        self._last_of_run = [last - 1 for last in accumulate(run.count for run in needs.runs)]
        costs = (run.count * run.needs.advance_cost for run in needs.runs)
        self._cost_before_run = list(accumulate(costs, initial=0.0))
        self._next_advance = _RangeMaximum([run.needs.next_advance_bytes for run in needs.runs])

    def advance(self, first: int, last: int) -> Advance:
        """Of the stages first..last; in the logarithm of the number of runs."""
        need = self._runs[self._run_of(first)].needs.first_advance_bytes
        if last > first:
            need = max(need, self._next_advance.of(self._run_of(first + 1), self._run_of(last)))
        return Advance(self._cost_before(last + 1) - self._cost_before(first), need)

    def runs(self, first: int, last: int) -> Iterator[NeedsRun]:
        """The stages first..last as runs."""
        run = self._run_of(first)
        while first <= last:
            end = min(last, self._last_of_run[run])
            yield NeedsRun(end - first + 1, self._runs[run].needs)
            first, run = end + 1, run + 1

    def _run_of(self, stage: int) -> int:
        return bisect_left(self._last_of_run, stage)

    def _cost_before(self, stage: int) -> float:
        run = self._run_of(stage)
        if run == len(self._runs):
            return self._cost_before_run[run]
        inside = stage - (self._last_of_run[run] + 1 - self._runs[run].count)
        return self._cost_before_run[run] + inside * self._runs[run].needs.advance_cost


class _RangeMaximum:
    """The largest of any neighbouring numbers: a sparse table."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._of_widths: list[list[int]] = [list(numbers)]
        """For 1, 2, 4, … neighbours, by the first of them."""
        while (width := 1 << len(self._of_widths)) <= len(numbers):
            halves = self._of_widths[-1]
            self._of_widths.append([*map(max, halves, islice(halves, width // 2, None))])

    def of(self, first: int, last: int) -> int:
        """The largest of numbers first..last."""
        power = (last - first + 1).bit_length() - 1
        row = self._of_widths[power]
        return max(row[first], row[last + 1 - (1 << power)])
