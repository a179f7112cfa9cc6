"""The models that a job can name: a character model whose loss is computed inside each segment.

With the loss inside, a segment hands on its state and one number: neither outputs nor logits are kept
for all T steps, so memory is a matter of the plan alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from executor.jobs.job import ModelSpec
from executor.jobs.layers import State, layers_of, sparse_layers_of
from executor.replay import outputs_needed
from executor.sparse import SparsitySpec


class Window(NamedTuple):
    """What a stretch of text gives to read and to predict; int64 [steps, batch] each."""

    characters: Tensor
    following: Tensor

    @classmethod
    def of(cls, indices: Tensor) -> Window:
        """The window of T steps in indices [T + 1, batch], as views."""
        return cls(indices[:-1], indices[1:])


class CharacterModel(nn.Module):
    """Embedding, recurrent layers, linear head and cross-entropy over a vocabulary.

    With `sparsity` the gate gradients of the layers are sparsified; what a rule draws follows `seed`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        vocabulary_size: int,
        sparsity: SparsitySpec | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        dtype: torch.dtype = getattr(torch, spec.dtype)
        self.embedding = nn.Embedding(vocabulary_size, spec.embedding_size, dtype=dtype)
        sizes = (spec.embedding_size, spec.hidden_size, spec.num_layers)
        self._layers = (
            layers_of(spec.kind, *sizes, forget_bits=spec.forget_bits, dtype=dtype)
            if sparsity is None
            else sparse_layers_of(spec.kind, sizes, sparsity, seed=seed, dtype=dtype)
        )
        self.recurrent = self._layers.module
        self.head = nn.Linear(spec.hidden_size, vocabulary_size, dtype=dtype)

    def initial_state(self, *, batch_size: int) -> State:
        """The state before the first character: zeros."""
        return self._layers.initial_state(batch_size=batch_size)

    def segment(self, state: State, window: Window) -> tuple[State, Tensor | None]:
        """The state after the window and the sum of its losses, in nats, over steps and batch.

        A recomputation that needs only the state gets None for the loss.
        """
        state, y = self._recur(state, window)
        return state, self._loss(y, window) if outputs_needed() else None

    def full_loss(self, window: Window, *, segment_steps: int | None = None) -> Tensor:
        """Mean loss per character by plain full BPTT: one call of the torch module, every step taped.

        Reversible layers are called segment by segment of `segment_steps`, which decide how they round.
        """
        state = self.initial_state(batch_size=window.characters.shape[1])
        y = self._layers.whole(state, self.embedding(window.characters), segment_steps=segment_steps)
        return self._loss(y, window) / window.following.numel()

    def _recur(self, state: State, window: Window) -> tuple[State, Tensor]:
        return self._layers.segment(state, self.embedding(window.characters))

    def _loss(self, y: Tensor, window: Window) -> Tensor:
        # In float32 at least: a sum of many losses loses its last digits in half precision.
        logits = self.head(y).flatten(0, 1)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return nn.functional.cross_entropy(logits, window.following.flatten(), reduction="sum")

    @torch.no_grad()
    def evaluate(self, window: Window, *, segment_steps: int = 100) -> float:
        """Mean loss per character, in nats, in memory for `segment_steps` steps."""
        state = self.initial_state(batch_size=window.characters.shape[1])
        total = 0.0
        for start in range(0, window.characters.shape[0], segment_steps):
            part = Window(*(indices[start : start + segment_steps] for indices in window))
            state, y = self._recur(state, part)
            total += float(self._loss(y, part))
        return total / window.following.numel()
