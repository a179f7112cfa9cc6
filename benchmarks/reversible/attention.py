"""Measured activation bytes of an encoder that a decoder attends to, against stored hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reversible.floats import full_bptt_loss
from benchmarks.reversible.memory import activation_bytes
from executor.reversible import Reversible, RevGRU, RevLSTM
from executor.reversible.attention import Kept

SOURCE_STEPS, BATCH_SIZE, EMBEDDING_SIZE, VOCABULARY_SIZE = 2000, 16, 64, 1000
HIDDEN_SIZE, KEPT_UNITS = 300, 20
"""Those of the paper's smaller translation model: 300 units, of which 20 are kept."""
LIMITS = (2, 3)
TAPED_STEPS = 200
"""Steps of the full tape that is measured; it grows in proportion."""


def rows() -> Iterator[dict[str, Any]]:
    """Both cells and limits; the decoder is a gradient for what is kept and for the last state."""
    torch.manual_seed(0)
    tokens = torch.randint(VOCABULARY_SIZE, (SOURCE_STEPS, BATCH_SIZE))
    for limit in LIMITS:
        for kind in (RevGRU, RevLSTM):
            embedding = nn.Embedding(VOCABULARY_SIZE, EMBEDDING_SIZE)
            encoder = kind(EMBEDDING_SIZE, HIDDEN_SIZE, forget_bits=limit)
            both = nn.ModuleList([encoder, embedding])
            found = activation_bytes(both, partial(_encode, encoder, embedding, tokens))
            hidden = 4 * SOURCE_STEPS * BATCH_SIZE * HIDDEN_SIZE * len(encoder.state_names)
            tape = _full_tape_bytes(encoder)
            yield {
                "cell": kind.__name__,
                "forget_bits": limit,
                "source_steps": SOURCE_STEPS,
                "batch_size": BATCH_SIZE,
                "hidden_size": HIDDEN_SIZE,
                "kept_units": KEPT_UNITS,
                "segment_steps": encoder.segment_steps,
                "activation_bytes": found,
                "archived_bytes": encoder.archived_bytes,
                "kept_bytes": 4 * SOURCE_STEPS * BATCH_SIZE * KEPT_UNITS,
                "hidden_states_bytes": hidden,
                "hidden_states_ratio": hidden / found,
                "full_tape_ratio": tape / found,
            }


def _encode(encoder: Reversible, embedding: nn.Module, tokens: Tensor) -> None:
    """Forward and backward; the gradients that a decoder would give are as large as what it is given."""
    kept, state = encoder.collect(tokens, Kept(KEPT_UNITS), before=embedding)
    given = (kept, *state) if isinstance(state, tuple) else (kept, state)
    torch.autograd.backward(given, [torch.ones_like(part) for part in given])


def _full_tape_bytes(encoder: Reversible) -> float:
    """Of the same cell in floats, every step taped, at all source steps."""
    x = torch.randn(TAPED_STEPS, BATCH_SIZE, EMBEDDING_SIZE)
    targets = torch.randn(TAPED_STEPS, BATCH_SIZE, HIDDEN_SIZE)
    taped = activation_bytes(encoder, lambda: full_bptt_loss(encoder, x, targets).backward())
    return taped / TAPED_STEPS * SOURCE_STEPS
