"""On a CUDA device: budgets are kept as the allocator counts, and gradients are those of full BPTT."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
import torch

from executor import GRU, LSTM, BudgetTooSmall, measure, predict, unroll
from executor.offload.slots import unpin_unused
from executor.plan import tape_everything
from executor.projection import projected_peak_bytes
from tests.executor.gpu_loops import (
    HOST_BYTES,
    STEPS,
    between,
    fused,
    least_budget,
    planned,
    trained,
    with_states_on_host,
    with_tapes_on_host,
)

pytestmark = pytest.mark.gpu

MIB = 2**20


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_allocators_peak_stays_within_the_budget(kind: str, share: float) -> None:
    """Rounding of blocks included, also when the cache is full of pieces of other sizes."""
    loop = fused(kind)
    budget = between(loop, share)
    projected = predict(**loop, budget=budget).projected_peak_bytes
    trained(loop, budget)
    requested = []
    for fill_cache in (torch.cuda.empty_cache, leave_pieces):
        loop["module"].zero_grad(set_to_none=True)
        fill_cache()
        found = measure(lambda: trained(loop, budget))
        assert found.requested_peak_bytes is not None
        assert found.requested_peak_bytes <= found.peak_bytes <= projected <= budget
        requested.append(found.requested_peak_bytes)
    assert requested[0] == requested[1]


def loop_of_products(*, with_bias: bool) -> dict[str, Any]:
    """Small steps: an LSTM's cell multiplies without a bias, which it adds later."""
    cell = (torch.nn.Linear if with_bias else torch.nn.LSTMCell)(64, 64).cuda()
    zero = torch.zeros(8, 64, device="cuda")

    def biased(state: Any, x: torch.Tensor) -> Any:
        state = torch.tanh(cell(x) + state)
        return state, state.square().mean()

    def unbiased(state: Any, x: torch.Tensor) -> Any:
        state = cell(x, state)
        return state, state[0].square().mean()

    return {
        "step": biased if with_bias else unbiased,
        "state": zero if with_bias else (zero, zero.clone()),
        "module": cell,
        "reduce": "sum",
        "inputs": torch.randn(100, 8, 64, device="cuda"),
    }


