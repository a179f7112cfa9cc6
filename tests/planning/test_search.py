"""The search for the least budget that is good enough."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner_service.planning.search import RESOLUTION, least_budget


def at_least(threshold):
    return lambda budget: budget if budget >= threshold else None


@given(low=st.integers(0, 10**15), above=st.integers(1, 10**15), beyond=st.integers(0, 10**15))
def test_the_answer_brackets_the_threshold_within_the_resolution(low, above, beyond):
    threshold = low + above
    found = least_budget(at_least(threshold), low_bytes=low, high_bytes=threshold + beyond)
    assert found.not_enough_bytes < threshold <= found.plan
    assert found.plan - found.not_enough_bytes <= max(1, (found.plan - low) * RESOLUTION)


def test_a_low_end_that_is_enough_is_the_answer():
    assert least_budget(at_least(5), low_bytes=7, high_bytes=9) == (7, None)


@pytest.mark.parametrize("high", [0, 4])
def test_none_when_nothing_is_enough(high):
    assert least_budget(at_least(5), low_bytes=0, high_bytes=high) is None
