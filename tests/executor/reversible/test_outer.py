"""Modules that run inside the segments, without a budget: buffers, random numbers, side effects, captures.

The reference runs the same segments with all tapes kept, in a loop of the test's own.
"""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.parametrizations import spectral_norm  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from executor import is_recomputing  # noqa: E402
from executor.errors import CaptureError, ModifiedBetweenPasses, ReplayError, UnsupportedOutput  # noqa: E402
from executor.reversible import InvalidReversible, RevGRU, RevLSTM  # noqa: E402
from executor.reversible.made import Made  # noqa: E402

from .built import BATCH, HIDDEN, INPUT, Head, build, sequence  # noqa: E402

torch.set_num_threads(1)

STEPS, SEGMENT = 30, 4


class Normalized(nn.Module):
    """Changes buffers with every call, and one more that it never changes."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, dtype=torch.float64)
        self.spectral = spectral_norm(nn.Linear(width, width, dtype=torch.float64))
        self.register_buffer("constant", torch.ones(1000, dtype=torch.float64))

    def forward(self, y):
        return self.spectral(self.norm(y.flatten(0, 1)).view_as(y)) * self.constant[0]


class Loss(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, y, targets):
        return (self.inner(y).sum(-1) - targets).square().sum()


def taped(layers, x, targets, after, before):
    """What `reduce` returns, from tapes."""
    state, total = layers.initial_state(x.shape[1]), 0
    for start in range(0, len(x), SEGMENT):
        steps = slice(start, start + SEGMENT)
        state, y = layers.segment(state, before(x[steps]))
        total = total + after(y, targets[steps])
    return total


def gradients_and_buffers(modules, loss):
    gradients = torch.autograd.grad(loss, [p for module in modules for p in module.parameters()])
    return gradients, [dict(module.named_buffers()) for module in modules]


@pytest.mark.parametrize("kind", [RevGRU, RevLSTM])
def test_buffers_are_updated_once_and_gradients_are_those_of_the_tape(kind):
    layers, x, targets = build(kind, 3), sequence(), torch.zeros(STEPS, BATCH, dtype=torch.float64)
    before, after = Normalized(INPUT), Loss(Normalized(HIDDEN))
    twins = copy.deepcopy((layers, before, after))
    loss, _ = layers.reduce(x, targets, after, before=before)
    found, buffers = gradients_and_buffers((layers, before, after), loss)
    expected_loss = taped(twins[0], x, targets, twins[2], twins[1])
    expected, expected_buffers = gradients_and_buffers(twins, expected_loss)
    assert torch.equal(loss, expected_loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    for one, other in zip(buffers, expected_buffers, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert after.inner.norm.num_batches_tracked == -(-STEPS // SEGMENT)


def test_only_buffers_that_change_are_kept():
    """And the tensors that were in the modules are in them afterwards: nobody else's view of them is lost."""
    layers, x, after = build(RevGRU, 3), sequence(), Normalized(HIDDEN)
    owned = dict(after.named_buffers())
    outputs, _ = layers.collect(x, after)
    taken = outputs.grad_fn.work.rewinding._taken
    changing = sum(buffer.nbytes for name, buffer in owned.items() if name != "constant")
    assert [sum(b.nbytes for b in each.buffers) for each in taken] == [changing] * len(taken)
    outputs.sum().backward()
    assert not taken
    assert all(buffer is owned[name] for name, buffer in after.named_buffers())


def test_nothing_is_kept_where_no_buffer_is():
    outputs, _ = build(RevGRU, 3).collect(sequence(), nn.Linear(HIDDEN, 3, dtype=torch.float64))
    assert not any(each.buffers or each.streams for each in outputs.grad_fn.work.rewinding._taken)


class Failing(nn.Module):
    """Counts its calls in a buffer, and fails at one of them."""

    def __init__(self, at):
        super().__init__()
        self.at = at
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, y):
        self.calls += 1
        if self.calls == self.at:
            raise ValueError("no more")
        return y


@pytest.mark.parametrize("at", [1, 3])
def test_a_forward_pass_that_fails_leaves_buffers_as_they_were(at):
    after = Failing(at)
    with pytest.raises(ValueError, match="no more"):
        build(RevGRU, 3).collect(sequence(), after)
    assert after.calls == 0


class Late(nn.Module):
    """Changes a buffer from its second call on."""

    def __init__(self):
        super().__init__()
        self.called = False
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, y):
        if self.called:
            self.scale += 1
        self.called = True
        return y * self.scale


