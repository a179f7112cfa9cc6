"""Budgets as people write them."""

import pytest

from executor.budget import InvalidBudget, parse_budget


def resolved(value, activation_bytes=1_000, free_bytes=77):
    return parse_budget(value).bytes(activation_bytes=lambda: activation_bytes, free_bytes=lambda: free_bytes)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
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


def test_only_what_is_needed_is_measured():
    """A budget in bytes never asks for the activations nor for the free bytes"""

    def unwanted():
        raise AssertionError("asked")

    assert parse_budget(5).bytes(activation_bytes=unwanted, free_bytes=unwanted) == 5


def test_a_budget_prints_as_it_is_meant():
    """Reports show the kind of the budget"""
    texts = [str(parse_budget(value)) for value in ("64MiB", "5%", "free")]
    assert texts == ["64 MiB", "5% of full BPTT's activations", "free"]
