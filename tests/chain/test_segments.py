"""Segments: how many, how long the last one, and which stage goes where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.chain import InvalidChain, Stage, segment_sizes, segmented_chain


def named(state_bytes: int) -> Stage:
    return Stage(forward_cost=1, taped_forward_cost=1, backward_cost=2, state_bytes=state_bytes, tape_bytes=9)


INNER, FIRST, LAST = named(1), named(2), named(3)


@given(st.integers(1, 5_000), st.integers(1, 6_000))
def test_segments_cover_the_steps_exactly(length, segment_steps):
    segments, last_steps = segment_sizes(length, segment_steps)
    assert (segments - 1) * segment_steps + last_steps == length
    assert 1 <= last_steps <= segment_steps


@pytest.mark.parametrize(("length", "segment_steps"), [(0, 1), (-1, 1), (1, 0), (5, -2)])
def test_lengths_must_be_positive(length, segment_steps):
    with pytest.raises(InvalidChain, match="must be positive"):
        segment_sizes(length, segment_steps)


@pytest.mark.parametrize("segments", range(1, 6))
@pytest.mark.parametrize("first", [None, FIRST])
@pytest.mark.parametrize("last", [None, LAST])
def test_the_ends_differ_only_where_they_are_given(segments, first, last):
    chain = segmented_chain(INNER, segments, first=first, last=last)
    expected = [INNER] * segments
    expected[0] = first or INNER
    expected[-1] = last or INNER  # a single segment meets the loss: it is the last one
    assert list(chain.stages()) == expected


def test_equal_stages_are_one_run():
    assert len(segmented_chain(INNER, 1_000_000).runs) == 1
    assert len(segmented_chain(INNER, 1_000_000, first=FIRST, last=LAST).runs) == 3


def test_the_bytes_around_the_chain_are_handed_on():
    chain = segmented_chain(
        INNER, 3, input_bytes=5, static_bytes=7, loss_gradient_bytes=11, input_gradient_bytes=13
    )
    assert (chain.input_bytes, chain.static_bytes, chain.loss_gradient_bytes, chain.input_gradient_bytes) == (
        5,
        7,
        11,
        13,
    )


@pytest.mark.parametrize("segments", [0, -1])
def test_there_is_at_least_one_segment(segments):
    with pytest.raises(InvalidChain, match="must be positive"):
        segmented_chain(INNER, segments)
