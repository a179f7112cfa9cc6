"""Sparsified gate gradients against dense training: `python -m benchmarks.sparse --help`."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.parts import Parts
from benchmarks.sparse import claim, frontier, sweep

PARTS = Parts(
    "sparse",
    {
        "claim": claim.rows,
        "claim-longer": claim.longer_rows,
        "frontier-time": frontier.time_rows,
        "frontier-loss-1": partial(frontier.loss_rows, 1),
        "frontier-loss-longer": frontier.longer_loss_rows,
        "frontier-loss-2": partial(frontier.loss_rows, 2),
        "sweep": sweep.rows,
    },
)

if __name__ == "__main__":
    sys.exit(PARTS.main(__doc__))
