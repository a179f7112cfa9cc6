"""Reversal, checkpoints and tapes together, for chains whose stages can be undone.

Source of the reversal: MacKay, Vicol, Ba, Grosse (2018), arXiv:1810.10999: the way back computes each state
from the next one and the bits that were archived. Where the archive of the whole chain does not fit, states
are stored every so often and one stretch at a time is archived and undone:

    F(n, c) = min of  leaf(n, c)                                   archive the stretch, tape its end, go back
                      y f + F(n-y, c+1) + F(y, c)    1 <= y < n    a checkpoint after y, dropped in between

with c checkpoints held, and leaf(n, c) the cheapest mix of archived and taped stages that fits beside them.

Guarantee: the cheapest of all policies of this form on equal stages, up to MOST_UNITS of them exactly; on
more, of those whose checkpoints lie at multiples of ⌈L / MOST_UNITS⌉ stages. Stages that differ count as
large as the largest. Reported with a lower bound for every schedule.
"""

from __future__ import annotations

from math import isfinite

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
from planner_service.solvers.stretches import LEAF, Sizes, Tables, fill

MOST_UNITS = 200
"""Places for checkpoints that are tried; one at every stage of shorter chains."""


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
    sizes, unit = Sizes.of(chain, most_archived), -(-chain.length // MOST_UNITS)
    units = -(-chain.length // unit)
    outside_bytes = chain.static_bytes + chain.input_bytes
    free_bytes = budget_bytes - outside_bytes
    least_bytes = _least_free_bytes(sizes, units=units, unit=unit)
    if free_bytes < least_bytes:
        raise BudgetTooSmall(budget_bytes=budget_bytes, minimum_budget_bytes=outside_bytes + least_bytes)
    most_held = min(units - 1, _most_checkpoints(sizes, free_bytes, unit))
    tables = fill(
        sizes,
        units=units,
        unit=unit,
        free_bytes=free_bytes,
        most_held=most_held,
        cancellation=cancellation,
    )
    policy = _Builder(chain, sizes, tables, unit, free_bytes).policy(units)
    return Draft("reversible", policy, "bounded", _reason(policy, unit))


def _least_free_bytes(sizes: Sizes, *, units: int, unit: int) -> int:
    """The least room in which some policy of the form fits: one leaf, or a checkpoint at every place."""
    whole = sizes.least_leaf_bytes(units * unit)
    if units == 1:
        return whole
    return min(whole, max(sizes.state + sizes.least_leaf_bytes(unit), sizes.advance_bytes))


def _most_checkpoints(sizes: Sizes, free_bytes: int, unit: int) -> int:
    """How many checkpoints leave room for a leaf of one unit beside them."""
    room = free_bytes - sizes.least_leaf_bytes(unit)
    return max(0, room) // sizes.state if sizes.state else MOST_UNITS


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

    def __init__(self, chain: Chain, sizes: Sizes, tables: Tables, unit: int, free_bytes: int) -> None:
        self._length, self._unit, self._free_bytes = chain.length, unit, free_bytes
        self._sizes, self._tables = sizes, tables
        self._nodes: list[PolicyNode] = []
        self._index: dict[tuple[int, int], int] = {}

    def policy(self, units: int) -> Policy:
        """The policy of the whole chain, whose last unit may be shorter."""
        if not isfinite(self._tables.cost[units, 0]):
            raise AssertionError("the least budget was met, and yet nothing fits")
        root = self._add(units, 0, self._length)
        return Policy(tuple(self._nodes), root)

    def _add(self, units: int, held: int, length: int) -> int:
        """The node of `length` stages, which are `units` units, with `held` checkpoints."""
        if (length, held) not in self._index:
            first = int(self._tables.split[units, held])
            if first == LEAF:
                node = self._leaf(length, held)
            else:
                span = first * self._unit
                right = self._add(units - first, held + 1, length - span)
                node = self._append(CheckpointNode(span, right, self._add(first, held, span)))
            self._index[length, held] = node
        return self._index[length, held]

    def _leaf(self, length: int, held: int) -> int:
        archived = self._sizes.leaf(length, self._free_bytes - held * self._sizes.state)
        assert archived is not None  # noqa: S101 - no longer than what the table found to fit
        taped = EMPTY if archived == length else self._append(TapeNode(length - archived, EMPTY))
        return self._append(ArchiveNode(archived, taped)) if archived else taped

    def _append(self, node: PolicyNode) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1
