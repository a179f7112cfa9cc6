"""A neural ordinary differential equation, solved with 400 fixed steps of the classical Runge-Kutta method.

The gradient is that of the discrete solution, exactly: no adjoint equation is integrated backwards, so
nothing drifts. Each step evaluates the network four times; a tape holds all four.
"""

from __future__ import annotations

import torch
from side_by_side import Comparison, compare
from torch import Tensor, nn

from executor import unroll

STEPS, BATCH, HIDDEN, STEP_SECONDS = 400, 64, 64, 0.025
BUDGET = "3MiB"


class Dynamics(nn.Module):
    """The right-hand side: a network with one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2))

    def forward(self, x: Tensor) -> Tensor:
        """dx/dt."""
        return self.layers(x)


def runge_kutta(dynamics: nn.Module | object, x: Tensor) -> Tensor:
    """The state after one step of the classical fourth-order method."""
    h = STEP_SECONDS
    k1 = dynamics(x)
    k2 = dynamics(x + h / 2 * k1)
    k3 = dynamics(x + h / 2 * k2)
    k4 = dynamics(x + h * k3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def van_der_pol(x: Tensor) -> Tensor:
    """The true right-hand side."""
    position, speed = x.unbind(-1)
    return torch.stack([speed, (1 - position.square()) * speed - position], dim=-1)


def main(iterations: int = 10) -> Comparison:
    """Learn the van der Pol oscillator from whole trajectories."""
    torch.manual_seed(0)
    dynamics = Dynamics()
    start = 4 * torch.rand(BATCH, 2) - 2
    truth, x = [], start
    for _ in range(STEPS):
        x = runge_kutta(van_der_pol, x)
        truth.append(x)
    observed = torch.stack(truth)

    def step(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        x = runge_kutta(dynamics, x)
        return x, (x - target).square().mean() / STEPS

    def plain() -> Tensor:
        x, total = start, torch.zeros(())
        for target in observed:
            x, loss = step(x, target)
            total = total + loss
        return total

    def budgeted() -> Tensor:
        total, _ = unroll(
            step, start, observed, module=dynamics, reduce="sum", budget=BUDGET, final_state="detached"
        )
        return total

    parameters = list(dynamics.parameters())
    return compare(plain, budgeted, parameters=parameters, budget=BUDGET, iterations=iterations)


if __name__ == "__main__":
    print(main().table())
