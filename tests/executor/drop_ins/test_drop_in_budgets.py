"""Drop-ins stay inside the least budget that they name, however their input lies in memory."""

from __future__ import annotations

import gc

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence  # noqa: E402

from executor import GRU, LSTM, RNN, BudgetTooSmall, measure  # noqa: E402
from executor.drop_ins.kernel_types import in_types_of_kernels  # noqa: E402
from tests.executor.autocast_on_cpu import with_lstm_in_autocast  # noqa: E402

KINDS = {"LSTM": (nn.LSTM, LSTM), "GRU": (nn.GRU, GRU), "RNN": (nn.RNN, RNN)}
STEPS, BATCH = 40, 16
pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("trained", ["reverse", "l0", "l1"])
def test_the_least_budget_is_that_of_the_neediest_chain(trained):
    """Of a bidirectional module in which one direction, or one layer, trains: it works and names itself"""
    plain = nn.GRU(8, 9, num_layers=2, bidirectional=True)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(trained in name)
    x = torch.randn(30, 4, 8)
    assert_within("GRU", plain, lambda module: module(x)[0].sum().backward())


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}], ids=["one", "both"])
def test_where_nothing_needs_a_gradient_there_is_no_plan(options):
    """Frozen weights run as under no_grad, in a budget that no plan fits into, and settle no share"""
    plain = nn.LSTM(32, 32, **options)
    x = torch.randn(200, 8, 32)
    settled = LSTM.from_torch(plain, budget="60%")
    settled(x)[0].sum().backward()
    (expected,) = settled._settled_bytes.values()
    module, shared = LSTM.from_torch(plain, budget=64), LSTM.from_torch(plain, budget="60%")
    plain.requires_grad_(False)
    with torch.no_grad():
        without = module(x)[0]
    assert torch.equal(module(x)[0], without)
    shared(x)
    plain.requires_grad_(True)
    with torch.inference_mode():
        shared(x)
    shared(x)[0].sum().backward()
    assert list(shared._settled_bytes.values()) == [expected]


def test_a_share_is_settled_anew_where_other_weights_train():
    """What full BPTT keeps for one layer is not the budget of two"""
    plain = nn.LSTM(32, 32, num_layers=2)
    x = torch.randn(100, 8, 32)
    module = LSTM.from_torch(plain, budget="60%")
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_("l1" in name)
    module(x)[0].sum().backward()
    plain.requires_grad_(True)
    module(x)[0].sum().backward()
    one, both = module._settled_bytes.values()
    assert one < both


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("is_packed", [False, True])
def test_an_initial_state_that_the_call_makes_counts(kind, steps, is_packed):
    """Where the caller gives none it is live from start to end: in tiny models that is more than the slack"""
    plain = KINDS[kind][0](8, 8)
    x = torch.randn(steps, BATCH, 8)
    given = pack_padded_sequence(x, [steps] * BATCH) if is_packed else x

    def call(module):
        y, _ = module(given)
        (y.data if is_packed else y).sum().backward()

    assert_within(kind, plain, call)


@with_lstm_in_autocast
def test_what_types_kernels_return_is_asked_of_small_ones():
    """Under autocast every call began with a step whose kernels copied all weights: above the budget of a
    module with frozen ones, whose gradients take nothing
    """
    module = nn.LSTM(64, 96).requires_grad_(False)
    x = torch.randn(1, 1, 64, requires_grad=True)
    state = (torch.zeros(1, 1, 96), torch.zeros(1, 1, 96))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (chain,) = LSTM.from_torch(module, budget=1)._chains()
        asked = measure(lambda: in_types_of_kernels(chain, x, state, None), device="cpu")
    assert [part.dtype for part in asked.result] == [torch.bfloat16, torch.bfloat16]
    assert asked.peak_bytes < 2 * sum(weight.numel() for weight in module.parameters())
