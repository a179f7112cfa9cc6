"""Tensors without values, and tensors that wrap others"""

from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from executor import GRU, unroll
from executor.reversible import RevGRU
from executor.sparse import SparseGRU, SparseLSTM

BUDGET = "100KiB"


def recurrent(weight):
    """A step of h = tanh(x + v·(h W)) and its module."""
    module = nn.Module()
    module.w, module.v = weight, nn.Parameter(torch.ones(5, dtype=torch.float64))

    def step(h, x):
        h = torch.tanh(x + module.v * (h @ getattr(module.w, "a", module.w)))
        return h, h.square().mean()

    return module, step


@pytest.mark.parametrize("tensors", ["meta", "fake"])
def test_tensors_without_values_have_shapes_and_no_plan(tensors):
    """A model that is put together on the meta device, or looked at with fake tensors"""
    with torch.device("meta") if tensors == "meta" else FakeTensorMode():
        module = GRU.from_torch(nn.GRU(4, 5), budget=BUDGET)
        x, h = torch.empty(12, 3, 4), torch.empty(1, 3, 5)
        with pytest.raises(TypeError, match="no values"):
            module(x, h)
        with torch.no_grad():
            assert module(x, h)[0].shape == (12, 3, 5)


@pytest.mark.parametrize("tensors", ["meta", "fake"])
@pytest.mark.parametrize("kind", [RevGRU, partial(RevGRU, budget=BUDGET), SparseLSTM, SparseGRU])
def test_layers_that_go_by_values_refuse_tensors_without(kind, tensors):
    """Kernels were given addresses where nothing is: the process ended"""
    with torch.device("meta") if tensors == "meta" else FakeTensorMode():
        module, x = kind(4, 6), torch.empty(12, 3, 4)
        for context in (torch.enable_grad, torch.no_grad):
            with context(), pytest.raises(TypeError, match=r"no values, and a (reversible|sparse) layer"):
                module(x)


def test_a_wrapped_weight_may_be_seen_and_not_be_trained():
    """Quantized weights are such tensors"""
    torch.manual_seed(0)
    weight, x = torch.randn(5, 5, dtype=torch.float64) * 0.3, torch.randn(12, 3, 5, dtype=torch.float64)
    zeros = torch.zeros(3, 5, dtype=torch.float64)
    found = []
    for each in (weight, TwoTensor(weight, weight.clone())):
        module, step = recurrent(nn.Parameter(each, requires_grad=False))
        loss, _ = unroll(step, zeros, x, module=module, reduce="sum", budget=BUDGET)
        found.append(torch.autograd.grad(loss, module.v)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)
    module.w.requires_grad_()
    with pytest.raises(TypeError, match="a TwoTensor has no memory of its own"):
        unroll(step, zeros, x, module=module, reduce="sum", budget=BUDGET)
    with pytest.raises(TypeError, match="a TwoTensor has no memory of its own"):
        unroll(lambda h, _: (h, h), TwoTensor(zeros, zeros.clone()), x, budget=BUDGET)
