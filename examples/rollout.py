"""An autoregressive rollout: a small convolutional surrogate of a flow, trained through 100 of its own steps.

The surrogate learns one step of advection and diffusion on a periodic grid. Trained on single steps it
drifts; trained through its own rollout it is corrected where it drifts, which needs the gradient through
every step.
"""

from __future__ import annotations

import torch
from side_by_side import Comparison, compare
from torch import Tensor, nn

from executor import unroll

STEPS, BATCH, GRID = 100, 4, 32
BUDGET = "12MiB"


class Surrogate(nn.Module):
    """One time step as a residual of two periodic convolutions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, padding_mode="circular"),
            nn.GELU(),
            nn.Conv2d(channels, 1, 3, padding=1, padding_mode="circular"),
        )

    def forward(self, field: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The field one step later, and its squared distance from the truth."""
        field = field + 0.1 * self.layers(field)
        return field, (field - truth).square().mean() / STEPS


def trajectory(field: Tensor) -> Tensor:
    """The true fields after steps 1..STEPS: upwind advection and diffusion, [STEPS, batch, 1, grid, grid]."""
    fields = []
    for _ in range(STEPS):
        advected = field - 0.2 * (field - field.roll(1, -1)) - 0.1 * (field - field.roll(1, -2))
        neighbours = sum(field.roll(shift, axis) for shift in (1, -1) for axis in (-1, -2))
        field = advected + 0.05 * (neighbours - 4 * field)
        fields.append(field)
    return torch.stack(fields)


def main(iterations: int = 10) -> Comparison:
    """Train from smooth random fields."""
    torch.manual_seed(0)
    surrogate = Surrogate()
    noise = torch.randn(BATCH, 1, GRID, GRID)
    start = nn.functional.avg_pool2d(nn.functional.pad(noise, (3, 3, 3, 3), mode="circular"), 7, stride=1) * 5
    truth = trajectory(start)

    def plain() -> Tensor:
        field, total = start, torch.zeros(())
        for target in truth:
            field, loss = surrogate(field, target)
            total = total + loss
        return total

    def budgeted() -> Tensor:
        total, _ = unroll(surrogate, start, truth, reduce="sum", budget=BUDGET, final_state="detached")
        return total

    parameters = list(surrogate.parameters())
    return compare(plain, budgeted, parameters=parameters, budget=BUDGET, iterations=iterations)


if __name__ == "__main__":
    print(main().table())
