"""Gradients with the executor are gradients without it.

With segments of one step every tensor is bitwise equal: each step's graph is the one full BPTT builds,
and contributions to a parameter are added in the same order, last step first. Longer segments add up
each segment's contribution first, and a fused segment or an output that is the state itself changes the
order in which a state's gradient is summed: equal to 1e-12 in float64 and 1e-6 of the largest entry in
float32. The gradient of the initial state stays bitwise equal wherever the state's graph is the same.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from executor import ExecutionPlan, unroll
from executor.plan import checkpoint_every
from tests.executor.loops import (
    PLANS,
    SIZE,
    STEPS,
    LoopCase,
    cell_case,
    fused_case,
    gradients,
    loss_of,
    plain,
    sequence,
    states,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def unrolled(case: LoopCase, plan: ExecutionPlan, **options: Any) -> tuple[Any, Any]:
    return unroll(
        case.step, case.state, case.inputs, plan=plan, module=case.module, captured=case.captured, **options
    )


def assert_close(found: Tensor | None, expected: Tensor | None) -> None:
    """Equal up to re-associated sums."""
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        scale = expected.abs().max().clamp(min=1.0)
        assert (found - expected).abs().max() <= TOLERANCE[expected.dtype] * scale


def compare(case: LoopCase, plan: ExecutionPlan, *, bitwise: bool, **options: Any) -> None:
    expected = gradients(case, lambda: plain(case))
    found = gradients(case, lambda: unrolled(case, plan, **options))
    for index in (0, 1):
        torch.testing.assert_close(found[index], expected[index], rtol=0, atol=0)
    for ours, theirs in zip(found[2], expected[2], strict=True):
        if bitwise:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        else:
            assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_cells_with_a_head_have_the_gradients_of_full_bptt(kind: str, name: str, dtype: torch.dtype) -> None:
    """Parameters, inputs and initial state; bitwise with one step per segment."""
    plan = PLANS[name](STEPS)
    compare(cell_case(kind, dtype), plan, bitwise=plan.segment_steps == 1)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_the_gradient_of_the_initial_state_is_bitwise_equal_under_every_plan(kind: str, name: str) -> None:
    """Segments change the order of sums over steps, which a state's gradient has none of."""
    case = cell_case(kind)
    expected = gradients(case, lambda: plain(case))[2]
    found = gradients(case, lambda: unrolled(case, PLANS[name](STEPS)))[2]
    for index in range(2 if kind == "LSTM" else 1):
        assert torch.equal(found[index], expected[index])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_fused_segments_have_the_gradients_of_full_bptt(kind: str, dtype: torch.dtype) -> None:
    """The output is the state here, and a kernel sums over its steps: equal to rounding."""
    case = fused_case(kind, dtype)
    expected = gradients(case, lambda: plain(case))
    plan = checkpoint_every(STEPS, 5, 1)
    found = gradients(case, lambda: unrolled(case, plan, segment=case.options["segment"]))
    assert_close(found[0], expected[0])
    for ours, theirs in zip(found[2], expected[2], strict=True):
        assert_close(ours, theirs)


