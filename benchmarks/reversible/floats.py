"""The same cells in plain floating point under full BPTT: what a user would write without reversibility."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from executor.reversible import Reversible, RevGRU

Parts = tuple[Tensor, ...]


class SquareSum(nn.Module):
    """A loss without weights: half the sum of squares of y - targets."""

    def forward(self, y: Tensor, targets: Tensor) -> Tensor:
        """Of outputs and targets of one shape."""
        return 0.5 * (y - targets).square().sum()


def full_bptt_loss(module: Reversible, x: Tensor, targets: Tensor) -> Tensor:
    """SquareSum of the cell's outputs over all steps of x [T, B, input], every step taped by autograd.

    One layer, the weights of `module`; the inputs' products with the weights are computed for all steps at
    once, which is the fastest way to write it.
    """
    half = _gru_half if isinstance(module, RevGRU) else _lstm_half
    parts = module.cell.register_count
    slope = 1 - 2.0 ** -(module.cell.forget_bits or 10)
    upper, lower = module.weight_hh_l0.chunk(2)
    pres = torch.addmm(module.bias_l0, x.flatten(0, 1), module.weight_ih_l0.t()).view(*x.shape[:2], -1)
    first = second = tuple(x.new_zeros(x.shape[1], module.hidden_size // 2) for _ in range(parts))
    total = x.new_zeros(())
    for pre, target in zip(pres.unbind(0), targets.unbind(0), strict=True):
        pre_first, pre_second = pre.chunk(2, dim=1)
        first = half(pre_first, first, second[-1], upper, slope)
        second = half(pre_second, second, first[-1], lower, slope)
        y = torch.cat([first[-1], second[-1]], dim=1)
        total = total + 0.5 * (y - target).square().sum()
    return total


def _gru_half(pre: Tensor, own: Parts, other: Tensor, weight: Tensor, slope: float) -> Parts:
    split = 2 * other.shape[1]
    keep, reset = torch.addmm(pre[:, :split], other, weight[:split].t()).sigmoid().chunk(2, dim=1)
    keep = slope * keep + (1 - slope)
    candidate = torch.addmm(pre[:, split:], reset * other, weight[split:].t()).tanh()
    return (keep * own[0] + (1 - keep) * candidate,)


def _lstm_half(pre: Tensor, own: Parts, other: Tensor, weight: Tensor, slope: float) -> Parts:
    units = other.shape[1]
    gates = torch.addmm(pre, other, weight.t())
    admit, show, *forget = gates[:, :-units].sigmoid().chunk(4, dim=1)
    keep_cell, keep_hidden = (slope * gate + (1 - slope) for gate in forget)
    cell = keep_cell * own[0] + admit * gates[:, -units:].tanh()
    return cell, keep_hidden * own[1] + show * cell.tanh()
