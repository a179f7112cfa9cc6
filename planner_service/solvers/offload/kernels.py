"""Tables of the offload recurrence (see `offload/solve.py`) over intervals of stages.

Stages count from 0 and rows are those of `kernels.row_of`. The *start* of an interval is the state
that its first stage reads; it is loose: the interval drops its device copy. All costs are those of
recomputation plus the stalls of the compute stream.

Two things outside an interval change its cost, and index the tables:
    pending  number of the slowest overlapped tier that the start is still being written to, 0 for none
    due      number of the overlapped tier from which a state is fetched next, 0 for none: the read
             may run behind the interval's last kept piece
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from planner_service.solvers.compiled import allocating_kernel, kernel
from planner_service.solvers.kernels import Stages, row_of
from planner_service.solvers.needs import FIRST_ADVANCE, GRADIENT, NEXT_ADVANCE, Bytes, Costs, Flag

UNDER = -1
"""Decision: write no other state of the interval to this tier."""

WRITE, READ = range(2)
"""Rows of `Shelf.stalls`: what the compute stream waits for a write and a read of a tier that blocks."""


class Device(NamedTuple):
    """The device, and the states that may lie on it."""

    free_bytes: int
    """Beside static bytes and x_0."""
    start_bytes: Bytes
    """Shape (L,): bytes of the state that each stage reads; x_0 counts as like x_1."""


class Alone(NamedTuple):
    """What intervals cost that are reversed on the device alone."""

    levels: Bytes
    """Free bytes, ascending, shape (K,)."""
    costs: Costs
    """Least recomputation cost of every interval at every level, shape (rows, K)."""
    reversal_before: Costs
    """Shape (L + 1,): prefix sums of a lower bound of what taping and reversing each stage costs."""
    landing_bytes: int
    """The largest state that can be on its way back from a tier."""
    read_seconds: Costs
    """Shape (dues,): time of the read that follows an interval, 0 for none."""


class Shelf(NamedTuple):
    """One tier."""

    due: int
    """This tier's number when it is overlapped, else 0."""
    floor: Bytes
    """Shape (L, levels): the level that is left when a state is written, -1 for none."""
    stalls: Costs
    """Shape (2, L): per state, see WRITE and READ."""
    pending_seconds: Costs
    """Shape (dues, L): how long the writes of a state take from this tier to overlapped tier `pending`."""
    under: Costs
    """Shape (dues, dues, rows): cost of [pending, due, row] when nothing more goes to this tier."""
    stored: Costs
    """Shape (dues, dues, rows, levels): cost when the start is in this tier, with so much of it left."""
    over: Costs
    """Shape (dues, dues, rows): cost when the start may go to this tier, all of which is free."""


@kernel
def cost_within(free_bytes: int, row: int, alone: Alone) -> float:
    """Recomputation cost of an interval on the device alone; infinite when it does not fit."""
    level = np.searchsorted(alone.levels, free_bytes, side="right") - 1
    return float(alone.costs[row, level]) if level >= 0 else np.inf


@kernel
def kept_seconds(row: int, seconds: float, free_bytes: int, due: int, alone: Alone) -> tuple[float, float]:
    """(plain, behind): cost of an interval that is kept on the device, then a read from tier `due`.

    The read comes after the interval (plain), or runs behind it into a buffer that is set aside.
    seconds: lower bound of the interval's taping and reversing.
    """
    read = alone.read_seconds[due]
    plain = cost_within(free_bytes, row, alone) + read
    behind = cost_within(free_bytes - alone.landing_bytes, row, alone)
    if behind == np.inf:
        return plain, np.inf
    return plain, behind + max(0.0, read - behind - seconds)


@kernel
def fill_kept(stages: Stages, device: Device, alone: Alone, kept: Costs) -> None:
    """Cost of each interval that is reversed on the device, its start included, into kept[due, row]."""
    length = len(stages.kind)
    for first in range(length):
        for last in range(first, length):
            if first > stages.body_first and last <= stages.body_last:
                continue
            row = row_of(first, last, length, stages.body_first, stages.body_last)
            seconds = alone.reversal_before[last + 1] - alone.reversal_before[first]
            free_bytes = device.free_bytes - device.start_bytes[first]
            for due in range(len(kept)):
                plain, behind = kept_seconds(row, seconds, free_bytes, due, alone)
                kept[due, row] = min(plain, behind) if due else plain


