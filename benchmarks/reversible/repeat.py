"""The repeat task: say each symbol one step after it was read. Trivial, unless nothing can be forgotten.

Source: MacKay et al. (2018), arXiv:1810.10999, section 4: reversed, the task is to copy the whole sequence
out of the last state, so a cell that forgets nothing has to hold all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from executor.reversible import NFRevGRU, NFRevLSTM, Reversible, RevGRU, RevLSTM

SYMBOLS, HIDDEN_SIZE, BATCH_SIZE, STEPS, ITERATIONS = 16, 32, 32, 100, 300
SEEDS = 3


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


def rows() -> Iterator[dict[str, Any]]:
    """Share of symbols repeated rightly after the same training, three seeds a cell."""
    for kind in (RevGRU, NFRevGRU, RevLSTM, NFRevLSTM):
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            yield {"cell": kind.__name__, "seed": seed, "steps": STEPS, "accuracy": _accuracy(kind)}


def _accuracy(kind: type[Reversible]) -> float:
    module = kind(SYMBOLS, HIDDEN_SIZE, segment_steps=25)
    scores = Scores()
    optimizer = torch.optim.Adam([*module.parameters(), *scores.parameters()], lr=5e-3)
    for _ in range(ITERATIONS):
        total, _ = _loss(module, scores)
        optimizer.zero_grad()
        (total / (STEPS * BATCH_SIZE)).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        scores.right = 0
        _loss(module, scores)
    return scores.right / ((STEPS - 1) * BATCH_SIZE)


def _loss(module: Reversible, scores: Scores) -> tuple[Tensor, Any]:
    symbols = torch.randint(SYMBOLS, (STEPS, BATCH_SIZE))
    previous = torch.cat([torch.full_like(symbols[:1], -1), symbols[:-1]])
    return module.reduce(nn.functional.one_hot(symbols, SYMBOLS).float(), previous, scores)
