"""Tables over the stretches between places of a chain whose stages can be undone.

Notation as in `stretches`; c checkpoints are held, each counted as large as the largest state at a place.
Stretches of equal stages between equal ends are one row: a chain of equal stages has four of each length, one
whose stages all differ has a row for each of its stretches.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner_service.chain import Chain
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.stretches import Bytes, ChainCosts, Costs, Counts, Largest, Stretch

LEAF = 0
"""Split of a stretch that is run without a checkpoint inside."""
LIMIT_BYTES = 2**61
"""Sums up to here are taken in 64-bit words."""


class _Unit(NamedTuple):
    """Consecutive stages between two neighbouring places."""

    kind: Hashable
    """Equal for units with equal stages between equal states and gradients."""
    largest: Largest
    first_advance_bytes: int
    """To advance them from a stored state."""
    next_advance_bytes: int
    """To advance them after others."""

    @classmethod
    def of(cls, chain: Chain, first: int, last: int) -> _Unit:
        parts = [(part.last - part.first + 1, part.stage) for part in chain.parts(first, last)]
        entry_bytes = chain.state_bytes(first - 1)
        stored = need = 0  # x_{first-1} is counted where it is stored
        for count, stage in parts:
            run_bytes = stage.state_bytes + stage.forward_workspace_bytes
            need = max(need, stored + run_bytes, stage.state_bytes + run_bytes if count > 1 else 0)
            stored = stage.state_bytes
        first_stage = parts[0][1]
        after_others = entry_bytes + first_stage.state_bytes + first_stage.forward_workspace_bytes
        kind = entry_bytes, chain.gradient_bytes(first - 1), tuple(parts), chain.gradient_bytes(last)
        return cls(kind, Largest.of(stage for _, stage in parts), need, max(need, after_others))


@dataclass(frozen=True)
class Stretches:
    """All stretches between two places, equal ones once."""

    chain: Chain
    unit: int
    """Stages between two places; fewer before the last one."""
    units: int
    rows: list[tuple[int, int]]
    """One stretch of each row: its first unit, from 0, and its number of units; short ones first."""
    row: NDArray[np.int64]
    """The row of the stretch of n units from unit i, [n, i]."""
    held_bytes: int
    """Of a checkpoint."""
    _largest: list[Largest]
    """Of each row."""
    _first_advance_bytes: Bytes
    _next_advance_bytes: Bytes
    _costs: ChainCosts
    _wide: bool
    _most_archived: int

    @classmethod
    def of(cls, chain: Chain, unit: int, most_archived: int | None) -> Stretches:
        """Those of `chain`, all of whose stages can be undone, with a place after every `unit` stages."""
        count = -(-chain.length // unit)
        firsts = range(1, chain.length + 1, unit)
        units = [_Unit.of(chain, first, min(first + unit - 1, chain.length)) for first in firsts]
        rows, row = _rows([each.kind for each in units])
        largest: list[Largest] = []
        for start, length in rows:
            last = units[start + length - 1].largest
            largest.append(largest[row[length - 1, start]].joined(last) if length > 1 else last)
        wide = _is_wide(chain)
        dtype = object if wide else np.int64
        return cls(
            chain,
            unit,
            count,
            rows,
            row,
            max((chain.state_bytes(first - 1) for first in firsts if first > 1), default=0),
            largest,
            np.array([each.first_advance_bytes for each in units], dtype=dtype),
            np.array([each.next_advance_bytes for each in units], dtype=dtype),
            ChainCosts.of(chain),
            wide,
            chain.length if most_archived is None else most_archived,
        )

    @property
    def dtype(self) -> type:
        """Of arrays of bytes."""
        return object if self._wide else np.int64

    def last_stage(self, first: int, count: int) -> int:
        """The last stage of `count` units from unit `first` on."""
        return min((first + count) * self.unit, self.chain.length)

    def stretch(self, row: int) -> Stretch:
        """The stages of a row."""
        first, count = self.rows[row]
        stage, last = first * self.unit + 1, self.last_stage(first, count)
        return Stretch(
            first=stage,
            last=last,
            entry_state=self.chain.state_bytes(stage - 1),
            entry_gradient=self.chain.gradient_bytes(stage - 1),
            exit_gradient=self.chain.gradient_bytes(last),
            largest=self._largest[row],
            most_archived=self._most_archived,
            costs=self._costs,
            wide=self._wide,
        )

    def halves(self, row: int) -> tuple[Counts, Counts]:
        """The rows right and left of a checkpoint after 1, 2, … units of `row`."""
        first, count = self.rows[row]
        right = self.row[np.arange(count - 1, 0, -1), np.arange(first + 1, first + count)]
        return right, self.row[1:count, first]

    def advance_costs(self, row: int) -> Costs:
        """Of advancing 1, 2, … units of `row`, all but the last."""
        first, count = self.rows[row]
        begin = first * self.unit
        sums = self._costs.advancing
        return sums.at(begin + self.unit * np.arange(1, count)) - sums.at(begin)

    def advance_bytes(self, row: int) -> Bytes:
        """What that takes, the new checkpoint included."""
        first, count = self.rows[row]
        needs = self._next_advance_bytes[first : first + count - 1].copy()
        needs[0] = self._first_advance_bytes[first]
        need: Bytes = np.maximum.accumulate(needs)
        return need + self.chain.gradient_bytes(self.last_stage(first, count))


def _rows(kinds: list[Hashable]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """One stretch for each sequence of kinds, and the sequence's number at every stretch, [n, i]."""
    numbers: dict[Hashable, int] = {}
    numbered = [numbers.setdefault(kind, len(numbers)) for kind in kinds]
    names: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, int]] = []
    row = np.zeros((len(kinds) + 1, len(kinds)), dtype=np.int64)
    before = [-1] * len(kinds)
    for count in range(1, len(kinds) + 1):
        for first in range(len(kinds) - count + 1):
            name = before[first], numbered[first + count - 1]
            if name not in names:
                names[name] = len(rows)
                rows.append((first, count))
            before[first] = names[name]
        row[count, : len(kinds) - count + 1] = before[: len(kinds) - count + 1]
    return rows, row


