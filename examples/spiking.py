"""A recurrent network of leaky integrate-and-fire neurons over 1,000 steps, with a surrogate gradient.

A spike is a step function of the membrane voltage, which has no useful derivative; the backward pass
uses that of a fast sigmoid instead. Training needs the voltage of every neuron at every step: in a
budget, some are stored and the rest is run again.
"""

from __future__ import annotations

from typing import Any

import torch
from side_by_side import Comparison, compare
from torch import Tensor, nn

from executor import unroll

STEPS, BATCH, INPUTS, NEURONS, CLASSES = 1_000, 16, 40, 128, 4
BUDGET = "4MiB"
LEAK, THRESHOLD, SHARPNESS = 0.95, 1.0, 5.0


class Spike(torch.autograd.Function):
    """1 where the voltage is above the threshold; the derivative is that of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor) -> Tensor:
        """`distance` is voltage minus threshold."""
        ctx.save_for_backward(distance)
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The surrogate."""
        (distance,) = ctx.saved_tensors
        return gradient / (1 + SHARPNESS * distance.abs()).square()


class SpikingLayer(nn.Module):
    """Leaky integrate-and-fire neurons that see the input and each other's last spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.feed = nn.Linear(INPUTS, NEURONS)
        self.recur = nn.Linear(NEURONS, NEURONS, bias=False)
        self.read = nn.Linear(NEURONS, CLASSES)

    def forward(self, state: tuple[Tensor, Tensor], given: tuple[Tensor, Tensor]) -> tuple[Any, Tensor]:
        """One step: (voltage, spikes) and (input, label) to the next state and this step's loss."""
        voltage, spikes = state
        x, label = given
        voltage = LEAK * voltage * (1 - spikes) + 0.2 * (self.feed(x) + self.recur(spikes))
        spikes = Spike.apply(voltage - THRESHOLD)
        loss = nn.functional.cross_entropy(self.read(spikes), label) / STEPS
        return (voltage, spikes), loss


def main(iterations: int = 10) -> Comparison:
    """Random spike trains whose rates tell the class."""
    torch.manual_seed(0)
    layer = SpikingLayer()
    label = torch.arange(BATCH) % CLASSES
    rates = 0.02 + 0.3 * torch.rand(CLASSES, INPUTS).square()
    inputs = (torch.rand(STEPS, BATCH, INPUTS) < rates[label]).float()
    labels = label.expand(STEPS, BATCH).contiguous()
    silent = (torch.zeros(BATCH, NEURONS), torch.zeros(BATCH, NEURONS))

    def plain() -> Tensor:
        state, total = silent, torch.zeros(())
        for given in zip(inputs, labels, strict=True):
            state, loss = layer(state, given)
            total = total + loss
        return total

    def budgeted() -> Tensor:
        total, _ = unroll(
            layer, silent, (inputs, labels), reduce="sum", budget=BUDGET, final_state="detached"
        )
        return total

    parameters = list(layer.parameters())
    return compare(plain, budgeted, parameters=parameters, budget=BUDGET, iterations=iterations)


if __name__ == "__main__":
    print(main().table())
