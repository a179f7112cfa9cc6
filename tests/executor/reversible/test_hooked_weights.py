"""Weights that torch's older functions compute before a call of a module count in `reduce` and `collect`."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import prune, weight_norm  # noqa: E402

from executor.reversible import RevGRU  # noqa: E402

torch.set_num_threads(1)


class Total(nn.Module):
    def forward(self, y, targets=None):
        return y.sum() if targets is None else (y * targets).sum()


def normed(layers):
    return weight_norm(layers, "weight_hh_l0")


def pruned(layers):
    return prune.random_unstructured(layers, "weight_hh_l0", 0.5)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("budget", [None, "1MiB"])
@pytest.mark.parametrize("change", [normed, pruned])
def test_what_an_optimizer_changed_counts(change, budget):
    """It was the weights of the module's last call that `reduce` and `collect` went by"""
    torch.manual_seed(0)
    layers = change(RevGRU(4, 6, forget_bits=3, dtype=torch.float64, budget=budget))
    x, ones = torch.randn(8, 3, 4, dtype=torch.float64), torch.ones(8, 3, 6, dtype=torch.float64)
    for _step in range(2):  # a second backward pass through the norm of the first would fail
        layers.zero_grad()
        loss, _ = layers.reduce(x, ones, Total())
        loss.backward()
        with torch.no_grad():
            for parameter in layers.parameters():
                parameter.add_(parameter.grad, alpha=0.1)
    with torch.no_grad():
        reduced, _ = layers.reduce(x, ones, Total())
        collected, _ = layers.collect(x, nn.Identity())
        outputs, _ = layers(x)
    assert torch.equal(collected, outputs)
    torch.testing.assert_close(reduced, outputs.sum())