def test_a_buffer_that_begins_to_change_is_refused():
    with pytest.raises(ReplayError, match="changed a buffer"):
        build(RevGRU, 3).collect(sequence(), Late())


class Noting(nn.Module):
    def __init__(self):
        super().__init__()
        self.notes = []
        self.linear = nn.Linear(INPUT, INPUT, dtype=torch.float64)

    def forward(self, y, *_targets):
        self.notes.append(is_recomputing())
        return self.linear(y) if y.shape[-1] == INPUT else y.square().sum()


def test_modules_can_tell_that_they_run_again():
    before, after = Noting(), Noting()
    loss, _ = build(RevGRU, 3).reduce(sequence(), torch.zeros(STEPS), after, before=before)
    loss.backward()
    segments = -(-STEPS // SEGMENT)
    assert before.notes == after.notes == [False] * segments + [True] * segments
    assert not is_recomputing()


class Drawing(nn.Module):
    """A loss that is multiplied by what a `source` of its own, or a hidden one, draws for each segment."""

    def __init__(self, source):
        super().__init__()
        self.linear = nn.Linear(HIDDEN, 3, dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(1) if source == "generator" else None
        self.own = np.random.default_rng(1) if source == "own" else None
        self.hidden = iter(range(1, 1000)) if source == "iterator" else None

    def forward(self, y, targets):
        loss = self.linear(y).sum(-1).sub(targets).square().sum()
        if self.generator is not None:
            return loss * torch.rand((), generator=self.generator)
        if self.own is not None:
            return loss * self.own.random()
        return loss * (random.random() if self.hidden is None else next(self.hidden))


@pytest.mark.parametrize("source", ["python", "generator", "own"])
def test_streams_of_python_numpy_and_the_modules_are_the_same_on_the_way_back(source):
    """They went on: the gradient was that of another loss."""
    layers, x, targets = build(RevGRU, 3), sequence(), torch.zeros(STEPS, BATCH, dtype=torch.float64)
    after = Drawing(source)
    twins = copy.deepcopy((layers, after))
    random.seed(3)
    loss, _ = layers.reduce(x, targets, after)
    at = random.random()
    loss.backward()
    random.seed(3)
    expected = taped(twins[0], x.detach(), targets, twins[1], nn.Identity())
    assert random.random() == at
    expected.backward()
    torch.testing.assert_close(after.linear.weight.grad, twins[1].linear.weight.grad)


def test_a_module_that_does_something_else_on_the_way_back_is_refused():
    layers, x, targets = build(RevGRU, 3), sequence(), torch.zeros(STEPS, BATCH, dtype=torch.float64)
    loss, _ = layers.reduce(x, targets, Drawing("iterator"))
    with pytest.raises(ReplayError, match="did not make the same of a segment on the way back"):
        loss.backward()


def test_rounding_on_the_way_back_is_no_other_result_where_outputs_are_normalised():
    """Their sums are rounding alone: no scale to compare sums with."""
    made = Made(1)
    outputs = torch.nn.functional.layer_norm(torch.randn(50, 64), (64,))
    made.note(0, outputs)
    made.note_again(0, outputs * (1 + 1e-6 * torch.rand_like(outputs)))
    made.check()
    made.note_again(0, 0.01 * torch.ones_like(outputs))
    with pytest.raises(ReplayError):
        made.check()


class Summed(nn.Module):
    def forward(self, y, targets):
        return (y - targets[..., None]).square().sum()


def test_a_loss_of_the_last_state_alone_leaves_the_outputs_aside():
    layers, x, targets = build(RevGRU, 3), sequence(), torch.zeros(STEPS, BATCH, dtype=torch.float64)
    twin = copy.deepcopy(layers)
    _, state = layers.reduce(x, targets, Summed())
    state.sum().backward()
    given, twin_x = x.grad, x.detach().requires_grad_()
    twin(twin_x)[1].sum().backward()
    assert torch.equal(given, twin_x.grad)


class Weighed(Summed):
    def __init__(self):
        super().__init__()
        self.weight, self.calls = 1.0, 0

    def forward(self, y, targets):
        self.calls += 1
        return super().forward(y, targets) * self.weight


def test_numbers_that_modules_read_are_those_of_the_way_forward_and_those_that_count_may_count():
    layers, x, targets = build(RevGRU, 3), sequence(), torch.zeros(STEPS, BATCH, dtype=torch.float64)
    after = Weighed()
    sum(layers.reduce(x, targets, after)[0] for _ in range(2)).backward()
    expected, x.grad = x.grad / 2, None
    loss, _ = layers.reduce(x, targets, after)
    after.weight = 2.0
    loss.backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-12, atol=1e-12)
    assert after.weight == 2.0


class Returning(nn.Module):
    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def forward(self, y, *_targets):
        return self.returned(y)


@pytest.mark.parametrize("budget", [None, "4MiB"])
@pytest.mark.parametrize("returned", [lambda _: None, lambda y: y[:1].sum(0), lambda y: y.sum((0, 1))])
def test_outputs_that_cannot_be_put_together_are_refused(returned, budget):
    with pytest.raises(UnsupportedOutput):
        build(RevGRU, 3, budget=budget).collect(sequence(), Returning(returned))


def test_losses_of_single_steps_are_no_sum_of_them():
    """The last segment is shorter: its losses were added to those of every step before."""
    layers, targets = build(RevGRU, 3), torch.zeros(STEPS - 1, BATCH)
    with pytest.raises(UnsupportedOutput, match="one number"):
        layers.reduce(sequence()[1:], targets, Returning(lambda y: y.sum((1, 2))))


def test_random_numbers_return_where_only_the_head_trains():
    """Layers in evaluation mode, a head with dropout."""
    layers, x, head = build(RevGRU, 3).eval(), sequence(), Head()
    targets = torch.randint(11, (STEPS, BATCH))

    def loss():
        torch.manual_seed(7)
        return layers.reduce(x, targets, head)[0]

    (found,) = torch.autograd.grad(loss(), head.linear.bias)
    direction, step = torch.randn(11, dtype=torch.float64), 1e-6
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            head.linear.bias.add_(direction, alpha=sign * step)
        ends.append(loss().item())
        with torch.no_grad():
            head.linear.bias.sub_(direction, alpha=sign * step)
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(found @ direction), rel=1e-6)


