"""Layers that cannot be differentiated twice refuse to be, whatever gradient comes in."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

from executor import LSTM, unroll  # noqa: E402
from executor.errors import DoubleBackward, UnsupportedTransform  # noqa: E402
from executor.fused.cells import LSTMCell  # noqa: E402
from executor.fused.kernels import kernels_for  # noqa: E402
from executor.reversible import RevGRU  # noqa: E402
from executor.sparse import SparseLSTM, SparseLSTMCell  # noqa: E402

torch.set_num_threads(1)

STEPS, BATCH, INPUT, HIDDEN = 3, 16, 5, 8
ZEROS = (torch.zeros(BATCH, HIDDEN),) * 2


def segment_of_reversible(x):
    layers = RevGRU(INPUT, HIDDEN)
    return layers.segment(layers.initial_state(BATCH), x)[1]


WAYS = {
    "reversible": lambda x: RevGRU(INPUT, HIDDEN)(x)[0],
    "reversible segment": segment_of_reversible,
    "sparse": lambda x: SparseLSTM(INPUT, HIDDEN)(x)[0],
    "sparse, evaluated": lambda x: SparseLSTM(INPUT, HIDDEN).eval()(x)[0],
    "sparse cell": lambda x: SparseLSTMCell(INPUT, HIDDEN)(x[0])[0],
}
if kernels_for(torch.float32) is not None:
    WAYS["fused cell"] = lambda x: LSTMCell.from_torch(nn.LSTMCell(INPUT, HIDDEN))(x[0], ZEROS)[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_with_a_graph_is_refused(way):
    """With a constant gradient coming in, too: a penalty on the gradient would be ignored without a word."""
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    with pytest.raises(DoubleBackward, match="create_graph=True"):
        torch.autograd.grad(WAYS[way](x).sum(), x, create_graph=True)
    torch.autograd.grad(WAYS[way](x).sum(), x)


def loop(x):
    return unroll(lambda s, x_t: (torch.tanh(s + x_t),) * 2, torch.zeros(BATCH, INPUT), x, budget="1MiB")[0]


TRANSFORMS = {
    "grad": torch.func.grad(lambda given: loop(given).sum()),
    "vmap": torch.func.vmap(loop),
    "jvp": lambda x: torch.func.jvp(loop, (x,), (x,)),
}


@pytest.mark.parametrize(("way", "what"), [("reversible segment", "reversible"), ("sparse cell", "sparse")])
def test_a_layer_under_a_transform_is_refused(way, what):
    """Torch said what a function of ours should override"""
    with pytest.raises(UnsupportedTransform, match=f"a {what} layer cannot run inside a transform"):
        torch.func.grad(lambda given: WAYS[way](given).sum())(torch.randn(STEPS, BATCH, INPUT))


def test_a_drop_in_under_a_transform_is_refused_without_gradients_too():
    """Torch said that `data` was not to be accessed"""
    lstm = LSTM.from_torch(nn.LSTM(INPUT, HIDDEN), budget="1MiB")
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(UnsupportedTransform, match="inside a transform"):
            torch.func.vmap(lambda x: lstm(x)[0])(torch.randn(2, STEPS, BATCH, INPUT))


# Forward mode loads decompositions that torch compiles with torch.jit.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_loop_under_a_transform_is_refused(transform):
    """With the way out, before anything is measured"""
    x = torch.randn(STEPS, BATCH, INPUT)
    with pytest.raises(UnsupportedTransform, match="ordinary Python loop"):
        TRANSFORMS[transform](x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("has_gradients", [True, False])
def test_a_tangent_is_not_lost_without_a_word(has_gradients):
    """Forward mode has no rule for a loop; without a tangent its context is no hindrance"""
    x = torch.randn(STEPS, BATCH, INPUT)
    with torch.set_grad_enabled(has_gradients), forward_ad.dual_level():
        loop(x)
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(UnsupportedTransform, match="tangent"):
            loop(dual)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_tangent_of_what_the_step_sees_is_not_lost_either():
    weight, x = torch.randn(INPUT, INPUT), torch.randn(STEPS, BATCH, INPUT)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, torch.ones_like(weight))
        with pytest.raises(UnsupportedTransform, match="tangent"):
            unroll(
                lambda s, x_t: (torch.tanh(s @ dual + x_t),) * 2,
                torch.zeros(BATCH, INPUT),
                x.requires_grad_(),
                budget="1MiB",
            )


@pytest.mark.parametrize("way", [loop, WAYS["reversible"]], ids=["loop", "reversible"])
def test_several_gradients_at_once_are_refused(way):
    """Torch's own words were about a function that the caller never called"""
    x = torch.randn(STEPS, BATCH, INPUT, requires_grad=True)
    y = way(x)
    with pytest.raises(UnsupportedTransform, match="is_grads_batched"):
        torch.autograd.grad(y, x, torch.stack([torch.ones_like(y)] * 2), is_grads_batched=True)
