"""Measured activation bytes of an encoder that a decoder attends to, against stored hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reversible.floats import full_bptt_loss
from benchmarks.reversible.memory import activation_bytes
from executor.reversible import Reversible, RevGRU, RevLSTM
from executor.reversible.attention import Kept

SOURCE_STEPS, BATCH_SIZE, EMBEDDING_SIZE, VOCABULARY_SIZE = 2000, 32, 64, 1000
HIDDEN_SIZE = 300
"""Of the paper's smaller translation model."""
CASES = ((2, 10), (3, 10), (3, 20))
"""Forgotten bits and kept units; the paper keeps 20."""
TAPED_STEPS = 200
"""Steps of the full tape that is measured; it grows in proportion."""


def rows(done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Both cells; instead of a decoder there is a gradient of what is kept and of the last state.

    Without the cases that are `done`.
    """
    seen = {(row["cell"], row["forget_bits"], row["kept_units"]) for row in done}
    torch.manual_seed(0)
    tokens = torch.randint(VOCABULARY_SIZE, (SOURCE_STEPS, BATCH_SIZE))
    for limit, kept_units in CASES:
        for kind in (RevGRU, RevLSTM):
            if (kind.__name__, limit, kept_units) in seen:
                continue
            embedding = nn.Embedding(VOCABULARY_SIZE, EMBEDDING_SIZE)
            encoder = kind(EMBEDDING_SIZE, HIDDEN_SIZE, forget_bits=limit)
            both = nn.ModuleList([encoder, embedding])
            found = activation_bytes(both, partial(_encode, encoder, embedding, tokens, kept_units))
            hidden = 4 * SOURCE_STEPS * BATCH_SIZE * HIDDEN_SIZE * len(encoder.state_names)
            tape = _full_tape_bytes(encoder)
            yield {
                "cell": kind.__name__,
                "forget_bits": limit,
                "source_steps": SOURCE_STEPS,
                "batch_size": BATCH_SIZE,
                "hidden_size": HIDDEN_SIZE,
                "kept_units": kept_units,
                "segment_steps": encoder.segment_steps,
                "activation_bytes": found,
                "archived_bytes": encoder.archived_bytes,
                "kept_bytes": 4 * SOURCE_STEPS * BATCH_SIZE * kept_units,
                "hidden_states_bytes": hidden,
                "hidden_states_ratio": hidden / found,
                "full_tape_ratio": tape / found,
            }


def _encode(encoder: Reversible, embedding: nn.Module, tokens: Tensor, kept_units: int) -> None:
    """Forward and backward; the gradients that a decoder would give are as large as what it is given."""
    kept, state = encoder.collect(tokens, Kept(kept_units), before=embedding)
    given = (kept, *state) if isinstance(state, tuple) else (kept, state)
    torch.autograd.backward(given, [torch.ones_like(part) for part in given])


def _full_tape_bytes(encoder: Reversible) -> float:
    """Of the same cell in floats, every step taped, at all source steps."""
    x = torch.randn(TAPED_STEPS, BATCH_SIZE, EMBEDDING_SIZE)
    targets = torch.randn(TAPED_STEPS, BATCH_SIZE, HIDDEN_SIZE)
    taped = activation_bytes(encoder, lambda: full_bptt_loss(encoder, x, targets).backward())
    return taped / TAPED_STEPS * SOURCE_STEPS
