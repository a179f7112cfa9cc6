"""Our kernels compute what torch's LSTM and GRU compute, forwards and backwards."""

import copy

import pytest
import torch
from torch import nn

from executor import DoubleBackward
from executor.errors import StateChanged
from executor.fused.kernels import kernels_for
from executor.fused.layer import advance_layer, run_layer
from executor.stages.parameters import Parameters
from executor.torch_weights import TorchWeights

MODULES = {"LSTM": nn.LSTM, "GRU": nn.GRU}
# Sums are added up in another order than torch's: equal to a few roundings of the largest element. In float32
# torch's own results are up to 1.2e-6 off (gradients of biases), so there its float64 ones are the oracle.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 1e-6}
# [steps, batch, input, hidden]: whole vectors; paddings and edges everywhere; one step; several blocks.
SIZES = [(7, 16, 32, 32), (5, 3, 5, 7), (9, 20, 17, 40), (1, 8, 33, 16), (40, 16, 4, 9)]

pytestmark = pytest.mark.skipif(kernels_for(torch.float32) is None, reason="there is no C compiler")


def weights_of(module):
    return TorchWeights(
        module.weight_ih_l0,
        module.weight_hh_l0,
        *([module.bias_ih_l0, module.bias_hh_l0] if module.bias else []),
    )


def run(module, x, state):
    """Our kernels in the place of `module`; the state as a tuple of [batch, hidden]."""
    return run_layer(kernels_for(x.dtype), module.mode, x, state, weights_of(module))


def run_torch(module, x, state):
    hx = tuple(part.unsqueeze(0) for part in state)
    y, after = module(x, hx if module.mode == "LSTM" else hx[0])
    after = after if module.mode == "LSTM" else (after,)
    return y, tuple(part[0] for part in after)


def problem(mode, sizes, dtype, **options):
    """A module, inputs and an initial state, all needing gradients."""
    steps, batch, inputs, hidden = sizes
    module = MODULES[mode](inputs, hidden, dtype=dtype, **options)
    x = torch.randn(steps, batch, inputs, dtype=dtype, requires_grad=True)
    parts = 2 if mode == "LSTM" else 1
    return module, x, tuple(torch.randn(batch, hidden, dtype=dtype, requires_grad=True) for _ in range(parts))


def gradients(runner, module, x, state):
    """Outputs, final state and all gradients of a loss that weighs each of them."""
    y, after = runner(module, x, state)
    loss = sum(
        (part * torch.linspace(-1, 2, part.numel()).to(part).view_as(part)).sum() for part in (y, *after)
    )
    return [y, *after, *torch.autograd.grad(loss, [x, *state, *module.parameters()])]


def in_float64(module, x, state):
    """The same problem in float64, on leaves of its own."""
    leaves = [leaf.detach().double().requires_grad_() for leaf in (x, *state)]
    return copy.deepcopy(module).double(), leaves[0], tuple(leaves[1:])


def require_close(found, expected, dtype):
    for mine, theirs in zip(found, expected, strict=True):
        scale = float(theirs.detach().abs().max())
        torch.testing.assert_close(mine.to(theirs), theirs, rtol=0, atol=TOLERANCES[dtype] * scale)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mode", MODULES)
def test_results_and_gradients_are_those_of_torch(mode, dtype, sizes):
    """Whatever the sizes: outputs, final state, gradients of inputs, state, weights and biases"""
    given = problem(mode, sizes, dtype)
    require_close(gradients(run, *given), gradients(run_torch, *in_float64(*given)), dtype)


@pytest.mark.parametrize("mode", MODULES)
def test_there_need_be_no_biases(mode):
    """A module without biases has its other gradients all the same"""
    given = problem(mode, SIZES[0], torch.float64, bias=False)
    require_close(gradients(run, *given), gradients(run_torch, *given), torch.float64)


@pytest.mark.parametrize("mode", MODULES)
def test_saturated_gates_are_those_of_torch(mode):
    """Sums of thousands saturate the gates and give neither an overflow nor a NaN"""
    module, x, state = problem(mode, SIZES[0], torch.float32)
    with torch.no_grad():
        x *= 1e5
    found, expected = gradients(run, module, x, state), gradients(run_torch, module, x, state)
    assert all(torch.isfinite(part).all() for part in found)
    # The sums themselves are in the ten thousands: their last digits are the gates' second.
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-2)


