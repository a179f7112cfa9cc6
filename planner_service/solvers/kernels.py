"""Tables of the two-branch recurrence (DESIGN.md, section 3) over intervals of stages, in numba.

Stages count from 0 here. Intervals inside the *body* (stages body_first..body_last, all
interchangeable) depend on their length alone and share the row of the interval that starts the body.
A row runs over the memory levels: contiguous, so that the inner loops vectorise.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from planner_service.solvers.needs import (
    FIRST_ADVANCE,
    GRADIENT,
    NEXT_ADVANCE,
    REVERSE_NEED,
    STATE,
    TAPE_BYTES,
    TAPE_NEED,
)
from planner_service.solvers.policies import TAPE

INFEASIBLE = np.inf
NOTHING_FITS = -2
POLL_ROWS = 256
"""The cancel flag is read once per so many rows."""


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def fill_costs(
    kind, advance_before, needs, levels, state_floor, tape_floor, body_first, body_last, table, cancelled
):
    """Least recomputation cost of each interval at each level, into table[row, level].

    levels: free bytes, ascending, shape (K,). state_floor and tape_floor, shape (kinds, K): the level
    that is left when that kind's checkpoint or tape is stored, rounded down; -1 for none.
    O(rows · L · K) time.
    """
    length, count = len(kind), len(levels)
    # Rows as a checkpoint leaves them: the column of the current last stage, and the body's rows.
    column = np.empty((length, count))
    body_rows = np.empty((body_last - body_first + 1, count))
    for last in range(length):
        end_gradient = needs[kind[last], GRADIENT]
        for first in range(last, -1, -1):
            if first > body_first and last <= body_last:
                continue
            if cancelled[0]:
                return
            row = table[row_of(first, last, length, body_first, body_last)]
            here = kind[first]
            _tape_first(
                row,
                end_gradient,
                needs[here],
                levels,
                tape_floor[here],
                table[row_of(min(first + 1, last), last, length, body_first, body_last)],
                first == last,
            )
            need = end_gradient + needs[here, FIRST_ADVANCE]
            low = 0
            for stored in range(first, last):
                if stored > first:
                    need = max(need, end_gradient + needs[kind[stored], NEXT_ADVANCE])
                while low < count and levels[low] < need:
                    low += 1
                if low == count:
                    break
                if stored + 1 > body_first and last <= body_last:
                    right = body_rows[last - stored - 1]
                else:
                    right = column[stored + 1]
                left = table[row_of(first, stored, length, body_first, body_last)]
                cost = advance_before[stored + 1] - advance_before[first]
                for level in range(low, count):
                    value = cost + right[level] + left[level]
                    row[level] = value if value < row[level] else row[level]
            if first > 0:
                _floored(column[first], row, state_floor[kind[first - 1]])
            if first == body_first and last <= body_last:
                _floored(body_rows[last - first], row, state_floor[kind[body_first]])


@njit(nogil=True, cache=True)
def _tape_first(row, end_gradient, needs, levels, tape_floor, rest, single):
    need = max(end_gradient + needs[TAPE_NEED], needs[REVERSE_NEED])
    for level in range(len(levels)):
        if levels[level] < need:
            row[level] = np.inf
        elif single:
            row[level] = 0.0
        else:
            left = tape_floor[level]
            row[level] = rest[left] if left >= 0 else np.inf


@njit(nogil=True, cache=True)
def _floored(target, row, floor):
    for level in range(len(row)):
        target[level] = row[floor[level]] if floor[level] >= 0 else np.inf


@njit(nogil=True, cache=True)
def decide(first, last, free_bytes, kind, advance_before, needs, levels, body_first, body_last, table):
    """Best decision for the interval with `free_bytes`: TAPE, the stage whose output is stored, or
    NOTHING_FITS. The true bytes may lie between levels: what rounding lost above is used here.
    """
    length = len(kind)
    here = kind[first]
    end_gradient = needs[kind[last], GRADIENT]
    best, choice = np.inf, NOTHING_FITS
    if free_bytes >= max(end_gradient + needs[here, TAPE_NEED], needs[here, REVERSE_NEED]):
        if first == last:
            return TAPE
        level = np.searchsorted(levels, free_bytes - needs[here, TAPE_BYTES], side="right") - 1
        if level >= 0:
            best = table[row_of(first + 1, last, length, body_first, body_last), level]
            choice = TAPE if best < np.inf else NOTHING_FITS
    need = end_gradient + needs[here, FIRST_ADVANCE]
    left_level = np.searchsorted(levels, free_bytes, side="right") - 1
    for stored in range(first, last):
        if stored > first:
            need = max(need, end_gradient + needs[kind[stored], NEXT_ADVANCE])
        if need > free_bytes or left_level < 0:
            break
        level = np.searchsorted(levels, free_bytes - needs[kind[stored], STATE], side="right") - 1
        if level < 0:
            continue
        value = (
            advance_before[stored + 1]
            - advance_before[first]
            + table[row_of(stored + 1, last, length, body_first, body_last), level]
            + table[row_of(first, stored, length, body_first, body_last), left_level]
        )
        if value < best:
            best, choice = value, stored
    return choice
