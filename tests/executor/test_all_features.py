"""Everything that recomputation may spoil, in one loop: dropout, BatchNorm, spectral norm, autocast, tied,
frozen and unused parameters, a captured tensor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from executor import unroll
from tests.executor.loops import BATCH, PLANS, SIZE, STEPS, LoopCase, loss_of, plain


class EveryFeature(nn.Module):
    """A recurrent cell with all of them; its state stays in the type of the weights under autocast."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE, dtype=dtype)
        self.dropout = nn.Dropout(0.4)
        self.norm = nn.BatchNorm1d(SIZE, dtype=dtype)
        self.mix = parametrizations.spectral_norm(nn.Linear(SIZE, SIZE, dtype=dtype))
        self.first = nn.Linear(SIZE, SIZE, dtype=dtype)
        self.second = nn.Linear(SIZE, SIZE, dtype=dtype)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.unused = nn.Linear(2, 2, dtype=dtype)

    def forward(self, state: Tensor, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(self.dropout(self.first(x).to(x)), self.norm(state)).to(state)
        return state, torch.tanh(self.second(self.mix(state))) * scale


class Results(NamedTuple):
    """What one iteration gives and leaves behind."""

    output: Tensor
    state: Tensor
    of_initial_state: Tensor
    gradients: dict[str, Tensor | None]
    """Of x, the captured tensor's leaf and the parameters that need one."""
    buffers: list[Tensor]
    stream: Tensor
    """What the random stream gives next."""


def iterate(dtype: torch.dtype, *, autocast: bool, plan: str | None) -> Results:
    """One iteration under a plan, or by plain autograd without one, from the same seeds."""
    torch.manual_seed(1)
    module = EveryFeature(dtype)
    x = torch.randn(STEPS, BATCH, SIZE, dtype=dtype, requires_grad=True)
    initial = torch.randn(BATCH, SIZE, dtype=dtype, requires_grad=True)
    log_scale = torch.randn(SIZE, dtype=dtype, requires_grad=True)
    scale = log_scale.exp()

    def step(state: Tensor, x_t: Tensor) -> Any:
        return module(state, x_t, scale)

    # The cache would sum a weight's gradient over all steps in bfloat16; the executor empties it.
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=plan is not None):
        if plan is None:
            output, state = plain(LoopCase(step, initial, x))
        else:
            output, state = unroll(step, initial, x, plan=PLANS[plan](STEPS), module=module, captured=[scale])
    leaves = {"x": x, "log_scale": log_scale}
    leaves |= {name: each for name, each in module.named_parameters() if each.requires_grad}
    found = torch.autograd.grad(loss_of(output, state), [initial, *leaves.values()], allow_unused=True)
    buffers = [buffer.clone() for buffer in module.buffers()]
    return Results(output, state, found[0], dict(zip(leaves, found[1:], strict=True)), buffers, torch.rand(3))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("dtype", "autocast", "tolerance"),
    [(torch.float64, False, 1e-12), (torch.float32, False, 1e-6), (torch.float32, True, 0.02)],
    ids=["float64", "float32", "autocast"],
)
def test_all_features_at_once_change_nothing(
    dtype: torch.dtype, autocast: bool, tolerance: float, plan: str
) -> None:
    """Outputs, final state, the gradient of the initial state, buffers and the random stream are bitwise
    those of plain autograd. Parameters are summed in another order; under autocast a segment's uses of one
    weight are summed in bfloat16, whose rounding is 0.4 %.
    """
    expected = iterate(dtype, autocast=autocast, plan=None)
    ours = iterate(dtype, autocast=autocast, plan=plan)
    for name in ("output", "state", "of_initial_state", "stream"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers, expected.buffers, strict=True))
    assert [name for name, each in ours.gradients.items() if each is None] == ["unused.weight", "unused.bias"]
    for name, theirs in expected.gradients.items():
        found = ours.gradients[name]
        assert (found is None) == (theirs is None), name
        if found is not None and theirs is not None:
            assert (found - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1.0), name
