"""Greatest convex minorants of the two-branch recurrence along the body, in numba.

For each family of intervals (sections.py) and each memory level, the recomputation cost as a function
of the number of body stages n is bounded from below by a convex, piecewise linear function V(n),
kept as its corners. V obeys the recurrence with the minimum over checkpoints replaced by an infimal
convolution, whose pieces are those of its two parts merged by slope, and the minimum of the branches
by their convex hull. By induction V <= cost; at the corners of body intervals V = cost, because a
corner of a hull is a corner of one of its functions and a corner of a convolution is a sum of corners.
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

WHOLE = 1e-9
"""Relative excess over a whole number that is a rounding error."""
SAME_SLOPE = 1e-12
"""Slopes closer than this, relatively, are one piece."""


@njit(nogil=True, cache=True)
def value_at(row, x, start, size, corner_x, corner_cost):
    """V(x) of a row; infinite outside its domain."""
    low, high = start[row], start[row] + size[row] - 1
    if size[row] == 0 or x < corner_x[low] or x > corner_x[high]:
        return np.inf
    while high - low > 1:
        middle = (low + high) // 2
        if corner_x[middle] <= x:
            low = middle
        else:
            high = middle
    if corner_x[high] <= x:
        return corner_cost[high]
    rise = corner_cost[high] - corner_cost[low]
    return corner_cost[low] + rise * ((x - corner_x[low]) / (corner_x[high] - corner_x[low]))


@njit(nogil=True, cache=True)
def _branches(
    s,
    t,
    level,
    free,
    prefix_needs,
    body,
    suffix_needs,
    floors_prefix_state,
    floors_prefix_tape,
    floor_body_state,
    floor_body_tape,
    floors_suffix_state,
    prefix_weights,
    suffix_weights,
    prefix_costs,
    suffix_costs,
    body_stages,
    ends,
    count,
    branch_row,
    branch_shift,
    branch_slope,
    branch_cost,
    branch_most,
):
    """The convex branches of a family at a level other than checkpoints inside the body.

    Branch b is V_row(n - shift) + slope * n + cost for n <= most. Returns their number and the free
    bytes that advancing at least two stages into the body takes.
    """
    prefixes = len(prefix_needs)
    gradient = body[GRADIENT] if t == 0 else suffix_needs[t - 1, GRADIENT]
    here = body if s == prefixes else prefix_needs[s]
    found = 0
    if free >= max(gradient + here[TAPE_NEED], here[REVERSE_NEED]):
        floor = floor_body_tape[level] if s == prefixes else floors_prefix_tape[s, level]
        after = s if s == prefixes else s + 1
        if floor >= 0:
            branch_row[found] = (after * ends + t) * count + floor
        if floor >= 0 or (s == prefixes and t == 0):
            if floor < 0:
                branch_row[found] = (prefixes + 1) * ends * count  # the empty interval, cost 0
            branch_shift[found] = 1 if s == prefixes else 0
            branch_slope[found] = 0.0
            branch_cost[found] = 0.0
            branch_most[found] = body_stages
            found += 1
    need = here[FIRST_ADVANCE]
    advanced = 0.0
    for stored in range(s, prefixes):
        if stored > s:
            need = max(need, prefix_needs[stored, NEXT_ADVANCE])
        advanced += prefix_weights[stored]
        floor = floors_prefix_state[stored, level]
        if free >= gradient + need and floor >= 0 and prefix_costs[s, stored, level] < np.inf:
            branch_row[found] = ((stored + 1) * ends + t) * count + floor
            branch_shift[found] = 0
            branch_slope[found] = 0.0
            branch_cost[found] = advanced + prefix_costs[s, stored, level]
            branch_most[found] = body_stages
            found += 1
    single = need if s == prefixes else max(need, body[NEXT_ADVANCE])
    several = max(need, body[NEXT_ADVANCE])
    if gradient + single <= free < gradient + several and floor_body_state[level] >= 0:
        if free >= max(body[GRADIENT] + body[TAPE_NEED], body[REVERSE_NEED]):
            branch_row[found] = (s * ends + t) * count + floor_body_state[level]
            branch_shift[found] = 1
            branch_slope[found] = 0.0
            branch_cost[found] = 1.0
            branch_most[found] = body_stages
            found += 1
    inside = several
    for stored in range(t - 1):
        advanced += suffix_weights[stored]
        single = max(single, suffix_needs[stored, NEXT_ADVANCE])
        inside = max(inside, suffix_needs[stored, NEXT_ADVANCE])
        floor = floors_suffix_state[stored, level]
        if free >= gradient + single and floor >= 0 and suffix_costs[stored + 1, t - 1, floor] < np.inf:
            branch_row[found] = (s * ends + stored + 1) * count + level
            branch_shift[found] = 0
            branch_slope[found] = 1.0
            branch_cost[found] = advanced + suffix_costs[stored + 1, t - 1, floor]
            branch_most[found] = body_stages if free >= gradient + inside else 1
            found += 1
    return found, gradient + several


@njit(nogil=True, cache=True)
def _branch_corner(index, branch, most, shift, slope, cost, corner_x, corner_cost):
    """Corner `index` of a branch, cut off at n = most."""
    x = corner_x[index] + shift[branch]
    y = corner_cost[index]
    if x > most[branch]:
        before = corner_x[index - 1] + shift[branch]
        part = (most[branch] - before) / (x - before)
        y = corner_cost[index - 1] + (y - corner_cost[index - 1]) * part
        x = most[branch]
    return x, y + slope[branch] * x + cost[branch]


@njit(nogil=True, cache=True)
def _grow(
    row,
    right_row,
    left_row,
    advanced,
    found,
    branch_row,
    branch_shift,
    branch_slope,
    branch_cost,
    branch_most,
    body_stages,
    most_corners,
    pointer,
    start,
    size,
    corner_x,
    corner_cost,
):
    """Extend `row`, which holds its first corner, to the hull of its branches and of the convolution
    right_row ⊕ (left_row + n), where left_row may be the row itself. Negative right_row: no convolution.
    """
    for branch in range(found):
        pointer[branch] = start[branch_row[branch]]
    first = start[row]
    conv_x, conv_cost = -1, np.inf
    right, left = 0, 0
    if right_row >= 0:
        right, left = start[right_row], start[left_row]
        conv_x = corner_x[right] + corner_x[left]
        conv_cost = corner_cost[right] + corner_cost[left] + corner_x[left] + advanced
    while True:
        last = first + size[row] - 1
        x0, y0 = corner_x[last], corner_cost[last]
        if x0 >= body_stages:
            return
        best, best_x, best_y = np.inf, -1, np.inf
        for branch in range(found):
            at = branch_row[branch]
            end = start[at] + size[at]
            index = pointer[branch]
            most = branch_most[branch]
            shift = branch_shift[branch]
            while index < end and corner_x[index] + shift <= x0:
                index += 1
            pointer[branch] = index
            if index == end or most <= x0 or (index == start[at] and corner_x[index] + shift > most):
                continue
            x, y = _branch_corner(
                index, branch, branch_most, branch_shift, branch_slope, branch_cost, corner_x, corner_cost
            )
            slope = (y - y0) / (x - x0)
            while index + 1 < end and x < most:
                next_x, next_y = _branch_corner(
                    index + 1,
                    branch,
                    branch_most,
                    branch_shift,
                    branch_slope,
                    branch_cost,
                    corner_x,
                    corner_cost,
                )
                next_slope = (next_y - y0) / (next_x - x0)
                if next_slope > slope + SAME_SLOPE * abs(slope):
                    break
                index, x, y, slope = index + 1, next_x, next_y, next_slope
            pointer[branch] = index
            tolerance = SAME_SLOPE * abs(slope)
            if slope < best - tolerance or (slope <= best + tolerance and x > best_x):
                best, best_x, best_y = slope, x, y
        if right_row >= 0:
            right_end = start[right_row] + size[right_row] - 1
            left_end = start[left_row] + size[left_row] - 1
            while conv_x < body_stages:
                right_slope, left_slope = np.inf, np.inf
                if right < right_end:
                    right_slope = (corner_cost[right + 1] - corner_cost[right]) / (
                        corner_x[right + 1] - corner_x[right]
                    )
                if left < left_end:
                    left_slope = 1.0 + (
                        (corner_cost[left + 1] - corner_cost[left]) / (corner_x[left + 1] - corner_x[left])
                    )
                piece = min(right_slope, left_slope)
                if piece == np.inf:
                    break
                if conv_x > x0:
                    slope = (conv_cost - y0) / (conv_x - x0)
                    if piece > slope + SAME_SLOPE * abs(slope):
                        break
                if right_slope <= left_slope:
                    length = corner_x[right + 1] - corner_x[right]
                    right += 1
                else:
                    length = corner_x[left + 1] - corner_x[left]
                    left += 1
                length = min(length, body_stages - conv_x)
                conv_x += length
                conv_cost += piece * length
            if conv_x > x0:
                slope = (conv_cost - y0) / (conv_x - x0)
                tolerance = SAME_SLOPE * abs(slope)
                if slope < best - tolerance or (slope <= best + tolerance and conv_x > best_x):
                    best, best_x, best_y = slope, conv_x, conv_cost
        if best_x < 0:
            return
        if size[row] + 1 >= most_corners:
            # Slopes only grow: going on straight stays below, and is far from where policies go.
            best_y = y0 + best * (body_stages - x0)
            best_x = body_stages
        corner_x[last + 1] = best_x
        corner_cost[last + 1] = best_y
        size[row] += 1


@njit(nogil=True, cache=True)
def fill_minorants(
    levels,
    prefix_needs,
    body,
    suffix_needs,
    floors_prefix_state,
    floors_prefix_tape,
    floor_body_state,
    floor_body_tape,
    floors_suffix_state,
    prefix_weights,
    suffix_weights,
    prefix_costs,
    suffix_costs,
    body_stages,
    most_corners,
    start,
    size,
    corner_x,
    corner_cost,
    cancelled,
):
    """Corners of every family at every level; returns False if the corner arrays are too short.

    Row (s, t, level) is (s * ends + t) * K + level; the row after all of them is the empty interval.
    """
    count, prefixes, ends = len(levels), len(prefix_needs), len(suffix_needs) + 1
    empty = (prefixes + 1) * ends * count
    most_branches = prefixes + ends + 3
    pointer = np.empty(most_branches, np.int64)
    branch_row = np.empty(most_branches, np.int64)
    branch_shift = np.empty(most_branches, np.int64)
    branch_slope = np.empty(most_branches)
    branch_cost = np.empty(most_branches)
    branch_most = np.empty(most_branches, np.int64)
    used = 1
    start[empty], size[empty], corner_x[0], corner_cost[0] = 0, 1, 0, 0.0
    for level in range(count):
        if cancelled[0]:
            return True
        for t in range(ends):
            for s in range(prefixes, -1, -1):
                if used + most_corners > len(corner_x):
                    return False
                row = (s * ends + t) * count + level
                start[row], size[row] = used, 0
                found, several = _branches(
                    s,
                    t,
                    level,
                    levels[level],
                    prefix_needs,
                    body,
                    suffix_needs,
                    floors_prefix_state,
                    floors_prefix_tape,
                    floor_body_state,
                    floor_body_tape,
                    floors_suffix_state,
                    prefix_weights,
                    suffix_weights,
                    prefix_costs,
                    suffix_costs,
                    body_stages,
                    ends,
                    count,
                    branch_row,
                    branch_shift,
                    branch_slope,
                    branch_cost,
                    branch_most,
                )
                right_row = -1
                left_row = s * ends * count + level
                if levels[level] >= several and floor_body_state[level] >= 0:
                    right_row = (prefixes * ends + t) * count + floor_body_state[level]
                    if size[right_row] == 0 or (t > 0 and size[left_row] == 0):
                        right_row = -1
                advanced = 0.0
                for stage in range(s, prefixes):
                    advanced += prefix_weights[stage]
                first_x, first_cost = 0, np.inf
                if s == prefixes:
                    first_cost = 0.0 if t == 0 else suffix_costs[0, t - 1, level]
                elif t == 0:
                    first_cost = prefix_costs[s, prefixes - 1, level]
                if s < prefixes and first_cost == np.inf:
                    first_x = 1
                    for branch in range(found):
                        at = branch_row[branch]
                        cost = value_at(at, 1 - branch_shift[branch], start, size, corner_x, corner_cost)
                        first_cost = min(first_cost, cost + branch_slope[branch] + branch_cost[branch])
                    if t > 0 and right_row >= 0:
                        first_cost = min(
                            first_cost,
                            advanced
                            + 1.0
                            + corner_cost[start[right_row]]
                            + value_at(left_row, 1, start, size, corner_x, corner_cost),
                        )
                if first_cost == np.inf:
                    continue
                corner_x[used], corner_cost[used] = first_x, first_cost
                size[row] = 1
                _grow(
                    row,
                    right_row,
                    left_row,
                    advanced,
                    found,
                    branch_row,
                    branch_shift,
                    branch_slope,
                    branch_cost,
                    branch_most,
                    body_stages,
                    most_corners,
                    pointer,
                    start,
                    size,
                    corner_x,
                    corner_cost,
                )
                used += size[row]
    return True


@njit(nogil=True, cache=True)
def propose(
    s,
    t,
    n,
    level,
    free,
    state_levels,
    tape_level,
    count,
    prefix_needs,
    body,
    suffix_needs,
    prefix_weights,
    suffix_weights,
    prefix_costs,
    suffix_costs,
    whole_units,
    start,
    size,
    corner_x,
    corner_cost,
    bounds,
    stored,
):
    """Decisions for the interval (s, t, n) with `free` bytes and what each costs at least, best first.

    state_levels, shape (P + 1 + S): the level left after each stage's state is stored (the body's at P).
    Fills bounds and stored (TAPE, or how many stages after the first one to store); returns how many.
    """
    prefixes, ends = len(prefix_needs), len(suffix_needs) + 1
    gradient = body[GRADIENT] if t == 0 else suffix_needs[t - 1, GRADIENT]
    here = body if s == prefixes else prefix_needs[s]
    found = 0
    if free >= max(gradient + here[TAPE_NEED], here[REVERSE_NEED]):
        if s == prefixes and t == 0 and n == 1:
            bounds[0], stored[0] = 0.0, TAPE
            return 1
        after, rest = (s, n - 1) if s == prefixes else (s + 1, n)
        if tape_level >= 0:
            bounds[found] = value_at(
                (after * ends + t) * count + tape_level, rest, start, size, corner_x, corner_cost
            )
            stored[found] = TAPE
            found += 1
    need = here[FIRST_ADVANCE]
    advanced = 0.0
    for stage in range(s, prefixes):
        if stage > s:
            need = max(need, prefix_needs[stage, NEXT_ADVANCE])
        advanced += prefix_weights[stage]
        if free >= gradient + need and state_levels[stage] >= 0:
            right = value_at(
                ((stage + 1) * ends + t) * count + state_levels[stage], n, start, size, corner_x, corner_cost
            )
            bounds[found] = advanced + prefix_costs[s, stage, level] + right
            stored[found] = stage - s
            found += 1
    single = need if s == prefixes else max(need, body[NEXT_ADVANCE])
    several = max(need, body[NEXT_ADVANCE])
    if state_levels[prefixes] >= 0 and free >= gradient + single:
        right_row = (prefixes * ends + t) * count + state_levels[prefixes]
        left_row = s * ends * count + level
        most = 1 if free < gradient + several else (n - 1 if t == 0 else n)
        for source in range(2):
            row = left_row if source == 0 else right_row
            for index in range(start[row], start[row] + size[row] + 1):
                k = 1
                if index < start[row] + size[row]:
                    k = corner_x[index] if source == 0 else n - corner_x[index]
                elif source == 1:
                    k = most
                if not 1 <= k <= most or found == len(bounds):
                    continue
                bounds[found] = (
                    advanced
                    + k
                    + value_at(right_row, n - k, start, size, corner_x, corner_cost)
                    + value_at(left_row, k, start, size, corner_x, corner_cost)
                )
                stored[found] = prefixes - s + k - 1
                found += 1
    need = single if n == 1 else several
    advanced += n
    for stage in range(t - 1):
        need = max(need, suffix_needs[stage, NEXT_ADVANCE])
        advanced += suffix_weights[stage]
        right_level = state_levels[prefixes + 1 + stage]
        if free >= gradient + need and right_level >= 0:
            left = value_at((s * ends + stage + 1) * count + level, n, start, size, corner_x, corner_cost)
            bounds[found] = advanced + suffix_costs[stage + 1, t - 1, right_level] + left
            stored[found] = prefixes - s + n + stage
            found += 1
    return _sorted(found, bounds, stored, whole_units)


@njit(nogil=True, cache=True)
def _sorted(found, bounds, stored, whole_units):
    """Order the finite decisions by bound, rounded up to whole units where costs are whole."""
    kept = 0
    for index in range(found):
        if bounds[index] < np.inf:
            bounds[kept], stored[kept] = bounds[index], stored[index]
            kept += 1
    keys = bounds[:kept].copy()
    if whole_units:
        keys = np.ceil(keys - WHOLE * np.maximum(1.0, keys))
    order = np.argsort(keys, kind="mergesort")
    bounds[:kept] = bounds[:kept][order]
    stored[:kept] = stored[:kept][order]
    return kept
