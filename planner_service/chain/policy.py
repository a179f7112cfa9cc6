"""A policy: the compact decision tree from which a schedule is expanded.

Nodes speak of stages relative to where they are applied, so one node serves every place where the
same subproblem occurs: a plan for a million steps has a few thousand nodes. Children are written
before their parents; `EMPTY` (-1) is the policy of no stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from planner_service.chain.errors import InvalidChain

EMPTY = -1
"""The node of a chain without stages."""


class TapeNode(NamedTuple):
    """Tape the next `span` stages, follow `rest` on what comes after, then reverse the `span`."""

    span: int
    rest: int


class CheckpointNode(NamedTuple):
    """Advance `span` stages and store the state; follow `right` after it, drop it, follow `left`
    on the `span` stages before it.
    """

    span: int
    right: int
    left: int


class ArchiveNode(NamedTuple):
    """Archive the next `span` stages, follow `rest` on what comes after, then undo the `span`."""

    span: int
    rest: int


PolicyNode = TapeNode | CheckpointNode | ArchiveNode


@dataclass(frozen=True)
class Policy:
    """Decision nodes, children first, and the root's index.

    Raises InvalidChain when a node refers to itself or a later one, has a span below 1, or when a
    checkpoint's left side does not cover exactly the stages that were advanced.
    """

    nodes: tuple[PolicyNode, ...]
    root: int

    def __post_init__(self) -> None:
        if not EMPTY <= self.root < len(self.nodes):
            raise InvalidChain(f"policy root {self.root} names none of its {len(self.nodes)} nodes")
        self._lengths  # noqa: B018 - checks every node

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        lengths: list[int] = []
        for index, node in enumerate(self.nodes):
            children = node[1:]
            if node.span < 1 or not all(EMPTY <= child < index for child in children):
                raise InvalidChain(f"policy node {index} is malformed: {node}")
            covered = [0 if child == EMPTY else lengths[child] for child in children]
            if isinstance(node, CheckpointNode) and covered[1] != node.span:
                raise InvalidChain(
                    f"policy node {index} advances {node.span} stages but reverses {covered[1]}"
                )
            lengths.append(node.span + covered[0])
        return tuple(lengths)

    @property
    def length(self) -> int:
        """Number of stages that the policy reverses."""
        return 0 if self.root == EMPTY else self._lengths[self.root]

    def record(self) -> dict[str, object]:
        """The policy as it goes over the wire: {"root": 1, "nodes": [["tape", 3, -1], …]}."""
        return {"root": self.root, "nodes": [[_NAMES[type(node)], *node] for node in self.nodes]}


_NAMES: dict[type[PolicyNode], str] = {
    TapeNode: "tape",
    CheckpointNode: "checkpoint",
    ArchiveNode: "archive",
}
_KINDS: dict[str, type[PolicyNode]] = {name: kind for kind, name in _NAMES.items()}


def policy_from_record(record: dict[str, object]) -> Policy:
    """The inverse of `Policy.record`. Raises InvalidChain for anything that is not a policy."""
    root, rows = record.get("root"), record.get("nodes")
    if type(root) is not int or not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InvalidChain("a policy is {root: integer, nodes: [[kind, …], …]}", field="policy")
    nodes: list[PolicyNode] = []
    for index, row in enumerate(rows):
        kind = _KINDS.get(row[0]) if isinstance(row, Sequence) and row and isinstance(row[0], str) else None
        if (
            kind is None
            or len(row) != 1 + len(kind._fields)
            or not all(type(value) is int for value in row[1:])
        ):
            raise InvalidChain(f"policy node {index} is malformed: {row!r}", field="policy.nodes")
        nodes.append(kind(*row[1:]))
    return Policy(tuple(nodes), root)
