"""Sets of stages as disjoint ranges: what is taped, what is archived."""

from __future__ import annotations

from bisect import bisect_right


class StageRanges:
    """Stages as disjoint sorted ranges first..last, as they were added; O(log ranges) to look one up."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []

    def __contains__(self, stage: int) -> bool:
        position = bisect_right(self._first, stage)
        return position > 0 and self._last[position - 1] >= stage

    def any_of(self, first: int, last: int) -> int | None:
        """A stage of first..last that is in the set; None when none is."""
        position = bisect_right(self._first, last)
        if position and self._last[position - 1] >= first:
            return max(first, self._first[position - 1])
        return None

    def add(self, first: int, last: int) -> None:
        """Add first..last, none of which is in the set."""
        position = bisect_right(self._first, last)
        self._first.insert(position, first)
        self._last.insert(position, last)

    def take_top(self, first: int, last: int) -> tuple[list[int], int | None]:
        """Take first..last out, which are the highest stages of the set: the first stages of the ranges
        that are gone, and the stage that is missing (the set is then no longer to be used) or None.
        """
        begins: list[int] = []
        needed = last
        while needed >= first:
            if not self._last or self._last[-1] != needed:
                return begins, needed
            begin = self._first[-1]
            if begin >= first:
                self._first.pop()
                self._last.pop()
                begins.append(begin)
            else:
                self._last[-1] = first - 1
            needed = begin - 1
        return begins, None