@kernel
def fill_held(stages: Stages, device: Device, alone: Alone, held: Costs) -> None:
    """Cost of the stages 0..last on the device alone, x_0 held, into held[last]."""
    length = len(stages.kind)
    for last in range(length):
        row = row_of(0, last, length, stages.body_first, stages.body_last)
        held[last] = cost_within(device.free_bytes, row, alone)


@kernel
def fill_fitting(stages: Stages, device: Device, least: Bytes, kept: Costs, held: Costs) -> None:
    """`fill_kept` and `fill_held` with 0 for what fits: least[first, last] are the free bytes needed."""
    length = len(stages.kind)
    for first in range(length):
        free_bytes = device.free_bytes - device.start_bytes[first]
        for last in range(first, length):
            row = row_of(first, last, length, stages.body_first, stages.body_last)
            kept[:, row] = 0.0 if least[first, last] <= free_bytes else np.inf
    for last in range(length):
        held[last] = 0.0 if least[0, last] <= device.free_bytes else np.inf


@allocating_kernel
def fill_tier(stages: Stages, device: Device, shelf: Shelf, cancelled: Flag) -> None:
    """Fill `shelf.stored` and `shelf.over`. O(rows · L · levels) time."""
    length, count = shelf.floor.shape
    # Rows as a write to this tier leaves them: the column of the current last stage, the body's rows.
    column = np.empty((length, count))
    body_rows = np.empty((stages.body_last - stages.body_first + 1, count))
    for last in range(length):
        for first in range(last, -1, -1):
            if first > stages.body_first and last <= stages.body_last:
                continue
            if cancelled[0]:
                return
            row = row_of(first, last, length, stages.body_first, stages.body_last)
            _split(first, last, stages, device, shelf, column, body_rows)
            for pending in range(shelf.under.shape[0]):
                for due in range(shelf.under.shape[1]):
                    shelf.over[pending, due, row] = write_or_not(first, row, pending, due, count - 1, shelf)
            shared = first == stages.body_first and last <= stages.body_last
            for level in range(count):
                cost = write_or_not(first, row, 0, shelf.due, level, shelf)
                column[first, level] = cost
                if shared:
                    body_rows[last - first, level] = cost


@kernel
def write_or_not(first: int, row: int, pending: int, due: int, level: int, shelf: Shelf) -> float:
    """Cost of an interval whose start may be written to the tier, `level` of which is free."""
    under = float(shelf.under[pending, due, row])
    left = shelf.floor[first, level]
    if left < 0:
        return under
    stored = shelf.stored[max(pending, shelf.due), due, row, left]
    return min(under, float(shelf.stalls[WRITE, first] + stored))


@kernel
def _split(
    first: int, last: int, stages: Stages, device: Device, shelf: Shelf, column: Costs, body_rows: Costs
) -> None:
    """Try every state of the interval as the next one, in this tier or under it."""
    length, count = column.shape
    row = row_of(first, last, length, stages.body_first, stages.body_last)
    for pending in range(shelf.under.shape[0]):
        for due in range(shelf.under.shape[1]):
            for level in range(count):
                shelf.stored[pending, due, row, level] = shelf.under[pending, due, row]
    lean = roomy = 0
    for split in range(first, last):
        lean, roomy = advance_needs(first, split, stages, device, lean, roomy)
        seconds, hiding = advance_seconds(first, last, split, stages, device, lean, roomy)
        if seconds == np.inf:
            return
        if split + 1 > stages.body_first and last <= stages.body_last:
            right = body_rows[last - split - 1]
        else:
            right = column[split + 1]
        left_row = row_of(first, split, length, stages.body_first, stages.body_last)
        for pending in range(shelf.under.shape[0]):
            wait = max(0.0, shelf.pending_seconds[pending, first] - hiding)
            cost = seconds + wait + shelf.stalls[READ, first]
            for due in range(shelf.under.shape[1]):
                target, left = shelf.stored[pending, due, row], shelf.stored[0, due, left_row]
                for level in range(count):
                    value = cost + right[level] + left[level]
                    target[level] = value if value < target[level] else target[level]


