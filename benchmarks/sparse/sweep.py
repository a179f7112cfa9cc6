"""Every rule at rising strength: where training breaks, and which rule does best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.sparse.training import DENSE, Training, Variant, trained
from executor.sparse import Schedule

SEEDS = 3
VARIANTS = (
    DENSE,
    *(Variant("absolute", {"threshold": tau}) for tau in (1e-7, 1e-6, 1e-5, 1e-4)),
    *(Variant("rms", {"threshold": threshold}) for threshold in (0.3, 1.0, 3.0)),
    *(Variant("top", {"keep_ratio": ratio}) for ratio in (0.2, 0.1, 0.05, 0.02)),
    Variant("mixed", {"keep_ratio": 0.125, "row_ratio": 0.5}),
    Variant("columns", {"keep_ratio": 0.25}),
    Variant("blocks", {"keep_ratio": 0.25}),
    Variant("rows", {"keep_ratio": 0.5}),
    Variant("columns", {"keep_ratio": 0.25}, Schedule(dense_every=4)),
    Variant("columns", {"keep_ratio": 0.25}, error_feedback=True),
    Variant("top", {"keep_ratio": 0.05}, error_feedback=True),
)


def rows(done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One layer, windows of 50 steps, seeds outermost; less what is `done`."""
    known = {(row["variant"], row["seed"]) for row in done}
    for seed in range(SEEDS):
        for variant in VARIANTS:
            if (str(variant), seed) not in known:
                yield {"variant": str(variant), "seed": seed, **trained(variant, Training(), seed)}
