"""Gradients of parameters add up in place, step by step, in the order of full BPTT."""

import pytest
import torch
from torch import nn

from executor import BudgetTooSmall, measure, predict, unroll
from executor.plan import checkpoint_every, tape_everything

STEPS, BATCH, SIZE = 12, 2, 5


def gradients(module, plan, step):
    """Of all parameters, for the sum of squares of the states."""
    module.zero_grad(set_to_none=True)
    x = torch.linspace(-1, 1, STEPS * BATCH * SIZE).view(STEPS, BATCH, SIZE)
    loss, _ = unroll(step, torch.zeros(BATCH, SIZE), x, plan=plan, module=module, reduce="sum")
    loss.backward()
    return [parameter.grad for parameter in module.parameters()]


def step_of(module, cell):
    """A step whose output is not the state itself, so that every sum is full BPTT's."""
    return lambda h, x_t: ((after := cell(x_t, h)), (2 * after).square().sum())


@pytest.mark.parametrize("segment_steps", [2, 4, 5])
def test_gradients_of_longer_tapes_are_bitwise_those_of_single_steps(segment_steps):
    """However many steps a tape has, each step's gradient is added to the total on its own"""
    cell = nn.GRUCell(SIZE, SIZE)
    step = step_of(cell, cell)
    single = gradients(cell, tape_everything(STEPS, 1), step)
    for plan in (tape_everything(STEPS, segment_steps), checkpoint_every(STEPS, segment_steps, 1)):
        found = gradients(cell, plan, step)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, single, strict=True))


class Scaled(nn.Parameter):
    """Products with it are three times as large, and a number is noted on it."""

    @classmethod
    def __torch_function__(cls, function, types, given=(), options=None):
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*given, **(options or {}))
            return 3 * result if function is torch.matmul else result


@pytest.mark.parametrize("segment_steps", [1, 4])
def test_a_parameter_of_a_class_of_its_own_has_its_say(segment_steps):
    """Steps saw plain parameters without attributes in its place: gradients off by their own size"""
    torch.manual_seed(0)
    module, x = nn.Module(), torch.randn(STEPS, SIZE, SIZE, dtype=torch.float64)
    module.w = Scaled(torch.randn(SIZE, SIZE, dtype=torch.float64) * 0.1)
    module.w.noted = 5.0

    def step(h, x_t):
        h = torch.tanh(torch.matmul(h, module.w) * module.w.noted + x_t)
        return h, h.square().sum()

    zeros = torch.zeros_like(x[0])
    loss, _ = unroll(step, zeros, x, plan=tape_everything(STEPS, segment_steps), module=module, reduce="sum")
    found = torch.autograd.grad(loss, module.w)
    h, total = zeros, 0
    for x_t in x:
        h, y = step(h, x_t)
        total = total + y
    torch.testing.assert_close(found, torch.autograd.grad(total, module.w), rtol=1e-12, atol=0)


@pytest.mark.parametrize("segment_steps", [1, 4])
def test_a_parameter_that_no_step_uses_gets_no_gradient(segment_steps):
    """None, as under autograd, rather than zeros"""
    module = nn.ModuleList([nn.GRUCell(SIZE, SIZE), nn.Linear(2, 2, bias=False)])
    found = gradients(module, checkpoint_every(STEPS, segment_steps, 1), step_of(module, module[0]))
    assert found[-1] is None
    assert all(gradient is not None for gradient in found[:-1])


@pytest.mark.parametrize("segment_steps", [1, 4])
def test_sparse_gradients_stay_sparse(segment_steps):
    """An embedding that asks for them gets them, with the values of the dense ones"""
    found = {}
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding = nn.Embedding(7, SIZE, sparse=sparse)

        def step(h, x_t, embedding=embedding):
            after = torch.tanh(h + embedding(torch.tensor([1, 3])) * x_t)
            return after, after.square().sum()

        (found[sparse],) = gradients(embedding, checkpoint_every(STEPS, segment_steps, 1), step)
    assert found[True].is_sparse
    torch.testing.assert_close(found[True].to_dense(), found[False])


def test_a_long_tape_holds_no_second_set_of_gradients():
    """With weights that outweigh the tape, tapes of twelve steps peak where tapes of one step do"""
    cell = nn.GRUCell(64, 64)
    step = step_of(cell, cell)
    x = torch.randn(STEPS, 1, 64)

    def peak_bytes(segment_steps):
        def iteration():
            cell.zero_grad(set_to_none=True)
            plan = tape_everything(STEPS, segment_steps)
            loss, _ = unroll(step, torch.zeros(1, 64), x, plan=plan, module=cell, reduce="sum")
            loss.backward()

        iteration()
        return measure(iteration).peak_bytes

    weight_bytes = cell.weight_hh.nbytes
    assert peak_bytes(STEPS) <= peak_bytes(1) + weight_bytes // 4


@pytest.mark.parametrize("budgeted", ["segment", "step"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_torchs_recurrent_modules_never_find_their_weights_changed(kind, budgeted, monkeypatch):
    """In a step, and afterwards: on CUDA they would copy all of them, into bytes that no plan counts"""
    module = kind(SIZE, SIZE, num_layers=2, bidirectional=True)
    before, copies = list(module._flat_weights), []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda _module: copies.append(1))
    used = []

    def segment(h, x):
        output, h = module(x, h)
        used.append(all(mine is getattr(module, name) for mine, name in weights_of(module)))
        return h, output.square().sum()

    def step(h, x_t):
        return segment(h, x_t.unsqueeze(0))

    state = torch.zeros(4, BATCH, SIZE)
    state = (state, state) if kind is nn.LSTM else state
    x = torch.randn(STEPS, BATCH, SIZE)
    how = {"step": None, "segment": segment} if budgeted == "segment" else {"step": step}
    plan = checkpoint_every(STEPS, 4, 2)
    loss, _ = unroll(**how, state=state, inputs=x, module=module, reduce="sum", plan=plan)
    loss.backward()
    module(x)
    assert copies == []
    assert used
    assert all(used)
    assert all(mine is theirs for mine, theirs in zip(module._flat_weights, before, strict=True))
    assert all(parameter.grad is not None for parameter in module.parameters())


def weights_of(module):
    """The list that the kernels get, with the names of the parameters."""
    return zip(module._flat_weights, module._flat_weights_names, strict=True)


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_that_are_views_of_something_larger_keep_no_more_than_themselves(shared):
    """The gradient of a prompt that is joined to the states kept theirs alive: 30 % above the budget"""
    module, x = nn.Module(), torch.randn(STEPS, SIZE)
    module.prompt = nn.Parameter(torch.randn(1, SIZE))
    module.other = nn.Parameter(torch.randn(1, SIZE))
    zeros = torch.zeros(400, SIZE)

    def step(h, x_t):
        tokens = [module.prompt, module.other] if shared else [module.prompt]
        joined = torch.tanh(torch.cat([*tokens, h]) + x_t)
        return joined[len(tokens) :] + joined[: len(tokens)].mean(0), None

    loop = {"module": module, "final_state": "differentiable"}
    with pytest.raises(BudgetTooSmall) as refused:
        predict(step, zeros, x, budget=1, **loop)
    budget = refused.value.minimum_budget_bytes
    weights = torch.ones_like(zeros)

    def train():
        _, last = unroll(step, zeros, x, budget=budget, **loop)
        last.backward(weights)

    train()
    module.zero_grad(set_to_none=True)
    assert measure(train, device="cpu").peak_bytes <= budget
    assert module.prompt.grad.untyped_storage().nbytes() == module.prompt.nbytes
