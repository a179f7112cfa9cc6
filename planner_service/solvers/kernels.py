"""Tables of the two-branch recurrence (docs/memory_model.md) over intervals of stages.

Stages count from 0 here. Intervals inside the *body* (stages body_first..body_last, all
interchangeable) depend on their length alone and share the row of the interval that starts the body.
A row runs over the memory levels: contiguous, so that the inner loops vectorise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from planner_service.solvers.compiled import allocating_kernel, inner_kernel, kernel
from planner_service.solvers.needs import (
    FIRST_ADVANCE,
    GRADIENT,
    NEXT_ADVANCE,
    REVERSE_NEED,
    STATE,
    TAPE_BYTES,
    TAPE_NEED,
    Bytes,
    Costs,
    Flag,
)
from planner_service.solvers.policies import TAPE

NOTHING_FITS = -2
BLOCK_LEVELS = 64
"""Levels filled at a time: few, so that the rows that are read again and again stay in the cache, and so
that one comparison tells whether a candidate improves on any of them."""


class Stages(NamedTuple):
    """The chain as the kernels take it."""

    kind: Bytes
    """Shape (L,): the run of each stage."""
    needs: Bytes
    """Shape (runs, 7): byte fields per run."""
    advance_before: Costs
    """Shape (L + 1,): cost of advancing the first k stages."""
    body_first: int
    body_last: int


class Block(NamedTuple):
    """Some consecutive levels of the table, side by side."""

    begin: int
    """The first of the levels."""
    width: int
    """Their number, at most BLOCK_LEVELS."""
    costs: Costs
    """Shape (rows, BLOCK_LEVELS): the table's rows."""
    least: Costs
    """Shape (rows,): the last of the block's costs in each row."""
    right: Costs
    """Shape (L + body stages, BLOCK_LEVELS): the rows as a checkpoint before them leaves them: first..last
    for the current last stage, then by length those inside the body.
    """
    right_least: Costs
    """Shape (L + body stages,): the last of the block's costs in each."""


@kernel
def row_of(first: int, last: int, length: int, body_first: int, body_last: int) -> int:
    """Row of the interval first..last; equal for intervals of one length inside the body."""
    if first > body_first and last <= body_last:
        last -= first - body_first
        first = body_first
    if first <= body_first:
        return first * length - first * (first + 1) // 2 + last
    before = body_first * length - body_first * (body_first + 1) // 2 + length
    ends = length - 1 - body_last
    return before + (first - body_first - 1) * ends + last - body_last - 1


def row_count(length: int, body_first: int, body_last: int) -> int:
    """Number of rows that `row_of` may name."""
    before = body_first * length - body_first * (body_first + 1) // 2 + length
    return before + (length - 1 - body_first) * (length - 1 - body_last)


@allocating_kernel
def fill_costs(
    stages: Stages,
    levels: Bytes,
    state_floor: Bytes,
    tape_floor: Bytes,
    table: Costs,
    cancelled: Flag,
) -> None:
    """Least recomputation cost of each interval at each level, into table[row, level].

    levels: free bytes, ascending, shape (K,). state_floor and tape_floor, shape (runs, K): the level
    that is left when that kind's checkpoint or tape is stored, rounded down; -1 for none.
    O(rows · L · K) time at most.
    """
    length, count = len(stages.kind), len(levels)
    body_stages = stages.body_last - stages.body_first + 1
    costs, least = np.empty((len(table), BLOCK_LEVELS)), np.empty(len(table))
    right, right_least = np.empty((length + body_stages, BLOCK_LEVELS)), np.empty(length + body_stages)
    # Costs depend on those of the same level and below, never above.
    for begin in range(0, count, BLOCK_LEVELS):
        width = min(BLOCK_LEVELS, count - begin)
        block = Block(begin, width, costs, least, right, right_least)
        _fill_block(stages, levels, state_floor, tape_floor, table, block, cancelled)


@inner_kernel
def _fill_block(
    stages: Stages,
    levels: Bytes,
    state_floor: Bytes,
    tape_floor: Bytes,
    table: Costs,
    block: Block,
    cancelled: Flag,
) -> None:
    """The block's levels of every row; those below are in the table."""
    kind, length, begin = stages.kind, len(stages.kind), block.begin
    body_first, body_last = stages.body_first, stages.body_last
    for last in range(length):
        for first in range(last, -1, -1):
            if first > body_first and last <= body_last:
                continue
            if cancelled[0]:
                return
            number = row_of(first, last, length, body_first, body_last)
            rest = row_of(min(first + 1, last), last, length, body_first, body_last)
            row, whole = block.costs[number, : block.width], table[number]
            _tape_first(row, stages, first, last, levels, begin, tape_floor[kind[first]], table[rest])
            _store_inside(row, stages, first, last, levels, block)
            for level in range(len(row)):
                whole[begin + level] = row[level]
            block.least[number] = row[-1]
            if first > 0:
                _floored(block, first, whole, state_floor[kind[first - 1]])
            if first == body_first and last <= body_last:
                _floored(block, length + last - first, whole, state_floor[kind[body_first]])


@inner_kernel
def _tape_first(
    row: Costs,
    stages: Stages,
    first: int,
    last: int,
    levels: Bytes,
    begin: int,
    floor: Bytes,
    rest: Costs,
) -> None:
    """The row if the first stage is taped; `rest` is the whole row of what follows."""
    need = _taping_need(stages, first, last)
    for level in range(begin, begin + len(row)):
        if levels[level] < need:
            row[level - begin] = np.inf
        elif first == last:
            row[level - begin] = 0.0
        else:
            row[level - begin] = rest[floor[level]] if floor[level] >= 0 else np.inf