class Using(nn.Module):
    """Uses what it does not declare."""

    def __init__(self, used):
        super().__init__()
        self.used = [used]

    def forward(self, y, *_targets):
        (used,) = self.used
        return used(y) if isinstance(used, nn.Module) else y * used


@pytest.mark.parametrize(
    "used", [torch.ones((), dtype=torch.float64, requires_grad=True), nn.Linear(8, 8, dtype=torch.float64)]
)
def test_tensors_that_would_lose_their_gradient_are_refused(used):
    layers, x = build(RevGRU, 3), sequence()
    with pytest.raises(CaptureError, match=r"captured 'Using.used.* of shape .*shared="):
        layers.collect(x, Using(used))
    with torch.no_grad():
        layers.collect(x, Using(used))
    scale = x.detach().new_ones((), requires_grad=True)
    with pytest.raises(CaptureError, match=r"captured 'Using.used"):
        layers.reduce(x, torch.zeros(STEPS, BATCH), Summed(), before=Using(scale.exp()))


class Marked(nn.Module):
    """A loss of the steps whose targets are not 0."""

    def __init__(self, weight):
        super().__init__()
        self.used = [weight]

    def forward(self, y, targets):
        return (y[targets != 0] * self.used[0]).square().sum() if targets.any() else y.new_zeros(())


def test_segments_may_leave_their_steps_out_of_the_loss():
    layers, x = build(RevGRU, 3), sequence()
    targets = torch.zeros(STEPS, BATCH)
    targets[-1] = 1
    loss, _ = layers.reduce(x, targets, Marked(torch.tensor(2.0)))
    (found,) = torch.autograd.grad(loss, x)
    (expected,) = torch.autograd.grad((layers(x)[0][-1] * 2).square().sum(), x)
    assert torch.equal(found, expected)


