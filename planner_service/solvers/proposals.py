"""Which decisions a subproblem's minorants leave worth trying, and what each costs at least."""

from __future__ import annotations

import numpy as np

from planner_service.solvers.compiled import inner_kernel, kernel
from planner_service.solvers.minorant_kernels import (
    SEVERAL,
    SINGLE,
    Families,
    Rows,
    advance_need,
    row_number,
    taping_need,
    value_at,
)
from planner_service.solvers.needs import Bytes, Costs
from planner_service.solvers.policies import TAPE


@kernel
def propose(
    families: Families,
    rows: Rows,
    s: int,
    t: int,
    n: int,
    free_bytes: int,
    level: int,
    tape_level: int,
    state_levels: Bytes,
    bounds: Costs,
    stored: Bytes,
) -> int:
    """Decisions for the interval (s, t, n); returns how many were written to bounds and stored.

    level: that of free_bytes, which may exceed it; tape_level: what is left after taping the first
    stage; state_levels, shape (P + 1 + S,): after storing each stage's state.
    bounds: cost at least, in units; stored: TAPE, or how many stages after the first one to store.
    """
    found, prefixes = 0, families.prefixes
    if free_bytes >= taping_need(families, s, t):
        after, rest = (s, n - 1) if s == prefixes else (s + 1, n)
        if s == prefixes and t == 0 and n == 1:
            bounds[0], stored[0] = 0.0, TAPE
            return 1
        if tape_level >= 0:
            bounds[0] = value_at(rows, row_number(families, after, t, tape_level), rest)
            stored[0], found = TAPE, 1
    for stage in range(s, prefixes + t):
        right = state_levels[stage]
        if stage == prefixes or right < 0 or free_bytes < advance_need(families, s, t, stage, n):
            continue
        bounds[found] = families.advance_before[stage + 1] - families.advance_before[s]
        if stage < prefixes:
            bounds[found] += families.prefix_costs[s, stage, level]
            bounds[found] += value_at(rows, row_number(families, stage + 1, t, right), n)
            stored[found] = stage - s
        else:
            bounds[found] += n + families.suffix_costs[stage - prefixes, t - 1, right]
            bounds[found] += value_at(rows, row_number(families, s, stage - prefixes, level), n)
            stored[found] = stage - s + n - 1
        found += 1
    if state_levels[prefixes] >= 0:
        found = _in_body(
            families, rows, s, t, n, free_bytes, level, state_levels[prefixes], bounds, stored, found
        )
    return found


@inner_kernel
def _corner_before(rows: Rows, row: int, n: int) -> int:
    """Index within a row of its last corner at or before n; 0 if there is none."""
    low, high = 0, rows.size[row]
    while high - low > 1:
        middle = (low + high) // 2
        if rows.x[rows.start[row] + middle] <= n:
            low = middle
        else:
            high = middle
    return low


@inner_kernel
def _in_body(
    families: Families,
    rows: Rows,
    s: int,
    t: int,
    n: int,
    free_bytes: int,
    level: int,
    right_level: int,
    bounds: Costs,
    stored: Bytes,
    found: int,
) -> int:
    """Checkpoints inside the body, at the corners of the two sides only: V is linear in between."""
    prefixes = families.prefixes
    most = n - 1 if t == 0 else n
    if free_bytes < advance_need(families, s, t, prefixes, SEVERAL):
        most = min(most, 1)
    if free_bytes < advance_need(families, s, t, prefixes, SINGLE):
        return found
    left_row, right_row = row_number(families, s, 0, level), row_number(families, prefixes, t, right_level)
    left, right = rows.start[left_row], rows.start[right_row]
    both = rows.size[left_row] + rows.size[right_row]
    if rows.size[right_row] == 0:
        return found
    # The right side may be short of memory for long: then only the far corners of the left count.
    nearest = n - rows.x[right + rows.size[right_row] - 1]
    skipped = _corner_before(rows, left_row, nearest)
    advanced = families.advance_before[prefixes] - families.advance_before[s]
    for index in range(skipped, both + 2):
        if index < rows.size[left_row]:
            k = rows.x[left + index]
        elif index < both:
            k = n - rows.x[right + index - rows.size[left_row]]
        else:
            k = 1 if index == both else most
        if 1 <= k <= most and found < len(bounds):
            value = value_at(rows, right_row, n - k) + value_at(rows, left_row, k)
            if value < np.inf:
                bounds[found] = advanced + k + value
                stored[found] = prefixes - s + k - 1
                found += 1
    return found
