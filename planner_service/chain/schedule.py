"""Expansion of a policy into the list of actions that is executed, lazily and in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

from planner_service.chain.actions import Action, Advance, Archive, Backward, Free, Tape, Undo
from planner_service.chain.policy import EMPTY, ArchiveNode, Policy, TapeNode


def expand(policy: Policy, first_stage: int = 1) -> Iterator[Action]:
    """The actions of `policy` applied from stage `first_stage` on, one record at a time.

    The explicit stack holds one entry per open decision: its depth is that of the tree, at most
    the number of states and tapes alive at once.
    """
    stack: list[tuple[int, int] | Backward | Free | Undo] = [(policy.root, first_stage)]
    nodes = policy.nodes
    while stack:
        due = stack.pop()
        if isinstance(due, Backward | Free | Undo):
            yield due
            continue
        index, first = due
        if index == EMPTY:
            continue
        node = nodes[index]
        last = first + node.span - 1
        if isinstance(node, TapeNode):
            yield Tape(first, last)
            stack.append(Backward(last, first))
            stack.append((node.rest, last + 1))
        elif isinstance(node, ArchiveNode):
            yield Archive(first, last)
            stack.append(Undo(last, first))
            stack.append((node.rest, last + 1))
        else:
            yield Advance(first, last)
            stack.append((node.left, first))
            stack.append(Free(last))
            stack.append((node.right, last + 1))
