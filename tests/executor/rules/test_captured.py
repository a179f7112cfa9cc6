"""Captured tensors: each gets its own gradient, whatever else gets the same one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor import CaptureError, DependentCaptures, unroll  # noqa: E402
from executor.plan import checkpoint_every, tape_everything  # noqa: E402

STEPS = 40


class Sums(nn.Module):
    """Two parameters of the state's shape: autograd gives one and the same tensor to both."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(3, 8, dtype=torch.float64) * 0.3)
        self.q = nn.Parameter(torch.randn(3, 8, dtype=torch.float64) * 0.3)


def in_a_loop(step, state, inputs):
    outputs = []
    for x in inputs:
        state, y = step(state, x)
        outputs.append(y)
    return torch.stack(outputs), state


def gradients(run, leaves):
    for leaf in leaves:
        leaf.grad = None
    outputs, state = run()
    (outputs.square().sum() + state.sum()).backward()
    return [leaf.grad.clone() for leaf in leaves]


@pytest.mark.parametrize("budget", ["1MiB", "24KiB"])
@pytest.mark.parametrize("output", ["state", "sum of parameters", "number"])
def test_tensors_that_are_added_up_get_gradients_of_their_own(output, budget):
    """Where autograd hands one tensor to several, totals that share memory would be added to several times"""
    torch.manual_seed(0)
    module = Sums()
    captured = (torch.randn(8, dtype=torch.float64) * 0.3).requires_grad_()
    start = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(STEPS, 3, 8, dtype=torch.float64)

    def step(h, x):
        h = (h * 0.5 + module.p + module.q + captured + x).tanh()
        return h, {"state": h, "sum of parameters": h + module.p, "number": module.p.sum() + h.sum()}[output]

    leaves = [module.p, module.q, captured, start]
    expected = gradients(lambda: in_a_loop(step, start, inputs), leaves)
    for how in ({"budget": budget}, {"plan": tape_everything(STEPS, 1)}):
        found = gradients(
            lambda how=how: unroll(step, start, inputs, module=module, captured=[captured], **how), leaves
        )
        for mine, true in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-14)


def attending(keys):
    """A step that reads a memory and what `keys` makes of it."""
    memory = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(8, dtype=torch.float64)
    inputs = torch.randn(STEPS, 8, dtype=torch.float64)

    def run(how):
        seen, made = how(memory)

        def step(h, x):
            h = (h + x + (made @ h).softmax(0) @ seen).tanh()
            return h, h

        return step, (seen, made)

    def budgeted(how):
        step, captured = run(how)
        return unroll(step, start, inputs, captured=captured, budget="1MiB")

    def plain(how):
        return in_a_loop(run(how)[0], start, inputs)

    return memory, budgeted, plain, keys


