"""Lower bounds that hold for every legal schedule, persistent or not."""

from __future__ import annotations

from math import inf

from planner_service.chain import Chain


def knapsack_bound(chain: Chain, budget_bytes: int) -> float:
    """Makespan that no legal schedule of `chain` in `budget_bytes` can beat, in the chain's cost unit.

    Every stage is taped and reversed exactly once. When stage L is taped, every earlier stage has run;
    those that are not taped by then were advanced at least once. The live tapes fit the budget, so
    what they save is at most a fractional knapsack's value. O(runs log runs).
    """
    last = chain.stage(chain.length)
    held = chain.static_bytes + chain.input_bytes + chain.loss_gradient_bytes
    room = max(0, budget_bytes - held - last.tape_bytes - last.taped_forward_workspace_bytes)
    earlier = [(part.last - part.first + 1, part.stage) for part in chain.parts(1, chain.length - 1)]
    earlier.sort(key=lambda run: _cost_per_byte(run[1].forward_cost, run[1].tape_bytes), reverse=True)
    advanced: float = 0
    for count, stage in earlier:
        size = count * stage.tape_bytes
        taped = 1.0 if size <= room else room / size
        room -= min(size, room)
        advanced += count * stage.forward_cost * (1 - taped)
    return chain.store_all_makespan + advanced


def _cost_per_byte(cost: float, size_bytes: int) -> float:
    return cost / size_bytes if size_bytes else inf