class NoisyCell(nn.Module):
    """A recurrent cell that samples, normalises and constrains: everything that recomputation may spoil."""

    def __init__(self, *, dropout: bool, normalise: bool, spectral: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(SIZE, SIZE).double()
        self.dropout = nn.Dropout(0.4) if dropout else nn.Identity()
        self.norm = nn.BatchNorm1d(SIZE).double() if normalise else nn.Identity()
        mix = nn.Linear(SIZE, SIZE).double()
        self.mix = parametrizations.spectral_norm(mix) if spectral else mix

    def forward(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(self.dropout(x), self.norm(state))
        return state, torch.tanh(self.mix(state))


FEATURES = {
    "dropout": {"dropout": True, "normalise": False, "spectral": False},
    "BatchNorm": {"dropout": False, "normalise": True, "spectral": False},
    "spectral norm": {"dropout": False, "normalise": False, "spectral": True},
    "all three": {"dropout": True, "normalise": True, "spectral": True},
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("features", FEATURES)
def test_recomputation_changes_neither_numbers_nor_buffers_nor_the_random_stream(
    features: str, name: str
) -> None:
    """Dropout draws once, statistics and power iterations advance once, the stream ends where it would."""
    plan = PLANS[name](STEPS)
    results = []
    for run in ("plain", "unrolled"):
        torch.manual_seed(1)
        cell = NoisyCell(**FEATURES[features])
        case = LoopCase(cell, states(), sequence(), cell)
        found = gradients(case, partial(plain, case) if run == "plain" else partial(unrolled, case, plan))
        results.append((found, [b.clone() for b in cell.buffers()], torch.rand(3)))
    (expected, buffers, stream), (ours, our_buffers, our_stream) = results
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(our_stream, stream)
    assert all(torch.equal(a, b) for a, b in zip(our_buffers, buffers, strict=True))
    assert torch.equal(ours[2][0], expected[2][0]), "the gradient of the initial state"
    for a, b in zip(ours[2], expected[2], strict=True):
        assert_close(a, b)


def test_a_power_iteration_that_has_converged_is_a_part_of_a_step_all_the_same() -> None:
    """It writes the numbers that were there: they were no part of a step, whose first run was refused then"""
    found = []
    for is_planned in (False, True):
        torch.manual_seed(1)
        mix = parametrizations.spectral_norm(nn.Linear(SIZE, 1).double())

        def step(state: Tensor, x: Tensor, mix: nn.Module = mix) -> tuple[Tensor, Tensor]:
            state = torch.tanh(state + mix(x))
            return state, state

        case = LoopCase(step, states(), sequence(), mix)
        run = partial(unrolled, case, PLANS["checkpoint every third"](STEPS)) if is_planned else None
        found.append([*gradients(case, run or partial(plain, case))[2], *mix.buffers()])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["checkpoint every third", "segments of four in pairs", "two levels"])
def test_tied_frozen_and_unused_parameters(name: str) -> None:
    """A tied weight gets the sum of its uses, a frozen one nothing, an unused one None, as without us."""
    first, second = nn.Linear(SIZE, SIZE).double(), nn.Linear(SIZE, SIZE).double()
    second.weight = first.weight
    first.bias.requires_grad_(False)
    unused = nn.Linear(2, 2).double()
    module = nn.ModuleList([first, second, unused])

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(first(state) + x)
        return state, second(state)

    plan = PLANS[name](STEPS)
    compare(LoopCase(step, states(), sequence(), module), plan, bitwise=False)


def test_captured_tensors_get_their_gradient_through_their_own_graph() -> None:
    """A captured non-leaf passes its gradient on to what it was made of, once per backward."""
    weight = torch.randn(SIZE, dtype=torch.float64, requires_grad=True)
    scale = torch.exp(weight)

    def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        state = torch.tanh(state * scale + x)
        return state, state.sum(1)

    case = LoopCase(step, states(), sequence(), None, (scale,))
    compare(case, checkpoint_every(STEPS, 1, 3), bitwise=False)
    calls = []
    weight.register_hook(calls.append)
    outputs, state = unrolled(case, checkpoint_every(STEPS, 2, 1))
    (outputs.sum() + state.sum()).backward()
    assert len(calls) == 1
    assert weight.grad is not None


@pytest.mark.parametrize("name", PLANS)
def test_autocast_is_entered_again_for_recomputation(name: str) -> None:
    """bfloat16 steps: the state's gradient is bitwise that of full BPTT without autocast's weight cache;
    parameters are summed in float32, one segment at a time.
    """
    case = cell_case("GRU", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        expected = gradients(case, lambda: plain(case))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, state = unrolled(case, PLANS[name](STEPS))
    found = torch.autograd.grad(loss_of(outputs, state), case.leaves())
    assert torch.equal(outputs, expected[0])
    assert torch.equal(found[0], expected[2][0])
    for ours, theirs in zip(found, expected[2], strict=True):
        assert (ours - theirs).abs().max() <= 0.02 * theirs.abs().max()


def test_parameter_hooks_fire_once_per_backward() -> None:
    """However many segments contribute: clipping hooks and DDP see one gradient."""
    case = cell_case("GRU")
    cell = case.modules()[0]
    tensor_hooks, accumulated = [], []
    cell.weight_hh.register_hook(tensor_hooks.append)
    cell.weight_hh.register_post_accumulate_grad_hook(accumulated.append)
    outputs, _ = unrolled(case, checkpoint_every(STEPS, 1, 2))
    outputs.sum().backward()
    assert (len(tensor_hooks), len(accumulated)) == (1, 1)


def test_gradients_accumulate_over_calls() -> None:
    """Two backward passes add up in `.grad`, as anywhere."""
    case = cell_case("RNN")
    plan = checkpoint_every(STEPS, 1, 3)
    expected = gradients(case, lambda: plain(case))[2]
    for leaf in case.leaves():
        leaf.grad = None
    for _ in range(2):
        loss_of(*unrolled(case, plan)).backward()
    for leaf, gradient in zip(case.leaves(), expected, strict=True):
        assert torch.equal(leaf.grad, 2 * gradient)


def test_only_the_final_state_is_used() -> None:
    """A loss on the last state alone; outputs get no gradient."""
    case = cell_case("LSTM")
    leaves = case.leaves()
    expected = torch.autograd.grad(plain(case)[1][0].sum(), leaves, allow_unused=True)
    found = torch.autograd.grad(
        unrolled(case, PLANS["two levels"](STEPS))[1][0].sum(), leaves, allow_unused=True
    )
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is not None:
            assert torch.equal(ours, theirs)


INDUCTOR = pytest.mark.skipif(
    "INDUCTOR" not in os.environ, reason="compiles C++ for 20 seconds: INDUCTOR=1 runs it"
)


@pytest.mark.parametrize(
    ("features", "backend"),
    [
        ("plain", "aot_eager"),
        ("dropout", "aot_eager"),
        pytest.param("plain", "inductor", marks=[pytest.mark.slow, INDUCTOR]),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
def test_a_compiled_step_has_the_gradients_of_the_compiled_loop(features: str, backend: str) -> None:
    """Bitwise with one step per segment; nothing is compiled again for the second call."""
    torch._dynamo.reset()  # it keeps a few variants of a function, whoever's they are
    torch.manual_seed(0)
    cell = NoisyCell(dropout=features == "dropout", normalise=False, spectral=False)
    compiled = torch.compile(cell, backend=backend)
    case = LoopCase(compiled, states(), sequence(), cell)
    plan = checkpoint_every(STEPS, 1, 3)
    results = []
    for run in (partial(plain, case), partial(unrolled, case, plan), partial(unrolled, case, plan)):
        torch.manual_seed(1)
        results.append(gradients(case, run)[2])
    frames = sum(torch._dynamo.utils.counters["frames"].values())
    unrolled(case, plan)
    assert sum(torch._dynamo.utils.counters["frames"].values()) == frames
    for ours in results[1:]:
        torch.testing.assert_close(ours, results[0], rtol=0, atol=0)
