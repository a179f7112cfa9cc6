"""Tables of the offload recurrence (see `offload.py`) over intervals of stages, in numba.

Stages count from 0 and rows are those of `kernels.row_of`. The *start* of an interval is the state
that its first stage reads; it is loose: the interval drops its device copy. All costs are those of
recomputation plus the stalls of the compute stream.

Two things outside an interval change its cost, and index the tables:
    pending  1 when the start is still being written to an overlapped tier
    due      number of the overlapped tier from which a state is fetched next, 0 for none: the read
             may run behind the interval's last kept piece
"""

from __future__ import annotations

import numpy as np
from numba import njit

from planner_service.solvers.kernels import row_of
from planner_service.solvers.needs import FIRST_ADVANCE, GRADIENT, NEXT_ADVANCE

UNDER = -1
"""Decision: write no other state of the interval to this tier."""

WRITE, READ, PENDING = range(3)
"""Rows of `stalls`, per state: what the compute stream waits for a write and a read of a tier that
blocks, and how long a write to an overlapped one takes."""


@njit(nogil=True, cache=True)
def level_of(levels, free_bytes):
    """The highest level within `free_bytes`, -1 for none."""
    return np.searchsorted(levels, free_bytes, side="right") - 1


@njit(nogil=True, cache=True)
def kept_seconds(row, levels, table, kept_bytes, landing_bytes, reversal_seconds, read_seconds):
    """(plain, behind): cost of an interval that is kept on the device, then a read that follows it.

    The read comes after it (plain), or runs behind it into a buffer of `landing_bytes`.
    """
    level = level_of(levels, kept_bytes)
    plain = table[row, level] + read_seconds if level >= 0 else np.inf
    level = level_of(levels, kept_bytes - landing_bytes)
    if level < 0:
        return plain, np.inf
    behind = table[row, level]
    return plain, behind + max(0.0, read_seconds - behind - reversal_seconds)


@njit(nogil=True, cache=True)
def fill_kept(body, levels, table, kept_bytes, landing_bytes, reversal_before, read_seconds, kept):
    """Cost of each interval that is reversed on the device, its start included, into kept[due, row].

    kept_bytes: free bytes less the start, per first stage. reversal_before: prefix sums, shape (L + 1,),
    of a lower bound of what taping and reversing each stage costs. read_seconds[due]: 0 for due = 0.
    """
    length = len(kept_bytes)
    for first in range(length):
        for last in range(first, length):
            if first > body[0] and last <= body[1]:
                continue
            row = row_of(first, last, length, body[0], body[1])
            seconds = reversal_before[last + 1] - reversal_before[first]
            for due in range(len(read_seconds)):
                plain, behind = kept_seconds(
                    row, levels, table, kept_bytes[first], landing_bytes, seconds, read_seconds[due]
                )
                kept[due, row] = min(plain, behind) if due else plain


@njit(nogil=True, cache=True)
def fill_tier(kind, advance_before, needs, body, free_bytes, start_bytes, floor, stalls, due, under, table,
              over, cancelled):  # fmt: skip
    """Least cost of each interval whose start is in this tier, into table[pending, due, row, level].

    under[pending, due, row]: cost when nothing more goes to this tier (`over` of the tier before).
    over[pending, due, row]: least cost when the start may go to this tier, all of which is free.
    floor[state, level]: the tier's level that is left when that state is written, -1 for none.
    due: this tier's number when it is overlapped, else 0. O(rows · L · levels) time.
    """
    length, count = len(kind), floor.shape[1]
    written = min(due, 1)
    # Rows as a write to this tier leaves them: the column of the current last stage, the body's rows.
    column = np.empty((length, count))
    body_rows = np.empty((body[1] - body[0] + 1, count))
    for last in range(length):
        for first in range(last, -1, -1):
            if first > body[0] and last <= body[1]:
                continue
            if cancelled[0]:
                return
            row = row_of(first, last, length, body[0], body[1])
            for pending in range(2):
                for after in range(under.shape[1]):
                    table[pending, after, row, :] = under[pending, after, row]
            _split(first, last, kind, advance_before, needs, body, free_bytes, start_bytes, stalls,
                   column, body_rows, table)  # fmt: skip
            left = floor[first]
            for pending in range(2):
                for after in range(under.shape[1]):
                    here = table[max(pending, written), after, row]
                    over[pending, after, row] = stored_cost(
                        under[pending, after, row], stalls[WRITE, first], here, left[count - 1]
                    )
            for level in range(count):
                here = table[written, due, row]
                column[first, level] = stored_cost(
                    under[0, due, row], stalls[WRITE, first], here, left[level]
                )
            if first == body[0] and last <= body[1]:
                body_rows[last - first] = column[first]


@njit(nogil=True, cache=True)
def stored_cost(under, write_seconds, costs, level):
    """The cheaper of leaving the start where it is and writing it to the tier, if `level` allows."""
    return min(under, write_seconds + costs[level]) if level >= 0 else under


