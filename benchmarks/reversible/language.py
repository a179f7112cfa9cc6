"""A language model over any recurrent layers, reversible or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from executor.reversible import Reversible, RevGRU, RevLSTM

EMBEDDING_SIZE = 64


class Head(nn.Module):
    """Logits of the next token and their loss in nats, summed over steps and batch."""

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.0)
        self.linear = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, y: Tensor, targets: Tensor) -> Tensor:
        """The loss of outputs [k, B, hidden] against targets [k, B]."""
        return nn.functional.cross_entropy(
            self.linear(self.dropout(y)).flatten(0, 1), targets.flatten(), reduction="sum"
        )


class LanguageModel(nn.Module):
    """Embedding, layers, head; `set_dropout` between them."""

    def __init__(self, layers: nn.Module, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Embedding(vocabulary_size, EMBEDDING_SIZE), nn.Dropout(0.0))
        self.layers = layers
        self.head = Head(hidden_size, vocabulary_size)

    def loss(self, window: Tensor) -> Tensor:
        """Summed loss of a window [T + 1, B], read from the zero state."""
        y, _ = self.layers(self.embedding(window[:-1]))
        loss: Tensor = self.head(y, window[1:])
        return loss


def set_dropout(model: LanguageModel, probability: float) -> None:
    """Drop inputs and outputs of the layers with this probability while the model is trained."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability


def shift_forget_bias(layers: nn.Module, shift: float) -> None:
    """Add `shift` to the bias of every forget gate (a GRU's z, an LSTM's f, a RevLSTM's f and p)."""
    with torch.no_grad():
        for bias in _forget_biases(layers):
            bias.add_(shift)


def _forget_biases(layers: nn.Module) -> list[Tensor]:
    size = layers.hidden_size
    if not isinstance(layers, Reversible):
        return [layers.bias_ih_l0[size : 2 * size]]
    units = size // 2
    rows = slice(0, units) if isinstance(layers, RevGRU) else slice(2 * units, 4 * units)
    return [half[rows] for half in layers.bias_l0.chunk(2)]


def parameter_count(module: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in module.parameters())


def baseline(kind: str, hidden_size: int, vocabulary_size: int) -> LanguageModel:
    """A model over torch.nn.GRU or torch.nn.LSTM; kind is `gru` or `lstm`."""
    layers = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](EMBEDDING_SIZE, hidden_size)
    return LanguageModel(layers, hidden_size, vocabulary_size)


def reversible(kind: str, forget_bits: int | None, *, parameters: int, vocabulary_size: int) -> LanguageModel:
    """A reversible model with as nearly `parameters` parameters as an even hidden size allows."""
    layers = {"gru": RevGRU, "lstm": RevLSTM}[kind]

    def model(hidden_size: int) -> LanguageModel:
        made = layers(EMBEDDING_SIZE, hidden_size, forget_bits=forget_bits, segment_steps=25)
        return LanguageModel(made, hidden_size, vocabulary_size)

    with torch.random.fork_rng():
        sizes = range(2, 1024, 2)
        best = min(sizes, key=lambda size: abs(_count(kind, size, vocabulary_size) - parameters))
    return model(best)


def _count(kind: str, hidden_size: int, vocabulary_size: int) -> int:
    gates = {"gru": 3, "lstm": 5}[kind]
    recurrent = gates * hidden_size * (EMBEDDING_SIZE + hidden_size // 2 + 1)
    return recurrent + EMBEDDING_SIZE * vocabulary_size + (hidden_size + 1) * vocabulary_size
