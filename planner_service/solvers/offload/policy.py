"""From filled offload tables to a policy: every decision is taken again where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from planner_service.chain import EMPTY, CheckpointNode, TapeNode
from planner_service.chain.tiers import DEVICE
from planner_service.chain.tiers_policy import (
    CopyNode,
    KeepNode,
    LeaveNode,
    OffloadNode,
    PrefetchNode,
    TieredNode,
    TieredPolicy,
)
from planner_service.solvers.offload import kernels as offload
from planner_service.solvers.offload.kernels import Alone, Place
from planner_service.solvers.offload.tables import OffloadTables
from planner_service.solvers.policies import TAPE, Subproblem, after_tape, canonical, split
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.subproblems import fold


class Root(NamedTuple):
    """Stages 0..last, x_0 held."""

    last: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Stages first..last on the device alone, their start loose; then a read from tier number `due`.

    No tuple: it would equal the `Subproblem` whose free bytes are as many as `due` says.
    """

    first: int
    last: int
    due: int


class Beside(NamedTuple):
    """The same with a buffer set aside for the read, which has begun."""

    first: int
    last: int


class Stored(NamedTuple):
    """An interval whose start is in tier number `tier`, from 0."""

    tier: int
    place: Place


Due = Root | Subproblem | Kept | Beside | Stored
"""What a node is due for; a `Subproblem` is on the device alone, its start held by somebody else."""


class Decision(NamedTuple):
    """A node's kind and first fields; the nodes of `children` become its last fields."""

    kind: type[TieredNode]
    fields: tuple[int | str, ...]
    children: tuple[Due, ...]


def build_policy(
    tables: OffloadTables, alone: Alone, decide: Callable[[Subproblem], int], cancellation: Cancellation
) -> TieredPolicy:
    """The policy that the tables imply; equal subproblems share their node.

    decide: the decision of the recurrence without tiers (`policies.py`).

    Raises Cancelled.
    """
    decisions = _Decisions(tables, alone, decide)
    nodes: list[TieredNode] = []

    def take(here: Due) -> tuple[Decision, tuple[Due, ...]]:
        decision = decisions.take(here)
        return decision, decision.children

    def write(decision: Decision, children: list[int]) -> int:
        nodes.append(_node(decision, children))
        return len(nodes) - 1

    root: Due = Root(tables.needs.length - 1)
    index = fold(root, take, write, cancellation)
    return TieredPolicy(tuple(nodes), index)


def _node(decision: Decision, children: list[int]) -> TieredNode:
    if decision.kind is TapeNode and not children:
        children = [EMPTY]
    make: Callable[..., TieredNode] = decision.kind
    return make(*decision.fields, *children)


class _Decisions:
    """The best decision of each subproblem."""

    def __init__(self, tables: OffloadTables, alone: Alone, decide: Callable[[Subproblem], int]) -> None:
        self._tables = tables
        self._alone = alone
        self._needs = tables.needs
        self._device = tables.device
        self._decide = decide

    def take(self, here: Due) -> Decision:
        """What to do first, and the subproblems that it leaves."""
        if isinstance(here, Root):
            return self._root(here)
        if isinstance(here, Subproblem):
            return self._held(here)
        if isinstance(here, Kept):
            return self._kept(here)
        if isinstance(here, Beside):
            aside = self._alone.landing_bytes
            return Decision(KeepNode, (), (self._without_start(here.first, here.last, aside),))
        return self._stored(here)

    def _root(self, here: Root) -> Decision:
        tables, device = self._tables, self._device
        stored, cost = offload.best_root(here.last, tables.stages, device, tables.over, tables.roots)
        if cost >= tables.held[here.last]:
            return self._held(canonical(self._needs, 0, here.last, device.free_bytes))
        tier, right = self._placed(stored + 1, here.last, len(tables.shelves), 0, 0)
        if isinstance(right, Kept):
            held = self._without_start(right.first, right.last)
            return Decision(CheckpointNode, (stored + 1,), (held, Root(stored)))
        return Decision(OffloadNode, (stored + 1, tier), (right, Root(stored)))

    def _stored(self, here: Stored) -> Decision:
        shelf, (first, last, pending, due, level) = self._tables.shelves[here.tier], here.place
        stored, written, stays = offload.decide_tier(here.place, self._tables.stages, self._device, shelf)
        if stored == offload.UNDER:
            tier, rest = self._placed(first, last, here.tier, pending, due)
            return self._kept(rest) if isinstance(rest, Kept) else Decision(CopyNode, (tier,), (rest,))
        if written:
            after = Place(stored + 1, last, shelf.due, shelf.due, int(shelf.floor[stored + 1, level]))
            tier = self._tables.tiers[here.tier].name
            right: Kept | Stored = self._canonical(here.tier, after)
        else:
            tier, right = self._placed(stored + 1, last, here.tier, 0, shelf.due)
        left = self._canonical(here.tier, Place(first, stored, 0, due, level))
        kind = OffloadNode if stays else LeaveNode
        return Decision(kind, (stored - first + 1, tier), (right, left))

    def _placed(self, first: int, last: int, under: int, pending: int, due: int) -> tuple[str, Kept | Stored]:
        """Where the tables put a loose start when only the tiers before number `under` may take it."""
        row = self._tables.row_of(first, last)
        for tier in range(under - 1, -1, -1):
            shelf = self._tables.shelves[tier]
            if shelf.over[pending, due, row] < shelf.under[pending, due, row]:
                left = int(shelf.floor[first, -1])
                place = Place(first, last, max(pending, shelf.due), due, left)
                return self._tables.tiers[tier].name, self._canonical(tier, place)
        return DEVICE, Kept(*canonical(self._needs, first, last, 0)[:2], due)

    def _kept(self, here: Kept) -> Decision:
        before = self._alone.reversal_before
        held = self._without_start(here.first, here.last)
        row = self._tables.row_of(here.first, here.last)
        seconds = float(before[here.last + 1] - before[here.first])
        plain, behind = offload.kept_seconds(row, seconds, held.free_bytes, here.due, self._alone)
        if here.due and behind <= plain:
            return Decision(PrefetchNode, (), (Beside(here.first, here.last),))
        return Decision(KeepNode, (), (held,))

    def _held(self, here: Subproblem) -> Decision:
        """The decision of the recurrence without tiers; consecutive tapes become one."""
        stored = self._decide(here)
        if stored != TAPE:
            return Decision(CheckpointNode, (stored - here.first + 1,), split(self._needs, here, stored))
        span, rest = 0, here
        while stored == TAPE:
            span += 1
            if rest.first == rest.last:
                return Decision(TapeNode, (span,), ())
            rest = after_tape(self._needs, rest)
            stored = self._decide(rest)
        return Decision(TapeNode, (span,), (rest,))

    def _without_start(self, first: int, last: int, aside_bytes: int = 0) -> Subproblem:
        free_bytes = self._device.free_bytes - int(self._device.start_bytes[first]) - aside_bytes
        return canonical(self._needs, first, last, free_bytes)

    def _canonical(self, tier: int, place: Place) -> Stored:
        """The interval that shares its row: equal subproblems then are equal keys."""
        first, last, _ = canonical(self._needs, place.first, place.last, 0)
        return Stored(tier, place._replace(first=first, last=last))
