"""What a budget asks of a node, and tokens of which only a hash is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.jobs import DeviceNeeds, is_token, new_token, token_hash
from planner_service.jobs.needs import tightened_bytes

NEEDS = DeviceNeeds(held_bytes=100, least_bytes=300, needed_bytes=150)


@pytest.mark.parametrize(("budget", "granted_bytes"), [(70, 70), ("free", 900), ("5%", 50)])
def test_a_budget_in_bytes_on_a_node_leaves_room_for_what_is_held(budget, granted_bytes):
    assert NEEDS.granted_bytes(budget, 1000) == granted_bytes


@given(budget_bytes=st.integers(1, 2**62), excess_bytes=st.none() | st.integers(0, 2**62))
def test_a_tightened_budget_is_smaller_by_at_least_the_excess(budget_bytes, excess_bytes):
    tightened = tightened_bytes(budget_bytes, excess_bytes)
    assert tightened <= budget_bytes - max(1, excess_bytes or 0)
    assert 16 * tightened <= 15 * budget_bytes


def test_a_token_is_known_by_its_hash_and_nothing_else_is():
    token = new_token()
    assert is_token(token, token_hash(token))
    for wrong in (None, "", token[:-1], token + "x", new_token(), token_hash(token), "\udc80"):
        assert not is_token(wrong, token_hash(token))
    assert not is_token(token, None)
    assert not is_token(None, None)


def test_tokens_differ_and_carry_256_bits():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 43 for token in tokens)  # 32 bytes in base 64
