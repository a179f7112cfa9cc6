"""Policies that use storage tiers, and their expansion into actions.

A subtree is applied either to a *held* input state, which somebody else keeps on the device, or to a
*loose* one, whose device copy is the subtree's to drop: a tier (its *home*) has another copy, or the
subtree never needs it again. `TapeNode` and `CheckpointNode` of `policy.py` want a held input. What
follows a node `OffloadNode`, `LeaveNode`, `PrefetchNode` or `CopyNode` as its right side or rest is
applied to a loose input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from planner_service.chain.actions import Advance, Backward, Free, Tape
from planner_service.chain.errors import InvalidChain
from planner_service.chain.policy import EMPTY, CheckpointNode, TapeNode
from planner_service.chain.tiers import DEVICE
from planner_service.chain.tiers_actions import Discard, Fetch, Move, Store, TieredAction


class OffloadNode(NamedTuple):
    """Advance `span` stages and write the state to `tier` (nowhere, for the device); follow `right`
    after it, drop it, follow `left` on the stages before it.

    A loose input goes when the stages have been advanced and is fetched again for `left`.
    """

    span: int
    tier: str
    right: int
    left: int


class LeaveNode(NamedTuple):
    """The same on a loose input that goes at once, when the first stage has run: leaner, but it waits
    for a write of the input that is still under way.
    """

    span: int
    tier: str
    right: int
    left: int


class KeepNode(NamedTuple):
    """Hold the loose input on the device while `rest` is followed, then free it."""

    rest: int


class PrefetchNode(NamedTuple):
    """Start reading the state that is fetched next after this subtree, then follow `rest`."""

    rest: int


class CopyNode(NamedTuple):
    """Write the loose input to `tier` as well, its home while `rest` is followed."""

    tier: str
    rest: int


TieredNode = TapeNode | CheckpointNode | OffloadNode | LeaveNode | KeepNode | PrefetchNode | CopyNode

_KINDS: dict[str, type[TieredNode]] = {
    "tape": TapeNode,
    "checkpoint": CheckpointNode,
    "offload": OffloadNode,
    "leave": LeaveNode,
    "keep": KeepNode,
    "prefetch": PrefetchNode,
    "copy": CopyNode,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_CHILD_FIELDS = ("rest", "right", "left")


@dataclass(frozen=True)
class TieredPolicy:
    """Decision nodes, children first, and the root's index; the root's input x_0 is held.

    Raises InvalidChain when a node refers to itself or a later one, has a span below 1, or when a left
    side does not cover exactly the stages that were advanced.
    """

    nodes: tuple[TieredNode, ...]
    root: int

    def __post_init__(self) -> None:
        if not 0 <= self.root < len(self.nodes):
            raise InvalidChain(f"policy root {self.root} names none of its {len(self.nodes)} nodes")
        self._lengths  # noqa: B018 - checks every node

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        lengths: list[int] = []
        for index, node in enumerate(self.nodes):
            children = [getattr(node, name) for name in _CHILD_FIELDS if name in node._fields]
            span = getattr(node, "span", 0)
            least = EMPTY if isinstance(node, TapeNode | CheckpointNode) else 0
            if span < ("span" in node._fields) or not all(least <= child < index for child in children):
                raise InvalidChain(f"policy node {index} is malformed: {node}", field="policy.nodes")
            covered = [0 if child == EMPTY else lengths[child] for child in children]
            if len(covered) == 2 and covered[1] != span:  # right and left
                reason = f"policy node {index} advances {span} stages but reverses {covered[1]}"
                raise InvalidChain(reason, field="policy.nodes")
            lengths.append(span + covered[0])
        return tuple(lengths)

    @property
    def length(self) -> int:
        """Number of stages that the policy reverses."""
        return self._lengths[self.root]

    def record(self) -> dict[str, object]:
        """The policy as it goes over the wire: {"root": 1, "nodes": [["offload", 3, "host", 1, 0], …]}."""
        return {"root": self.root, "nodes": [[_NAMES[type(node)], *node] for node in self.nodes]}


def tiered_policy_from_record(record: dict[str, object]) -> TieredPolicy:
    """The inverse of `TieredPolicy.record`. Raises InvalidChain for anything that is not such a policy."""
    root, rows = record.get("root"), record.get("nodes")
    if type(root) is not int or not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InvalidChain("a policy is {root: integer, nodes: [[kind, …], …]}", field="policy")
    return TieredPolicy(tuple(_node_from_row(index, row) for index, row in enumerate(rows)), root)


def _node_from_row(index: int, row: object) -> TieredNode:
    named = isinstance(row, Sequence) and len(row) > 0 and isinstance(row[0], str)
    kind = _KINDS.get(row[0]) if named else None  # type: ignore[index]
    values = tuple(row[1:]) if kind else ()  # type: ignore[index]
    if kind is None or len(values) != len(kind._fields):
        raise InvalidChain(f"policy node {index} is malformed: {row!r}", field="policy.nodes")
    for name, value in zip(kind._fields, values, strict=True):
        if type(value) is not (str if name == "tier" else int):
            raise InvalidChain(f"policy node {index}: {name}={value!r} in {row!r}", field="policy.nodes")
    return kind(*values)


class _Held(NamedTuple):
    """A subtree due on a held input."""

    node: int
    first: int


class _Loose(NamedTuple):
    """A subtree due on a loose input, of which `home` has a copy."""

    node: int
    first: int
    home: str


_Due = _Held | _Loose | TieredAction


def expand_tiers(policy: TieredPolicy, first_stage: int = 1) -> Iterator[TieredAction]:
    """The actions of `policy` applied from stage `first_stage` on, one record at a time.

    Raises InvalidChain when a node is applied to an input that it cannot take.
    """
    stack: list[_Due] = [_Held(policy.root, first_stage)]
    nodes = policy.nodes
    while stack:
        due = stack.pop()
        if isinstance(due, _Held):
            if due.node != EMPTY:
                stack.extend(reversed(_on_held(nodes[due.node], due)))
        elif isinstance(due, _Loose):
            node = nodes[due.node]
            if isinstance(node, PrefetchNode):
                yield _next_fetch(stack)
                stack.append(due._replace(node=node.rest))
            else:
                stack.extend(reversed(_on_loose(node, due)))
        else:
            yield due


def _next_fetch(stack: list[_Due]) -> Fetch:
    """Take the fetch that is due next out of the stack."""
    for position in range(len(stack) - 1, -1, -1):
        due = stack[position]
        if isinstance(due, Fetch):
            del stack[position]
            return due
        if isinstance(due, _Held | _Loose):
            break
    raise InvalidChain("a policy prefetches where nothing is fetched next", field="policy.nodes")


def _on_held(node: TieredNode, due: _Held) -> list[_Due]:
    """What the node does, in order, on an input that stays."""
    first = due.first
    if isinstance(node, TapeNode):
        last = first + node.span - 1
        return [Tape(first, last), _Held(node.rest, last + 1), Backward(last, first)]
    if isinstance(node, CheckpointNode):
        last = first + node.span - 1
        return [Advance(first, last), _Held(node.right, last + 1), Free(last), _Held(node.left, first)]
    if isinstance(node, OffloadNode):
        last = first + node.span - 1
        right = _Loose(node.right, last + 1, node.tier)
        stored, dropped = _copies(last, node.tier)
        return [Advance(first, last), *stored, right, *dropped, _Held(node.left, first)]
    raise InvalidChain(f"{_NAMES[type(node)]} on a held input at stage {first}", field="policy.nodes")


def _on_loose(node: TieredNode, due: _Loose) -> list[_Due]:
    """What the node does, in order, on an input that it drops."""
    _, first, home = due
    if isinstance(node, KeepNode):
        return [_Held(node.rest, first), Free(first - 1)]
    if isinstance(node, CopyNode):
        stored, dropped = _copies(first - 1, node.tier)
        return [*stored, _Loose(node.rest, first, node.tier), *dropped]
    if not isinstance(node, OffloadNode | LeaveNode) or home == DEVICE:
        reason = f"{_NAMES[type(node)]} on a loose input of {home} at stage {first}"
        raise InvalidChain(reason, field="policy.nodes")
    last = first + node.span - 1
    right = _Loose(node.right, last + 1, node.tier)
    stored, dropped = _copies(last, node.tier)
    leaving: list[_Due] = (
        [Advance(first, last), Free(first - 1)] if isinstance(node, OffloadNode) else [Move(first, last)]
    )
    left = _Loose(node.left, first, home)
    return [*leaving, *stored, right, *dropped, Fetch(first - 1, home), left]


def _copies(state: int, tier: str) -> tuple[list[_Due], list[_Due]]:
    """The actions that make and drop the copy of x_state in `tier`; none for the device."""
    return ([], []) if tier == DEVICE else ([Store(state, tier)], [Discard(state, tier)])
