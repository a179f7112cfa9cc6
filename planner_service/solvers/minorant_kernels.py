"""Greatest convex minorants of the two-branch recurrence along the body.

For each family of intervals (sections.py) and each memory level, the recomputation cost as a function
of the number of body stages n is bounded from below by a convex, piecewise linear function V(n),
kept as its corners. V obeys the recurrence with the minimum over checkpoints in the body replaced by an
infimal convolution, whose pieces are those of its two parts merged by slope, and the minimum of the
branches by their convex hull. By induction V <= cost. At the corners of intervals inside the body
V = cost, because a corner of a hull is a corner of one of its functions and a corner of a convolution is
a sum of corners. Costs are in units of one advance of a body stage.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from planner_service.solvers.compiled import inner_kernel, kernel
from planner_service.solvers.needs import (
    FIRST_ADVANCE,
    GRADIENT,
    NEXT_ADVANCE,
    REVERSE_NEED,
    TAPE_NEED,
    Bytes,
    Costs,
    Flag,
)

SINGLE, SEVERAL = cast("int", np.int64(1)), cast("int", np.int64(2))
"""Numbers of body stages. Typed, because each literal argument would compile its callee once more."""
SAME_SLOPE = 1e-12
"""Slopes closer than this, relatively, are one piece."""


class Families(NamedTuple):
    """What the rows are made from. Stages count from 0 through prefix, body (one entry, P) and suffix;
    floors name the level left after storing, -1 for none.
    """

    levels: Bytes
    """Shape (K,), ascending free bytes."""
    needs: Bytes
    """Shape (P + 1 + S, 7): byte fields per stage."""
    state_floor: Bytes
    """Shape (P + 1 + S, K)."""
    tape_floor: Bytes
    advance_before: Costs
    """Shape (P + 2 + S,): cost of advancing the special stages before each one, in units."""
    prefix_costs: Costs
    """Shape (P, P, K): cost of the stages first..last of the section, in units."""
    suffix_costs: Costs
    prefixes: int
    """P"""
    ends: int
    """S + 1"""
    body_stages: int


class Rows(NamedTuple):
    """Row (s, t, level) is number (s (S + 1) + t) K + level; the last one is the empty interval's."""

    start: Bytes
    """Index of the row's first corner."""
    size: Bytes
    """Number of its corners; 0 where nothing fits."""
    x: Bytes
    """Corners: number of body stages, ascending within a row."""
    cost: Costs


class Branches(NamedTuple):
    """Convex functions of n: V_row(n - shift) + slope n + cost for n <= most."""

    row: Bytes
    shift: Bytes
    slope: Costs
    cost: Costs
    most: Bytes
    pointer: Bytes
    """The corner of the row that a walk has reached."""
    walk: Bytes
    """Shape (3,): where a walk along a convolution stands (`_convolve`)."""


@kernel
def value_at(rows: Rows, row: int, n: int) -> float:
    """V(n) of a row; infinite outside its domain."""
    low, high = rows.start[row], rows.start[row] + rows.size[row] - 1
    if rows.size[row] == 0 or n < rows.x[low] or n > rows.x[high]:
        return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        if rows.x[middle] <= n:
            low = middle
        else:
            high = middle
    if rows.x[high] <= n:
        return float(rows.cost[high])
    part = (n - rows.x[low]) / (rows.x[high] - rows.x[low])
    return float(rows.cost[low] + (rows.cost[high] - rows.cost[low]) * part)


@inner_kernel
def row_number(families: Families, s: int, t: int, level: int) -> int:
    """The row of a family at a level."""
    return (s * families.ends + t) * len(families.levels) + level


@inner_kernel
def taping_need(families: Families, s: int, t: int) -> int:
    """Free bytes that taping and reversing the interval's first stage take."""
    needs = families.needs
    gradient = needs[families.prefixes + t, GRADIENT]
    return int(max(gradient + needs[s, TAPE_NEED], needs[s, REVERSE_NEED]))


@inner_kernel
def advance_need(families: Families, s: int, t: int, last: int, n: int) -> int:
    """Free bytes that advancing from stage s through stage `last` takes; n body stages on the way."""
    needs, prefixes = families.needs, families.prefixes
    need = needs[s, FIRST_ADVANCE]
    if s == prefixes and n > 1:
        need = max(need, needs[s, NEXT_ADVANCE])
    for stage in range(s + 1, last + 1):
        need = max(need, needs[stage, NEXT_ADVANCE])
    return int(needs[prefixes + t, GRADIENT] + need)


@inner_kernel
def _add(branches: Branches, found: int, row: int, shift: int, slope: float, cost: float, most: int) -> int:
    branches.row[found], branches.shift[found], branches.most[found] = row, shift, most
    branches.slope[found], branches.cost[found] = slope, cost
    return found + 1


