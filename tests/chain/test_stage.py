"""Stages and chains refuse every number that would not survive the arithmetic."""

from __future__ import annotations

import pytest

from planner_service.chain import MAXIMUM_BYTES, Chain, InvalidChain, Stage, StageRun

BYTE_FIELDS = [
    "state_bytes",
    "tape_bytes",
    "forward_workspace_bytes",
    "taped_forward_workspace_bytes",
    "backward_workspace_bytes",
    "gradient_bytes",
]
COST_FIELDS = ["forward_cost", "taped_forward_cost", "backward_cost"]
GOOD = {"forward_cost": 1, "taped_forward_cost": 1.5, "backward_cost": 2, "state_bytes": 3, "tape_bytes": 5}


@pytest.mark.parametrize("name", BYTE_FIELDS)
@pytest.mark.parametrize("value", [-1, 2**62 + 1, 2**63, 1.0, True, "1", float("nan"), float("inf")])
def test_byte_counts_must_be_whole_numbers_in_range(name, value):
    with pytest.raises(InvalidChain, match=name) as caught:
        Stage(**{**GOOD, name: value})
    assert caught.value.field == name


@pytest.mark.parametrize("name", COST_FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        float("-inf"),
        True,
        "1",
        None,
        pytest.param(10**400, id="10^400"),
        1e200,
    ],
)
def test_costs_must_be_finite_and_not_negative(name, value):
    with pytest.raises(InvalidChain, match=name) as caught:
        Stage(**{**GOOD, name: value})
    assert caught.value.field == name


@pytest.mark.parametrize("name", BYTE_FIELDS)
def test_zero_and_the_maximum_are_allowed(name):
    assert getattr(Stage(**{**GOOD, name: 0}), name) == 0
    assert getattr(Stage(**{**GOOD, name: MAXIMUM_BYTES}), name) == MAXIMUM_BYTES


def test_a_gradient_is_as_large_as_its_state_unless_told():
    assert Stage(**GOOD).live_gradient_bytes == 3
    assert Stage(**GOOD, gradient_bytes=0).live_gradient_bytes == 0


@pytest.mark.parametrize("count", [0, -1, True, 1.0, None])
def test_a_run_has_a_positive_whole_count(count):
    with pytest.raises(InvalidChain, match="count") as caught:
        Chain((StageRun(count, Stage(**GOOD)),))
    assert caught.value.field == "model.stages"


def test_a_chain_has_a_stage():
    with pytest.raises(InvalidChain, match="at least one stage"):
        Chain(())


@pytest.mark.parametrize(
    "name", ["input_bytes", "static_bytes", "loss_gradient_bytes", "input_gradient_bytes"]
)
@pytest.mark.parametrize("value", [-1, 2**63, True, 0.5])
def test_the_bytes_around_a_chain_are_checked_too(name, value):
    with pytest.raises(InvalidChain, match=name):
        Chain((StageRun(1, Stage(**GOOD)),), **{name: value})
