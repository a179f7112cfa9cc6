"""Kernels of the frontier sketch (sketch.py explains the notation)."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from planner_service.solvers.compiled import inner_kernel, kernel
from planner_service.solvers.needs import Bytes, Costs


class Uniform(NamedTuple):
    """A chain whose stages all count as the greediest one; sizes in bytes."""

    length: int
    state: int
    tape: int
    tape_overhead: int
    """Needed besides the tapes themselves while a stage is taped or reversed."""
    advance_need: int
    """Needed free to advance at all."""


@inner_kernel
def taped_at_once(chain: Uniform, free: int) -> int:
    """Stages that can be taped one after the other in `free` bytes; none is advanced."""
    return max(0, (free - chain.tape_overhead) // chain.tape)


@inner_kernel
def advances_of_one_sweep(chain: Uniform, free: int) -> float:
    """Stages advanced when each is advanced at most once; infinite when that does not fit."""
    if taped_at_once(chain, free) >= chain.length:
        return 0.0
    if most_of_one_sweep(chain, free) < chain.length:
        return inf
    reversed_stages = 0
    while True:
        taped = taped_at_once(chain, free)
        if taped < 1:
            return inf
        reversed_stages += taped
        if reversed_stages >= chain.length:
            return float(chain.length - taped)
        if free < chain.advance_need:
            return inf
        free -= chain.state


@inner_kernel
def most_of_one_sweep(chain: Uniform, free: int) -> float:
    """No more stages than this can be reversed with each advanced at most once."""
    tapes = max(0, free - chain.tape_overhead) / chain.tape
    states = max(0, free - chain.tape_overhead) / chain.state
    return tapes * (states / 2 + 1)


@inner_kernel
def fill_sketch(
    chain: Uniform, most_sweeps: int, shares: Costs, free_bytes: Bytes, advances: Costs, workspace: Costs
) -> None:
    """Free bytes and the stages that some policy advances in them; infinite where none was counted.

    First the tapes of each of `shares` of the chain at once, by one sweep; then state by state, by any
    number of sweeps. `workspace` has three rows as long as the other arrays.
    """
    once = len(shares)
    for index in range(once):
        tapes = max(1, int(shares[index] * chain.length))
        free_bytes[index] = chain.tape_overhead + chain.tape * tapes
        advances[index] = advances_of_one_sweep(chain, free_bytes[index])
    for index in range(once, len(free_bytes)):
        free_bytes[index] = chain.tape_overhead + chain.tape + chain.state * (index - once)
    fill_sweeps(
        chain,
        most_sweeps,
        free_bytes[once:],
        workspace[0, once:],
        workspace[1, once:],
        workspace[2, once:],
        advances[once:],
    )
    improve_two_sweeps(chain, free_bytes[once:], workspace[0, once:], advances[once:])


@inner_kernel
def fill_sweeps(
    chain: Uniform,
    most_sweeps: int,
    free_bytes: Bytes,
    stages: Costs,
    total: Costs,
    deepest: Costs,
    advances: Costs,
) -> None:
    """Fewest sweeps that reverse the chain at free_bytes[0] + i states, and the stages they advance.

    `free_bytes` ascends by one state an entry. `stages`, `total`, `deepest` are workspace of its
    length: N_r, A_r and E_r of sketch.py. Entries that no so many sweeps settle become infinite.
    """
    levels = len(free_bytes)
    first = levels
    for level in range(levels):
        stages[level] = taped_at_once(chain, free_bytes[level])
        deepest[level] = stages[level]
        total[level] = 0.0
        advances[level] = 0.0 if stages[level] >= chain.length else inf
        if first == levels and level > 0 and free_bytes[level] >= chain.advance_need:
            first = level
    unsettled = levels
    for sweep in range(1, most_sweeps + 1):
        lowest = unsettled
        # Where nothing can be stored a sweep tapes what fits at once.
        into_stages = float(taped_at_once(chain, free_bytes[max(0, first - 1)]))
        into_total = 0.0
        into_deepest = 0.0
        for level in range(first, unsettled):
            into_total += total[level] + stages[level]
            into_stages += stages[level]
            into_deepest += deepest[level]
            total[level], stages[level], deepest[level] = into_total, into_stages, into_deepest
            surplus = into_stages - chain.length
            if surplus >= 0 and advances[level] > 0:
                lowest = min(lowest, level)
                advances[level] = into_total - sweep * min(surplus, into_deepest)
                if sweep == 1:
                    advances[level] = advances_of_one_sweep(chain, free_bytes[level])
        unsettled = lowest


@inner_kernel
def improve_two_sweeps(chain: Uniform, free_bytes: Bytes, before: Costs, advances: Costs) -> None:
    """Two sweeps whose inner one stores few states, and so ends in more tapes that are not advanced.

    Little more than one sweep can reverse needs little more than one sweep: with k states stored inside,
    the block that begins with m bytes free reverses W(m) = N_0(m) + … + N_0(m - k a) stages, the last
    N_0(m - k a) of them advanced once, the others twice. `before[i]` becomes the sum of N_0 below level i.
    """
    first = 1
    while first < len(free_bytes) and free_bytes[first] < chain.advance_need:
        first += 1
    base = first - 1
    count = len(free_bytes) - base
    reached = 0.0
    for level in range(count):
        before[level] = reached
        reached += taped_at_once(chain, free_bytes[base + level])
    inner = 1
    while inner < count:
        capacity = float(taped_at_once(chain, free_bytes[base]))
        total = 0.0
        twice = 0.0
        for level in range(1, count):
            tail = float(taped_at_once(chain, free_bytes[base + max(0, level - inner)]))
            block = before[level] + taped_at_once(chain, free_bytes[base + level])
            block -= before[max(0, level - inner)]
            capacity += block
            total += 2 * block - tail
            twice += block - tail
            if capacity >= chain.length:
                cost = total - 2 * min(capacity - chain.length, twice)
                advances[base + level] = min(advances[base + level], cost)
        inner = max(inner + 1, inner * 3 // 2)


@kernel
def fill_sketches(
    table: Bytes,
    costs: Costs,
    counts: Bytes,
    most_sweeps: int,
    shares: Costs,
    budget_bytes: Bytes,
    makespan: Costs,
    workspace: Costs,
) -> None:
    """The points of several chains one after the other, counts[i] of chain i.

    Rows of `table` are the first six fields of an Outline (sketch.py), those of `costs` the others.
    `workspace` has three rows as long as the largest count.
    """
    end = 0
    for index in range(len(counts)):
        begin, end = end, end + counts[index]
        row = table[index]
        chain = Uniform(row[0], row[1], row[2], row[3], row[4])
        budgets, makespans = budget_bytes[begin:end], makespan[begin:end]
        fill_sketch(chain, most_sweeps, shares, budgets, makespans, workspace[:, : end - begin])
        for point in range(end - begin):
            budgets[point] += row[5]
            makespans[point] = costs[index, 1] + costs[index, 0] * makespans[point]
