"""Reversible and sparse layers under torch.compile: they run as they are, outside of every compiled graph."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from executor.reversible import RevGRU, RevLSTM  # noqa: E402
from executor.sparse import SparseGRU, SparseGRUCell, SparseLSTM, SparseLSTMCell  # noqa: E402

from .built import HIDDEN, INPUT, Head, build, sequence  # noqa: E402

torch.set_num_threads(1)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself


@pytest.fixture
def graphs():
    """The graphs that are compiled within the test."""
    torch._dynamo.reset()
    found = []
    yield found
    torch._dynamo.reset()


def compiled(function, graphs):
    def keep(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    return torch.compile(function, backend=keep)


def results(module, loss):
    module.zero_grad()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in module.parameters())]


def assert_all_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [RevGRU, RevLSTM])
def test_reversible_layers_in_a_compiled_model_give_the_same_bits(kind, graphs):
    """Traced, their kernels in C were given addresses of copies that were gone when these read them"""
    module, x = build(kind, 3), sequence()

    def loss(x):
        return (module(x * 2)[0] * 3).sum()

    expected = results(module, loss(x))
    assert_all_equal(results(module, compiled(loss, graphs)(x)), expected)
    assert len(graphs) == 2  # what is before the layers, and what is after


@pytest.mark.parametrize("kind", [RevGRU, RevLSTM])
def test_segments_and_sums_of_compiled_callers_give_the_same_bits(kind, graphs):
    module, head, x = build(kind, 3), Head(), sequence().detach()
    targets = torch.randint(11, x.shape[:2])

    def total(x):
        state, y = module.segment(module.initial_state(x.shape[1]), x * 2)
        _, last = module.step(state, x[0])
        kept = module.collect(x, nn.Identity())[0]
        return module.reduce(x, targets, head.eval())[0] + y.square().sum() + (last + kept).sum()

    expected = results(module, total(x))
    assert_all_equal(results(module, compiled(total, graphs)(x)), expected)


def test_a_compiled_backward_pass_gives_the_same_bits(graphs):
    """Traced, it asked for bits that were never archived"""
    module, x = build(RevGRU, 3), sequence()

    def train(x):
        module.zero_grad()
        module(x)[0].square().sum().backward()

    train(x)
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    with torch._dynamo.config.patch(compiled_autograd=True):
        compiled(train, graphs)(x)
    assert graphs
    assert_all_equal([parameter.grad for parameter in module.parameters()], expected)


@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU, SparseLSTMCell, SparseGRUCell])
def test_sparse_layers_are_no_part_of_a_compiled_graph(kind, graphs):
    """Which iteration it is, and what a rule draws, would be values of the day on which they were traced"""
    module = kind(INPUT, HIDDEN, rule="top")
    x, state = torch.randn(20, 3, INPUT), tuple(torch.zeros(1, 3, HIDDEN) for _ in kind.cell.state_names)

    def loss(x):
        if isinstance(module, nn.RNNBase):
            return module.segment(state, x * 2)[1].square().sum()
        return module(x[0] * 2)[0].square().sum()

    expected = results(module, loss(x))
    module.sparsifier.restart(0)
    assert_all_equal(results(module, compiled(loss, graphs)(x)), expected)
    assert (
        len(graphs) <= 2
    )  # before the layer and after it; of functions with recurrent modules torch makes none