@inner_kernel
def _taping_need(stages: Stages, first: int, last: int) -> int:
    needs, here = stages.needs, stages.kind[first]
    gradient = needs[stages.kind[last], GRADIENT]
    return int(max(gradient + needs[here, TAPE_NEED], needs[here, REVERSE_NEED]))


@inner_kernel
def _store_inside(row: Costs, stages: Stages, first: int, last: int, levels: Bytes, block: Block) -> None:
    """The row's minimum with every place for a checkpoint."""
    kind, needs, before = stages.kind, stages.needs, stages.advance_before
    length, body_first, body_last = len(kind), stages.body_first, stages.body_last
    inside, top = last <= body_last, len(row) - 1
    gradient = needs[kind[last], GRADIENT]
    need = gradient + needs[kind[first], FIRST_ADVANCE]
    low, most_free, free = 0, levels[block.begin + top], levels[block.begin]
    for stored in range(first, last):
        if stored > first:
            need = max(need, gradient + needs[kind[stored], NEXT_ADVANCE])
        if need > free:
            if need > most_free:
                return
            while levels[block.begin + low] < need:
                low += 1
            free = levels[block.begin + low]
        in_body = inside and stored + 1 > body_first
        right_row = length + last - stored - 1 if in_body else stored + 1
        left_row = row_of(first, stored, length, body_first, body_last)
        cost = before[stored + 1] - before[first]
        # Costs fall with the level: where the row is at most the candidate's least, it stays.
        if row[low] > cost + block.right_least[right_row] + block.least[left_row]:
            right, left = block.right[right_row], block.costs[left_row]
            _lower(row[low:], cost, right[low : top + 1], left[low : top + 1])


@inner_kernel
def _lower(row: Costs, cost: float, right: Costs, left: Costs) -> None:
    """Row = min(row, cost + right + left). Counting from 0 lets the compiler vectorise."""
    for level in range(len(row)):
        value = cost + right[level] + left[level]
        row[level] = value if value < row[level] else row[level]


@inner_kernel
def _floored(block: Block, right_row: int, row: Costs, floor: Bytes) -> None:
    """The block's part of a whole row as a checkpoint leaves it, into block.right[right_row]."""
    target = block.right[right_row]
    for index in range(block.width):
        level = floor[block.begin + index]
        target[index] = row[level] if level >= 0 else np.inf
    block.right_least[right_row] = target[block.width - 1]


@kernel
def level_below(levels: Bytes, free_bytes: int) -> int:
    """Highest level that `free_bytes` covers; -1 for none."""
    low, high = -1, len(levels)
    while high - low > 1:
        middle = (low + high) // 2
        if levels[middle] <= free_bytes:
            low = middle
        else:
            high = middle
    return low


@kernel
def decide(stages: Stages, first: int, last: int, free_bytes: int, levels: Bytes, table: Costs) -> int:
    """Best decision for the interval with `free_bytes`: TAPE, the stage whose output is stored, or
    NOTHING_FITS. The true bytes may lie between levels: what rounding lost above is used here.
    """
    kind, needs, before = stages.kind, stages.needs, stages.advance_before
    length, body_first, body_last = len(kind), stages.body_first, stages.body_last
    best, choice = np.inf, NOTHING_FITS
    if free_bytes >= _taping_need(stages, first, last):
        if first == last:
            return TAPE
        level = level_below(levels, free_bytes - needs[kind[first], TAPE_BYTES])
        if level >= 0:
            best = table[row_of(first + 1, last, length, body_first, body_last), level]
            choice = TAPE if best < np.inf else NOTHING_FITS
    gradient = needs[kind[last], GRADIENT]
    need = gradient + needs[kind[first], FIRST_ADVANCE]
    left_level = level_below(levels, free_bytes)
    for stored in range(first, last):
        if stored > first:
            need = max(need, gradient + needs[kind[stored], NEXT_ADVANCE])
        if need > free_bytes or left_level < 0:
            break
        level = level_below(levels, free_bytes - needs[kind[stored], STATE])
        if level < 0:
            continue
        right = table[row_of(stored + 1, last, length, body_first, body_last), level]
        left = table[row_of(first, stored, length, body_first, body_last), left_level]
        value = before[stored + 1] - before[first] + right + left
        if value < best:
            best, choice = value, stored
    return choice


@kernel
def decide_lean(stages: Stages, first: int, last: int, free_bytes: int, least: Bytes) -> int:
    """Some decision for the interval that fits `free_bytes`, the first that does; or NOTHING_FITS.

    least: least free bytes of every interval, shape (L, L). Taping comes first, then checkpoints as
    near to the middle as they fit.
    """
    kind, needs = stages.kind, stages.needs
    taped = free_bytes - needs[kind[first], TAPE_BYTES]
    fits = first == last or least[first + 1, last] <= taped
    if fits and free_bytes >= _taping_need(stages, first, last):
        return TAPE
    gradient = needs[kind[last], GRADIENT]
    need = gradient + needs[kind[first], FIRST_ADVANCE]
    choice = NOTHING_FITS
    for stored in range(first, last):
        if stored > first:
            need = max(need, gradient + needs[kind[stored], NEXT_ADVANCE])
        if need > free_bytes:
            break
        remaining = free_bytes - needs[kind[stored], STATE]
        if least[stored + 1, last] <= remaining and least[first, stored] <= free_bytes:
            choice = stored
            if 2 * stored >= first + last:
                break
    return choice
