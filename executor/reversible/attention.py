"""Sequence to sequence with attention: the encoder keeps a slice of its states, all else is reversed.

Source: MacKay et al. (2018), arXiv:1810.10999, and the authors' code: the decoder attends to the source's
embeddings and the first units of the encoder's top layer; attention is that of Luong, Pham, Manning (2015),
arXiv:1508.04025, "general" scores. It acts on the decoder's outputs, not on its state, so that it runs inside
the decoder's segments, and again on the way back.

Shapes: S source steps, T target steps, k steps of a segment, B batch, e embedding size, s kept units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from executor.reversible.errors import InvalidReversible
from executor.reversible.modules import Reversible

PADDING = 0
"""Index of no token: sources are padded with it in front, targets behind; it is neither read nor scored."""


class Kept(nn.Module):
    """The part of an encoder's outputs that a decoder may attend to: their first `units`."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def forward(self, y: Tensor) -> Tensor:
        """[k, B, s] of outputs y [k, B, hidden]."""
        return y[..., : self.units]


class AttentionHead(nn.Module):
    """Attention over embeddings and kept states of the source, logits of the next token and their loss.

    Embeddings are not kept for each source token: scores and contexts go by way of the vocabulary, whose
    embeddings are there anyway.
    """

    def __init__(
        self,
        source: nn.Embedding,
        *,
        hidden_size: int,
        kept_units: int,
        target_size: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.source, self.kept_units = source, kept_units
        width = source.embedding_dim + kept_units
        self.query = nn.Linear(hidden_size, width, bias=False)
        self.combine = nn.Linear(hidden_size + width, hidden_size)
        self.logits = nn.Linear(hidden_size, target_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, y: Tensor, targets: Tensor, kept: Tensor, tokens: Tensor) -> Tensor:
        """Loss in nats, summed, of outputs y [k, B, hidden] against targets [k, B].

        The memory is `kept` [S, B, s] of the encoder and its source `tokens` [S, B].
        """
        logits = self.scores(y, kept, tokens)
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=PADDING, reduction="sum"
        )

    def scores(self, y: Tensor, kept: Tensor, tokens: Tensor) -> Tensor:
        """Logits [k, B, target vocabulary]; arguments as in `forward`."""
        context = self._context(y, kept, tokens)
        combined = self.combine(torch.cat([context, y], dim=2)).tanh()
        logits: Tensor = self.logits(self.dropout(combined))
        return logits

    def _context(self, y: Tensor, kept: Tensor, tokens: Tensor) -> Tensor:
        """The attended memory [k, B, e + s] of each output."""
        embeddings = self.source.weight
        by_word, by_state = self.query(y).split([embeddings.shape[1], kept.shape[2]], dim=2)
        of_words = by_word @ embeddings.t()
        places = tokens.t().expand(len(y), -1, -1)
        scores = of_words.gather(2, places) + torch.einsum("kbs,tbs->kbt", by_state, kept)
        weights = scores.masked_fill(places == PADDING, -torch.inf).softmax(dim=2)
        words = torch.zeros_like(of_words).scatter_add(2, places, weights)
        return torch.cat([words @ embeddings, torch.einsum("kbt,tbs->kbs", weights, kept)], dim=2)


class Translator(nn.Module):
    """Encoder and decoder of one reversible kind, with attention.

    Args:
        layers: RevGRU or RevLSTM.
        source_size, target_size: tokens of either vocabulary, PADDING among them.
        embedding_size: of both vocabularies' embeddings.
        hidden_size: of encoder and decoder; even.
        kept_units: s, the units of the encoder's top layer that are kept at each step.
        dropout: probability of dropping an embedding's unit or one of those that make the logits.
        options: those of `layers`, forget_bits and num_layers say.

    Raises:
        InvalidReversible: kept_units out of range, and what `layers` refuses.

    """

    def __init__(
        self,
        layers: type[Reversible],
        *,
        source_size: int,
        target_size: int,
        embedding_size: int,
        hidden_size: int,
        kept_units: int,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if type(kept_units) is not int or not 1 <= kept_units <= hidden_size:
            raise InvalidReversible(f"kept_units={kept_units!r} must be in 1..hidden_size={hidden_size}")
        source, target = nn.Embedding(source_size, embedding_size), nn.Embedding(target_size, embedding_size)
        self.read = nn.Sequential(source, nn.Dropout(dropout))
        self.encoder = layers(embedding_size, hidden_size, **options)
        self.keep = Kept(kept_units)
        self.recall = nn.Sequential(target, nn.Dropout(dropout))
        self.decoder = layers(embedding_size, hidden_size, **options)
        self.head = AttentionHead(
            source, hidden_size=hidden_size, kept_units=kept_units, target_size=target_size, dropout=dropout
        )

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """Loss in nats, summed over the tokens target[1:] [T, B], each after those before it.

        `source` [S, B] and `target` [T + 1, B] are indices; see PADDING.
        """
        kept, state = self.encode(source)
        total, _ = self.decoder.reduce(
            target[:-1], target[1:], self.head, before=self.recall, state=state, shared=(kept, source)
        )
        return total

    def encode(self, source: Tensor) -> tuple[Tensor, Any]:
        """What is kept of the encoder's steps, [S, B, s], and its last state: the decoder's first.

        Raises InvalidReversible for a source that is all padding: attention to nothing is no number.
        """
        if not bool((source != PADDING).any(0).all()):
            raise InvalidReversible("a sequence of the source is all padding: leave it out of the batch")
        return self.encoder.collect(source, self.keep, before=self.read)

    def step(self, previous: Tensor, state: Any, kept: Tensor, source: Tensor) -> tuple[Tensor, Any]:
        """Logits [B, target vocabulary] of the token after `previous` [B], and the decoder's next state."""
        y, state = self.decoder(self.recall(previous.unsqueeze(0)), state)
        return self.head.scores(y, kept, source).squeeze(0), state
