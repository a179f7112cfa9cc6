"""Packed batches of any lengths stay inside the budget, one module after another batch's plan."""

from __future__ import annotations

import gc
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from executor import GRU, LSTM, BudgetTooSmall, measure
from executor.fused.kernels import kernels_for

KINDS = {"LSTM": (nn.LSTM, LSTM), "GRU": (nn.GRU, GRU)}
STEPS, BATCH, INPUT, HIDDEN = 20, 16, 6, 12
SHORT, FULL = [STEPS] + [1] * (BATCH - 1), [STEPS] * BATCH
HALF = [STEPS] + [STEPS // 2] * (BATCH - 1)
RAGGED = torch.linspace(STEPS, 1, BATCH).long().tolist()
pytestmark = pytest.mark.usefixtures("one_thread")


def packed_of(lengths, *, needs_gradient=False, batch=BATCH, **kind):
    x = torch.randn(STEPS, batch, INPUT, **kind)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return packed._replace(data=packed.data.detach().requires_grad_(needs_gradient))


def least_budget(kind, plain, call):
    with pytest.raises(BudgetTooSmall) as refusal:
        call(KINDS[kind][1].from_torch(plain, budget=1))
    return refusal.value.minimum_budget_bytes


def train(module, packed):
    """Every output and every final state, and gradients of all of them."""
    y, state = module(packed)
    outputs = [y.data, *(state if isinstance(state, tuple) else (state,))]
    torch.autograd.backward(outputs, [torch.ones_like(part) for part in outputs])
    return outputs


def peak_bytes(module, packed):
    """Of a call like one before, so that nothing is probed in it."""
    module.zero_grad(set_to_none=True)
    packed.data.grad = None
    gc.collect()
    peak = measure(lambda: train(module, packed)).peak_bytes
    module.zero_grad(set_to_none=True)
    return peak


@pytest.mark.parametrize("kernels", ["own", "torch's"])
@pytest.mark.parametrize(("kind", "options"), [("LSTM", {}), ("GRU", {"bidirectional": True})], ids=str)
def test_every_batch_is_within_the_budget_whatever_came_before(kind, options, kernels, monkeypatch):
    """Short, full, half and ragged, through one module"""
    if kernels == "torch's":
        monkeypatch.setattr("executor.fused.choice.kernels_for", lambda _dtype: None)
    plain = KINDS[kind][0](INPUT, HIDDEN, **options)
    batches = [packed_of(lengths, needs_gradient=True) for lengths in (SHORT, FULL, HALF, RAGGED)]
    budget_bytes = max(least_budget(kind, plain, lambda m, b=each: m(b)) for each in batches) * 11 // 10
    module = KINDS[kind][1].from_torch(plain, budget=budget_bytes)
    for packed in batches:
        train(module, packed)
    assert all(peak_bytes(module, packed) <= budget_bytes for packed in batches)


@pytest.mark.parametrize("lengths", [[5, 4, 2, 2, 2], [5, 5, 5, 5, 4], [5, 1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_named_least_budget_of_a_tiny_ragged_batch_is_enough(kind, lengths):
    """In torch's kernels steps differ, which the shortest segments alone do not show: all are looked at"""
    packed = pack_padded_sequence(torch.randn(5, 5, 2), lengths)
    plain = KINDS[kind][0](2, 1)
    train(KINDS[kind][1].from_torch(plain, budget=least_budget(kind, plain, lambda m: m(packed))), packed)


@pytest.mark.parametrize("kind", KINDS)
def test_states_in_another_order_count(kind):
    """In a batch that is not sorted both states are copied: in one step that is more than the slack"""
    plain = KINDS[kind][0](15, 23, dtype=torch.float64)
    packed = pack_padded_sequence(torch.randn(1, 5, 15, dtype=torch.float64), [1] * 5, enforce_sorted=False)
    state = [torch.randn(1, 5, 23, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    hx = tuple(state) if kind == "LSTM" else state[0]
    budget_bytes = least_budget(kind, plain, lambda module: module(packed, hx))
    module = KINDS[kind][1].from_torch(plain, budget=budget_bytes)

    def call():
        y, after = module(packed, hx)
        outputs = [y.data, *(after if kind == "LSTM" else [after])]
        torch.autograd.backward(outputs, [torch.ones_like(part) for part in outputs])
        return outputs

    for leaf in (*plain.parameters(), *state):
        leaf.grad = None
    call()
    for leaf in (*plain.parameters(), *state):
        leaf.grad = None
    gc.collect()
    assert measure(call).peak_bytes <= budget_bytes


needs_compiler = pytest.mark.skipif(kernels_for(torch.float64) is None, reason="there is no C compiler")
shared = {}


def drop_in(kind, bidirectional, share):
    """A module for all examples: what it learned of one batch is used for the next."""
    key = kind, bidirectional, share
    if key not in shared:
        plain = KINDS[kind][0](INPUT, HIDDEN, bidirectional=bidirectional, dtype=torch.float64)
        packed = packed_of(SHORT, needs_gradient=True, dtype=torch.float64)
        budget_bytes = int(least_budget(kind, plain, lambda module: module(packed)) * share)
        shared[key] = plain, KINDS[kind][1].from_torch(plain, budget=budget_bytes), budget_bytes
    return shared[key]


@needs_compiler
@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["LSTM", "GRU"]),
    bidirectional=st.booleans(),
    share=st.sampled_from([1, 1.5]),
    lengths=st.lists(st.integers(1, STEPS), min_size=BATCH - 1, max_size=BATCH - 1),
)
def test_our_kernels_need_the_same_budget_for_all_lengths(kind, bidirectional, share, lengths):
    """The least budget of short sequences holds any: the peak is within it, and results are torch's"""
    plain, module, budget_bytes = drop_in(kind, bidirectional, share)
    packed = packed_of([STEPS, *lengths], needs_gradient=True, dtype=torch.float64)
    leaves = [packed.data, *plain.parameters()]
    found, expected = [], []
    for call, results in ((module, found), (plain, expected)):
        for leaf in leaves:
            leaf.grad = None
        results += [*train(call, packed), *(leaf.grad for leaf in leaves)]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    del found, expected, results
    assert peak_bytes(module, packed) <= budget_bytes


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_other_lengths_are_not_probed_in_our_kernels(threads, monkeypatch):
    """One plan serves every batch of that shape, whatever the number of threads"""
    torch.set_num_threads(threads)
    module = LSTM.from_torch(nn.LSTM(INPUT, HIDDEN), budget="1MiB")
    train(module, packed_of(RAGGED))
    planning = import_module("executor.predict")  # the package has a function of that name
    monkeypatch.setattr(planning, "best_plan", lambda *_given, **_options: pytest.fail("planned anew"))
    for lengths in (SHORT, FULL, HALF):
        train(module, packed_of(lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_threads_keeps_to_the_budget(kind, monkeypatch):
    """Where our kernels cannot share the work torch's run with several, and the plan for one is too large for
    their tapes
    """
    kernels = kernels_for(torch.float32)
    if kernels is not None:
        monkeypatch.setattr(kernels, "most_threads", 1)
    plain, x = KINDS[kind][0](INPUT, HIDDEN), torch.randn(STEPS, BATCH, INPUT)
    torch.set_num_threads(2)
    budget_bytes = 3 * least_budget(kind, plain, lambda module: module(x))
    module = KINDS[kind][1].from_torch(plain, budget=budget_bytes)

    def call():
        module(x)[0].sum().backward()

    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        call()
        module.zero_grad(set_to_none=True)
        gc.collect()
        assert measure(call).peak_bytes <= budget_bytes
        module.zero_grad(set_to_none=True)
