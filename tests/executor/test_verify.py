"""The gradient check finds what differs, by name, and nothing else."""

import math

import pytest
import torch

from executor.verify import TOLERANCES, compare_gradients


def gradients(dtype=torch.float64):
    return {"weight": torch.tensor([4.0, -8.0], dtype=dtype), "bias": torch.tensor([1.0], dtype=dtype)}


def test_equal_gradients_pass():
    """Equal gradients differ by nothing"""
    check = compare_gradients(gradients(), gradients(), steps=5)
    assert check.passed
    assert check.largest_relative_difference == 0


def test_a_difference_is_measured_against_the_largest_entry():
    """A change of 2 where the largest entry is 8 is a difference of a quarter, whatever its place"""
    found = gradients()
    found["weight"][0] += 2
    check = compare_gradients(gradients(), found, steps=5)
    assert check.differences[0].name == "weight"
    assert check.largest_relative_difference == 0.25
    assert check.largest_absolute_difference == 2
    assert [each.name for each in check.differences] == ["weight", "bias"]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_tolerance_is_that_of_the_dtype(dtype):
    """Just beyond the tolerance fails, by name; just within passes"""
    expected = {"weight": torch.ones(1, dtype=torch.float64)}
    tolerance = TOLERANCES[dtype]
    as_dtype = {"weight": torch.ones(1, dtype=dtype)}
    for factor, passes in [(0.9, True), (1.1, False)]:
        found = {"weight": expected["weight"] + factor * tolerance}
        check = compare_gradients(as_dtype, found, steps=1)
        assert check.passed is passes


@pytest.mark.parametrize(
    "broken", [None, torch.tensor([math.nan, 1.0]), torch.tensor([math.inf, 1.0]), torch.ones(3)]
)
def test_a_missing_or_broken_gradient_is_a_difference(broken):
    """No gradient, NaN or another shape never passes"""
    found = {**gradients(), "weight": broken}
    check = compare_gradients(gradients(), found, steps=1)
    assert check.largest_relative_difference == math.inf
    assert "weight by inf" in str(check)


def test_a_gradient_where_full_bptt_has_none_is_a_difference():
    """A gradient of an unused parameter must be absent on both sides"""
    assert compare_gradients({"unused": None}, {"unused": None}, steps=1).passed
    assert not compare_gradients({"unused": None}, {"unused": torch.zeros(1)}, steps=1).passed


def test_different_names_are_refused():
    """Two sets of gradients must name the same tensors"""
    with pytest.raises(ValueError, match="bias"):
        compare_gradients(gradients(), {"weight": torch.ones(2)}, steps=1)
