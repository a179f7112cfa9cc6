"""Ten thousand steps forward and back: the state bitwise the initial one, every buffer empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from executor.reversible import NFRevGRU, NFRevLSTM, Reversible, RevGRU, RevLSTM

STEPS = 10_000
BATCH_SIZES = (1, 7, 64)
LIMITS = (1, 2, 3, 5, None)
SATURATING_SCALE = 40.0
"""Factor on fresh weights that drives most gates to 0 or 1."""


def rows() -> Iterator[dict[str, Any]]:
    """One row a case; backward itself raises ReversalMismatch where a state does not come back."""
    for kind in (RevGRU, RevLSTM, NFRevGRU, NFRevLSTM):
        limits = (0,) if issubclass(kind, NFRevGRU) else LIMITS
        for limit in limits:
            for batch_size in BATCH_SIZES:
                for scale in (2.0, SATURATING_SCALE):
                    yield _row(kind, limit, batch_size, scale)


def _row(kind: type[Reversible], limit: int | None, batch_size: int, scale: float) -> dict[str, Any]:
    torch.manual_seed(0)
    options = {} if limit == 0 else {"forget_bits": limit}
    module = kind(3, 4, segment_steps=50, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    outputs, _ = module(torch.randn(STEPS, batch_size, 3))
    outputs.sum().backward()
    return {
        "cell": kind.__name__,
        "forget_bits": limit,
        "batch_size": batch_size,
        "weight_scale": scale,
        "steps": STEPS,
        "archived_bytes": module.archived_bytes,
        "bits_per_unit_and_step": 8 * module.archived_bytes / outputs.numel() / len(module.state_names),
        "exact": True,
    }
