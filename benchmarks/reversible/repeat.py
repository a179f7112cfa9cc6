"""The repeat task: say each symbol one step after it was read. Trivial, unless nothing can be forgotten.

Source: MacKay et al. (2018), arXiv:1810.10999, section 4: reversed, the task is to copy the whole sequence
out of the last state, so a cell that forgets nothing has to hold all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from executor.reversible import NFRevGRU, NFRevLSTM, Reversible, RevGRU, RevLSTM

SYMBOLS, HIDDEN_SIZE, BATCH_SIZE, ITERATIONS = 16, 32, 32, 300
LENGTHS = (20,)
"""Steps of a sequence."""
LEARNING_RATE = 0.02
SEEDS = 3
CELLS: tuple[type[nn.Module], ...] = (nn.GRU, RevGRU, NFRevGRU, nn.LSTM, RevLSTM, NFRevLSTM)


class Scores(nn.Module):
    """Cross-entropy of the symbols, summed; counts those named right."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(HIDDEN_SIZE, SYMBOLS)
        self.right = 0

    def forward(self, y: Tensor, targets: Tensor) -> Tensor:
        """Of outputs [k, B, hidden] against symbols [k, B]; symbols below 0 count for nothing."""
        logits = self.linear(y).flatten(0, 1)
        self.right += int((logits.argmax(dim=1) == targets.flatten()).sum())
        return nn.functional.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="sum")


def rows(done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Share of symbols repeated rightly after the same training; the cases that are not `done`."""
    seen = {(row["steps"], row["seed"], row["cell"]) for row in done}
    for steps, seed, kind in itertools.product(LENGTHS, range(SEEDS), CELLS):
        if (steps, seed, kind.__name__) not in seen:
            torch.manual_seed(seed)
            accuracy = _accuracy(kind(SYMBOLS, HIDDEN_SIZE), steps)
            yield {"cell": kind.__name__, "seed": seed, "steps": steps, "accuracy": accuracy}


def _accuracy(layers: nn.Module, steps: int) -> float:
    """Of fresh sequences, after the training."""
    scores = Scores()
    optimizer = torch.optim.Adam([*layers.parameters(), *scores.parameters()], lr=LEARNING_RATE)
    for iteration in range(ITERATIONS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - iteration / ITERATIONS)
        optimizer.zero_grad()
        (_loss(layers, scores, steps) / (steps * BATCH_SIZE)).backward()
        torch.nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        scores.right = 0
        _loss(layers, scores, steps)
    return scores.right / ((steps - 1) * BATCH_SIZE)


def _loss(layers: nn.Module, scores: Scores, steps: int) -> Tensor:
    symbols = torch.randint(SYMBOLS, (steps, BATCH_SIZE))
    previous = torch.cat([torch.full_like(symbols[:1], -1), symbols[:-1]])
    x = nn.functional.one_hot(symbols, SYMBOLS).float()
    if isinstance(layers, Reversible):
        return layers.reduce(x, previous, scores)[0]
    return scores(layers(x)[0], previous)
