"""Layers on top of each other, in one direction of time or in both, over the weights of a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from executor.sparse.cell import Cell, State
from executor.sparse.segment import run_layer
from executor.sparse.sparsifier import Sparsifier
from executor.torch_weights import TorchWeights

StackedState = tuple[Tensor, ...]
"""Like State, with a first dimension of layers, or of layers and directions in torch's order."""


def weights_named(module: nn.Module, name: str) -> TorchWeights:
    """Weights of the layer called `name` (l0, l1_reverse, …), looked up anew so that they may be swapped."""
    parts: list[Any] = [getattr(module, f"{kind}_{name}", None) for kind in TorchWeights._fields]
    return TorchWeights(*parts)


def run_stack(
    module: nn.RNNBase, cell: Cell, sparsifier: Sparsifier | None, x: Tensor, state: StackedState
) -> tuple[Tensor, StackedState]:
    """All layers of `module` over x [k, B, input]; y [k, B, H], or [k, B, 2H] with two directions."""
    finals: list[State] = []
    suffixes = ("", "_reverse") if module.bidirectional else ("",)
    for layer in range(module.num_layers):
        if layer and module.dropout:
            x = nn.functional.dropout(x, module.dropout, module.training)
        outputs = []
        for suffix in suffixes:
            name = f"l{layer}{suffix}"
            initial = tuple(part[len(finals)] for part in state)
            in_order = x.flip(0) if suffix else x
            y, final = run_layer(cell, sparsifier, in_order, initial, weights_named(module, name), layer=name)
            outputs.append(y.flip(0) if suffix else y)
            finals.append(final)
        x = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
    return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
