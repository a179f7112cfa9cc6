"""Measured activation bytes of an iteration against stored hidden states and against the full tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.reversible.floats import SquareSum, full_bptt_loss
from executor.measure import measure
from executor.reversible import Reversible, RevGRU, RevLSTM
from executor.reversible.trajectory import Coding

BATCH_SIZE, HIDDEN_SIZE, STEPS = 64, 128, 2000
TAPED_STEPS = 100
"""Steps of the full tape that is measured; it grows in proportion."""
CASES: tuple[tuple[int | None, Coding], ...] = (
    (2, "entropy"),
    (3, "entropy"),
    (5, "entropy"),
    (None, "entropy"),
    (2, "scheduled"),
    (3, "scheduled"),
)


def rows(done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Both cells, several limits, otherwise default arguments; fresh weights, inputs held by the caller.

    Without the cases that are `done`.
    """
    seen = {(row["cell"], row["forget_bits"], row["coding"]) for row in done}
    torch.manual_seed(0)
    x, targets = torch.randn(2, STEPS, BATCH_SIZE, HIDDEN_SIZE).unbind(0)
    taped = [part[:TAPED_STEPS] for part in (x, targets)]
    for limit, coding in CASES:
        for kind in (RevGRU, RevLSTM):
            if (kind.__name__, limit, coding) in seen:
                continue
            row = _row(kind, limit, coding, x, targets)
            module = kind(HIDDEN_SIZE, HIDDEN_SIZE)
            tape_bytes = activation_bytes(module, lambda m=module: full_bptt_loss(m, *taped).backward())
            yield {**row, "full_tape_ratio": tape_bytes / TAPED_STEPS * STEPS / row["activation_bytes"]}


def _row(
    kind: type[Reversible], limit: int | None, coding: Coding, x: Tensor, targets: Tensor
) -> dict[str, Any]:
    torch.manual_seed(0)
    module = kind(HIDDEN_SIZE, HIDDEN_SIZE, forget_bits=limit, coding=coding)

    def iteration() -> None:
        module.reduce(x, targets, SquareSum())[0].backward()

    found = activation_bytes(module, iteration)
    hidden = 4 * STEPS * BATCH_SIZE * HIDDEN_SIZE * len(module.state_names)
    return {
        "cell": kind.__name__,
        "forget_bits": limit,
        "coding": coding,
        "steps": STEPS,
        "batch_size": BATCH_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "segment_steps": module.segment_steps,
        "activation_bytes": found,
        "archived_bytes": module.archived_bytes,
        "archive_bound_bytes": module.archive_bound_bytes(STEPS, BATCH_SIZE),
        "hidden_states_bytes": hidden,
        "hidden_states_ratio": hidden / found,
    }


def activation_bytes(module: nn.Module, iteration: Callable[[], None]) -> int:
    """Measured peak of a forward and backward pass, less the parameters' gradients that it leaves."""
    module.zero_grad()
    peak_bytes = measure(iteration, device="cpu").peak_bytes
    return peak_bytes - sum(parameter.nbytes for parameter in module.parameters())
