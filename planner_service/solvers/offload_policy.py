"""From filled offload tables to a policy: every decision is taken again where it is needed."""

from __future__ import annotations

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
from planner_service.solvers import kernels
from planner_service.solvers import offload_kernels as offload
from planner_service.solvers.needs import STATE, TAPE_BYTES
from planner_service.solvers.offload_tables import OffloadTables, row_of


class Root(NamedTuple):
    """Stages 0..last, x_0 held."""

    last: int


class Held(NamedTuple):
    """Stages first..last on the device alone, their start held by somebody else."""

    first: int
    last: int
    free_bytes: int


class Kept(NamedTuple):
    """Stages first..last on the device alone, their start loose; then a read from tier `due`."""

    first: int
    last: int
    due: int


class Beside(NamedTuple):
    """The same with a buffer set aside for the read, which has begun."""

    first: int
    last: int


class Stored(NamedTuple):
    """Stages first..last whose start is in tier number `tier`, with `level` of it left."""

    first: int
    last: int
    tier: int
    pending: int
    due: int
    level: int


Subproblem = Root | Held | Kept | Beside | Stored


class Decision(NamedTuple):
    """A node's kind and first fields; the subproblems become its last fields."""

    kind: type[TieredNode]
    fields: tuple[int | str, ...]
    children: tuple[Subproblem, ...]


def build_policy(tables: OffloadTables) -> TieredPolicy:
    """The policy that the tables imply; equal subproblems share their node."""
    decisions = _Decisions(tables)
    nodes: list[TieredNode] = []
    index: dict[Subproblem, int] = {}
    root: Subproblem = Root(tables.device.needs.length - 1)
    decided: dict[Subproblem, Decision] = {}
    pending = [root]
    while pending:  # depth first without recursion: children get their nodes before their parents
        here = pending[-1]
        if here not in decided:
            decided[here] = decisions.decide(here)
            pending.extend(child for child in decided[here].children if child not in index)
            continue
        pending.pop()
        if here not in index:
            index[here] = len(nodes)
            nodes.append(_node(decided[here], [index[child] for child in decided[here].children]))
    return TieredPolicy(tuple(nodes), index[root])


def _node(decision: Decision, children: list[int]) -> TieredNode:
    if decision.kind is TapeNode and not children:
        children = [EMPTY]
    return decision.kind(*decision.fields, *children)  # type: ignore[arg-type]