@pytest.mark.parametrize("mode", MODULES)
def test_a_nan_stays_one_in_its_sequence(mode):
    """A NaN in one sequence's input reaches all its later outputs and no other sequence's"""
    module, x, state = problem(mode, SIZES[2], torch.float32)
    x = x.detach().clone()
    x[3, 5, 0] = float("nan")
    with torch.no_grad():
        y, _ = run(module, x, state)
    isnan = torch.isnan(y)
    assert isnan[3:, 5].all()
    assert not isnan[:3].any()
    assert not isnan[:, :5].any()
    assert not isnan[:, 6:].any()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("place", ["input", "state"])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), "huge"])
@pytest.mark.parametrize("mode", MODULES)
def test_infinities_go_where_torch_s_go(mode, value, place, dtype):
    """A closed gate is 0, so that an infinity behind it is a NaN; what is large and finite stays so"""
    huge = 1e30 if dtype == torch.float32 else 1e300
    module, x, state = problem(mode, (9, 8, 6, 10), dtype)
    with torch.no_grad():
        (x[4, 3] if place == "input" else state[0][2])[2] = huge if value == "huge" else value
    found, expected = gradients(run, module, x, state), gradients(run_torch, module, x, state)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.isnan(), theirs.isnan())
        assert torch.equal(mine.isinf(), theirs.isinf())
        known = theirs.isfinite()
        scale = float(theirs.detach().nan_to_num(0.0, 0.0, 0.0).abs().max())
        torch.testing.assert_close(mine[known], theirs[known], rtol=0, atol=10 * TOLERANCES[dtype] * scale)


# How many of 20 sequences go on, step by step: vectors end, or parts of them, most at once; some never begin.
FALLING = [[20] * 4 + [17, 17, 16, 15, 3], [20, 1, 1], [9, 9, 8, 1], [1], [20, 19, 18, 10, 9, 8, 7, 1, 1]]


@pytest.mark.parametrize("sizes", FALLING, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mode", MODULES)
def test_sequences_may_end_before_others(mode, dtype, sizes):
    """Of each sequence its own steps alone: outputs, its last state, and all gradients, by torch's module"""
    module, x, state = problem(mode, (len(sizes), 20, 5, 7), dtype)

    def run_own(module, x, state):
        layer = (kernels_for(x.dtype), mode, x, state, weights_of(module), torch.tensor(sizes))
        y, after = run_layer(*layer)
        with torch.no_grad():
            advanced = advance_layer(*layer)
        assert all(torch.equal(one, other) for one, other in zip(after, advanced, strict=True))
        return y, after

    def run_each(module, x, state):
        outputs, finals = [], []
        for column in range(20):
            steps = sum(size > column for size in sizes)
            before = tuple(part[column : column + 1] for part in state)
            y, after = run_torch(module, x[:steps, column : column + 1], before) if steps else (None, before)
            rest = x.new_zeros(len(sizes) - steps, 1, 7)
            outputs.append(rest if y is None else torch.cat([y, rest]))
            finals.append(after)
        return torch.cat(outputs, 1), tuple(torch.cat(parts) for parts in zip(*finals, strict=True))

    found = gradients(run_own, module, x, state)
    require_close(found, gradients(run_each, *in_float64(module, x, state)), dtype)


@pytest.mark.parametrize("mode", MODULES)
def test_a_nan_of_a_sequence_that_ended_reaches_no_other(mode):
    """What its columns hold afterwards is no gradient's business"""
    module, x, state = problem(mode, (6, 20, 5, 7), torch.float32)
    with torch.no_grad():
        x[0, 19] = float("nan")
    y, _ = run_layer(
        kernels_for(x.dtype), mode, x, state, weights_of(module), torch.tensor([20, 19, 19, 19, 17, 3])
    )
    dx, dh = torch.autograd.grad(y[:, :19].sum(), [x, state[0]])
    assert y[:, :19].isfinite().all()
    assert dx[:, :19].isfinite().all()
    assert dh[:19].isfinite().all()


@pytest.mark.parametrize("wrong", [[3, 4], [17, 1], [1, 0], [16], [16, 16, 16]], ids=str)
def test_batch_sizes_that_the_kernels_would_read_or_write_past_are_refused(wrong):
    """They fall, from the batch at most to one at least, and there is one for every step"""
    module, x, state = problem("GRU", (2, 16, 5, 7), torch.float32)
    with pytest.raises(StateChanged, match="batch sizes must"):
        run_layer(kernels_for(x.dtype), "GRU", x, state, weights_of(module), torch.tensor(wrong))


@pytest.mark.parametrize("mode", MODULES)
def test_a_step_gives_the_same_bits_in_any_segment(mode):
    """Cut into segments, taped or not, the outputs are bitwise those of one call"""
    module, x, state = problem(mode, (12, 16, 9, 10), torch.float32)
    whole, final = run(module, x, state)
    for steps in (1, 5):
        cut, outputs = state, []
        for index, part in enumerate(x.split(steps)):
            with torch.set_grad_enabled(index % 2 == 0):
                y, cut = run(module, part, cut)
            outputs.append(y)
        assert torch.equal(torch.cat(outputs), whole)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(cut, final, strict=True))


