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


@kernel
def fill_one_sweep(chain: Uniform, free_bytes: Bytes, advances: Costs) -> None:
    """`advances_of_one_sweep` of every entry."""
    for index in range(len(free_bytes)):
        advances[index] = advances_of_one_sweep(chain, free_bytes[index])


@kernel
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
    length: N_r, A_r and E_r of sketch.py.
    """
    levels = len(free_bytes)
    first = levels
    for level in range(levels):
        stages[level] = taped_at_once(chain, free_bytes[level])
        deepest[level] = stages[level]
        total[level] = 0.0
        advances[level] = advances_of_one_sweep(chain, free_bytes[level])
        if first == levels and level > 0 and free_bytes[level] >= chain.advance_need:
            first = level
    for sweep in range(1, most_sweeps + 1):
        # Where nothing can be stored a sweep tapes what fits at once.
        for level in range(first, levels):
            below = level - 1
            into_stages = stages[below] if level > first else float(taped_at_once(chain, free_bytes[below]))
            into_total = total[below] if level > first else 0.0
            into_deepest = deepest[below] if level > first else 0.0
            total[level] = total[level] + stages[level] + into_total
            stages[level] = stages[level] + into_stages
            deepest[level] = deepest[level] + into_deepest
            surplus = stages[level] - chain.length
            if advances[level] == inf and surplus >= 0:
                advances[level] = total[level] - sweep * min(surplus, deepest[level])
