"""Weak proxies, by which training loops hand themselves and models to modules."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from executor import unroll
from executor.plan import ExecutionPlan, checkpoint_every
from tests.executor.loops import SIZE, STEPS, LoopCase, gradients, plain, sequence, states


class Trainer:
    """Knows a model beside the one that it trains."""

    def __init__(self) -> None:
        self.teacher = nn.BatchNorm1d(SIZE, affine=False).double()
        self.scale = 0.5


class Trained(nn.Module):
    """Sees its trainer, the trainer's teacher and a module that is gone, each by a proxy."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self.trainer = weakref.proxy(trainer)
        gone = Trainer()
        self.references = (weakref.proxy(trainer.teacher), weakref.proxy(gone))
        self.gone = self._gone = self.references[1]

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(x, self.references[0](state) * self.trainer.scale)
        assert self.gone is self._gone
        return state, state.square().sum()


def test_what_is_behind_a_proxy_is_a_part_of_the_step() -> None:
    """A TypeError: no weak reference can be made to a proxy, which passes for a module; and one of an object
    that is gone passes for nothing
    """
    found = []
    for run in (plain, partial(unrolled, checkpoint_every(STEPS, 1, 3))):
        torch.manual_seed(0)
        trainer = Trainer()
        case = LoopCase(module := Trained(trainer), states(), sequence(), module)
        found.append((gradients(case, partial(run, case)), [*trainer.teacher.buffers()]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def unrolled(plan: ExecutionPlan, case: LoopCase) -> tuple[Any, Any]:
    return unroll(case.step, case.state, case.inputs, plan=plan)