@inner_kernel
def _collect(families: Families, branches: Branches, s: int, t: int, level: int) -> int:
    """The branches of a row other than checkpoints deep inside the body; returns their number."""
    free, prefixes, most = families.levels[level], families.prefixes, families.body_stages
    found = 0
    if free >= taping_need(families, s, t):
        floor = families.tape_floor[s, level]
        after, shift = (s, 1) if s == prefixes else (s + 1, 0)
        if floor >= 0:
            row = row_number(families, after, t, floor)
            found = _add(branches, found, row, shift, 0.0, 0.0, most)
        elif s == prefixes and t == 0:  # a single stage leaves the empty interval, whatever is free
            row = row_number(families, prefixes + 1, 0, 0)
            found = _add(branches, found, row, 1, 0.0, 0.0, most)
    for stored in range(s, prefixes + max(t, 1)):
        floor = families.state_floor[stored, level]
        if floor < 0 or free < advance_need(families, s, t, stored, SINGLE):
            continue
        advanced = families.advance_before[stored + 1] - families.advance_before[s]
        deep = free >= advance_need(families, s, t, stored, SEVERAL)
        if stored < prefixes:
            cost = advanced + families.prefix_costs[s, stored, level]
            if cost < np.inf:
                row = row_number(families, stored + 1, t, floor)
                found = _add(branches, found, row, 0, 0.0, cost, most)
        elif stored > prefixes:
            cost = advanced + families.suffix_costs[stored - prefixes, t - 1, floor]
            if cost < np.inf:
                row = row_number(families, s, stored - prefixes, level)
                found = _add(branches, found, row, 0, 1.0, cost, most if deep else 1)
        elif not deep and free >= taping_need(families, s, 0):
            found = _add(branches, found, row_number(families, s, t, floor), 1, 0.0, 1.0, most)
    return found


@inner_kernel
def _corner(rows: Rows, branches: Branches, branch: int, index: int) -> tuple[int, float]:
    """Corner `index` of a branch, cut off at n = most."""
    n = rows.x[index] + branches.shift[branch]
    cost = rows.cost[index]
    most = branches.most[branch]
    if n > most:
        before = rows.x[index - 1] + branches.shift[branch]
        cost = rows.cost[index - 1] + (cost - rows.cost[index - 1]) * ((most - before) / (n - before))
        n = most
    return n, cost + branches.slope[branch] * n + branches.cost[branch]


@inner_kernel
def _tangent(rows: Rows, branches: Branches, branch: int, n0: int, cost0: float) -> tuple[int, float]:
    """Where the tangent from (n0, cost0) touches a branch further right; (-1, inf) if it has ended."""
    begin = rows.start[branches.row[branch]]
    end = begin + rows.size[branches.row[branch]]
    shift, most = branches.shift[branch], branches.most[branch]
    index = branches.pointer[branch]
    while index < end and rows.x[index] + shift <= n0:
        index += 1
    branches.pointer[branch] = index
    if index == end or most <= n0 or (index == begin and rows.x[index] + shift > most):
        return -1, np.inf
    n, cost = _corner(rows, branches, branch, index)
    slope = (cost - cost0) / (n - n0)
    while index + 1 < end and n < most:
        next_n, next_cost = _corner(rows, branches, branch, index + 1)
        next_slope = (next_cost - cost0) / (next_n - n0)
        if next_slope > slope + SAME_SLOPE * abs(slope):
            break
        index, n, cost, slope = index + 1, next_n, next_cost, next_slope
    branches.pointer[branch] = index
    return n, cost


@inner_kernel
def _piece(rows: Rows, row: int, index: int) -> tuple[int, float]:
    """Length and slope of the piece that starts at corner `index` of a row; slope inf past its end."""
    if index >= rows.start[row] + rows.size[row] - 1:
        return 0, np.inf
    length = rows.x[index + 1] - rows.x[index]
    return length, (rows.cost[index + 1] - rows.cost[index]) / length


@inner_kernel
def _convolve(
    rows: Rows, right_row: int, left_row: int, walk: Bytes, cost: float, n0: int, cost0: float, most: int
) -> float:
    """Walk the convolution right ⊕ (left + n) to where its tangent from (n0, cost0) touches.

    walk holds n and the corners reached in the right and the left row; `cost` and the result are its
    value at n. The left row may be the one under construction: its pieces to come are steeper, by one
    unit, than the edge that is looked for, so they are not missed.
    """
    while walk[0] < most:
        right_length, right_slope = _piece(rows, right_row, walk[1])
        left_length, left_slope = _piece(rows, left_row, walk[2])
        left_slope += 1.0
        slope = min(right_slope, left_slope)
        if slope == np.inf:
            break
        if walk[0] > n0:
            tangent = (cost - cost0) / (walk[0] - n0)
            if slope > tangent + SAME_SLOPE * abs(tangent):
                break
        on_right = right_slope <= left_slope
        length = min(right_length if on_right else left_length, most - walk[0])
        walk[1 if on_right else 2] += 1
        walk[0] += length
        cost += slope * length
    return cost


