"""The paper's claim: most of the gate gradients dropped, and the same validation loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.sparse.training import DENSE, Training, Variant, trained

SEEDS = 3
LAYERS, LENGTHS = (1, 2, 3), (25, 50, 100)
SPARSE = Variant("top", {"keep_ratio": 0.18})


def rows(done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Dense and sparse, 1 to 3 layers, windows of 25 to 100 steps, seeds outermost; less what is `done`."""
    known = {(row["variant"], row["num_layers"], row["length"], row["seed"]) for row in done}
    for seed in range(SEEDS):
        for num_layers in LAYERS:
            for length in LENGTHS:
                for variant in (DENSE, SPARSE):
                    name = {"variant": str(variant), "num_layers": num_layers, "length": length, "seed": seed}
                    if tuple(name.values()) not in known:
                        yield name | trained(variant, Training(num_layers=num_layers, length=length), seed)