@pytest.mark.parametrize(
    "keys",
    [lambda m: m + 1, lambda m: m.flip(0), lambda m: m.view(6, 8), lambda m: m * m],
    ids=["sum", "flip", "view", "product"],
)
def test_a_captured_tensor_made_of_another_is_refused_and_the_advice_works(keys):
    """Its gradient would reach the other twice; a copy beside it gets the right one"""
    torch.manual_seed(0)
    memory, budgeted, plain, _ = attending(keys)
    with pytest.raises(DependentCaptures, match=r"captured\[1\] .* computed from captured\[0\]"):
        budgeted(lambda m: (m, keys(m)))
    expected = gradients(lambda: plain(lambda m: (m, keys(m))), [memory])
    found = gradients(lambda: budgeted(lambda m: (m.clone(), keys(m))), [memory])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_two_made_of_one_are_independent_of_each_other():
    """Siblings may be captured: their parent gets both gradients from the caller's graph"""
    torch.manual_seed(0)
    memory, budgeted, plain, _ = attending(None)
    how = lambda m: tuple(part.contiguous() for part in torch.cat([m, m * 2], 1).chunk(2, 1))  # noqa: E731
    expected = gradients(lambda: plain(how), [memory])
    found = gradients(lambda: budgeted(how), [memory])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_tensor_given_twice_or_without_need_of_a_gradient_counts_as_it_should():
    """Twice is once; a frozen tensor among the captured ones is nobody's business"""
    torch.manual_seed(0)
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)
    frozen = torch.rand(8, dtype=torch.float64)
    inputs = torch.randn(STEPS, 8, dtype=torch.float64)
    start = torch.zeros(8, dtype=torch.float64)

    def step(h, x):
        h = (h * weight + x * frozen).tanh()
        return h, h

    expected = gradients(lambda: in_a_loop(step, start, inputs), [weight])
    for captured in ([weight, weight], [weight, frozen], [frozen, weight]):
        found = gradients(
            lambda captured=captured: unroll(step, start, inputs, captured=captured, budget="1MiB"), [weight]
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_hooks_of_a_captured_tensor_see_its_whole_gradient_once():
    """A reversal of the gradient on the way, a hook on a leaf, and a gradient that is retained"""
    torch.manual_seed(0)
    leaf = torch.rand(8, dtype=torch.float64, requires_grad=True)
    inputs, start = torch.randn(STEPS, 8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    calls, found = [], []
    leaf.register_hook(lambda gradient: calls.append("leaf") or 0.5 * gradient)
    for is_budgeted in (False, True):
        calls.clear()
        leaf.grad = None
        weight = leaf * 1.0
        weight.retain_grad()
        weight.register_hook(lambda gradient: calls.append("inner") or -gradient)

        def step(h, x, weight=weight):
            h = (h * weight + x).tanh()
            return h, h

        if is_budgeted:
            outputs, _ = unroll(step, start, inputs, captured=weight, budget="1MiB")
        else:
            outputs, _ = in_a_loop(step, start, inputs)
        outputs.square().sum().backward()
        found.append((weight.grad, leaf.grad))
        assert calls == ["inner", "leaf"]
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_weights_that_are_views_of_a_larger_one_are_named_and_may_be_captured():
    """As FSDP puts them into modules; a capture had no name, six times over"""
    torch.manual_seed(0)
    cell, flat = nn.GRUCell(3, 4).double(), torch.randn(84, dtype=torch.float64, requires_grad=True)
    del cell._parameters["weight_ih"], cell._parameters["weight_hh"]
    cell.weight_ih, cell.weight_hh = flat[:36].view(12, 3), flat[36:].view(12, 4)
    inputs, zeros = torch.randn(6, 2, 3, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)

    def step(state, x):
        state = cell(x, state)
        return state, state

    with pytest.raises(CaptureError, match=r"uses captured 'GRUCell.weight_ih' or .*weight_hh', which need"):
        unroll(step, zeros, inputs, module=cell, budget=2**30)
    views = [cell.weight_ih, cell.weight_hh]
    plan = checkpoint_every(6, 2, 1)
    found = gradients(lambda: unroll(step, zeros, inputs, module=cell, captured=views, plan=plan), [flat])
    torch.testing.assert_close(found, gradients(lambda: in_a_loop(step, zeros, inputs), [flat]))


@pytest.mark.parametrize("plan", [tape_everything(STEPS, 1), checkpoint_every(STEPS, 5, 2)])
def test_an_input_without_a_time_dimension_gets_its_gradient(plan):
    """A temperature, say, that all steps use: they were refused for a tensor that is not among the inputs"""
    start, x = (torch.randn(3, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inputs = {"x": x.expand(STEPS, 3, 8), "scale": scale}

    def step(state, given):
        state = torch.tanh(state * given["scale"] + given["x"])
        return state, state

    def plain():
        return in_a_loop(lambda state, x: step(state, {"x": x, "scale": scale}), start, inputs["x"])

    leaves = [start, x, scale]
    expected = gradients(plain, leaves)
    for named in ((), [scale]):
        found = gradients(lambda named=named: unroll(step, start, inputs, plan=plan, captured=named), leaves)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
