"""Policies with storage tiers: their records, what they refuse, the actions they expand to."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from planner_service.chain import CheckpointNode, InvalidChain, TapeNode
from planner_service.chain.tiers import DEVICE
from planner_service.chain.tiers_actions import Discard, Fetch, Store, TieredAction, describe
from planner_service.chain.tiers_policy import (
    CopyNode,
    KeepNode,
    LeaveNode,
    OffloadNode,
    PrefetchNode,
    TieredPolicy,
    expand_tiers,
    tiered_policy_from_record,
)

TAPE_ONE = (TapeNode(1, -1), KeepNode(0))
"""Nodes 0 and 1: one stage taped, on a held and on a loose input."""


def told(actions: Iterable[TieredAction]) -> list[str]:
    """Actions in words: tuples of two kinds with equal fields are equal to Python."""
    return [describe(action) for action in actions]


def test_an_offloaded_state_is_dropped_before_what_precedes_it():
    """x_1 to the host, stage 2 on the device, then the host's copy goes and stage 1 follows."""
    policy = TieredPolicy((*TAPE_ONE, OffloadNode(1, "host", 1, 0)), 2)
    assert policy.length == 2
    assert told(expand_tiers(policy)) == [
        "advance 1", "store 1 host", "tape 2", "backward 2", "free 1", "discard 1 host",
        "tape 1", "backward 1",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "going"), [(LeaveNode, ["move 2"]), (OffloadNode, ["advance 2", "free 1"])])
def test_a_loose_input_goes_and_comes_back(kind, going):
    """`leave` moves on at once, `offload` keeps x_1 until x_2 is there; both fetch x_1 for its stage."""
    nodes = (*TAPE_ONE, kind(1, DEVICE, 1, 1), OffloadNode(1, "host", 2, 0))
    assert told(expand_tiers(TieredPolicy(nodes, 3))) == [
        "advance 1", "store 1 host", *going, "tape 3", "backward 3", "free 2",
        "fetch 1 host", "tape 2", "backward 2", "free 1", "discard 1 host", "tape 1", "backward 1",
    ]  # fmt: skip


def test_a_prefetch_brings_the_next_fetch_forward():
    """The read of x_1 begins before stage 3 is taped, and is not repeated."""
    nodes = (*TAPE_ONE, PrefetchNode(1), LeaveNode(1, DEVICE, 2, 1), OffloadNode(1, "host", 3, 0))
    actions = told(expand_tiers(TieredPolicy(nodes, 4)))
    assert actions.index("fetch 1 host") < actions.index("tape 3")
    assert actions.count("fetch 1 host") == 1


def test_a_copy_gives_a_state_a_faster_home():
    """x_1 goes to the disk and to the host; it comes back from the host."""
    nodes = (*TAPE_ONE, LeaveNode(1, DEVICE, 1, 1), CopyNode("host", 2), OffloadNode(1, "disk", 3, 0))
    actions = expand_tiers(TieredPolicy(nodes, 4))
    transfers = told(action for action in actions if isinstance(action, Store | Fetch | Discard))
    assert transfers == [
        "store 1 disk", "store 1 host", "fetch 1 host", "discard 1 host", "discard 1 disk",
    ]  # fmt: skip


def test_a_policy_without_tiers_is_the_ordinary_one():
    """Tape and checkpoint nodes expand as they always did, from any stage on."""
    policy = TieredPolicy((TapeNode(1, -1), CheckpointNode(1, 0, 0)), 1)
    assert told(expand_tiers(policy, first_stage=5)) == [
        "advance 5", "tape 6", "backward 6", "free 5", "tape 5", "backward 5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ((*TAPE_ONE,), "keep on a held input at stage 1"),
        ((*TAPE_ONE, OffloadNode(1, "host", 0, 0)), "tape on a loose input of host at stage 2"),
        ((*TAPE_ONE, LeaveNode(1, "host", 1, 1)), "leave on a held input"),
        ((*TAPE_ONE, PrefetchNode(1), OffloadNode(1, "host", 2, 0)), "prefetches where nothing is fetched"),
        (
            (*TAPE_ONE, LeaveNode(1, DEVICE, 1, 1), OffloadNode(1, DEVICE, 2, 0)),
            "leave on a loose input of device",
        ),
    ],
)
def test_a_node_on_the_wrong_kind_of_input_is_refused(nodes, reason):
    """While it is expanded, with the stage that shows it."""
    with pytest.raises(InvalidChain, match=reason):
        list(expand_tiers(TieredPolicy(nodes, len(nodes) - 1)))


@pytest.mark.parametrize(
    "record",
    [
        {"root": 0, "nodes": []},
        {"root": 0, "nodes": [["offload", 1, "host", -1, -1]]},
        {"root": 1, "nodes": [["tape", 1, -1], ["keep", 1]]},
        {"root": 1, "nodes": [["tape", 1, -1], ["keep", -1]]},
        {"root": 2, "nodes": [["tape", 1, -1], ["keep", 0], ["offload", 2, "host", 1, 0]]},
        {"root": 2, "nodes": [["tape", 1, -1], ["keep", 0], ["offload", 1, 7, 1, 0]]},
        {"root": 2, "nodes": [["tape", 1, -1], ["keep", 0], ["offload", 1, "host", 1]]},
        {"root": 0, "nodes": [["teleport", 1]]},
        {"root": True, "nodes": [["tape", 1, -1]]},
        {"root": 0, "nodes": "tape"},
    ],
)
def test_a_malformed_record_is_refused(record):
    """Forward references, wrong spans, wrong types, unknown kinds."""
    with pytest.raises(InvalidChain):
        tiered_policy_from_record(record)
