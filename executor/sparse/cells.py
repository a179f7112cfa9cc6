"""SparseLSTMCell and SparseGRUCell: torch's cells for one step, whose gate gradients are sparsified.

For loops of one's own, and for `unroll`. Iterations are the caller's to end; in evaluation mode nothing is
dropped.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from executor.compiled import outside_compiled_graphs
from executor.drop_ins.given_state import parts_of_state
from executor.errors import StateChanged
from executor.sparse.accounting import IterationRecord
from executor.sparse.cell import Cell
from executor.sparse.chosen import chosen_sparsifier
from executor.sparse.gru import GruCell
from executor.sparse.lstm import LstmCell
from executor.sparse.position import KeepsPosition
from executor.sparse.rule import Rule
from executor.sparse.schedule import Schedule
from executor.sparse.segment import run_layer
from executor.torch_weights import TorchWeights


class SparseCell(KeepsPosition, nn.RNNCellBase):
    """What SparseLSTMCell and SparseGRUCell have in common; arguments as those of SparseRecurrence.

    Raises:
        InvalidSparsity: a rule or setting out of range.

    """

    exact_gradient: ClassVar[bool] = False
    cell: ClassVar[Cell]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rule: str | Rule = "rms",
        threshold: float | None = None,
        *,
        keep_ratio: float | None = None,
        row_ratio: float | None = None,
        share_steps: int | None = None,
        block_size: int | None = None,
        schedule: Schedule | None = None,
        error_feedback: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        sparsifier = chosen_sparsifier(
            self.cell,
            hidden_size,
            rule,
            threshold=threshold,
            keep_ratio=keep_ratio,
            row_ratio=row_ratio,
            share_steps=share_steps,
            block_size=block_size,
            schedule=schedule,
            error_feedback=error_feedback,
            seed=seed,
        )
        sizes: tuple[Any, ...] = (input_size, hidden_size)
        super().__init__(*sizes, **options)
        self.sparsifier = sparsifier

    @outside_compiled_graphs
    def forward(self, input: Tensor, hx: Any = None) -> Any:  # noqa: A002
        """Like the torch cell's, for x [B, input]: (h, c) of an LSTM, h of a GRU, each [B, H]; B may be
        missing everywhere.
        """
        is_tensor, features = isinstance(input, Tensor), self.input_size
        if not is_tensor or input.dim() not in (1, 2) or input.shape[-1] != features:
            kind = f"of shape {list(input.shape)}" if is_tensor else f"that is a {type(input).__name__}"
            raise StateChanged(f"input {kind} must be a tensor [batch, {features}] or [{features}]")
        if not input.numel():
            raise StateChanged(f"input of shape {list(input.shape)} is empty: give at least one row")
        is_batched, count = input.dim() == 2, len(self.cell.state_names)
        x = input if is_batched else input.unsqueeze(0)
        zeros = torch.zeros(len(x), self.hidden_size, dtype=self.weight_hh.dtype, device=x.device)
        given = (zeros,) * count if hx is None else parts_of_state(hx, self.cell.state_names)
        if hx is not None and not is_batched:
            given = tuple(part.unsqueeze(0) for part in given)
        weights = TorchWeights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        sparsifier = self.sparsifier if self.training else None
        y, after = run_layer(self.cell, sparsifier, x.unsqueeze(0), given, weights, layer="cell")
        parts = (y.squeeze(0), *after[1:])
        parts = parts if is_batched else tuple(part.squeeze(0) for part in parts)
        return parts if count > 1 else parts[0]

    def end_iteration(self) -> IterationRecord | None:
        """Close the iteration and get its counts; see `Sparsifier.end_iteration`."""
        return self.sparsifier.end_iteration()


class SparseLSTMCell(SparseCell, nn.LSTMCell):
    """A torch.nn.LSTMCell with sparsified gate gradients."""

    cell: ClassVar[Cell] = LstmCell()


class SparseGRUCell(SparseCell, nn.GRUCell):
    """A torch.nn.GRUCell with sparsified gate gradients."""

    cell: ClassVar[Cell] = GruCell()