class Shifted(nn.Module):
    """A weight that is the sum of two, and a loss of it and the outputs."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.base, self.change = (nn.Parameter(torch.randn(HIDDEN, dtype=torch.float64)) for _ in range(2))

    def forward(self, y, targets):
        return self.loss(y, self.base + self.change)


@pytest.mark.parametrize(
    "loss", [lambda y, weight: (y * weight).square().sum(), lambda y, weight: y.sum() + weight.sum()]
)
def test_parameters_that_are_added_up_get_a_gradient_each(loss):
    """Both were one tensor, to which every segment added twice; or one number, repeated, which failed."""
    layers, x, after = build(RevGRU, 3), sequence(), Shifted(loss)
    targets = torch.zeros(STEPS, BATCH)
    total, _ = layers.reduce(x, targets, after)
    found = torch.autograd.grad(total, list(after.parameters()))
    expected = torch.autograd.grad(taped(layers, x, targets, after, nn.Identity()), list(after.parameters()))
    torch.testing.assert_close(found, expected)


def test_what_only_a_later_segment_uses_is_refused_on_the_way_back():
    """Only the first segment was looked at: the gradient was lost without a word"""
    layers, targets = build(RevGRU, 3), torch.zeros(STEPS, BATCH)
    targets[-1] = 1
    loss, _ = layers.reduce(sequence(), targets, Marked(torch.tensor(2.0, requires_grad=True)))
    with pytest.raises(CaptureError, match=r"captured 'Marked.used"):
        loss.backward()


def test_what_is_no_module_is_refused():
    with pytest.raises(InvalidReversible, match=r"is a function, and must be a torch\.nn\.Module"):
        build(RevGRU, 3).collect(sequence(), lambda y: y[..., :2])


@pytest.mark.parametrize("budget", [None, "1MiB"])
def test_a_lazy_module_is_refused_until_it_has_parameters(budget):
    with pytest.raises(
        InvalidReversible, match="weight of a lazy module has no shape yet: call the module once"
    ):
        build(RevGRU, 3, budget=budget).collect(sequence(), nn.LazyLinear(2, dtype=torch.float64))


def test_outputs_may_be_changed_in_place_as_under_a_budget():
    """There was a complaint of a leaf, which the user does not see."""
    layers, x = build(RevGRU, 3), sequence()
    head = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(HIDDEN, 3, dtype=torch.float64))
    outputs, _ = layers.collect(x, head)
    leaves = [x, *layers.parameters(), *head.parameters()]
    found = torch.autograd.grad(outputs.sum(), leaves)
    expected = torch.autograd.grad(head(layers(x)[0] * 1).sum(), leaves)
    torch.testing.assert_close(found, expected)


def test_inputs_may_not_which_are_the_caller_s():
    x = sequence()
    before = x.detach().clone()
    with pytest.raises(RuntimeError, match="in-place"):
        build(RevGRU, 3).collect(x, nn.Identity(), before=nn.ReLU(inplace=True))
    assert torch.equal(x, before)


def test_targets_that_need_a_gradient_are_refused_where_they_get_none():
    layers, x = build(RevGRU, 3), sequence()
    targets = torch.zeros(STEPS, BATCH, dtype=torch.float64, requires_grad=True)
    with pytest.raises(InvalidReversible, match="the targets need a gradient"):
        layers.reduce(x, targets, Summed())


def test_a_pass_inside_a_checkpoint_of_torchs_own_is_the_same():
    layers, x, after = build(RevGRU, 3), sequence(), Loss(Normalized(HIDDEN)).eval()
    targets = torch.zeros(STEPS, BATCH, dtype=torch.float64)
    parameters = [*layers.parameters(), *after.parameters()]
    plain = torch.autograd.grad(layers.reduce(x, targets, after)[0], parameters)
    loss, _ = checkpoint(layers.reduce, x, targets, after, use_reentrant=False)
    inside = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(one, other) for one, other in zip(inside, plain, strict=True))


class Scaled(Head):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def forward(self, y, targets):
        return super().forward(y, targets) * self.scale


def layers_and_head(budget):
    return build(RevGRU, 3, budget=budget, segment_steps=SEGMENT), Scaled()


def summed(layers, head, between):
    """Gradients of a sum over segments; `between` is called between the passes."""
    torch.manual_seed(5)
    x, targets = sequence().detach(), torch.randint(11, (STEPS, BATCH))
    total, _ = layers.reduce(x, targets, head)
    between(layers, head, targets)
    return torch.autograd.grad(total, [*layers.parameters(), *head.parameters()])


BUDGETS = pytest.mark.parametrize("budget", [None, "4MiB"])


def to_evaluation(module, head, _targets):
    module.eval()
    head.eval()


def other_buffer(_module, head, _targets):
    head.scale = torch.zeros_like(head.scale)


@BUDGETS
@pytest.mark.parametrize("between", [to_evaluation, other_buffer])
def test_the_way_back_sees_the_modes_and_buffers_of_the_way_forward(budget, between):
    layers, head = layers_and_head(budget)  # both times: how segments are cut decides what dropout draws
    expected = summed(layers, head, lambda *_: None)
    torch.testing.assert_close(summed(layers, head, between), expected)


@pytest.mark.parametrize(
    "between",
    [lambda _module, _head, targets: targets.zero_(), lambda _module, head, _targets: head.scale.fill_(3)],
    ids=["targets", "buffer"],
)
def test_what_was_changed_in_place_between_the_passes_is_refused(between):
    with pytest.raises(ModifiedBetweenPasses, match="in place"):
        summed(*layers_and_head(None), between)