def _is_wide(chain: Chain) -> bool:
    ends = chain.input_bytes + chain.gradient_bytes(0) + chain.loss_gradient_bytes
    total = sum(
        run.count * (sum(Largest.of([run.stage])) + run.stage.forward_workspace_bytes) for run in chain.runs
    )
    return ends + 4 * total > LIMIT_BYTES


@dataclass(frozen=True)
class Tables:
    """cost[row, c] of a stretch beside c checkpoints, and split[row, c]: units to advance first, or LEAF."""

    cost: Costs
    split: Counts


def fill(stretches: Stretches, rooms: Bytes, cancellation: Cancellation) -> Tables:
    """The tables; cost is inf where nothing fits. rooms[c]: bytes free beside c checkpoints.

    O(rows * units * rooms). Raises Cancelled.
    """
    cost = np.full((len(stretches.rows), len(rooms) + 1), np.inf)
    split = np.full((len(stretches.rows), len(rooms)), LEAF, dtype=np.int64)
    for row, (_, count) in enumerate(stretches.rows):
        cancellation.check()
        cost[row, :-1] = stretches.stretch(row).leaf(rooms).cost
        if count > 1:
            _split(stretches, rooms, cost, split, row)
    return Tables(cost, split)


def _split(stretches: Stretches, rooms: Bytes, cost: Costs, split: Counts, row: int) -> None:
    """Improve a row by the best place for a first checkpoint: the right part holds one more."""
    right, left = stretches.halves(row)
    tried = stretches.advance_costs(row)[:, None] + cost[right, 1:] + cost[left, :-1]
    needs = stretches.advance_bytes(row)
    if needs[-1] > rooms[-1]:
        tried[needs[:, None] > rooms] = np.inf
    best = tried.argmin(axis=0)
    least = tried[best, np.arange(len(rooms))]
    better = least < cost[row, :-1]
    cost[row, :-1][better] = least[better]
    split[row, better] = best[better] + 1


def least_free_bytes(stretches: Stretches, cancellation: Cancellation) -> int:
    """The least room in which some policy over these stretches fits. Raises Cancelled."""
    least: Bytes = np.empty(len(stretches.rows), dtype=stretches.dtype)
    for row, (_, count) in enumerate(stretches.rows):
        cancellation.check()
        least[row] = stretches.stretch(row).least_bytes()
        if count > 1:
            right, left = stretches.halves(row)
            halves = np.maximum(least[right] + stretches.held_bytes, least[left])
            least[row] = min(least[row], np.maximum(halves, stretches.advance_bytes(row)).min())
    return int(least[-1])