@njit(nogil=True, cache=True)
def _split(first, last, kind, advance_before, needs, body, free_bytes, start_bytes, stalls, column,
           body_rows, table):  # fmt: skip
    """Try every state of the interval as the next one to leave the device or to be kept there."""
    length, count = column.shape
    row = row_of(first, last, length, body[0], body[1])
    lean = roomy = 0
    for stored in range(first, last):
        lean, roomy = advance_needs(first, stored, kind, needs, start_bytes, lean, roomy)
        waits = advance_seconds(first, last, stored, kind, advance_before, needs, free_bytes, lean, roomy,
                                stalls[PENDING, first])  # fmt: skip
        if waits[0] == np.inf:
            return
        if stored + 1 > body[0] and last <= body[1]:
            right = body_rows[last - stored - 1]
        else:
            right = column[stored + 1]
        left_row = row_of(first, stored, length, body[0], body[1])
        for pending in range(2):
            cost = waits[pending] + stalls[READ, first]
            for after in range(table.shape[1]):
                target, left = table[pending, after, row], table[0, after, left_row]
                for level in range(count):
                    value = cost + right[level] + left[level]
                    target[level] = value if value < target[level] else target[level]


@njit(nogil=True, cache=True)
def advance_needs(first, stored, kind, needs, start_bytes, lean, roomy):
    """Bytes that advancing first..stored needs beside the gradient, from those for one stage less:
    when the start goes after its stage (lean), and when it stays until the end (roomy).
    """
    here = kind[stored]
    lean = max(lean, needs[here, NEXT_ADVANCE])
    beside_start = needs[here, FIRST_ADVANCE] if stored == first else needs[here, NEXT_ADVANCE]
    return lean, max(roomy, start_bytes[first] + beside_start)


@njit(nogil=True, cache=True)
def advance_seconds(first, last, stored, kind, advance_before, needs, free_bytes, lean, roomy, pending):
    """What advancing first..stored costs: (nothing pending, start being written in `pending` seconds).

    Infinite where it does not fit `free_bytes`, which include the start.
    """
    free_bytes = free_bytes - needs[kind[last], GRADIENT]
    if lean > free_bytes:
        return np.inf, np.inf
    seconds = advance_before[stored + 1] - advance_before[first]
    if roomy <= free_bytes:
        return seconds, max(seconds, pending)
    first_seconds = advance_before[first + 1] - advance_before[first]
    return seconds, seconds + max(0.0, pending - first_seconds)


@njit(nogil=True, cache=True)
def decide_tier(first, last, pending, after, level, kind, advance_before, needs, body, free_bytes,
                start_bytes, floor, stalls, due, under, table):  # fmt: skip
    """Best decision where the start is in this tier: (UNDER, 0, 0) or (stage whose output comes next,
    1 when that state is written to this tier, 1 when the start stays until it is there).
    """
    length = len(kind)
    best, choice = under[pending, after, row_of(first, last, length, body[0], body[1])], UNDER
    in_tier = stays = 0
    written = min(due, 1)
    lean = roomy = 0
    for stored in range(first, last):
        lean, roomy = advance_needs(first, stored, kind, needs, start_bytes, lean, roomy)
        waits = advance_seconds(first, last, stored, kind, advance_before, needs, free_bytes, lean, roomy,
                                stalls[PENDING, first])  # fmt: skip
        if waits[0] == np.inf:
            break
        state = stored + 1
        right_row = row_of(state, last, length, body[0], body[1])
        left = table[0, after, row_of(first, stored, length, body[0], body[1]), level]
        beside = under[0, due, right_row]
        right = stored_cost(beside, stalls[WRITE, state], table[written, due, right_row], floor[state, level])
        value = waits[pending] + stalls[READ, first] + right + left
        if value < best:
            best, choice, in_tier = value, stored, int(right < beside)
            stays = int(pending and roomy + needs[kind[last], GRADIENT] <= free_bytes)
    return choice, in_tier, stays


@njit(nogil=True, cache=True)
def fill_roots(kind, advance_before, needs, body, levels, table, free_bytes, over, roots, cancelled):
    """Least cost of the stages 0..last with x_0 held on the device, into roots[last]. O(L^2).

    over[row]: cost of an interval whose start may go anywhere.
    """
    length = len(kind)
    top = level_of(levels, free_bytes)
    for last in range(length):
        if cancelled[0]:
            return
        row = row_of(0, last, length, body[0], body[1])
        roots[last] = table[row, top] if top >= 0 else np.inf
        stored, cost = _root_split(last, kind, advance_before, needs, body, free_bytes, over, roots)
        if stored != UNDER and cost < roots[last]:
            roots[last] = cost


@njit(nogil=True, cache=True)
def decide_root(last, kind, advance_before, needs, body, free_bytes, over, roots, held_cost):
    """Stage whose output leaves x_0's interval 0..last next, or UNDER to stay on the device."""
    stored, cost = _root_split(last, kind, advance_before, needs, body, free_bytes, over, roots)
    return stored if cost < held_cost else UNDER


@njit(nogil=True, cache=True)
def _root_split(last, kind, advance_before, needs, body, free_bytes, over, roots):
    length = len(kind)
    best, choice = np.inf, UNDER
    need = 0
    for stored in range(last):
        here = kind[stored]
        need = max(need, needs[here, NEXT_ADVANCE] if stored else needs[here, FIRST_ADVANCE])
        if need + needs[kind[last], GRADIENT] > free_bytes:
            break
        right = over[row_of(stored + 1, last, length, body[0], body[1])]
        value = advance_before[stored + 1] + right + roots[stored]
        if value < best:
            best, choice = value, stored
    return choice, best
