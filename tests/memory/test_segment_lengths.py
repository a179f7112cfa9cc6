"""Which segment lengths are tried."""

import pytest

from planner_service.memory.segment_lengths import MOST_SEGMENTS, segment_lengths


def test_one_two_five_up_to_the_length():
    assert segment_lengths(1000) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9, 10, 99, 12345, 10**6])
def test_none_is_longer_than_the_sequence_and_one_is_there(length):
    lengths = segment_lengths(length)
    assert lengths[0] == 1
    assert max(lengths) <= length
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize("length", [10**6 + 1, 3 * 10**9, 10**12])
def test_no_sequence_is_cut_into_more_than_a_million_segments(length):
    lengths = segment_lengths(length)
    assert lengths
    assert -(-length // lengths[0]) <= MOST_SEGMENTS
