"""Drop-ins stay inside the least budget that they name, however their input lies in memory."""

from __future__ import annotations

import gc

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

from executor import GRU, LSTM, RNN, BudgetTooSmall, measure  # noqa: E402

KINDS = {"LSTM": (nn.LSTM, LSTM), "GRU": (nn.GRU, GRU), "RNN": (nn.RNN, RNN)}
STEPS, BATCH = 40, 16


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def least_budget(kind, plain, call):
    with pytest.raises(BudgetTooSmall) as refusal:
        call(KINDS[kind][1].from_torch(plain, budget=64))
    return refusal.value.minimum_budget_bytes


def assert_within(kind, plain, call):
    """The second call, which is measured, needs no probe."""
    budget_bytes = least_budget(kind, plain, call)
    module = KINDS[kind][1].from_torch(plain, budget=budget_bytes)
    call(module)
    plain.zero_grad()
    gc.collect()
    assert measure(lambda: call(module)).peak_bytes <= budget_bytes


@pytest.mark.parametrize("needs_gradient", [False, True])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=["one", "both"])
@pytest.mark.parametrize(("kind", "inputs", "hidden"), [("LSTM", 96, 16), ("GRU", 16, 32), ("RNN", 96, 16)])
def test_a_packed_batch_counts_what_it_is_unpacked_to(kind, inputs, hidden, options, needs_gradient):
    """Padded inputs and outputs, and the gradients of both, are part of the call"""
    plain = KINDS[kind][0](inputs, hidden, **options)
    lengths = torch.linspace(STEPS, 1, BATCH).long()
    x = torch.randn(STEPS, BATCH, inputs, requires_grad=needs_gradient)
    packed = pack_padded_sequence(x.detach().requires_grad_(needs_gradient), lengths)
    assert_within(
        kind, plain, lambda module: module(packed)[0].data.square().sum().backward(retain_graph=True)
    )


@pytest.mark.parametrize("reduce", ["weighted", "mean"])
@pytest.mark.parametrize("layout", ["batch first", "features first"])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_counts_copies_of_what_lies_across(kind, layout, reduce):
    """Inputs, and the gradients of the outputs, are strided as batch_first makes them"""
    plain = KINDS[kind][0](16, 48, batch_first=True)
    x = torch.randn(BATCH, STEPS, 16)
    x = x.permute(2, 0, 1).contiguous().permute(1, 2, 0) if layout == "features first" else x
    weights = torch.randn(BATCH, STEPS, 48)

    def call(module):
        y, _ = module(x)
        (y.mean() if reduce == "mean" else (y * weights).sum()).backward()

    assert_within(kind, plain, call)


@pytest.mark.parametrize("kind", KINDS)
def test_another_layout_of_the_same_shape_is_probed_anew(kind):
    """Copies that a strided input needs are counted, also after a call that needed none"""
    plain = KINDS[kind][0](64, 16)
    strided = torch.randn(64, BATCH, STEPS).permute(2, 1, 0)
    with pytest.raises(BudgetTooSmall) as refusal:
        KINDS[kind][1].from_torch(plain, budget=64)(strided)
    module = KINDS[kind][1].from_torch(plain, budget=refusal.value.minimum_budget_bytes)
    for x in (strided.contiguous(), strided):
        module(x)[0].sum().backward()
        plain.zero_grad()
    gc.collect()
    measured = measure(lambda: module(strided)[0].sum().backward())
    assert measured.peak_bytes <= refusal.value.minimum_budget_bytes
