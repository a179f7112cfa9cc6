"""From decisions to a policy: a walk over the subproblems that are reached, each written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from planner_service.chain import EMPTY, CheckpointNode, Policy, PolicyNode, TapeNode
from planner_service.solvers.needs import ChainNeeds

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


class _Decision(NamedTuple):
    node: type[TapeNode] | type[CheckpointNode]
    span: int
    children: tuple[Subproblem, ...]


def build_policy(
    needs: ChainNeeds,
    free_bytes: int,
    decide: Callable[[Subproblem], int],
    stages_before: Callable[[int], int] = int,
) -> Policy:
    """The policy of the whole chain in which every subproblem follows `decide`.

    stages_before: how many stages come before one of `needs`, which may stand for several.
    """
    root = canonical(needs, 0, needs.length - 1, free_bytes)
    nodes: list[PolicyNode] = []
    index: dict[Subproblem, int] = {}
    decisions: dict[Subproblem, _Decision] = {}
    pending = [root]
    while pending:
        here = pending[-1]
        if here not in decisions:
            decisions[here] = _decision(needs, here, decide, stages_before)
            pending.extend(child for child in decisions[here].children if child not in index)
            continue
        pending.pop()
        if here not in index:
            index[here] = len(nodes)
            nodes.append(_node(decisions[here], index))
    return Policy(tuple(nodes), index[root])


def _node(decision: _Decision, index: dict[Subproblem, int]) -> PolicyNode:
    children = [index[child] for child in decision.children]
    if decision.node is TapeNode:
        return TapeNode(decision.span, *(children or [EMPTY]))
    return CheckpointNode(decision.span, *children)


def _decision(
    needs: ChainNeeds,
    here: Subproblem,
    decide: Callable[[Subproblem], int],
    stages_before: Callable[[int], int],
) -> _Decision:
    """The node to write for `here`: consecutive tapes become one."""
    stored = decide(here)
    if stored != TAPE:
        right, left = split(needs, here, stored)
        return _Decision(CheckpointNode, stages_before(stored + 1) - stages_before(here.first), (right, left))
    span, rest = 0, here
    while stored == TAPE:
        span += stages_before(rest.first + 1) - stages_before(rest.first)
        if rest.first == rest.last:
            return _Decision(TapeNode, span, ())
        rest = after_tape(needs, rest)
        stored = decide(rest)
    return _Decision(TapeNode, span, (rest,))


def split(needs: ChainNeeds, here: Subproblem, stored: int) -> tuple[Subproblem, Subproblem]:
    """What is left to the right and to the left of a checkpoint after stage `stored`."""
    remaining = here.free_bytes - needs.stage(stored).state_bytes
    right = canonical(needs, stored + 1, here.last, remaining)
    return right, canonical(needs, here.first, stored, here.free_bytes)


def after_tape(needs: ChainNeeds, here: Subproblem) -> Subproblem:
    """What is left once the first of several stages is taped."""
    remaining = here.free_bytes - needs.stage(here.first).tape_bytes
    return canonical(needs, here.first + 1, here.last, remaining)