@pytest.mark.parametrize("mode", MODULES)
def test_only_the_gradients_that_are_needed_are_computed(mode):
    """Frozen weights get none and change no other"""
    module, x, state = problem(mode, SIZES[1], torch.float64)
    module.weight_hh_l0.requires_grad_(False)
    y, _ = run(module, x.detach(), state)
    y.sum().backward()
    assert module.weight_hh_l0.grad is None
    found = module.weight_ih_l0.grad
    expected = torch.autograd.grad(run_torch(module, x, state)[0].sum(), module.weight_ih_l0)
    require_close([found], expected, torch.float64)


@pytest.mark.parametrize("mode", MODULES)
def test_gradients_of_shadows_add_up_in_place(mode):
    """Two segments add to one gradient of a shadow, which stays the same tensor"""
    module, x, state = problem(mode, SIZES[0], torch.float64)
    parameters = Parameters([module])
    with parameters.swapped():
        for _ in range(2):
            before = [shadow.grad for shadow in parameters.shadows]
            run(module, x, state)[0].sum().backward()
    assert all(shadow.grad is grad for shadow, grad in zip(parameters.shadows, before, strict=True))
    once = torch.autograd.grad(run_torch(module, x, state)[0].sum(), list(module.parameters()))
    require_close(parameters.take_gradients(), [2 * gradient for gradient in once], torch.float64)


def test_a_second_backward_is_refused():
    """The tape was turned into gradients: another pass would read those for gates"""
    module, x, state = problem("LSTM", SIZES[1], torch.float64)
    loss = run(module, x, state)[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(DoubleBackward):
        loss.backward()


def test_inputs_need_not_be_contiguous():
    """Batch first, expanded, every second step: values count, not layouts"""
    module, x, state = problem("GRU", (6, 16, 8, 8), torch.float64)
    strided = x.detach().transpose(0, 1).contiguous().transpose(0, 1)
    expected, _ = run(module, x, state)
    found, _ = run(module, strided, tuple(part.t().contiguous().t() for part in state))
    assert torch.equal(found, expected)
    found.sum().backward()  # the gradient comes as one expanded number


@pytest.mark.parametrize("mode", MODULES)
@pytest.mark.parametrize("advances", [False, True])
def test_states_and_weights_that_do_not_go_with_the_inputs_are_refused(mode, advances):
    """Of fewer or more sequences, other widths, types, numbers of parts: nothing is written past"""
    module, x, state = problem(mode, (3, 16, 5, 8), torch.float32)
    function = advance_layer if advances else run_layer

    def run_with(x, state):
        return function(kernels_for(x.dtype), mode, x, state, weights_of(module))

    for wrong in ((8, 8), (32, 8), (16, 4), (16,), (1, 16, 8)):
        with pytest.raises(StateChanged, match=r"the state is .*expected . of \[16, 8\]"):
            run_with(x, (*state[1:], torch.zeros(wrong)))
    with pytest.raises(StateChanged, match=r"torch\.float64"):
        run_with(x, tuple(part.double() for part in state))
    with pytest.raises(StateChanged, match="expected"):
        run_with(x, (*state, state[0]))
    with pytest.raises(StateChanged, match="weights of shapes"):
        run_with(x[:, :, :4], state)
    short = TorchWeights(*weights_of(module)[:3], torch.zeros(8))
    with pytest.raises(StateChanged, match=r"a bias of shape \[8\] must be \[(24|32)\]"):
        function(kernels_for(x.dtype), mode, x, state, short)
