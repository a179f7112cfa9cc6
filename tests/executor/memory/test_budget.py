"""Budgets as people write them."""

import pickle

import numpy as np
import pytest

from executor.memory.budget import InvalidBudget, parse_budget, parse_budget_bytes


def resolved(value, activation_bytes=1_000, free_bytes=77):
    return parse_budget(value).bytes(activation_bytes=lambda: activation_bytes, free_bytes=lambda: free_bytes)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (np.int64(7), 7),
        ("512MiB", 512 * 2**20),
        ("2 GB", 2 * 10**9),
        ("5%", 50),
        (0.05, 50),
        (1.0, 1_000),
        ("free", 77),
    ],
)
def test_a_budget_means_bytes(value, expected):
    """Every way of writing a budget comes down to bytes"""
    assert expected == resolved(value)


@pytest.mark.parametrize(
    "value",
    [0, -1, "0MiB", "-1MiB", "0%", "101%", 1.5, -0.1, 0.0, True, None, "12 parsecs", "", [], float("nan")],
)
def test_anything_else_is_refused_by_name(value):
    """What is no budget is refused, and the error shows what was given"""
    with pytest.raises(InvalidBudget, match="budget=") as caught:
        parse_budget(value)
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("value", "reason"),
    [("12 parsecs", "unknown unit"), (0, "must be positive"), (1.5, "at most 1"), (None, "number of bytes")],
)
def test_the_reason_comes_with_what_can_be_given(value, reason):
    with pytest.raises(InvalidBudget, match=rf'{reason}.*; give bytes .*"512MiB".*"5%".*"free"'):
        parse_budget(value)


@pytest.mark.parametrize("value", [np.int64(2**20), 1048576.0, "1 MiB"])
def test_every_way_of_writing_bytes_is_known_where_shares_are_not(value):
    assert parse_budget_bytes(value) == 2**20


@pytest.mark.parametrize("value", ["30%", " free ", 0.3])
def test_shares_are_refused_where_only_bytes_will_do(value):
    with pytest.raises(InvalidBudget, match=r"^host_budget=") as caught:
        parse_budget_bytes(value, name="host_budget")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own


def test_only_what_is_needed_is_measured():
    """A budget in bytes never asks for the activations nor for the free bytes"""

    def unwanted():
        raise AssertionError("asked")

    assert parse_budget(5).bytes(activation_bytes=unwanted, free_bytes=unwanted) == 5


def test_a_budget_prints_as_it_is_meant():
    """Reports show the kind of the budget"""
    texts = [str(parse_budget(value)) for value in ("64MiB", "5%", "free")]
    assert texts == ["64 MiB", "5% of full BPTT's activations", "free"]
