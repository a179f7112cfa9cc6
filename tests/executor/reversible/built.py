"""Reversible modules as the tests build them, and inputs for them."""

from __future__ import annotations

import torch
from torch import nn

from executor.reversible import NFRevGRU, NFRevLSTM

STEPS, BATCH, INPUT, HIDDEN = 30, 3, 5, 8


def build(kind, forget_bits, *, layers=1, dtype=torch.float64, scale=2.0, **options):
    """A module with weights larger than usual, so that the gates move."""
    torch.manual_seed(3)
    limit = {} if kind in (NFRevGRU, NFRevLSTM) else {"forget_bits": forget_bits}
    module = kind(INPUT, HIDDEN, layers, **limit, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    return module


def sequence(dtype=torch.float64, steps=STEPS, batch=BATCH):
    return torch.randn(steps, batch, INPUT, dtype=dtype).requires_grad_()


class Head(nn.Module):
    """Logits and their loss, with dropout in front."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.3)
        self.linear = nn.Linear(HIDDEN, 11, dtype=torch.float64)

    def forward(self, y, targets):
        return nn.functional.cross_entropy(
            self.linear(self.dropout(y)).flatten(0, 1), targets.flatten(), reduction="sum"
        )
