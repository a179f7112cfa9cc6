"""The first call with new shapes is probed; calls alike are not, and calls that differ are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor.known import known
from executor.loop import Loop

STEPS, BATCH, SIZE = 5, 2, 4


def step_of(cell: nn.Module, extra: Any = None) -> Callable[[Tensor, Tensor], tuple[Tensor, Any]]:
    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        return cell(x, state), extra

    return step


def loop_of(cell: nn.Module, extra: Any = None, batch: int = BATCH, **options: Any) -> Loop:
    state = torch.zeros(batch, SIZE, requires_grad=options.pop("requires_grad", False))
    return Loop.of(step_of(cell, extra), state, torch.randn(STEPS, batch, SIZE), module=cell, **options)


@pytest.fixture
def cell() -> nn.GRUCell:
    return nn.GRUCell(SIZE, SIZE)


@pytest.mark.parametrize("extra", [None, 3, "text", torch.ones(2)], ids=str)
def test_the_same_lines_with_equal_values_are_known(cell: nn.GRUCell, extra: Any) -> None:
    """A step defined anew in every iteration, over new tensors of the same shape."""
    again = extra.clone() if isinstance(extra, Tensor) else extra
    assert known(loop_of(cell, extra)) is known(loop_of(cell, again))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (3, 4),
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), torch.ones(2).requires_grad_()),
        (object(), object()),
    ],
    ids=["number", "shape", "need of a gradient", "object"],
)
def test_the_same_lines_over_other_values_are_new(cell: nn.GRUCell, one: Any, other: Any) -> None:
    """A closure over the number of inner iterations, say, changes what the step needs."""
    assert known(loop_of(cell, one)) is not known(loop_of(cell, other))


def test_another_module_shape_mode_or_frozen_parameter_is_new(cell: nn.GRUCell) -> None:
    first = known(loop_of(cell))
    others = [
        known(loop_of(nn.GRUCell(SIZE, SIZE))),
        known(loop_of(cell, batch=BATCH + 1)),
        known(loop_of(cell, requires_grad=True)),
        known(loop_of(cell, reduce="last")),
        known(loop_of(cell, final_state="detached")),
    ]
    cell.eval()
    others.append(known(loop_of(cell)))
    cell.train()
    cell.bias_hh.requires_grad_(False)
    others.append(known(loop_of(cell)))
    cell.bias_hh.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        others.append(known(loop_of(cell)))
    assert len({id(one) for one in [first, *others]}) == 1 + len(others)
    assert known(loop_of(cell)) is first


def test_a_callable_that_cannot_be_remembered_still_runs() -> None:
    class Step:
        __slots__ = ()

        def __call__(self, state: Tensor, x: Tensor) -> tuple[Tensor, None]:
            return torch.tanh(state + x), None

    loop = Loop.of(Step(), torch.zeros(1, 2), torch.randn(3, 1, 2))
    assert known(loop) is not known(loop)
