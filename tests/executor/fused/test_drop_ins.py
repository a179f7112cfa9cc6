"""The drop-ins on our kernels are the torch modules, inside a budget."""

import pytest
import torch
from torch import nn

from executor import GRU, LSTM, BudgetTooSmall, measure
from executor.fused.kernels import kernels_for

torch.set_num_threads(1)
STEPS, BATCH, INPUT, HIDDEN = 30, 8, 5, 12
CASES = [
    (nn.LSTM, LSTM, {"num_layers": 2}),
    (nn.LSTM, LSTM, {"bidirectional": True}),
    (nn.GRU, GRU, {"num_layers": 2, "bias": False, "batch_first": True}),
    (nn.GRU, GRU, {"bidirectional": True, "num_layers": 2}),
]

pytestmark = pytest.mark.skipif(kernels_for(torch.float64) is None, reason="there is no C compiler")


def problem(torch_class, options):
    module = torch_class(INPUT, HIDDEN, dtype=torch.float64, **options)
    shape = (BATCH, STEPS, INPUT) if module.batch_first else (STEPS, BATCH, INPUT)
    return module, torch.randn(shape, dtype=torch.float64, requires_grad=True)


def tight_budget(drop_in_class, module, x):
    """A tenth more than the least."""
    with pytest.raises(BudgetTooSmall) as caught:
        drop_in_class.from_torch(module, budget=1)(x)
    return caught.value.minimum_budget_bytes * 11 // 10


def results(call, module, x):
    """Output, final state and all gradients."""
    output, final = call(x)
    finals = final if isinstance(final, tuple) else (final,)
    loss = sum((part.sin() * (1 + part)).sum() for part in (output, *finals))
    return [output, *finals, *torch.autograd.grad(loss, [x, *module.parameters()])]


@pytest.mark.parametrize(("torch_class", "drop_in_class", "options"), CASES)
def test_outputs_and_gradients_are_those_of_the_torch_module(torch_class, drop_in_class, options):
    """In a tight budget: to the rounding of float64 sums"""
    module, x = problem(torch_class, options)
    drop_in = drop_in_class.from_torch(module, budget=tight_budget(drop_in_class, module, x))
    found, expected = results(drop_in, module, x), results(module, module, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("torch_class", "drop_in_class"), [(nn.LSTM, LSTM), (nn.GRU, GRU)])
def test_a_call_stays_within_its_budget(torch_class, drop_in_class):
    """The measured peak is within a budget that full BPTT by torch's kernels exceeds"""
    module, x = problem(torch_class, {})
    budget_bytes = tight_budget(drop_in_class, module, x)
    drop_in = drop_in_class.from_torch(module, budget=budget_bytes)

    def peak_bytes(call):
        def iteration():
            for leaf in (x, *module.parameters()):
                leaf.grad = None
            output, _ = call(x)
            output.backward(torch.ones_like(output))

        iteration()
        return measure(iteration).peak_bytes

    assert peak_bytes(drop_in) <= budget_bytes < peak_bytes(module)


def test_without_a_compiler_torch_s_kernels_do_the_same(monkeypatch):
    """Where nothing can be compiled the drop-in falls back, with the same results"""
    module, x = problem(nn.LSTM, {})
    own = results(LSTM.from_torch(module, budget="2MB"), module, x)
    monkeypatch.setattr("executor.fused.choice.kernels_for", lambda _dtype: None)
    theirs = results(LSTM.from_torch(module, budget="2MB"), module, x)
    torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-13)


def across(name, weight):
    """The same numbers, not row by row in memory: transposed, or every second one of a longer bias."""
    if name.startswith("weight"):
        return weight.detach().t().contiguous().t()
    return torch.stack([weight.detach(), torch.zeros_like(weight)], dim=1)[:, 0]


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1", "bias_ih_l0", "bias_hh_l1"])
@pytest.mark.parametrize(("torch_class", "drop_in_class"), [(nn.LSTM, LSTM), (nn.GRU, GRU)])
def test_weights_may_lie_across_in_memory(torch_class, drop_in_class, name):
    """A transposed matrix, say of another framework, and a strided bias: values and gradients are torch's"""
    module, x = problem(torch_class, {"num_layers": 2})
    setattr(module, name, nn.Parameter(across(name, getattr(module, name))))
    assert not getattr(module, name).is_contiguous()
    drop_in = drop_in_class.from_torch(module, budget=tight_budget(drop_in_class, module, x))
    found, expected = results(drop_in, module, x), results(module, module, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_weights_laid_out_anew_after_the_first_call_are_planned_anew():
    """Torch's kernels keep more than ours: under the plan for a contiguous weight they exceed the budget"""
    module, x = problem(nn.LSTM, {})
    budget_bytes = 200_000
    drop_in = LSTM.from_torch(module, budget=budget_bytes)
    drop_in(x)[0].sum().backward()
    drop_in.weight_hh_l0 = nn.Parameter(across("weight_hh_l0", module.weight_hh_l0))

    def iteration():
        for leaf in (x, *drop_in.parameters()):
            leaf.grad = None
        drop_in(x)[0].sum().backward()

    iteration()
    assert measure(iteration).peak_bytes <= budget_bytes


@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0"])
@pytest.mark.parametrize(("torch_class", "drop_in_class"), [(nn.LSTM, LSTM), (nn.GRU, GRU)])
def test_weights_of_mixed_types_are_refused_as_torch_refuses_them(torch_class, drop_in_class, name):
    """One float64 weight in a float32 module: our kernels would read half of it as numbers"""
    module = torch_class(INPUT, HIDDEN)
    setattr(module, name, nn.Parameter(getattr(module, name).detach().double()))
    for each in (module, drop_in_class.from_torch(module, budget="1MiB")):
        with pytest.raises(RuntimeError, match=r"dtype|data type"):
            each(torch.randn(STEPS, BATCH, INPUT))