class _Decisions:
    """The best decision of each subproblem."""

    def __init__(self, tables: OffloadTables) -> None:
        self._tables = tables
        self._device = tables.device
        self._needs = tables.device.needs
        self._around = tables.around

    def decide(self, here: Subproblem) -> Decision:
        """What to do first, and the subproblems that it leaves."""
        if isinstance(here, Root):
            return self._root(here)
        if isinstance(here, Held):
            return self._held(here)
        if isinstance(here, Kept):
            return self._kept(here)
        if isinstance(here, Beside):
            held = self._without_start(here)
            free = held.free_bytes - self._around.landing_bytes
            return Decision(KeepNode, (), (held._replace(free_bytes=free),))
        return self._stored(here)

    def _root(self, here: Root) -> Decision:
        tables, device = self._tables, self._device
        held = self._held_cost(here)
        stored = int(
            offload.decide_root(here.last, *tables.stages, device.free_bytes, tables.over, tables.roots, held)
        )
        if stored == offload.UNDER:
            return self._held(Held(0, here.last, device.free_bytes))
        tier, right = self._placed(stored + 1, here.last, len(tables.tiers), 0, 0)
        if isinstance(right, Kept):
            held = self._without_start(right)
            return Decision(CheckpointNode, (stored + 1,), (held, Root(stored)))
        return Decision(OffloadNode, (stored + 1, tier), (right, Root(stored)))

    def _held_cost(self, here: Root) -> float:
        device = self._device
        level = int(offload.level_of(device.levels, device.free_bytes))
        return float(device.costs[row_of(self._needs, 0, here.last), level]) if level >= 0 else float("inf")

    def _stored(self, here: Stored) -> Decision:
        table = self._tables.tiers[here.tier]
        stored, in_tier, stays = offload.decide_tier(
            here.first, here.last, here.pending, here.due, here.level, *self._tables.instance,
            table.floor, table.stalls, table.due, table.under, table.costs,
        )  # fmt: skip
        if stored == offload.UNDER:
            tier, rest = self._placed(here.first, here.last, here.tier, here.pending, here.due)
            return self._kept(rest) if isinstance(rest, Kept) else Decision(CopyNode, (tier,), (rest,))
        if in_tier:
            level = int(table.floor[stored + 1, here.level])
            right: Kept | Stored = self._canonical_stored(
                Stored(stored + 1, here.last, here.tier, min(table.due, 1), table.due, level)
            )
            tier = table.tier.name
        else:
            tier, right = self._placed(stored + 1, here.last, here.tier, 0, table.due)
        left = self._canonical_stored(here._replace(last=stored, pending=0))
        kind = OffloadNode if stays else LeaveNode
        return Decision(kind, (stored - here.first + 1, tier), (right, left))

    def _placed(self, first: int, last: int, under: int, pending: int, due: int) -> tuple[str, Kept | Stored]:
        """Where the tables put a loose start when only the tiers before number `under` may take it."""
        row = row_of(self._needs, first, last)
        for tier in range(under - 1, -1, -1):
            table = self._tables.tiers[tier]
            if table.over[pending, due, row] < table.under[pending, due, row]:
                level = int(table.floor[first, -1])
                start = Stored(first, last, tier, max(pending, min(table.due, 1)), due, level)
                return table.tier.name, self._canonical_stored(start)
        return DEVICE, Kept(*self._canonical(first, last), due)

    def _kept(self, here: Kept) -> Decision:
        device, around = self._device, self._around
        held = self._without_start(here)
        plain, behind = offload.kept_seconds(
            row_of(self._needs, here.first, here.last), device.levels, device.costs, held.free_bytes,
            around.landing_bytes,
            around.reversal_before[here.last + 1] - around.reversal_before[here.first],
            self._tables.read_seconds[here.due],
        )  # fmt: skip
        if here.due and behind <= plain:
            return Decision(PrefetchNode, (), (Beside(here.first, here.last),))
        return Decision(KeepNode, (), (held,))

    def _without_start(self, here: Kept | Beside) -> Held:
        free = self._device.free_bytes - int(self._around.start_bytes[here.first])
        return Held(here.first, here.last, free)

    def _held(self, here: Held) -> Decision:
        """The decision of the recurrence without tiers; consecutive tapes become one."""
        needs = self._needs
        first, last, free = here
        stored = self._checkpoint(here)
        if stored != kernels.TAPE:
            remaining = free - int(needs.table[needs.kind[stored], STATE])
            right = self._canonical_held(stored + 1, last, remaining)
            return Decision(
                CheckpointNode, (stored - first + 1,), (right, self._canonical_held(first, stored, free))
            )
        while stored == kernels.TAPE:
            free -= int(needs.table[needs.kind[first], TAPE_BYTES])
            first += 1
            if first > last:
                return Decision(TapeNode, (last - here.first + 1,), ())
            stored = self._checkpoint(Held(first, last, free))
        return Decision(TapeNode, (first - here.first,), (self._canonical_held(first, last, free),))

    def _checkpoint(self, here: Held) -> int:
        """The stage after which to store a checkpoint, or kernels.TAPE."""
        device, needs = self._device, self._needs
        costs = needs.advance_cost_before
        return int(
            kernels.decide(*here, needs.kind, costs, needs.table, device.levels, *needs.body, device.costs)
        )

    def _canonical(self, first: int, last: int) -> tuple[int, int]:
        """The interval that shares its row: equal subproblems then are equal keys."""
        body_first, body_last = self._needs.body
        if first > body_first and last <= body_last:
            return body_first, last - first + body_first
        return first, last

    def _canonical_held(self, first: int, last: int, free_bytes: int) -> Held:
        return Held(*self._canonical(first, last), free_bytes)

    def _canonical_stored(self, here: Stored) -> Stored:
        first, last = self._canonical(here.first, here.last)
        return here._replace(first=first, last=last)
