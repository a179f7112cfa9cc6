"""The exact multiplication against the paper's integers, Python's own, and its inverse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from executor.reversible.fixed_point import divide, multiply, to_fixed, to_value  # noqa: E402

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "papers.json").read_text())[
    "reversible_multiply_R10"
]

factors = st.integers(1, 1024)
states = st.integers(-(2**40), 2**40)
buffers = st.integers(0, 2**41 - 1)


def one(number: int) -> torch.Tensor:
    return torch.tensor([float(number)], dtype=torch.float64)


def multiply_in_python(fixed: int, buffer: int, factor: int) -> tuple[int, int]:
    """The paper's steps on Python's unbounded integers, whose // floors and whose % is never negative."""
    buffer = buffer * 1024 + fixed % 1024
    fixed = fixed // 1024 * factor + buffer % factor
    return fixed, buffer // factor


@pytest.mark.parametrize(("start", "steps"), [("start_h", "steps"), ("negative_start_h", "negative_steps")])
def test_multiplication_gives_the_golden_integers(start, steps):
    fixed, buffer = one(GOLDEN[start]), one(0)
    for step in GOLDEN[steps]:
        fixed, buffer = multiply(fixed, buffer, one(step["z"]))
        assert (int(fixed), int(buffer)) == (step["h"], int(step["B"]))
    for step in reversed(GOLDEN[steps]):
        fixed, buffer = divide(fixed, buffer, one(step["z"]))
    assert (int(fixed), int(buffer)) == (GOLDEN[start], 0)


@given(states, buffers, factors)
def test_float64_multiplication_is_that_of_unbounded_integers(fixed, buffer, factor):
    after = multiply(one(fixed), one(buffer), one(factor))
    assert tuple(int(part) for part in after) == multiply_in_python(fixed, buffer, factor)
    assert tuple(int(part) for part in divide(*after, one(factor))) == (fixed, buffer)


@pytest.mark.parametrize("sign", [1, -1])
def test_quotients_next_to_an_integer_are_floored_right_at_the_largest_buffers(sign):
    """Every factor, at buffers around the multiples where a rounded-up quotient would show."""
    factor = torch.arange(1, 1025, dtype=torch.float64)
    for offset in range(-2, 3):
        buffer = (torch.floor(2.0**41 / factor) * factor / 1024).floor() * 1024 - 4096 + offset
        fixed = sign * (torch.arange(1024, dtype=torch.float64) * 524_287 + offset)
        after = multiply(fixed, buffer, factor)
        rows = zip(fixed.tolist(), buffer.tolist(), factor.tolist(), strict=True)
        expected = [multiply_in_python(*(int(number) for number in row)) for row in rows]
        assert list(zip(*(map(int, part.tolist()) for part in after), strict=True)) == expected
        back = divide(*after, factor)
        assert torch.equal(back[0], fixed)
        assert torch.equal(back[1], buffer)


def test_conversion_rounds_to_the_nearest_multiple_of_two_to_the_minus_23():
    values = torch.tensor([0.0, 2.0**-23, -(2.0**-23), 2.0**-25, 3 * 2.0**-25, -1.5], dtype=torch.float64)
    assert to_fixed(values).tolist() == [0, 1, -1, 0, 1, -1.5 * 2**23]
    assert to_value(to_fixed(values), torch.float32).tolist() == [0, 2**-23, -(2**-23), 0, 2**-23, -1.5]
