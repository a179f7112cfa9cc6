"""Checkpointing by slots: hidden states only (BPTT-HSM) or internal states only (BPTT-ISM), in bytes.

Source: Gruslys, Munos, Danihelka, Lanctot, Graves (2016), arXiv:1606.03401, sections 3.1 and 3.2. Where to
store next has a closed form (Griewank, Walther 2000: the binomial schedule), so no table is needed:
O(distinct subproblems) time. The slots of the paper have no size; here their number is that of the cheapest
policy that fits the budget. Made for equal stages; on others the policy fits, but is not tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import comb
from typing import NamedTuple

from planner_service.chain import (
    BudgetTooSmall,
    Chain,
    CheckpointNode,
    Policy,
    TapeNode,
)
from planner_service.solvers.draft import Draft
from planner_service.solvers.needs import chain_needs
from planner_service.solvers.policies import Node, written
from planner_service.solvers.prices import price_list_of
from planner_service.solvers.solution import Cancellation

MOST_TRIED = 64
"""Up to so many stages every number of slots is tried."""
MOST_GUESSES = 32
"""Numbers of slots, evenly spread by their ratios, that are tried of longer chains."""
MOST_RUNS_ALIKE = 3
"""Equal stages, and a first and a last one that differ."""


class _Slots(NamedTuple):
    """Reverse `stages` stages with `slots` slots."""

    stages: int
    slots: int


def first_push(stages: int, slots: int) -> int:
    """Stages to advance before the next checkpoint: the least optimal y of HSM's D(t, m), t, m >= 2.

    max(1, β(m, r − 2), t − β(m − 1, r)) with β(c, r) = binom(c + r, c) and r the repetitions that t needs.
    """
    repetitions = 0
    while comb(slots + repetitions, slots) < stages:
        repetitions += 1
    before = comb(slots + repetitions - 2, slots) if repetitions >= 2 else 0
    return max(1, before, stages - comb(slots - 1 + repetitions, slots - 1))


def hidden_policy(stages: int, slots: int) -> Policy:
    """The BPTT-HSM policy with `slots` hidden states, the initial one included."""
    return written(_Slots(stages, slots), _split_hidden)


def internal_policy(stages: int, slots: int) -> Policy:
    """The BPTT-ISM policy with `slots` internal states, the one being computed included."""
    return written(_Slots(stages, slots), _split_internal)


def draft_hidden(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """HSM with as many hidden states as fit. Raises BudgetTooSmall, Cancelled."""
    slots = _best_slots(chain, budget_bytes, hidden_policy, cancellation)
    return Draft("hidden", hidden_policy(chain.length, slots), "bounded", f"{slots} hidden states fit")


def draft_internal(chain: Chain, budget_bytes: int, cancellation: Cancellation) -> Draft:
    """ISM with as many internal states as fit. Raises BudgetTooSmall, Cancelled."""
    slots = _best_slots(chain, budget_bytes, internal_policy, cancellation)
    return Draft("internal", internal_policy(chain.length, slots), "bounded", f"{slots} internal states fit")


def _split_hidden(here: _Slots) -> tuple[Node, tuple[_Slots, ...]]:
    stages, slots = here
    if stages == 1:
        return Node(TapeNode, 1), ()
    if slots == 1:
        # Only the start is kept; the state before the last stage belongs to the working core.
        return Node(CheckpointNode, stages - 1), (_Slots(1, 1), _Slots(stages - 1, 1))
    y = first_push(stages, slots)
    return Node(CheckpointNode, y), (_Slots(stages - y, slots - 1), _Slots(y, slots))


def _split_internal(here: _Slots) -> tuple[Node, tuple[_Slots, ...]]:
    """A stored internal state is a checkpoint whose right side begins with its tape: negative slots mark
    that the first stage must be taped.
    """
    stages, slots = here
    if slots < 0:
        rest = () if stages == 1 else (_Slots(stages - 1, -slots - 1),)
        return Node(TapeNode, 1), rest
    if stages <= slots:
        return Node(TapeNode, stages), ()
    y = stages if slots == 1 else first_push(stages + 1, slots)
    if y == 1:
        return Node(TapeNode, 1), (_Slots(stages - 1, slots - 1),)
    return Node(CheckpointNode, y - 1), (_Slots(stages - y + 1, -slots), _Slots(y - 1, slots))


def _best_slots(
    chain: Chain, budget_bytes: int, policy: Callable[[int, int], Policy], cancellation: Cancellation
) -> int:
    """The number of slots with which the policy is the cheapest that fits; ties go to the larger number.

    On short chains of all numbers; on long ones of some dozens, whose leanest is the least budget, and of
    those met in the search for the largest that fits.
    """
    price_list = price_list_of(chain)
    tried = {slots: price_list.prices(policy, slots, cancellation) for slots in _guesses(chain, policy)}
    least_bytes = min(prices.peak_bytes for prices in tried.values())
    if budget_bytes < least_bytes:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=least_bytes)

    def fits(slots: int) -> bool:
        tried[slots] = price_list.prices(policy, slots, cancellation)
        return tried[slots].peak_bytes <= budget_bytes

    if chain.length > MOST_TRIED:
        _largest_that_fits(most_slots(chain, budget_bytes, policy), fits)
    fitting = [
        (prices.makespan, -slots) for slots, prices in tried.items() if prices.peak_bytes <= budget_bytes
    ]
    return -min(fitting)[1]


def _largest_that_fits(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, if all smaller ones do, sought from above; 0 for none."""
    low, high, step = most, most + 1, 1
    while low > 0 and not fits(low):
        low, high, step = max(0, low - step), low, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def most_slots(chain: Chain, budget_bytes: int, policy: Callable[[int, int], Policy]) -> int:
    """No larger number fits: some stage is reversed while all slots but one are full."""
    stages = [run.stage for run in chain.runs]
    sizes = [stage.state_bytes if policy is hidden_policy else stage.tape_bytes for stage in stages]
    reversing = min(run.needs.reverse_need_bytes for run in chain_needs(chain).runs)
    room = budget_bytes - chain.static_bytes - chain.input_bytes - reversing
    return min(chain.length, room // min(sizes) + 1) if min(sizes) else chain.length


def _guesses(chain: Chain, policy: Callable[[int, int], Policy]) -> Iterable[int]:
    """Numbers of slots that are tried whatever the budget."""
    if chain.length <= MOST_TRIED:
        return range(1, chain.length + 1)
    if policy is hidden_policy or _more_slots_hold_more(chain):
        return (1,)
    return {round(chain.length ** (power / MOST_GUESSES)) for power in range(MOST_GUESSES + 1)}


def _more_slots_hold_more(chain: Chain) -> bool:
    """Whether one internal state is the leanest: not where taping is a leaner way to advance."""
    stages = [run.stage for run in chain.runs]
    return len(stages) <= MOST_RUNS_ALIKE and all(
        stage.tape_bytes >= stage.state_bytes
        and stage.taped_forward_workspace_bytes >= stage.forward_workspace_bytes
        for stage in stages
    )
