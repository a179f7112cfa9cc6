"""From decisions to a policy: a walk over the subproblems that are reached, each written once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from planner_service.chain import EMPTY, CheckpointNode, Policy, PolicyNode, TapeNode
from planner_service.solvers.needs import ChainNeeds
from planner_service.solvers.solution import Cancellation
from planner_service.solvers.subproblems import Problem, fold

TAPE = -1
"""Decision: tape the interval's first stage. Any other decision names the stage (from 0) after which
a checkpoint is stored."""


class Subproblem(NamedTuple):
    """Reverse the stages first..last (from 0) with `free_bytes`; equal ones have equal answers."""

    first: int
    last: int
    free_bytes: int


def canonical(needs: ChainNeeds, first: int, last: int, free_bytes: int) -> Subproblem:
    """The subproblem, moved to the start of the body if it lies inside."""
    body_first, body_last = needs.body
    if first > body_first and last <= body_last:
        return Subproblem(body_first, last - first + body_first, free_bytes)
    return Subproblem(first, last, free_bytes)


class Node(NamedTuple):
    """A node but for what it leaves."""

    kind: type[TapeNode] | type[CheckpointNode]
    span: int


def build_policy(
    needs: ChainNeeds,
    free_bytes: int,
    decide: Callable[[Subproblem], int],
    stages_before: Callable[[int], int] = int,
    cancellation: Cancellation | None = None,
) -> Policy:
    """The policy of the whole chain in which every subproblem follows `decide`.

    stages_before: how many stages come before one of `needs`, which may stand for several.

    Raises Cancelled.
    """

    def take(here: Subproblem) -> tuple[Node, tuple[Subproblem, ...]]:
        return _decision(needs, here, decide, stages_before)

    return written(canonical(needs, 0, needs.length - 1, free_bytes), take, cancellation)


def written(
    root: Problem,
    take: Callable[[Problem], tuple[Node, Sequence[Problem]]],
    cancellation: Cancellation | None = None,
) -> Policy:
    """The policy of `root`, each subproblem's node once.

    take: the node to write for a subproblem, and those that it leaves: after a tape none or the rest, of a
    checkpoint what is to its right and to its left.

    Raises Cancelled.
    """
    nodes: list[PolicyNode] = []

    def write(node: Node, children: list[int]) -> int:
        nodes.append(node.kind(node.span, *(children or [EMPTY])))
        return len(nodes) - 1

    index = fold(root, take, write, cancellation)
    return Policy(tuple(nodes), index)


def _decision(
    needs: ChainNeeds,
    here: Subproblem,
    decide: Callable[[Subproblem], int],
    stages_before: Callable[[int], int],
) -> tuple[Node, tuple[Subproblem, ...]]:
    """The node to write for `here`, and what it leaves: consecutive tapes become one."""
    stored = decide(here)
    if stored != TAPE:
        span = stages_before(stored + 1) - stages_before(here.first)
        return Node(CheckpointNode, span), split(needs, here, stored)
    span, rest = 0, here
    while stored == TAPE:
        span += stages_before(rest.first + 1) - stages_before(rest.first)
        if rest.first == rest.last:
            return Node(TapeNode, span), ()
        rest = after_tape(needs, rest)
        stored = decide(rest)
    return Node(TapeNode, span), (rest,)


def split(needs: ChainNeeds, here: Subproblem, stored: int) -> tuple[Subproblem, Subproblem]:
    """What is left to the right and to the left of a checkpoint after stage `stored`."""
    remaining = here.free_bytes - needs.stage(stored).state_bytes
    right = canonical(needs, stored + 1, here.last, remaining)
    return right, canonical(needs, here.first, stored, here.free_bytes)


def after_tape(needs: ChainNeeds, here: Subproblem) -> Subproblem:
    """What is left once the first of several stages is taped."""
    remaining = here.free_bytes - needs.stage(here.first).tape_bytes
    return canonical(needs, here.first + 1, here.last, remaining)
