"""Learning to learn: the initial weights and step sizes of 200 steps of an inner optimiser.

The inner loop trains a small network by gradient descent; the outer loss is how well that network does
afterwards. Its gradient runs through every inner step, and each of those holds a gradient of its own.
"""

from __future__ import annotations

import torch
from side_by_side import Comparison, compare
from torch import Tensor, nn
from torch.func import grad

from executor import unroll
from planner_service.chain.quantities import parse_bytes

STEPS, TASK_POINTS, HIDDEN = 200, 64, 64
TEST_POINTS = 200
BUDGET = "3MiB"
OUTER_LOSS_BYTES = 4 * TEST_POINTS * HIDDEN * 4
"""The loss after the loop is the caller's own: it and its backward hold up to four hidden layers."""

Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def predict(weights: Weights, x: Tensor) -> Tensor:
    """A network with one hidden layer."""
    w_in, b_in, w_out, b_out = weights
    return torch.tanh(x @ w_in + b_in) @ w_out + b_out


def task_loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error."""
    return (predict(weights, x) - y).square().mean()


class InnerOptimiser(nn.Module):
    """Gradient descent with a learned step size for each tensor, from learned initial weights."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(1, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)]
        self.initial = nn.ParameterList(0.5 * torch.randn(shape) for shape in shapes)
        self.log_rates = nn.Parameter(torch.full((len(shapes),), -4.0))

    def forward(self, weights: Weights, batch: tuple[Tensor, Tensor]) -> tuple[Weights, None]:
        """One inner step on one batch; nothing is put out."""
        gradients = grad(task_loss)(weights, *batch)
        rates = self.log_rates.exp()
        after = tuple(w - rate * g for w, rate, g in zip(weights, rates, gradients, strict=True))
        return after, None


def main(iterations: int = 10) -> Comparison:
    """Learn to fit a sine wave from noisy batches."""
    torch.manual_seed(0)
    optimiser = InnerOptimiser()
    x = 4 * torch.rand(STEPS, TASK_POINTS, 1) - 2
    y = torch.sin(2 * x) + 0.1 * torch.randn_like(x)
    test_x = torch.linspace(-2, 2, TEST_POINTS).unsqueeze(1)
    test_y = torch.sin(2 * test_x)

    def plain() -> Tensor:
        weights: Weights = tuple(optimiser.initial)
        for batch in zip(x, y, strict=True):
            weights, _ = optimiser(weights, batch)
        return task_loss(weights, test_x, test_y)

    def budgeted() -> Tensor:
        budget_bytes = parse_bytes(BUDGET) - OUTER_LOSS_BYTES
        _, weights = unroll(optimiser, tuple(optimiser.initial), (x, y), budget=budget_bytes)
        return task_loss(weights, test_x, test_y)

    parameters = list(optimiser.parameters())
    return compare(
        plain,
        budgeted,
        parameters=parameters,
        budget=BUDGET,
        iterations=iterations,
        learning_rate=0.03,
    )


if __name__ == "__main__":
    print(main().table())