@kernel
def advance_needs(
    first: int, split: int, stages: Stages, device: Device, lean: int, roomy: int
) -> tuple[int, int]:
    """Bytes that advancing first..split needs beside the gradient, from those for one stage less:
    when the start goes after its stage (lean), and when it stays until the end (roomy).
    """
    needs = stages.needs[stages.kind[split]]
    beside_start = needs[FIRST_ADVANCE] if split == first else needs[NEXT_ADVANCE]
    return max(lean, needs[NEXT_ADVANCE]), max(roomy, device.start_bytes[first] + beside_start)


@kernel
def advance_seconds(
    first: int, last: int, split: int, stages: Stages, device: Device, lean: int, roomy: int
) -> tuple[float, float]:
    """What advancing first..split costs with nothing pending, and how much of a write of the start it hides:
    all of it where the start stays until the end, else its first stage.

    Infinite where it does not fit.
    """
    free_bytes = device.free_bytes - stages.needs[stages.kind[last], GRADIENT]
    if lean > free_bytes:
        return np.inf, 0.0
    seconds = stages.advance_before[split + 1] - stages.advance_before[first]
    if roomy <= free_bytes:
        return seconds, seconds
    return seconds, stages.advance_before[first + 1] - stages.advance_before[first]


class Place(NamedTuple):
    """An interval whose start is in a tier, and what is outside it."""

    first: int
    last: int
    pending: int
    due: int
    level: int
    """Of the tier, free."""


@kernel
def decide_tier(place: Place, stages: Stages, device: Device, shelf: Shelf) -> tuple[int, bool, bool]:
    """(UNDER, False, False), or (stage whose output comes next, whether that is written to this tier,
    whether the start stays until it is there).
    """
    length, first, last = len(stages.kind), place.first, place.last
    row = row_of(first, last, length, stages.body_first, stages.body_last)
    best, choice, written, stays = shelf.under[place.pending, place.due, row], UNDER, False, False
    lean = roomy = 0
    for split in range(first, last):
        lean, roomy = advance_needs(first, split, stages, device, lean, roomy)
        seconds, hiding = advance_seconds(first, last, split, stages, device, lean, roomy)
        if seconds == np.inf:
            break
        right_row = row_of(split + 1, last, length, stages.body_first, stages.body_last)
        right = write_or_not(split + 1, right_row, 0, shelf.due, place.level, shelf)
        left_row = row_of(first, split, length, stages.body_first, stages.body_last)
        left = shelf.stored[0, place.due, left_row, place.level]
        wait = max(0.0, shelf.pending_seconds[place.pending, first] - hiding)
        value = seconds + wait + shelf.stalls[READ, first] + right + left
        if value < best:
            best, choice = value, split
            written = right < shelf.under[0, shelf.due, right_row]
            gradient = stages.needs[stages.kind[last], GRADIENT]
            stays = place.pending > 0 and roomy + gradient <= device.free_bytes
    return choice, written, stays


@kernel
def fill_roots(
    stages: Stages, device: Device, held: Costs, over: Costs, roots: Costs, cancelled: Flag
) -> None:
    """Least cost of the stages 0..last with x_0 held on the device, into roots[last]. O(L^2).

    held[last]: on the device alone. over[row]: cost of an interval whose start may go anywhere.
    """
    for last in range(len(stages.kind)):
        if cancelled[0]:
            return
        roots[last] = min(held[last], best_root(last, stages, device, over, roots)[1])


@kernel
def best_root(last: int, stages: Stages, device: Device, over: Costs, roots: Costs) -> tuple[int, float]:
    """The stage of 0..last whose output comes next, anywhere, and the cost with it; UNDER for none."""
    length = len(stages.kind)
    best, choice = np.inf, UNDER
    need = 0
    for split in range(last):
        needs = stages.needs[stages.kind[split]]
        need = max(need, needs[NEXT_ADVANCE] if split else needs[FIRST_ADVANCE])
        if need + stages.needs[stages.kind[last], GRADIENT] > device.free_bytes:
            break
        right = over[row_of(split + 1, last, length, stages.body_first, stages.body_last)]
        value = stages.advance_before[split + 1] + right + roots[split]
        if value < best:
            best, choice = value, split
    return choice, best
