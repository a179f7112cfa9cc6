"""Lower bounds that hold for every legal schedule, persistent or not."""

from __future__ import annotations

from math import inf

from planner_service.chain import Chain, Stage


def knapsack_bound(chain: Chain, budget_bytes: int) -> float:
    """Makespan that no legal schedule of `chain` in `budget_bytes` can beat, in the chain's cost unit.

    Every stage is taped or undone, and reversed, exactly once. When stage L is, every earlier stage has
    run; those that are not taped by then were advanced or archived at least once. The
    live tapes fit the budget, so what they save is at most a fractional knapsack's value. O(runs log runs).
    """
    last = chain.stage(chain.length)
    held = chain.static_bytes + chain.input_bytes + chain.loss_gradient_bytes
    room = max(0, budget_bytes - held - _last_bytes(chain, last))
    earlier = [(part.last - part.first + 1, part.stage) for part in chain.parts(1, chain.length - 1)]
    earlier.sort(key=lambda run: _cost_per_byte(_untaped_cost(run[1]), run[1].tape_bytes), reverse=True)
    total = min(_taped_cost(last), _undone_cost(last))
    for count, stage in earlier:
        if _undone_cost(stage) <= _taped_cost(stage):
            total += count * _undone_cost(stage)
            continue
        size = count * stage.tape_bytes
        taped = 1.0 if size <= room else room / size
        room -= min(size, room)
        total += count * (_taped_cost(stage) + _untaped_cost(stage) * (1 - taped))
    return total


def _untaped_cost(stage: Stage) -> float:
    """What a stage costs more, at least, when it is not taped the first time it runs."""
    return min(stage.forward_cost, _undone_cost(stage) - _taped_cost(stage))


def _taped_cost(stage: Stage) -> float:
    return stage.taped_forward_cost + stage.backward_cost


def _undone_cost(stage: Stage) -> float:
    """Infinite where it cannot be. Never a difference to taping, in which a small one would drown."""
    return inf if stage.reversal is None else stage.archiving_cost + stage.reversal.undo_cost


def _last_bytes(chain: Chain, last: Stage) -> int:
    """What is live besides earlier tapes while the last stage is taped, or undone if that takes less."""
    taped = last.tape_bytes + last.taped_forward_workspace_bytes
    if last.reversal is None:
        return taped
    states = last.state_bytes + chain.state_bytes(chain.length - 1)
    reversal = last.reversal
    return min(taped, reversal.archive_bytes + states + reversal.undo_workspace_bytes)


def _cost_per_byte(cost: float, size_bytes: int) -> float:
    return cost / size_bytes if size_bytes else inf
