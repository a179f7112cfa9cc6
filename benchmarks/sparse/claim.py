"""The paper's claim: most of the gate gradients dropped, and the same validation loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.sparse.training import DENSE, Training, Variant, trained

SEEDS = 3
LAYERS, LENGTHS = (1, 2, 3), (25, 50, 100)
LONGER_LENGTHS, LONGER_ITERATIONS = (50,), 1_000
SPARSE = Variant("top", {"keep_ratio": 0.18})


def rows(done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Dense and sparse, 1 to 3 layers, windows of 25 to 100 steps, seeds outermost; less what is `done`."""
    return _rows(done, LENGTHS, Training().iterations)


def longer_rows(done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same at one length, four times as long: what becomes of the difference when training goes on."""
    return _rows(done, LONGER_LENGTHS, LONGER_ITERATIONS)


def _rows(done: list[dict[str, Any]], lengths: Sequence[int], iterations: int) -> Iterator[dict[str, Any]]:
    known = {(row["variant"], row["num_layers"], row["length"], row["seed"]) for row in done}
    for seed in range(SEEDS):
        for num_layers in LAYERS:
            for length in lengths:
                for variant in (DENSE, SPARSE):
                    name = {"variant": str(variant), "num_layers": num_layers, "length": length, "seed": seed}
                    if tuple(name.values()) in known:
                        continue
                    training = Training(num_layers=num_layers, length=length, iterations=iterations)
                    yield name | {"iterations": iterations} | trained(variant, training, seed)
