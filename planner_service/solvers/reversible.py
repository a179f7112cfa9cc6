"""Reversal, checkpoints and tapes together, for chains whose stages can be undone.

Source of the reversal: MacKay, Vicol, Ba, Grosse (2018), arXiv:1810.10999: the way back computes each state
from the next one and the bits that were archived. Where the archive of the whole chain does not fit, states
are stored every so often and one stretch at a time is archived and undone:

    F(n, c) = min of  leaf(n, c)                                   archive the stretch, tape its end, go back
                      y f + F(n-y, c+1) + F(y, c)    1 <= y < n    a checkpoint after y, dropped in between

with c checkpoints held, and leaf(n, c) the cheapest mix of archived and taped stages that fits beside them.

Guarantee: the cheapest of all policies of this form, up to MOST_UNITS stages; on more, of those whose
checkpoints lie at multiples of ⌈L / MOST_UNITS⌉ stages (MOST_UNLIKE_UNITS where stages differ all along).
Every stage costs what it costs. Where sizes differ, the stages of a stretch count as large as its largest, a
checkpoint as the largest state: a policy that fits a budget so fits every larger one, and more bytes never
cost more. Reported with a lower bound for every schedule.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from planner_service.chain import (
    EMPTY,
    ArchiveNode,
    BudgetTooSmall,
    Chain,
    CheckpointNode,
    PlanningError,
    Policy,
    PolicyNode,
    TapeNode,
)
from planner_service.solvers.draft import Draft
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.stretch_tables import LEAF, Stretches, Tables, fill, least_free_bytes
from planner_service.solvers.stretches import Bytes

MOST_UNITS = 200
"""Places for checkpoints that are tried; one at every stage of shorter chains."""
MOST_UNLIKE_UNITS = 80
"""The same where hardly two stretches are alike, so that a plan takes a second."""
MOST_ROWS = MOST_UNLIKE_UNITS * (MOST_UNLIKE_UNITS + 1) // 2


class NotReversible(PlanningError, ValueError):
    """Some stage of the chain cannot be undone."""

    field = "strategy"

    def __init__(self) -> None:
        super().__init__(
            "strategy='reversible' needs stages that can be undone: a model of kind rev_gru, rev_lstm, "
            "nf_rev_gru or nf_rev_lstm, or a chain whose stages have a `reversal`"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (NotReversible, ())


def draft_reversible(
    chain: Chain, budget_bytes: int, cancellation: Cancellation, *, most_archived: int | None = None
) -> Draft:
    """The cheapest policy of the form above within the budget, with no more than `most_archived` stages
    archived at once. Raises NotReversible, BudgetTooSmall.
    """
    if not chain.is_reversible:
        raise NotReversible
    stretches = _stretches(chain, most_archived)
    outside_bytes = chain.static_bytes + chain.input_bytes
    rooms = _rooms(stretches, budget_bytes - outside_bytes)
    tables = fill(stretches, rooms, cancellation)
    if not isfinite(tables.cost[-1, 0]):
        least_bytes = outside_bytes + least_free_bytes(stretches, cancellation)
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=least_bytes)
    policy = _Builder(stretches, tables, rooms).policy()
    return Draft("reversible", policy, "bounded", _reason(policy, stretches.unit))


def _stretches(chain: Chain, most_archived: int | None) -> Stretches:
    every = Stretches.of(chain, -(-chain.length // MOST_UNITS), most_archived)
    if len(every.rows) <= MOST_ROWS:
        return every
    return Stretches.of(chain, -(-chain.length // MOST_UNLIKE_UNITS), most_archived)


def _rooms(stretches: Stretches, free_bytes: int) -> Bytes:
    """The bytes left beside 0, 1, 2, … checkpoints, while some may be left; at least one number."""
    most = stretches.units - 1
    if stretches.held_bytes:
        most = min(most, max(0, free_bytes) // stretches.held_bytes)
    return np.array(
        [free_bytes - held * stretches.held_bytes for held in range(most + 1)], dtype=stretches.dtype
    )


def _reason(policy: Policy, unit: int) -> str:
    kinds = {type(node) for node in policy.nodes}
    if ArchiveNode not in kinds:
        what = "nothing needs to be undone in this budget"
    elif CheckpointNode in kinds:
        what = "the archive of all stages does not fit: checkpoints, and stretches between them undone"
    else:
        what = "states are not stored but computed from the next ones"
    places = "" if unit == 1 else f" at multiples of {unit} stages"
    return f"{what}; cheapest of the policies that archive or tape stretches between checkpoints{places}"


class _Builder:
    """Writes the nodes that the tables decide on, equal subproblems once."""

    def __init__(self, stretches: Stretches, tables: Tables, rooms: Bytes) -> None:
        self._stretches, self._tables, self._rooms = stretches, tables, rooms
        self._nodes: list[PolicyNode] = []
        self._index: dict[tuple[int, int], int] = {}

    def policy(self) -> Policy:
        """The policy of the whole chain."""
        root = self._add(len(self._stretches.rows) - 1, 0)
        return Policy(tuple(self._nodes), root)

    def _add(self, row: int, held: int) -> int:
        """The node of a stretch with `held` checkpoints."""
        if (row, held) not in self._index:
            first = int(self._tables.split[row, held])
            if first == LEAF:
                node = self._leaf(row, held)
            else:
                right, left = (int(rows[first - 1]) for rows in self._stretches.halves(row))
                after = self._add(right, held + 1)
                before = self._add(left, held)
                node = self._append(CheckpointNode(first * self._stretches.unit, after, before))
            self._index[row, held] = node
        return self._index[row, held]

    def _leaf(self, row: int, held: int) -> int:
        stretch = self._stretches.stretch(row)
        archived = int(stretch.leaf(self._rooms).archived[held])
        taped = stretch.length - archived
        rest = self._append(TapeNode(taped, EMPTY)) if taped else EMPTY
        return self._append(ArchiveNode(archived, rest)) if archived else rest

    def _append(self, node: PolicyNode) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1
