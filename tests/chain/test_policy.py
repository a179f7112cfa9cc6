"""Policies check themselves, and their records come back equal or are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import EMPTY, CheckpointNode, InvalidChain, Policy, TapeNode, policy_from_record
from tests.oracles.chains import policies

ONE = TapeNode(1, EMPTY)


@given(st.integers(0, 15).flatmap(lambda length: st.tuples(st.just(length), policies(length))))
def test_records_survive_json_and_come_back_equal(drawn):
    length, policy = drawn
    assert policy.length == length
    assert policy_from_record(json.loads(json.dumps(policy.record()))) == policy


@pytest.mark.parametrize(
    "nodes",
    [
        (TapeNode(0, EMPTY),),
        (TapeNode(-3, EMPTY),),
        (TapeNode(1, 0),),
        (TapeNode(1, 1), ONE),
        (TapeNode(1, -2),),
        (ONE, CheckpointNode(2, 0, 0)),
        (ONE, CheckpointNode(1, 0, EMPTY)),
        (ONE, CheckpointNode(1, 1, 0)),
        (CheckpointNode(1, EMPTY, 0),),
    ],
    ids=[
        "no stage",
        "negative span",
        "itself as child",
        "child after parent",
        "child before the first",
        "left side too short",
        "left side missing",
        "itself as right side",
        "itself as left side",
    ],
)
def test_a_malformed_node_is_refused(nodes):
    with pytest.raises(InvalidChain, match=f"policy node {len(nodes) - 1}|policy node 0"):
        Policy(nodes, len(nodes) - 1)


@pytest.mark.parametrize("root", [1, 7, -2])
def test_the_root_names_a_node(root):
    with pytest.raises(InvalidChain, match="root"):
        Policy((ONE,), root)


def test_the_empty_policy_reverses_nothing():
    assert Policy((), EMPTY).length == 0


def test_shared_nodes_count_wherever_they_are_used():
    doubling = [ONE]
    for level in range(40):
        span = 2**level
        doubling.append(CheckpointNode(span, level, level))
    assert Policy(tuple(doubling), 40).length == 2**40


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"root": 0},
        {"root": None, "nodes": []},
        {"root": "0", "nodes": [["tape", 1, -1]]},
        {"root": True, "nodes": [["tape", 1, -1], ["tape", 1, 0]]},
        {"root": 0, "nodes": "tape"},
        {"root": 0, "nodes": [["tape", 1]]},
        {"root": 0, "nodes": [["tape", 1, -1, -1]]},
        {"root": 0, "nodes": [["checkpoint", 1, -1]]},
        {"root": 0, "nodes": [["fly", 1, -1]]},
        {"root": 0, "nodes": [[]]},
        {"root": 0, "nodes": ["tape"]},
        {"root": 0, "nodes": [None]},
        {"root": 0, "nodes": [{"tape": 1}]},
        {"root": 0, "nodes": [["tape", 1.0, -1]]},
        {"root": 0, "nodes": [["tape", True, -1]]},
        {"root": 0, "nodes": [[["tape"], 1, -1]]},
        {"root": 1, "nodes": [["tape", 1, -1]]},
    ],
)
def test_a_malformed_record_is_refused(record):
    with pytest.raises(InvalidChain):
        policy_from_record(record)
