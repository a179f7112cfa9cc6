"""The first call with new shapes is probed; calls alike are not, and calls that differ are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from executor import ReplayError, unroll
from executor.known import MOST_LOOPS, MOVES_TOLD, known
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


class Scaled:
    """A callable that is made anew for every batch."""

    def __init__(self, scale: float, size: int = 1) -> None:
        self.scale, self.size = scale, size

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("extra", "again"),
    [
        (None, None),
        (3, 3),
        ("text", "text"),
        (torch.ones(2), torch.zeros(2)),
        (0.5, 0.25),
        ({"mask": torch.ones(2), "rate": 0.5}, {"mask": torch.zeros(2), "rate": 0.4}),
        ([1, torch.ones(2)], [2, torch.zeros(2), 3]),
        (partial(torch.add, 0.5), partial(torch.add, 0.4)),
        (Scaled(0.5), Scaled(0.4)),
    ],
    ids=["none", "number", "text", "tensor", "rate", "dict", "list", "partial", "callable"],
)
def test_the_same_lines_with_values_alike_are_known(cell: nn.GRUCell, extra: Any, again: Any) -> None:
    """A step defined anew in every iteration, over new tensors of the same shape, rates, containers."""
    assert known(loop_of(cell, extra)) is known(loop_of(cell, again))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (3, 4),
        (torch.ones(2), torch.ones(3)),
        (torch.ones(2), torch.ones(2).requires_grad_()),
        (object(), object()),
        (0.0, 0.5),
        (0.5, 1.0),
        ({"inner": 3}, {"inner": 4}),
        (partial(torch.add, 1), partial(torch.add, 2)),
        (Scaled(0.5, 1), Scaled(0.5, 2)),
        (torch.ones(2, 3), torch.ones(3, 2).t()),
    ],
    ids=["number", "shape", "gradient", "object", "0", "1", "dict", "partial", "callable", "strides"],
)
def test_the_same_lines_over_other_values_are_new(cell: nn.GRUCell, one: Any, other: Any) -> None:
    """A closure over the number of inner iterations, say, changes what the step needs."""
    assert known(loop_of(cell, one)) is not known(loop_of(cell, other))


def test_an_attribute_or_global_that_the_step_reads_makes_it_new(
    cell: nn.GRUCell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step needs may depend on both; private attributes are left to the module"""
    cell.inner, cell._calls = 1, 0

    def loop() -> Loop:
        return Loop.of(
            lambda h, x: (cell(x, h), STEPS), torch.zeros(2, SIZE), torch.randn(5, 2, SIZE), module=cell
        )

    first = known(loop())
    cell._calls = 1
    assert known(loop()) is first
    cell.inner = 60
    assert known(loop()) is not first
    cell.inner = 1
    monkeypatch.setitem(globals(), "STEPS", STEPS + 1)
    assert known(loop()) is not first


def test_an_attribute_that_counts_up_is_told_of(cell: nn.GRUCell) -> None:
    """Every call would be probed: the fifth new value is told of by name, one seen before is quiet"""
    for count in range(1, MOVES_TOLD + 1):
        cell.seen = count
        known(loop_of(cell))
    for count in (1, 2):
        cell.seen = count
        known(loop_of(cell))
    cell.seen = MOVES_TOLD + 1
    with pytest.warns(UserWarning, match="5 times because seen of its modules changed"):
        known(loop_of(cell))


def test_the_loop_used_longest_ago_is_forgotten_first(cell: nn.GRUCell) -> None:
    """Steps that are new at every call do not fill the memory"""
    first, second = known(loop_of(cell, -1)), known(loop_of(cell, -2))
    for extra in range(MOST_LOOPS - 1):
        known(loop_of(cell, -1))
        known(loop_of(cell, extra))
    assert known(loop_of(cell, -1)) is first
    assert known(loop_of(cell, -2)) is not second


def test_what_did_not_hold_is_looked_into_again(cell: nn.GRUCell) -> None:
    """After a ReplayError the next call probes: a dropout, say, that was switched on"""
    dropout = nn.Dropout(0.0)
    rates = [0.0]

    def step(h: Tensor, x: Tensor) -> tuple[Tensor, None]:
        return nn.functional.dropout(cell(x, h), rates[0]), None

    def run() -> None:
        state = torch.zeros(BATCH, SIZE, requires_grad=True)
        unroll(step, state, torch.randn(STEPS, BATCH, SIZE), module=[cell, dropout], budget="1MiB")

    run()
    rates[0] = 0.5
    with pytest.raises(ReplayError):
        run()
    run()


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