@inner_kernel
def _grow(
    families: Families,
    rows: Rows,
    branches: Branches,
    found: int,
    row: int,
    right_row: int,
    left_row: int,
    advanced: float,
    most_corners: int,
) -> None:
    """Extend a row, which holds its first corner, to the hull of its branches and of the convolution.

    Negative right_row: no convolution. A row with more than `most_corners` goes on straight: slopes
    only grow, so it stays below, and no good policy goes there.
    """
    body_stages = families.body_stages
    for branch in range(found):
        branches.pointer[branch] = rows.start[branches.row[branch]]
    walk = branches.walk
    walk[0] = walk[1] = walk[2] = 0
    met = np.inf
    if right_row >= 0:
        walk[1], walk[2] = rows.start[right_row], rows.start[left_row]
        walk[0] = rows.x[walk[1]] + rows.x[walk[2]]
        met = rows.cost[walk[1]] + rows.cost[walk[2]] + rows.x[walk[2]] + advanced
    last = rows.start[row]
    while rows.x[last] < body_stages:
        n0, cost0 = rows.x[last], rows.cost[last]
        best, best_n, best_cost = np.inf, -1, np.inf
        for branch in range(found + (right_row >= 0)):
            if branch < found:
                n, cost = _tangent(rows, branches, branch, n0, cost0)
            else:
                met = _convolve(rows, right_row, left_row, walk, met, n0, cost0, body_stages)
                n, cost = walk[0], met
            if n <= n0:
                continue
            slope = (cost - cost0) / (n - n0)
            tolerance = SAME_SLOPE * abs(slope)
            if slope < best - tolerance or (slope <= best + tolerance and n > best_n):
                best, best_n, best_cost = slope, n, cost
        if best_n < 0:
            return
        if rows.size[row] + 1 >= most_corners:
            best_n, best_cost = body_stages, cost0 + best * (body_stages - n0)
        last += 1
        rows.x[last], rows.cost[last] = best_n, best_cost
        rows.size[row] += 1


@inner_kernel
def _first_corner(
    families: Families, rows: Rows, branches: Branches, found: int, s: int, t: int, level: int, right_row: int
) -> tuple[int, float]:
    """The least n for which the interval can be reversed, 0 or 1, and its cost; cost inf if neither."""
    prefixes = families.prefixes
    if s == prefixes:
        return 0, 0.0 if t == 0 else families.suffix_costs[0, t - 1, level]
    cost = np.inf
    if t == 0:
        cost = families.prefix_costs[s, prefixes - 1, level]
    if cost < np.inf:
        return 0, cost
    for branch in range(found):
        value = value_at(rows, branches.row[branch], 1 - branches.shift[branch])
        cost = min(cost, value + branches.slope[branch] + branches.cost[branch])
    if t > 0 and right_row >= 0:
        advanced = families.advance_before[prefixes] - families.advance_before[s] + 1.0
        left = value_at(rows, row_number(families, s, 0, level), SINGLE)
        cost = min(cost, advanced + left + rows.cost[rows.start[right_row]])
    return 1, cost


@inner_kernel
def _fill_row(
    families: Families, rows: Rows, branches: Branches, s: int, t: int, level: int, most_corners: int
) -> None:
    """The corners of one row, written from rows.start[row] on."""
    prefixes = families.prefixes
    row = row_number(families, s, t, level)
    found = _collect(families, branches, s, t, level)
    left_row = row_number(families, s, 0, level)
    right_row = -1
    floor = families.state_floor[prefixes, level]
    if floor >= 0 and families.levels[level] >= advance_need(families, s, t, prefixes, SEVERAL):
        right_row = row_number(families, prefixes, t, floor)
        if rows.size[right_row] == 0 or (t > 0 and rows.size[left_row] == 0):
            right_row = -1
    n, cost = _first_corner(families, rows, branches, found, s, t, level, right_row)
    if cost < np.inf:
        first = rows.start[row]
        rows.x[first], rows.cost[first], rows.size[row] = n, cost, 1
        advanced = families.advance_before[prefixes] - families.advance_before[s]
        _grow(families, rows, branches, found, row, right_row, left_row, advanced, most_corners)


@kernel
def fill_minorants(
    families: Families, rows: Rows, branches: Branches, most_corners: int, cancelled: Flag
) -> bool:
    """Corners of every family at every level; returns False if the corner arrays are too short.

    O(corners) time: independent of the length of the body except where memory is so scarce that
    nearly every stage is a corner.
    """
    empty = row_number(families, families.prefixes + 1, 0, 0)
    rows.start[empty], rows.size[empty], rows.x[0], rows.cost[0] = 0, 1, 0, 0.0
    used = 1
    for level in range(len(families.levels)):
        if cancelled[0]:
            return True
        for t in range(families.ends):
            for s in range(families.prefixes, -1, -1):
                if used + most_corners > len(rows.x):
                    return False
                row = row_number(families, s, t, level)
                rows.start[row], rows.size[row] = used, 0
                _fill_row(families, rows, branches, s, t, level, most_corners)
                used += rows.size[row]
    return True