@pytest.mark.parametrize(("with_bias", "budget"), [(False, 2 * MIB), (True, MIB // 4)])
def test_another_thread_and_another_stream_keep_the_budget(with_bias: bool, budget: int) -> None:
    """The matrix library takes a workspace for each, larger than this budget"""
    loop = loop_of_products(with_bias=with_bias)
    trained(loop, budget)
    peaks = []

    def found() -> None:
        loop["module"].zero_grad(set_to_none=True)
        peaks.append(measure(lambda: trained(loop, budget)).peak_bytes)

    another = threading.Thread(target=found)
    another.start()
    another.join()
    with torch.cuda.stream(torch.cuda.Stream()):
        found()
    assert len(peaks) == 2
    assert max(peaks) <= budget


def leave_pieces() -> None:
    """Free pieces of 1.5, 2, 2.5 … MiB in the cache, live ones between them gone too."""
    pieces = [torch.empty(halves * MIB // 2, dtype=torch.uint8, device="cuda") for halves in range(3, 40)]
    pieces.clear()


def test_weights_are_not_copied_by_a_module_inside_a_segment() -> None:
    """The recurrent module finds the shadows in its list: no buffer of all weights is made anew."""
    loop = fused("LSTM")
    pointers = [parameter.data_ptr() for parameter in loop["module"].parameters()]
    trained(loop, between(loop, 0.05))
    loop["module"](loop["inputs"])
    assert [parameter.data_ptr() for parameter in loop["module"].parameters()] == pointers


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gradients_are_those_of_full_bptt(kind: str) -> None:
    """To rounding: cuDNN sums a segment at a time."""
    loop = fused(kind)
    parameters = list(loop["module"].parameters())
    budget = predict(**loop, budget="8GiB").full_bptt_peak_bytes // 8
    found = torch.autograd.grad(unroll(**loop, budget=budget)[0], parameters)
    state, total = loop["state"], torch.zeros((), device="cuda")
    for x in loop["inputs"].split(50):
        state, loss = loop["segment"](state, x)
        total = total + loss
    for ours, theirs in zip(found, torch.autograd.grad(total, parameters), strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3 * float(theirs.abs().max()))


TO_THE_HOST = {
    "states": (with_states_on_host, lambda loop: int(1.1 * least_budget(loop))),
    "tapes": (partial(with_tapes_on_host, segment_steps=20), lambda loop: between(loop, 0.5)),
}
"""How a plan is made, and for which budget."""


@pytest.mark.parametrize("what", TO_THE_HOST)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_what_moves_to_pinned_memory_keeps_both_budgets(kind: str, what: str) -> None:
    """Measured on the device and on the host."""
    loop = fused(kind)
    make, budget_of = TO_THE_HOST[what]
    budget = budget_of(loop)
    plan, report = make(loop, budget)
    assert bool(plan.tiers) == (what == "states")
    assert bool(plan.most_archived) == (what == "tapes")
    planned(loop, plan)
    loop["module"].zero_grad(set_to_none=True)
    measured = measure(lambda: planned(loop, plan))
    assert measured.peak_bytes <= projected_peak_bytes(plan, report) <= budget
    assert 0 < measured.tier_peak_bytes["host"] <= HOST_BYTES


@pytest.mark.parametrize("what", TO_THE_HOST)
def test_no_more_is_pinned_while_the_device_is_an_iteration_behind(what: str) -> None:
    """What is given back before the copies in it are over would be pinned once more"""
    loop = fused("GRU")
    make, budget_of = TO_THE_HOST[what]
    plan, _ = make(loop, budget_of(loop))
    planned(loop, plan)
    pinned_bytes = of_pinned_memory("allocated_bytes.current")
    torch.cuda._sleep(10**9)  # half a second
    for _ in range(3):
        planned(loop, plan)
    assert of_pinned_memory("allocated_bytes.current") == pinned_bytes > 0


def test_what_is_pinned_for_a_probe_is_not_kept_beside_what_runs_take() -> None:
    """Nor where nothing moves to the host in the end"""
    unpin_unused(torch.device("cuda"))
    begun, begun_bytes = (of_pinned_memory(name) for name in ("num_host_alloc", "allocated_bytes.current"))
    loop = fused("LSTM")
    predict(**loop, budget=between(loop, 0.5), host_budget=HOST_BYTES)
    assert of_pinned_memory("num_host_alloc") > begun
    assert of_pinned_memory("allocated_bytes.current") == begun_bytes


def of_pinned_memory(name: str) -> int:
    """One of torch's counters."""
    if not hasattr(torch.cuda, "host_memory_stats"):
        pytest.skip("this torch does not tell what it has pinned")
    torch.cuda.init()
    found: int = torch.cuda.host_memory_stats()[name]
    return found


@pytest.mark.parametrize("what", TO_THE_HOST)
def test_gradients_after_a_journey_to_the_host_are_those_without(what: str) -> None:
    """Side streams and all: eight runs of the plan agree with the plan that tapes everything, and have the
    same loss, bit for bit.
    """
    loop = fused("GRU")
    make, budget_of = TO_THE_HOST[what]
    plan, _ = make(loop, budget_of(loop))
    parameters = list(loop["module"].parameters())
    everything = tape_everything(STEPS, plan.segment_steps)
    expected = torch.autograd.grad(unroll(**loop, plan=everything)[0], parameters)
    first = planned(loop, plan)
    for _ in range(8):
        loss, _ = unroll(**loop, plan=plan)
        assert torch.equal(loss, first)
        for ours, theirs in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_loop_of_cells_whose_tapes_move_has_the_gradients_of_full_bptt() -> None:
    """Fifteen saved tensors a step; every step runs once, so that the bits are those of the plain loop."""
    cell = torch.nn.LSTMCell(64, 64).cuda()
    inputs = torch.randn(STEPS, 8, 64, device="cuda")
    zero = torch.zeros(8, 64, device="cuda")

    def step(state: Any, x: torch.Tensor) -> Any:
        state = cell(x, state)
        return state, state[0].square().mean()

    loop = {"step": step, "state": (zero, zero.clone()), "inputs": inputs, "module": cell, "reduce": "sum"}
    plan, _ = with_tapes_on_host(loop, 2**30, segment_steps=10)
    everything = tape_everything(STEPS, 10)
    parameters = list(cell.parameters())
    for _ in range(5):
        found = torch.autograd.grad(unroll(**loop, plan=plan)[0], parameters)
        expected = torch.autograd.grad(unroll(**loop, plan=everything)[0], parameters)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("drop_in", "kind"), [(LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)])
def test_gradients_with_dropout_between_layers_are_those_of_the_loss(drop_in: Any, kind: Any) -> None:
    """Steps that run again drop what they dropped: against differences of the loss, from the same seed"""
    torch.manual_seed(1)
    torchs = kind(8, 16, 2, dropout=0.5, device="cuda", dtype=torch.float64)
    x = torch.randn(40, 4, 8, device="cuda", dtype=torch.float64, requires_grad=True)
    with pytest.raises(BudgetTooSmall) as refusal:
        drop_in.from_torch(torchs, budget=1)(x)
    module = drop_in.from_torch(torchs, budget=int(1.1 * refusal.value.minimum_budget_bytes))
    weights = torch.linspace(-1, 2, 16, device="cuda", dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        y, _ = module(x)
        return (y * weights).sum()

    (gradient,) = torch.autograd.grad(loss(x), x)
    direction = torch.randn_like(x)
    with torch.no_grad():
        ends = [(x + sign * 1e-5 * direction).requires_grad_() for sign in (1, -1)]
    difference = float((loss(ends[0]) - loss(ends[1])).detach()) / 2e-5
    assert difference == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
